#include "cudasim/graph.h"

#include <stddef.h>
#include <string.h>

#include "cudasim/event.h"
#include "cudasim/handle.h"
#include "cudasim/report.h"
#include "cudasim/runtime.h"
#include "cudasim/slab.h"

static graph* graphs;

// Room for `count` elements of `size` bytes in the array `*elements`, which may move.
static bool reserve(void** elements, uint32_t* capacity, uint32_t count, size_t size) {
  if (count <= *capacity) return true;
  uint32_t larger = *capacity ? 2 * *capacity : 4;
  if (larger < count) larger = count;
  void* moved = sim_bookkeeping_alloc(larger * size);
  if (!moved) return false;
  if (*elements) memcpy(moved, *elements, *capacity * size);
  sim_bookkeeping_free(*elements);
  *elements = moved;
  *capacity = larger;
  return true;
}

//===-- Sets of nodes -------------------------------------------------------------------------===//

bool sim_node_set_has(const node_set* s, uint32_t index) {
  for (uint32_t i = 0; i < s->count; ++i) {
    if (s->nodes[i] == index) return true;
  }
  return false;
}

static bool set_reserve(node_set* s, uint32_t count) {
  void* nodes = s->nodes;
  bool is_there = reserve(&nodes, &s->capacity, count, sizeof(*s->nodes));
  s->nodes = nodes;
  return is_there;
}

bool sim_node_set_add(node_set* s, uint32_t index) {
  if (sim_node_set_has(s, index)) return true;
  if (!set_reserve(s, s->count + 1)) return false;
  s->nodes[s->count++] = index;
  return true;
}

bool sim_node_set_join(node_set* s, const node_set* other) {
  if (!set_reserve(s, s->count + other->count)) return false;
  for (uint32_t i = 0; i < other->count; ++i) sim_node_set_add(s, other->nodes[i]);
  return true;
}

void sim_node_set_clear(node_set* s) {
  sim_bookkeeping_free(s->nodes);
  *s = (node_set){0};
}

//===-- Nodes ---------------------------------------------------------------------------------===//

node* sim_node_retain(node* n) {
  ++n->references;
  return n;
}

void sim_node_release(node* n) {
  if (--n->references) return;
  if (n->handle) sim_handle_close(n->handle);
  if (n->work.type == cudaGraphNodeTypeKernel) sim_kernel_release(n->work.kernel);
  if (node_is_memory(n)) sim_graph_memory_release(&n->work.memory, n->work.type);
  sim_node_set_clear(&n->dependencies);
  if (n->site) sim_site_release(n->site);
  sim_bookkeeping_free(n);
}

static node* make_node(graph* g, const node_work* w, const device* d,
                       const node_set* dependencies) {
  node* n = sim_bookkeeping_alloc(sizeof(*n));
  if (!n) return NULL;
  *n = (node){.references = 1, .graph = g, .device = d->id, .work = *w};
  if (w->type == cudaGraphNodeTypeKernel) sim_kernel_retain(w->kernel);
  if (check_is_on()) n->site = sim_site_retain(sim_site_here());
  if (node_is_memory(n)) sim_graph_memory_retain(&n->work.memory, n->work.type);
  n->handle = sim_handle_open(HANDLE_NODE, n);
  if (n->handle && sim_node_set_join(&n->dependencies, dependencies)) return n;
  sim_node_release(n);
  return NULL;
}

static op* copy_op(const copy_request* r, cudaError_t* error) {
  place to;
  place from;
  *error = sim_copy_check(r, &to, &from);
  return *error ? NULL : sim_copy_op(r, &to, &from);
}

static op* fill_op(const fill_request* r, cudaError_t* error) {
  place where;
  *error = sim_fill_check(r, &where);
  return *error ? NULL : sim_fill_op(r, &where);
}

static op* kernel_op(const node* n, cudaError_t* error) {
  const device* d = sim_device_open(n->device, error);
  return d ? sim_kernel_op(n->work.kernel, d) : NULL;
}

// What it records or waits for is filled in when it is queued.
static op* event_op(const node* n, cudaError_t* error) {
  if (!sim_event_of(n->work.event)) {
    *error = sim_refuse(cudaErrorInvalidValue, "a node's event was destroyed");
    return NULL;
  }
  return sim_op_create(n->work.type == cudaGraphNodeTypeEventRecord ? OP_RECORD : OP_WAIT);
}

op* sim_node_op(const node* n, cudaError_t* error) {
  op* o = NULL;
  *error = cudaSuccess;
  if (n->work.type == cudaGraphNodeTypeMemcpy) {
    o = copy_op(&n->work.copy, error);
  } else if (n->work.type == cudaGraphNodeTypeMemset) {
    o = fill_op(&n->work.fill, error);
  } else if (n->work.type == cudaGraphNodeTypeKernel) {
    o = kernel_op(n, error);
  } else if (node_is_memory(n) || n->work.type == cudaGraphNodeTypeEmpty) {
    o = sim_op_create(OP_EMPTY);
  } else if (node_is_event(n)) {
    o = event_op(n, error);
  } else {
    o = sim_host_op(n->work.host.function, n->work.host.argument);
  }
  if (!o && !*error) *error = cudaErrorMemoryAllocation;
  return o;
}

//===-- Graphs --------------------------------------------------------------------------------===//

graph* sim_graph_create(void) {
  graph* g = sim_bookkeeping_alloc(sizeof(*g));
  if (!g) return NULL;
  g->handle = sim_handle_open(HANDLE_GRAPH, g);
  if (!g->handle) {
    sim_bookkeeping_free(g);
    return NULL;
  }
  g->next = graphs;
  if (graphs) graphs->previous = g;
  graphs = g;
  return g;
}

// The program has the node no more, though an executable graph may.
static void let_go(node* n) {
  if (node_is_memory(n) && n->work.memory.memory->owner == n->graph) {
    sim_graph_memory_disown(n->work.memory.memory);
  }
  sim_handle_close(n->handle);
  n->handle = NULL;
  n->graph = NULL;
  sim_node_release(n);
}

void sim_graph_destroy(graph* g) {
  if (g->next) g->next->previous = g->previous;
  if (g->previous) {
    g->previous->next = g->next;
  } else {
    graphs = g->next;
  }
  sim_handle_close(g->handle);
  for (uint32_t i = 0; i < g->count; ++i) let_go(g->nodes[i]);
  sim_bookkeeping_free(g->nodes);
  sim_bookkeeping_free(g);
}

void sim_graph_destroy_all(void) {
  while (graphs) sim_graph_destroy(graphs);
}

bool sim_graph_add(graph* g, const node_work* w, const device* d, const node_set* dependencies) {
  void* nodes = g->nodes;
  bool is_there = reserve(&nodes, &g->capacity, g->count + 1, sizeof(*g->nodes));
  g->nodes = nodes;
  node* n = is_there ? make_node(g, w, d, dependencies) : NULL;
  if (n) g->nodes[g->count++] = n;
  return n;
}
