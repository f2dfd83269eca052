#include "cudasim/graph_memory.h"

#include <stddef.h>
#include <string.h>

#include "cudasim/capture.h"
#include "cudasim/device.h"
#include "cudasim/graph.h"
#include "cudasim/pool.h"
#include "cudasim/runtime.h"
#include "cudasim/slab.h"
#include "cudasim/stream.h"

bool sim_graph_memory_is_planned;

static uint64_t bytes_of(const graph_memory* m) { return block_size(m->block); }

//===-- Memory --------------------------------------------------------------------------------===//

static bool is_done(const graph_memory* m) {
  return !m->stream || stream_is_done(m->stream, m->position);
}

// What was lent is given up for good: nothing queued touches it any more.
static void settle_lent(graph_memory* m) {
  if (!m->is_lent || !is_done(m)) return;
  space* s = &m->device->space;
  m->is_lent = false;
  s->taken += bytes_of(m);  // which sim_space_discharge takes away once more
  sim_space_discharge(s, block_address(m->block), bytes_of(m));
}

static void unlink_from_device(graph_memory* m) {
  if (m->next) m->next->previous = m->previous;
  *(m->previous ? &m->previous->next : &m->device->graph_memory) = m->next;
}

static bool is_orphan(const graph_memory* m) { return !m->references && !m->is_live; }

// Gives memory that nothing uses back, and the addresses too if nobody can use them again.
static void give(graph_memory* m) {
  space* s = &m->device->space;
  settle_lent(m);
  if (m->is_charged) sim_space_discharge(s, block_address(m->block), bytes_of(m));
  m->is_charged = false;
  if (!is_orphan(m) || m->is_lent) return;
  sim_space_delist(s, m->block);
  m->block->graph = NULL;
  sim_space_give_addresses(s, m->block);
  unlink_from_device(m);
  sim_bookkeeping_free(m);
}

void sim_graph_memory_trim(device* d) {
  for (graph_memory *m = d->graph_memory, *next; m; m = next) {
    next = m->next;
    if (!m->is_live && is_done(m)) give(m);
  }
}

static uint64_t sum(const device* d, bool in_use_only) {
  uint64_t bytes = 0;
  for (const graph_memory* m = d->graph_memory; m; m = m->next) {
    if (m->is_charged && (!in_use_only || !is_orphan(m))) bytes += bytes_of(m);
  }
  return bytes;
}

static void note_high(device* d) {
  uint64_t used = sum(d, true);
  uint64_t reserved = sum(d, false);
  if (used > d->graph_used_high) d->graph_used_high = used;
  if (reserved > d->graph_reserved_high) d->graph_reserved_high = reserved;
}

static bool is_before(const graph_memory* m, const stream* s) {
  return is_done(m) || m->stream == s || sim_history_of(s->known, m->stream->slot) >= m->position;
}

static bool is_among(const graph_memory* m, graph_memory* const* places, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    if (places[i] == m) return true;
  }
  return false;
}

// Takes over the memory of what comes before the launch, until there are `bytes`.
static void take_over(device* d, graph_memory* const* places, uint32_t count, const stream* s,
                      uint64_t bytes) {
  uint64_t found = 0;
  for (graph_memory* m = d->graph_memory; m; m = m->next) settle_lent(m);
  for (graph_memory *m = d->graph_memory, *next; m && found < bytes; m = next) {
    next = m->next;
    if (!m->is_charged || m->is_live || is_among(m, places, count) || !is_before(m, s)) continue;
    found += bytes_of(m);
    if (is_done(m)) {
      give(m);
    } else {  // what is queued still needs its pages, though another has its memory by then
      m->is_charged = false;
      m->is_lent = true;
      d->space.taken -= bytes_of(m);
    }
  }
}

static uint64_t need_on(const device* d, graph_memory* const* places, uint32_t count) {
  uint64_t need = 0;
  for (uint32_t i = 0; i < count; ++i) {
    if (places[i]->device == d && !places[i]->is_charged) need += bytes_of(places[i]);
  }
  return need;
}

static bool has_room(const device* d, uint64_t bytes) { return space_free(&d->space) >= bytes; }

static bool find_memory(device* d, graph_memory* const* places, uint32_t count, const stream* s) {
  uint64_t need = need_on(d, places, count);
  if (need) take_over(d, places, count, s, need);
  if (!has_room(d, need)) sim_pool_relieve(d, NULL);
  if (has_room(d, need)) return true;
  sim_refuse(cudaErrorMemoryAllocation, "a graph needs %llu bytes; %llu of %llu of device %d taken",
             (unsigned long long)need, (unsigned long long)d->space.taken,
             (unsigned long long)d->space.memory, d->id);
  return false;
}

static void charge(graph_memory* m) {
  space* s = &m->device->space;
  if (m->is_charged) return;
  if (m->is_lent) {  // its pages are its own still
    m->is_lent = false;
    s->taken += bytes_of(m);
    sim_device_note_reserved(m->device, s->taken);
  } else {
    sim_space_charge(s, block_address(m->block), bytes_of(m));
  }
  m->is_charged = true;
}

bool sim_graph_memory_charge(graph_memory* const* places, uint32_t count, const stream* s) {
  uint64_t seen = 0;  // devices
  for (uint32_t i = 0; i < count; ++i) {
    device* d = places[i]->device;
    if (!(seen >> d->id & 1) && !find_memory(d, places, count, s)) return false;
    seen |= UINT64_C(1) << d->id;
  }
  for (uint32_t i = 0; i < count; ++i) charge(places[i]);
  for (uint32_t i = 0; i < count; ++i) note_high(places[i]->device);
  return true;
}

//===-- Places --------------------------------------------------------------------------------===//

static graph_memory* make(const graph* g, device* d, uint64_t bytes) {
  graph_memory* m = sim_bookkeeping_alloc(sizeof(*m));
  block* b = m ? sim_space_take_addresses(&d->space, bytes) : NULL;
  if (b && !sim_space_enlist(&d->space, b, bytes)) {
    sim_space_give_addresses(&d->space, b);
    b = NULL;
  }
  if (!b) {
    sim_bookkeeping_free(m);
    return NULL;
  }
  *m = (graph_memory){.device = d, .block = b, .owner = g, .next = d->graph_memory};
  if (m->next) m->next->previous = m;
  d->graph_memory = b->graph = m;
  return m;
}

// Marks all nodes that those of the set come after, and these.
static void mark(const graph* g, const node_set* set, bool* marks) {
  for (uint32_t i = 0; i < set->count; ++i) marks[set->nodes[i]] = true;
  for (uint32_t i = g->count; i-- > 0;) {
    const node_set* before = &g->nodes[i]->dependencies;
    for (uint32_t k = 0; marks[i] && k < before->count; ++k) marks[before->nodes[k]] = true;
  }
}

static bool is_memory_node(const node* n, enum cudaGraphNodeType type) {
  return n->work.type == type;
}

// The smallest place of `g` that fits and that its last user has freed before the marked nodes.
static graph_memory* find_place(const graph* g, const device* d, uint64_t bytes,
                                const bool* marks) {
  graph_memory* best = NULL;
  for (uint32_t i = 0; i < g->count; ++i) {
    if (!marks[i] || !is_memory_node(g->nodes[i], cudaGraphNodeTypeMemFree)) continue;
    graph_memory* m = g->nodes[i]->work.memory.memory;
    if (m->owner != g || !m->is_freed_inside || m->device != d || !m->block) continue;
    if (bytes_of(m) < bytes || (best && bytes_of(best) <= bytes_of(m))) continue;
    // An earlier user's free says nothing about the last one's.
    bool is_last = true;
    for (uint32_t k = i + 1; k < g->count && is_last; ++k) {
      is_last = !is_memory_node(g->nodes[k], cudaGraphNodeTypeMemFree) ||
                g->nodes[k]->work.memory.memory != m;
    }
    if (is_last) best = m;
  }
  return best;
}

graph_memory* sim_graph_memory_plan(graph* g, device* d, uint64_t bytes,
                                    const node_set* dependencies, cudaError_t* error) {
  *error = cudaErrorMemoryAllocation;
  if (bytes > d->space.memory) return NULL;
  bool* marks = sim_bookkeeping_alloc(g->count + 1);
  if (!marks) return NULL;
  mark(g, dependencies, marks);
  uint64_t rounded = (bytes + GRANULE_BYTES - 1) / GRANULE_BYTES * GRANULE_BYTES;
  graph_memory* m = find_place(g, d, rounded, marks);
  sim_bookkeeping_free(marks);
  if (!m) m = make(g, d, rounded);
  if (!m) return NULL;
  ++m->references;
  m->is_freed_inside = false;
  m->block->requested = bytes;
  *error = cudaSuccess;
  return m;
}

static void drop_reference(graph_memory* m) {
  if (--m->references) return;
  if (!m->block) {
    sim_bookkeeping_free(m);
  } else if (is_orphan(m) && !m->is_charged && is_done(m)) {
    give(m);
  }
}

void sim_graph_memory_drop(graph_memory* m, bool is_used) {
  if (!is_used) m->is_freed_inside = true;  // as before, where it was used before
  drop_reference(m);
}

static bool is_freed_in(const graph* g, const graph_memory* m) {
  for (uint32_t i = g->count; i-- > 0;) {
    const node* n = g->nodes[i];
    if (is_memory_node(n, cudaGraphNodeTypeMemFree) && n->work.memory.memory == m) return true;
    if (is_memory_node(n, cudaGraphNodeTypeMemAlloc) && n->work.memory.memory == m) return false;
  }
  return false;
}

cudaError_t sim_graph_memory_plan_free(const graph* g, const void* pointer, memory_work* out) {
  uint64_t address = (uint64_t)(uintptr_t)pointer;
  const device* d = sim_device_of(address);
  const block* b = d ? sim_space_block_at(&d->space, address) : NULL;
  if (!b || !b->graph) {
    return sim_refuse(cudaErrorInvalidValue, "%p is no allocation of a graph", pointer);
  }
  graph_memory* m = b->graph;
  bool is_elsewhere = m->owner != g;
  if (is_freed_in(g, m) || (is_elsewhere ? m->is_freed_inside : m->frees_elsewhere > 0)) {
    return sim_refuse(cudaErrorInvalidValue, "%p is freed by a graph already", pointer);
  }
  *out = (memory_work){.memory = m, .is_elsewhere = is_elsewhere};
  return cudaSuccess;
}

void sim_graph_memory_retain(const memory_work* w, enum cudaGraphNodeType type) {
  ++w->memory->references;
  if (type != cudaGraphNodeTypeMemFree) return;
  w->memory->frees_elsewhere += w->is_elsewhere;
  if (!w->is_elsewhere) w->memory->is_freed_inside = true;
}

void sim_graph_memory_release(const memory_work* w, enum cudaGraphNodeType type) {
  graph_memory* m = w->memory;
  if (type == cudaGraphNodeTypeMemFree) m->frees_elsewhere -= w->is_elsewhere;
  drop_reference(m);
}

void sim_graph_memory_disown(graph_memory* m) { m->owner = NULL; }

//===-- Launches ------------------------------------------------------------------------------===//

void sim_graph_memory_note(graph_memory* m, bool frees) {
  m->was_live = m->is_live;
  if (frees) m->is_live = false;
}

cudaError_t sim_graph_memory_step(const memory_work* w, enum cudaGraphNodeType type) {
  graph_memory* m = w->memory;
  bool allocates = type == cudaGraphNodeTypeMemAlloc;
  if (!m->block) return sim_refuse(cudaErrorInvalidValue, "memory of a device that was reset");
  if (m->is_live == allocates) {
    return sim_refuse(cudaErrorInvalidValue,
                      allocates ? "%p is still allocated by an earlier launch"
                                : "a node frees %p, which no launch has allocated",
                      (void*)(uintptr_t)block_address(m->block));
  }
  m->is_live = allocates;
  if (allocates) m->block->requested = w->bytes;
  return cudaSuccess;
}

void sim_graph_memory_revert(graph_memory* m) { m->is_live = m->was_live; }

void sim_graph_memory_use(graph_memory* m, stream* s, uint64_t position) {
  m->stream = s;
  m->position = position;
}

//===-- Beside graphs -------------------------------------------------------------------------===//

cudaError_t sim_graph_memory_free(graph_memory* m, stream* s) {
  if (!m->is_live) {
    return sim_refuse(cudaErrorInvalidValue, "%p is of a graph, and not allocated now",
                      (void*)(uintptr_t)block_address(m->block));
  }
  cudaError_t error = s ? sim_stream_enter(s) : cudaSuccess;
  if (error) return error;
  m->is_live = false;
  if (s) sim_graph_memory_use(m, s, sim_stream_mark(s));
  return cudaSuccess;
}

void sim_graph_memory_forget_all(device* d) {
  while (d->graph_memory) {
    graph_memory* m = d->graph_memory;
    unlink_from_device(m);
    m->block = NULL;
    m->is_live = m->is_charged = m->is_lent = false;
    if (!m->references) sim_bookkeeping_free(m);
  }
}

//===-- The calls -----------------------------------------------------------------------------===//

static cudaError_t trim(int id) {
  cudaError_t error;
  device* d = sim_device_open(id, &error);
  if (d) sim_graph_memory_trim(d);
  return error;
}

static cudaError_t get(int id, enum cudaGraphMemAttributeType attribute, void* value) {
  cudaError_t error;
  const device* d = sim_device_open(id, &error);
  if (!d) return error;
  if (!value) return cudaErrorInvalidValue;
  switch (attribute) {
    case cudaGraphMemAttrUsedMemCurrent:
      *(uint64_t*)value = sum(d, true);
      return cudaSuccess;
    case cudaGraphMemAttrUsedMemHigh:
      *(uint64_t*)value = d->graph_used_high;
      return cudaSuccess;
    case cudaGraphMemAttrReservedMemCurrent:
      *(uint64_t*)value = sum(d, false);
      return cudaSuccess;
    case cudaGraphMemAttrReservedMemHigh:
      *(uint64_t*)value = d->graph_reserved_high;
      return cudaSuccess;
  }
  return cudaErrorInvalidValue;
}

// A high-water mark can only be set to 0, which sets it to what is there now.
static cudaError_t set(int id, enum cudaGraphMemAttributeType attribute, const void* value) {
  cudaError_t error;
  device* d = sim_device_open(id, &error);
  if (!d) return error;
  if (!value || *(const uint64_t*)value) return cudaErrorInvalidValue;
  if (attribute == cudaGraphMemAttrUsedMemHigh) {
    d->graph_used_high = sum(d, true);
  } else if (attribute == cudaGraphMemAttrReservedMemHigh) {
    d->graph_reserved_high = sum(d, false);
  } else {
    return cudaErrorInvalidValue;
  }
  return cudaSuccess;
}

cudaError_t cudaDeviceGraphMemTrim(int id) { UNSAFE_CALL(cudaDeviceGraphMemTrim, trim(id)); }

cudaError_t cudaDeviceGetGraphMemAttribute(int id, enum cudaGraphMemAttributeType attr,
                                           void* value) {
  CALL(cudaDeviceGetGraphMemAttribute, get(id, attr, value));
}

cudaError_t cudaDeviceSetGraphMemAttribute(int id, enum cudaGraphMemAttributeType attr,
                                           void* value) {
  CALL(cudaDeviceSetGraphMemAttribute, set(id, attr, value));
}
