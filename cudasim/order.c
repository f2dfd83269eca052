#include "cudasim/order.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "cudasim/device.h"
#include "cudasim/op.h"
#include "cudasim/slab.h"
#include "cudasim/stream.h"

static slab actors = {.size = sizeof(actor)};
static slab marks = {.size = sizeof(stamp)};

static struct {
  actor** by_slot;
  uint32_t slots;     // given out
  uint32_t capacity;  // of by_slot
  actor* spare;
  actor* of_device[CUDASIM_MAX_DEVICES];
  uint64_t blocking_version[CUDASIM_MAX_DEVICES];  // changes with that of any blocking stream
  bool is_lost;
} state;

static void lose(void) {
  if (!state.is_lost) fprintf(stderr, "cudasim: no memory for the checker; it has given up\n");
  state.is_lost = true;
}

bool sim_order_is_lost(void) { return state.is_lost; }

//===-- Actors --------------------------------------------------------------------------------===//

static bool grow_table(void) {
  if (state.slots < state.capacity) return true;
  uint32_t larger = state.capacity ? 2 * state.capacity : 64;
  actor** moved = sim_bookkeeping_alloc(larger * sizeof(*moved));
  if (!moved) return false;
  if (state.by_slot) memcpy(moved, state.by_slot, state.slots * sizeof(*moved));
  sim_bookkeeping_free(state.by_slot);
  state.by_slot = moved;
  state.capacity = larger;
  return true;
}

static actor* make_actor(void) {
  actor* a = grow_table() ? sim_slab_take(&actors) : NULL;
  if (!a) return NULL;
  *a = (actor){.slot = state.slots};
  state.by_slot[state.slots++] = a;
  return a;
}

static actor* take_actor(void) {
  actor* a = state.spare;
  if (!a) return make_actor();
  state.spare = a->next;
  uint64_t time = a->time;
  *a = (actor){.slot = a->slot, .time = time, .observed = time, .version = a->version + 1};
  return a;
}

void sim_order_open(stream* s, bool is_legacy) {
  actor* a = take_actor();
  s->actor = a;
  if (!a) {
    lose();
    return;
  }
  a->device = s->device->id;
  a->is_legacy = is_legacy;
  a->is_blocking = !is_legacy && stream_is_blocking(s);
  a->next = state.of_device[a->device];
  state.of_device[a->device] = a;
}

static void retire(actor* a) {
  actor** link = &state.of_device[a->device];
  while (*link != a) link = &(*link)->next;
  *link = a->next;
  sim_history_release(a->known);
  a->known = NULL;
  a->is_closed = false;
  a->next = state.spare;
  state.spare = a;
}

static void retire_if_over(actor* a) {
  if (a->is_closed && a->observed >= a->time) retire(a);
}

void sim_order_close(stream* s) {
  actor* a = s->actor;
  s->actor = NULL;
  if (!a) return;
  a->is_closed = true;
  retire_if_over(a);
}

void sim_order_drop(void) {
  for (uint32_t i = 0; i < state.slots; ++i) sim_history_release(state.by_slot[i]->known);
  sim_bookkeeping_free(state.by_slot);
  sim_slab_drop(&actors);
  sim_slab_drop(&marks);
  memset(&state, 0, sizeof(state));
}

//===-- Streams -------------------------------------------------------------------------------===//

static void note_change(actor* a) {
  ++a->version;
  if (a->is_blocking) ++state.blocking_version[a->device];
}

static void put_behind(actor* a, const actor* other, uint64_t time, const history* known) {
  if (a == other) return;
  if (!sim_history_join(&a->known, known) || !sim_history_note(&a->known, other->slot, time)) {
    lose();
  }
  note_change(a);
}

// Destroyed streams are among those that the legacy stream is behind.
static void enter_legacy(actor* a) {
  uint64_t version = state.blocking_version[a->device];
  if (a->entered == version) return;
  for (const actor* other = state.of_device[a->device]; other; other = other->next) {
    if (other->is_blocking) put_behind(a, other, other->time, other->known);
  }
  a->entered = version;
}

void sim_order_enter(const stream* s) {
  actor* a = s->actor;
  const stream* legacy = s->device->legacy;
  if (!a || !legacy || !legacy->actor) return;
  if (a->is_legacy) enter_legacy(a);
  if (!a->is_blocking || a->entered == legacy->actor->version) return;
  a->entered = legacy->actor->version;
  put_behind(a, legacy->actor, legacy->actor->time, legacy->actor->known);
}

void sim_order_follow(const stream* s, const stamp* what) {
  if (s->actor && what->by) put_behind(s->actor, what->by, what->time, what->known);
}

void sim_order_join(const stream* second, const stream* first) {
  const actor* a = first->actor;
  if (second->actor && a) put_behind(second->actor, a, a->time, a->known);
}

uint64_t sim_order_tick(const stream* s) {
  note_change(s->actor);
  return ++s->actor->time;
}

bool sim_order_is_before(const actor* by, uint64_t time, const actor* s, uint64_t now) {
  if (actor_is_observed(by, time)) return true;
  return by == s ? time < now : time <= sim_history_of(s->known, by->slot);
}

//===-- Moments and the host ------------------------------------------------------------------===//

stamp sim_order_stamp(const stream* s) {
  const actor* a = s->actor;
  if (!a) return (stamp){0};
  return (stamp){.by = s->actor, .time = a->time, .known = sim_history_retain(a->known)};
}

void sim_order_release(stamp* what) {
  sim_history_release(what->known);
  *what = (stamp){0};
}

stamp sim_order_copy(const stamp* what) {
  sim_history_retain(what->known);
  return *what;
}

static void observe(actor* a, uint64_t time) {
  if (time > a->observed) a->observed = time;
}

static void observe_all(const history* known) {
  for (uint32_t i = 0; known && i < state.slots; ++i) {
    observe(state.by_slot[i], sim_history_of(known, i));
  }
}

static void retire_all(void) {
  for (uint32_t i = 0; i < state.slots; ++i) retire_if_over(state.by_slot[i]);
}

void sim_order_learn(stamp* what) {
  if (!what->by) return;
  observe(what->by, what->time);
  observe_all(what->known);
  retire_all();
  sim_order_release(what);
}

void sim_order_learn_device(int id) {
  for (actor* a = state.of_device[id]; a; a = a->next) {
    observe(a, a->time);
    observe_all(a->known);
  }
  retire_all();
}

cudaError_t sim_order_answer(cudaError_t broken, bool is_over, stamp* what) {
  if (!broken && is_over) sim_order_learn(what);
  sim_order_release(what);
  if (broken) return broken;
  return is_over ? cudaSuccess : cudaErrorNotReady;
}

//===-- Host functions ------------------------------------------------------------------------===//

void sim_order_mark(op* o, const stream* s) {
  if (!s->actor) return;
  o->host.mark = sim_slab_take(&marks);
  if (o->host.mark) {
    *o->host.mark = sim_order_stamp(s);
  } else {
    lose();
  }
}

void sim_order_note_run(op* o) {
  stamp* mark = o->host.mark;
  o->host.mark = NULL;
  if (!mark) return;
  sim_order_learn(mark);
  sim_slab_give(&marks, mark);
}
