#include "cudasim/history.h"

#include <stddef.h>
#include <string.h>

#include "cudasim/slab.h"

#define CLASSES 24
#define SMALLEST ((uint32_t)8)

struct history {
  union {
    uint32_t references;
    history* next;  // while spare
  };
  uint32_t length;  // a power of two, at least SMALLEST
  uint64_t position[];
};

static history* spare[CLASSES];  // by the logarithm of their length

static int class_of(uint32_t length) { return __builtin_ctz(length); }

static history* take(uint32_t length) {
  history** from = &spare[class_of(length)];
  history* h = *from;
  if (h) {
    *from = h->next;
  } else {
    h = sim_bookkeeping_alloc(sizeof(history) + length * sizeof(uint64_t));
    if (!h) return NULL;
    h->length = length;
  }
  h->next = NULL;
  h->references = 1;
  return h;
}

uint64_t sim_history_of(const history* h, uint32_t slot) {
  return h && slot < h->length ? h->position[slot] : 0;
}

history* sim_history_retain(history* h) {
  if (h) ++h->references;
  return h;
}

void sim_history_release(history* h) {
  if (!h || --h->references) return;
  int class = class_of(h->length);
  h->next = spare[class];
  spare[class] = h;
}

// Makes `*mine` a history of its own with room for `length` streams.
static bool make_writable(history** mine, uint32_t length) {
  history* old = *mine;
  if (old && old->references == 1 && old->length >= length) return true;
  uint32_t rounded = old && old->length > SMALLEST ? old->length : SMALLEST;
  while (rounded < length) rounded *= 2;
  history* h = take(rounded);
  if (!h) return false;
  uint32_t known = old ? old->length : 0;
  if (known) memcpy(h->position, old->position, known * sizeof(uint64_t));
  memset(h->position + known, 0, (rounded - known) * sizeof(uint64_t));
  sim_history_release(old);
  *mine = h;
  return true;
}

bool sim_history_join(history** mine, const history* other) {
  if (!other || other == *mine) return true;
  if (!make_writable(mine, other->length)) return false;
  uint64_t* position = (*mine)->position;
  for (uint32_t i = 0; i < other->length; ++i) {
    if (other->position[i] > position[i]) position[i] = other->position[i];
  }
  return true;
}

bool sim_history_note(history** mine, uint32_t slot, uint64_t position) {
  if (sim_history_of(*mine, slot) >= position) return true;
  if (!make_writable(mine, slot + 1)) return false;
  (*mine)->position[slot] = position;
  return true;
}

void sim_history_drop(void) {
  for (int i = 0; i < CLASSES; ++i) {
    while (spare[i]) {
      history* next = spare[i]->next;
      sim_bookkeeping_free(spare[i]);
      spare[i] = next;
    }
  }
}
