#include "cudasim/choice.h"

#include <stddef.h>

// A stream that was taken draws another lot once in so many times.
#define LOT_LASTS 4

// Of so many submissions, as many as the mood says are an occasion.
#define SUBMISSIONS 4

static struct {
  uint64_t random;
  stream* first;  // ready ones, linked through next_ready, the last offered first
  uint32_t count;
  bool is_fair;        // all have the same chance
  uint32_t eagerness;  // of SUBMISSIONS, how many are an occasion
} state;

//===-- Numbers -------------------------------------------------------------------------------===//

// SplitMix64: good from the first number on, also for seeds that are neighbours.
uint64_t sim_choice_bits(void) {
  uint64_t z = state.random += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  return z ^ z >> 31;
}

uint32_t sim_choice_below(uint32_t count) {
  return (uint32_t)((sim_choice_bits() >> 32) * count >> 32);
}

//===-- The mood ------------------------------------------------------------------------------===//

void sim_choice_turn(void) {
  static const uint32_t eagerness[] = {0, 0, 1, 2};
  state.is_fair = sim_choice_below(2);
  state.eagerness = eagerness[sim_choice_below(4)];
}

void sim_choice_begin(uint64_t seed) {
  state.random = seed;
  state.first = NULL;
  state.count = 0;
  sim_choice_turn();
}

bool sim_choice_is_occasion(void) { return sim_choice_below(SUBMISSIONS) < state.eagerness; }

uint32_t sim_choice_ops(void) { return UINT32_C(1) << sim_choice_below(7); }

//===-- What is ready -------------------------------------------------------------------------===//

static uint64_t draw_lot(void) { return sim_choice_bits() | 1; }

void sim_choice_offer(stream* s) {
  if (!s->lot) s->lot = draw_lot();
  s->next_ready = state.first;
  state.first = s;
  ++state.count;
}

static stream** find_nth(uint32_t n) {
  stream** link = &state.first;
  while (n--) link = &(*link)->next_ready;
  return link;
}

static stream** find_highest(void) {
  stream** highest = &state.first;
  for (stream** link = highest; *link; link = &(*link)->next_ready) {
    if ((*link)->lot > (*highest)->lot) highest = link;
  }
  return highest;
}

static stream* take(stream** link) {
  stream* s = *link;
  if (!s) return NULL;
  *link = s->next_ready;
  --state.count;
  return s;
}

stream* sim_choice_take(void) {
  stream* s = take(state.is_fair ? find_nth(sim_choice_below(state.count)) : find_highest());
  if (s && sim_choice_below(LOT_LASTS) == 0) s->lot = draw_lot();
  return s;
}

void sim_choice_take_this(stream* s) {
  stream** link = &state.first;
  while (*link != s) link = &(*link)->next_ready;
  take(link);
}
