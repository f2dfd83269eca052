#include "cudasim/graph_exec.h"

#include <assert.h>
#include <stddef.h>

#include "cudasim/check.h"
#include "cudasim/device.h"
#include "cudasim/event.h"
#include "cudasim/handle.h"
#include "cudasim/report.h"
#include "cudasim/runtime.h"
#include "cudasim/scheduler.h"
#include "cudasim/slab.h"

static graph_exec* execs;

//===-- Dealing out ---------------------------------------------------------------------------===//

// The lane whose last step the node comes right after, so that it needs no wait for that; or a new
// one, as long as there are few.
static uint32_t pick_lane(graph_exec* e, const node* n) {
  for (uint32_t i = 0; i < n->dependencies.count; ++i) {
    uint32_t before = n->dependencies.nodes[i];
    uint32_t l = e->steps[before].lane;
    if (e->lanes[l].last == before && e->lanes[l].device == n->device) return l;
  }
  if (e->lane_count == LANES) return LANES - 1;
  e->lanes[e->lane_count].device = n->device;
  return e->lane_count++;
}

static void deal(graph_exec* e, const graph* g) {
  for (uint32_t i = 0; i < g->count; ++i) {
    node* n = sim_node_retain(g->nodes[i]);
    uint32_t l = pick_lane(e, n);
    e->steps[i] = (step){.node = n, .lane = l};
    e->lanes[l].last = i;
    e->waits += n->dependencies.count;
    e->count = i + 1;
  }
  e->waits += 2 * e->lane_count + 1;  // a lane's beginning and end, and the launch before
}

//===-- Lifetime ------------------------------------------------------------------------------===//

static void link_to_all(graph_exec* e) {
  e->next = execs;
  if (execs) execs->previous = e;
  execs = e;
}

static void unlink_from_all(graph_exec* e) {
  if (e->next) e->next->previous = e->previous;
  if (e->previous) {
    e->previous->next = e->next;
  } else {
    execs = e->next;
  }
}

void sim_graph_exec_destroy(graph_exec* e) {
  unlink_from_all(e);
  if (e->handle) sim_handle_close(e->handle);
  for (uint32_t l = 0; l < e->lane_count; ++l) {
    stream* s = sim_handle_object(HANDLE_STREAM, e->lanes[l].handle);
    if (s) sim_stream_close(s);
  }
  for (uint32_t i = 0; e->steps && i < e->count; ++i) sim_node_release(e->steps[i].node);
  sim_order_release(&e->last_launch);
  sim_bookkeeping_free(e->memory);
  sim_bookkeeping_free(e->steps);
  sim_bookkeeping_free(e);
}

void sim_graph_exec_destroy_all(void) {
  while (execs) sim_graph_exec_destroy(execs);
}

// A graph with memory has one executable graph at a time, which shares its nodes.
static cudaError_t check_memory(const node* n) {
  if (!node_is_memory(n)) return cudaSuccess;
  if (!n->work.memory.memory->block) return cudaErrorInvalidValue;
  if (n->work.type == cudaGraphNodeTypeMemAlloc) {
    n->work.memory.memory->block->requested = n->work.memory.bytes;
  }
  if (n->references == 1) return cudaSuccess;
  return sim_refuse(cudaErrorInvalidValue, "a graph with memory nodes is instantiated already");
}

static cudaError_t check_nodes(const graph* g) {
  cudaError_t error = cudaSuccess;
  sim_graph_memory_is_planned = true;
  for (uint32_t i = 0; i < g->count && !error; ++i) {
    error = check_memory(g->nodes[i]);
    op* o = error ? NULL : sim_node_op(g->nodes[i], &error);
    if (o) sim_op_release(o);
  }
  sim_graph_memory_is_planned = false;
  return error;
}

static bool is_listed(const graph_exec* e, const graph_memory* m) {
  for (uint32_t i = 0; i < e->memory_count; ++i) {
    if (e->memory[i] == m) return true;
  }
  return false;
}

static bool list_memory(graph_exec* e, const graph* g) {
  uint32_t nodes = 0;
  for (uint32_t i = 0; i < g->count; ++i) nodes += node_is_memory(g->nodes[i]);
  if (!nodes) return true;
  e->memory = sim_bookkeeping_alloc(nodes * sizeof(*e->memory));
  for (uint32_t i = 0; e->memory && i < g->count; ++i) {
    graph_memory* m = g->nodes[i]->work.memory.memory;
    bool allocates = g->nodes[i]->work.type == cudaGraphNodeTypeMemAlloc;
    if (allocates && !is_listed(e, m)) e->memory[e->memory_count++] = m;
  }
  return e->memory;
}

graph_exec* sim_graph_exec_create(const graph* g, unsigned long long flags, cudaError_t* error) {
  *error = check_nodes(g);
  graph_exec* e = *error ? NULL : sim_bookkeeping_alloc(sizeof(*e));
  if (!e) {
    if (!*error) *error = cudaErrorMemoryAllocation;
    return NULL;
  }
  link_to_all(e);
  e->steps = sim_bookkeeping_alloc((g->count + 1) * sizeof(step));
  e->frees_at_launch = flags & cudaGraphInstantiateFlagAutoFreeOnLaunch;
  bool is_there = e->steps && list_memory(e, g);
  e->handle = is_there ? sim_handle_open(HANDLE_GRAPH_EXEC, e) : NULL;
  if (!e->handle) {
    sim_graph_exec_destroy(e);
    *error = cudaErrorMemoryAllocation;
    return NULL;
  }
  deal(e, g);
  if (check_is_on()) sim_check_graph(g->nodes, g->count);
  return e;
}

//===-- Launching -----------------------------------------------------------------------------===//

// The ops of a launch, all made before the first is queued.
typedef struct supply {
  op* work;   // in the order of the steps
  op* waits;  // as many as may be needed
} supply;

static void release_ops(op* o) {
  while (o) {
    op* next = o->next;
    sim_op_release(o);
    o = next;
  }
}

static cudaError_t make_work(const graph_exec* e, supply* out) {
  op** end = &out->work;
  for (uint32_t i = 0; i < e->count; ++i) {
    const node* n = e->steps[i].node;
    cudaError_t error = cudaSuccess;
    if (node_is_memory(n)) error = sim_graph_memory_step(&n->work.memory, n->work.type);
    if (error) return error;
    *end = sim_node_op(n, &error);
    if (!*end) return error;
    end = &(*end)->next;
  }
  return cudaSuccess;
}

static cudaError_t make_waits(const graph_exec* e, supply* out) {
  for (uint32_t i = 0; i < e->waits; ++i) {
    op* o = sim_op_create(OP_WAIT);
    if (!o) return cudaErrorMemoryAllocation;
    o->next = out->waits;
    out->waits = o;
  }
  return cudaSuccess;
}

// Lanes keep their streams from launch to launch, unless their device was reset meanwhile.
static cudaError_t open_lane(lane* l) {
  cudaError_t error;
  device* d = sim_device_open(l->device, &error);
  if (!d) return error;
  l->stream = sim_handle_object(HANDLE_STREAM, l->handle);
  if (!l->stream) l->stream = sim_stream_create(d, cudaStreamNonBlocking, STREAM_LOWEST_PRIORITY);
  if (!l->stream) return cudaErrorMemoryAllocation;
  l->handle = l->stream->handle;
  return d->broken;
}

static cudaError_t prepare(graph_exec* e, stream* s, supply* out) {
  e->lanes[0].stream = s;
  cudaError_t error = cudaSuccess;
  for (uint32_t l = 1; l < e->lane_count && !error; ++l) error = open_lane(&e->lanes[l]);
  if (!error) error = make_work(e, out);
  return error ? error : make_waits(e, out);
}

// Of what the nodes free as well: `visit` of it all.
static void for_memory(const graph_exec* e, void (*visit)(graph_memory* m)) {
  for (uint32_t i = 0; i < e->count; ++i) {
    if (node_is_memory(e->steps[i].node)) visit(e->steps[i].node->work.memory.memory);
  }
}

static void note_memory(graph_memory* m) { sim_graph_memory_note(m, false); }

// Makes the ops in the order in which memory comes and goes, and takes that memory.
static cudaError_t prepare_all(graph_exec* e, stream* s, supply* out) {
  for_memory(e, note_memory);
  for (uint32_t i = 0; i < e->memory_count; ++i) {
    sim_graph_memory_note(e->memory[i], e->frees_at_launch);
  }
  cudaError_t error = prepare(e, s, out);
  if (!error && !sim_graph_memory_charge(e->memory, e->memory_count, s)) {
    error = cudaErrorMemoryAllocation;
  }
  if (error) for_memory(e, sim_graph_memory_revert);
  return error;
}

static void use_memory(const graph_exec* e) {
  for (uint32_t i = 0; i < e->count; ++i) {
    if (!node_is_memory(e->steps[i].node)) continue;
    sim_graph_memory_use(e->steps[i].node->work.memory.memory, e->last_stream, e->last_position);
  }
}

static op* take_first(op** list) {
  op* o = *list;
  assert(o);  // prepare() made as many as a launch can need
  *list = o->next;
  o->next = NULL;
  return o;
}

// What a stream comes after, for the checker.
static void note_order(stream* s, const stream* target, uint64_t position) {
  if (s == target) return;
  sim_history_join(&s->known, target->known);
  sim_history_note(&s->known, target->slot, position);
}

// Makes what comes next in `s` wait for `position` of `target`.
static void wait_for(supply* from, stream* s, stream* target, uint64_t position) {
  if (check_is_on()) note_order(s, target, position);
  if (s == target || stream_is_done(target, position)) return;
  op* o = take_first(&from->waits);
  o->wait.target = target;
  o->wait.position = position;
  sim_scheduler_queue(s, o);
}

// Of a node that records an event or waits for one: which recording, which is known only now.
static void fill_in(op* o, const node* n, stream* s) {
  event* e = sim_event_of(n->work.event);
  if (n->work.type == cudaGraphNodeTypeEventRecord) {
    sim_event_record_at(e, s, s->submitted + 1);
    o->record.event = e;
    o->record.serial = e->serial;
    if (!event_has_timing(e)) o->kind = OP_EMPTY;
  } else if (!e->stream || e->stream == s || stream_is_done(e->stream, e->position)) {
    o->kind = OP_EMPTY;
  } else {
    o->wait.target = e->stream;
    o->wait.position = e->position;
  }
}

static void queue_step(graph_exec* e, step* what, supply* from) {
  stream* s = e->lanes[what->lane].stream;
  const node_set* before = &what->node->dependencies;
  for (uint32_t i = 0; i < before->count; ++i) {
    const step* other = &e->steps[before->nodes[i]];
    wait_for(from, s, e->lanes[other->lane].stream, other->position);
  }
  op* o = take_first(&from->work);
  if (o->kind == OP_HOST) sim_order_mark(o, e->lanes[0].stream);
  if (node_is_event(what->node)) fill_in(o, what->node, s);
  sim_scheduler_queue(s, o);
  what->position = s->submitted;
}

static void count_work(const graph_exec* e, device* d) {
  for (uint32_t i = 0; i < e->count; ++i) {
    enum cudaGraphNodeType type = e->steps[i].node->work.type;
    d->statistics.copies += type == cudaGraphNodeTypeMemcpy;
    d->statistics.fills += type == cudaGraphNodeTypeMemset;
    d->statistics.kernels += type == cudaGraphNodeTypeKernel;
    d->statistics.host_functions += type == cudaGraphNodeTypeHost;
  }
}

// The order between its streams needs no history: nothing is allocated or freed in lanes.
static void queue_all(graph_exec* e, stream* s, supply* from) {
  if (e->last_stream) wait_for(from, s, e->last_stream, e->last_position);
  for (uint32_t l = 1; l < e->lane_count; ++l) {
    wait_for(from, e->lanes[l].stream, s, s->submitted);
  }
  for (uint32_t i = 0; i < e->count; ++i) queue_step(e, &e->steps[i], from);
  for (uint32_t l = 1; l < e->lane_count; ++l) {
    wait_for(from, s, e->lanes[l].stream, e->lanes[l].stream->submitted);
  }
  e->last_stream = s;
  e->last_position = s->submitted;
}

// A launch comes after the last one of the same.
static void check_launch(graph_exec* e, const stream* s) {
  sim_order_follow(s, &e->last_launch);
  sim_order_release(&e->last_launch);
  sim_check_launch(s, e->steps, e->count);
  e->last_launch = sim_order_stamp(s);
}

cudaError_t sim_graph_exec_launch(graph_exec* e, stream* s) {
  supply ops = {0};
  cudaError_t error = prepare_all(e, s, &ops);
  if (!error) {
    uint64_t position;
    count_work(e, s->device);
    if (check_is_on()) check_launch(e, s);
    queue_all(e, s, &ops);
    position = e->last_position;
    use_memory(e);
    release_ops(ops.waits);
    sim_scheduler_settle(s, position);  // from here on the graph may be gone
    return cudaSuccess;
  }
  release_ops(ops.work);
  release_ops(ops.waits);
  return error;
}
