#include "tm/alloc/fault_adaptor.h"

#include <string.h>

#include "alloc/adaptor.h"

typedef struct fault {
  tm_allocator base;  // must be first
  tm_fault_options rules;
  tm_fault_counts counts;
  uint64_t random;
  uint64_t generation;  // of the rules, of all adaptors; from 1
} fault;

// The calling thread's latest refusal for want of memory. Where a trim of the same adaptor follows,
// the next request of that size is the second try.
static __thread struct {
  uint64_t by : 63;  // the generation of the rules; 0: there is none
  uint64_t trimmed : 1;
  size_t size;
} refusal;

//===-- Rules ---------------------------------------------------------------===//

// SplitMix64: 53 random bits as a number from 0 to below 1.
static double next_random(fault* f) {
  f->random += 0x9e3779b97f4a7c15u;
  uint64_t x = f->random;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  x ^= x >> 31;
  return (double)(x >> 11) / (double)((uint64_t)1 << 53);
}

// Draws for every request, so that the rules do not disturb each other.
static bool rules_refuse(fault* f, size_t size) {
  f->counts.requests++;
  const bool drawn = next_random(f) < f->rules.probability;
  const bool nth = f->rules.every_nth && f->counts.requests % f->rules.every_nth == 0;
  const bool large = f->rules.above_bytes && size > f->rules.above_bytes;
  const bool refused = drawn || nth || large;
  f->counts.refused += refused;
  return refused;
}

static bool is_second_try(const fault* f, size_t size) {
  return refusal.by == f->generation && refusal.trimmed && refusal.size == size;
}

// Second tries follow on this status only.
static void note_refusal(uint64_t generation, size_t size, tm_status status) {
  refusal.by = status == TM_ERR_NO_MEMORY ? generation : 0;
  refusal.size = size;
  refusal.trimmed = false;
}

//===-- Slots ---------------------------------------------------------------===//

static tm_status fault_alloc(tm_allocator* self, size_t size, tm_stream* stream, void** out) {
  fault* f = (fault*)self;
  tm_adaptor_lock_(self);
  const bool again = is_second_try(f, size);
  const bool refused = again || rules_refuse(f, size);
  const tm_status status = f->rules.status == TM_OK ? TM_ERR_NO_MEMORY : f->rules.status;
  const tm_fault_counts counts = f->counts;
  const uint64_t generation = f->generation;
  tm_adaptor_unlock_(self);
  note_refusal(refused && !again ? generation : 0, size, status);  // there is no third try
  if (!refused) {
    return tm_adaptor_ask_(self, size, stream, out);
  }
  return TM_RAISE(status, "fault: %zu bytes asked, refused on purpose (request %llu, refusal %llu)",
                  size, (unsigned long long)counts.requests, (unsigned long long)counts.refused);
}

static tm_status fault_trim(tm_allocator* self, size_t keep) {
  tm_adaptor_lock_(self);
  refusal.trimmed = refusal.by == ((const fault*)self)->generation;
  tm_adaptor_unlock_(self);
  return tm_adaptor_trim_(self, keep);
}

static const tm_allocator_vtable fault_vtable = {
    .name = "fault",
    .destroy = tm_adaptor_destroy_,
    .alloc = fault_alloc,
    .free = tm_adaptor_give_back_,
    .trim = fault_trim,
    .get_stats = tm_adaptor_get_stats_,
};

//===-- Public functions ----------------------------------------------------===//

static tm_status check_options(const tm_fault_options* options) {
  if (!(options->probability >= 0 && options->probability <= 1)) {  // so that NaN is refused
    return TM_RAISE(TM_ERR_INVALID, "fault: a probability of %g; 0 to 1 is possible",
                    options->probability);
  }
  if ((int)options->status < (int)TM_OK || options->status > TM_ERR_DEVICE_LOST) {
    return TM_RAISE(TM_ERR_INVALID, "fault: %d is no status", (int)options->status);
  }
  return TM_OK;
}

static void set_rules(fault* f, const tm_fault_options* options) {
  static uint64_t generations;
  f->generation = __atomic_add_fetch(&generations, 1, __ATOMIC_RELAXED);
  f->rules = *options;
  f->counts = (tm_fault_counts){0};
  f->random = options->seed;
}

static const tm_fault_options no_rules = {0};

tm_allocator* tm_fault_adaptor_create(tm_allocator* upstream, const tm_fault_options* options) {
  options = options ? options : &no_rules;
  if (check_options(options) != TM_OK) {
    return NULL;
  }
  fault* f = tm_adaptor_create_(sizeof *f, &fault_vtable, upstream,
                                "tm_fault_adaptor_create: the upstream");
  if (!f) {
    return NULL;
  }
  set_rules(f, options);
  return &f->base;
}

tm_status tm_fault_set(tm_allocator* adaptor, const tm_fault_options* options) {
  options = options ? options : &no_rules;
  TM_TRY(tm_adaptor_check_(adaptor, &fault_vtable, "tm_fault_set: the allocator"));
  TM_TRY(check_options(options));
  tm_adaptor_lock_(adaptor);
  set_rules((fault*)adaptor, options);
  tm_adaptor_unlock_(adaptor);
  return TM_OK;
}

tm_status tm_fault_get(tm_allocator* adaptor, tm_fault_counts* out) {
  if (!out) {
    return TM_RAISE(TM_ERR_INVALID, "tm_fault_get: out is NULL");
  }
  memset(out, 0, sizeof *out);
  TM_TRY(tm_adaptor_check_(adaptor, &fault_vtable, "tm_fault_get: the allocator"));
  tm_adaptor_lock_(adaptor);
  *out = ((fault*)adaptor)->counts;
  tm_adaptor_unlock_(adaptor);
  return TM_OK;
}
