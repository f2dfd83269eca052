// Only the innermost level is counted; a pop adds it to the level outside, whose peak may have been
// reached inside:
//
//   outer:  current ----|                      peak = max(outer.peak, outer.current + inner.peak)
//   inner:              |---- its own peak ----|

#include "tm/alloc/statistics_adaptor.h"

#include <string.h>

#include "alloc/adaptor.h"
#include "tm/alloc/bookkeeping.h"

enum { FIRST_LEVELS = 9 };  // the whole life, and eight pushes

typedef struct statistics {
  tm_allocator base;  // must be first
  tm_allocator_stats life;
  tm_statistics_counters* levels;  // `depth` of `capacity`, the innermost last
  size_t depth;                    // at least 1
  size_t capacity;
  tm_statistics_counters first[FIRST_LEVELS];
} statistics;

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

static uint64_t larger_unsigned(uint64_t a, uint64_t b) { return a > b ? a : b; }

static tm_statistics_counters* innermost(statistics* s) { return &s->levels[s->depth - 1]; }

//===-- Counting ------------------------------------------------------------===//

static void count_alloc(statistics* s, size_t bytes) {
  tm_statistics_counters* level = innermost(s);
  level->current_bytes += (int64_t)bytes;
  level->peak_bytes = larger(level->peak_bytes, level->current_bytes);
  level->total_bytes += bytes;
  level->current_blocks++;
  level->peak_blocks = larger(level->peak_blocks, level->current_blocks);
  level->total_blocks++;
  s->life.live_bytes += bytes;
  s->life.live_blocks++;
  s->life.peak_live_bytes = larger_unsigned(s->life.peak_live_bytes, s->life.live_bytes);
}

static void count_free(statistics* s, size_t bytes) {
  tm_statistics_counters* level = innermost(s);
  level->current_bytes -= (int64_t)bytes;
  level->current_blocks--;
  s->life.live_bytes -= bytes;
  s->life.live_blocks--;
}

static tm_status statistics_alloc(tm_allocator* self, size_t size, tm_stream* stream, void** out) {
  statistics* s = (statistics*)self;
  const tm_status status = tm_adaptor_ask_(self, size, stream, out);
  tm_adaptor_lock_(self);
  s->life.alloc_calls++;
  s->life.upstream_calls++;
  if (status == TM_OK) {
    count_alloc(s, tm_adaptor_rounded_(self, size));
  } else {
    innermost(s)->failures++;
  }
  tm_adaptor_unlock_(self);
  return status;
}

static void statistics_free(tm_allocator* self, void* ptr, size_t size, tm_stream* stream) {
  statistics* s = (statistics*)self;
  tm_adaptor_lock_(self);
  s->life.upstream_calls++;
  count_free(s, tm_adaptor_rounded_(self, size));
  tm_adaptor_unlock_(self);
  tm_adaptor_give_back_(self, ptr, size, stream);
}

//===-- Statistics ----------------------------------------------------------===//

static tm_status statistics_get_stats(tm_allocator* self, tm_allocator_stats* out) {
  tm_adaptor_lock_(self);
  *out = ((statistics*)self)->life;
  tm_adaptor_unlock_(self);
  tm_adaptor_add_reserved_(self, out);
  return TM_OK;
}

static void statistics_destroy(tm_allocator* self) {
  statistics* s = (statistics*)self;
  if (s->levels != s->first) {
    tm_bookkeeping_free(s->levels);
  }
  tm_adaptor_destroy_(self);
}

static const tm_allocator_vtable statistics_vtable = {
    .name = "statistics",
    .destroy = statistics_destroy,
    .alloc = statistics_alloc,
    .free = statistics_free,
    .trim = tm_adaptor_trim_,
    .get_stats = statistics_get_stats,
};

tm_allocator* tm_statistics_adaptor_create(tm_allocator* upstream) {
  statistics* s = tm_adaptor_create_(sizeof *s, &statistics_vtable, upstream,
                                     "tm_statistics_adaptor_create: the upstream");
  if (!s) {
    return NULL;
  }
  s->levels = s->first;
  s->depth = 1;
  s->capacity = FIRST_LEVELS;
  return &s->base;
}

//===-- Levels --------------------------------------------------------------===//

static tm_status check(const tm_allocator* adaptor, const char* what) {
  return tm_adaptor_check_(adaptor, &statistics_vtable, what);
}

tm_status tm_statistics_get(tm_allocator* adaptor, tm_statistics_counters* out) {
  if (!out) {
    return TM_RAISE(TM_ERR_INVALID, "tm_statistics_get: out is NULL");
  }
  memset(out, 0, sizeof *out);
  TM_TRY(check(adaptor, "tm_statistics_get: the allocator"));
  tm_adaptor_lock_(adaptor);
  *out = *innermost((statistics*)adaptor);
  tm_adaptor_unlock_(adaptor);
  return TM_OK;
}

static tm_status grow_levels(statistics* s) {
  tm_statistics_counters* levels =
      tm_bookkeeping_alloc(2 * s->capacity * sizeof *levels, "levels of statistics");
  if (!levels) {
    return tm_last_status();
  }
  memcpy(levels, s->levels, s->depth * sizeof *levels);
  if (s->levels != s->first) {
    tm_bookkeeping_free(s->levels);
  }
  s->levels = levels;
  s->capacity *= 2;
  return TM_OK;
}

tm_status tm_statistics_push(tm_allocator* adaptor) {
  TM_TRY(check(adaptor, "tm_statistics_push: the allocator"));
  statistics* s = (statistics*)adaptor;
  tm_adaptor_lock_(adaptor);
  const tm_status status = s->depth < s->capacity ? TM_OK : grow_levels(s);
  if (status == TM_OK) {
    s->levels[s->depth++] = (tm_statistics_counters){0};
  }
  tm_adaptor_unlock_(adaptor);
  return status;
}

static void add_inner(tm_statistics_counters* outer, const tm_statistics_counters* inner) {
  outer->peak_bytes = larger(outer->peak_bytes, outer->current_bytes + inner->peak_bytes);
  outer->peak_blocks = larger(outer->peak_blocks, outer->current_blocks + inner->peak_blocks);
  outer->current_bytes += inner->current_bytes;
  outer->current_blocks += inner->current_blocks;
  outer->total_bytes += inner->total_bytes;
  outer->total_blocks += inner->total_blocks;
  outer->failures += inner->failures;
}

static bool pop_level(statistics* s, tm_statistics_counters* out) {
  if (s->depth == 1) {
    return false;
  }
  *out = *innermost(s);
  s->depth--;
  add_inner(innermost(s), out);
  return true;
}

tm_status tm_statistics_pop(tm_allocator* adaptor, tm_statistics_counters* out) {
  tm_statistics_counters unwanted;
  out = out ? out : &unwanted;
  memset(out, 0, sizeof *out);
  TM_TRY(check(adaptor, "tm_statistics_pop: the allocator"));
  tm_adaptor_lock_(adaptor);
  const bool popped = pop_level((statistics*)adaptor, out);
  tm_adaptor_unlock_(adaptor);
  return popped ? TM_OK
                : TM_RAISE(TM_ERR_INVALID, "tm_statistics_pop: no tm_statistics_push is open");
}
