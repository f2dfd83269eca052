#include "tests/alloc/conformance_rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tm/alloc/cached.h"
#include "tm/alloc/callback.h"
#include "tm/alloc/cuda.h"
#include "tm/alloc/cuda_pool.h"
#include "tm/alloc/dry.h"
#include "tm/alloc/fault_adaptor.h"
#include "tm/alloc/guard_adaptor.h"
#include "tm/alloc/host.h"
#include "tm/alloc/limit_adaptor.h"
#include "tm/alloc/locked_adaptor.h"
#include "tm/alloc/logging_adaptor.h"
#include "tm/alloc/pinned.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/statistics_adaptor.h"
#include "tm/alloc/stream.h"
#include "tm/alloc/tracking_adaptor.h"

static tm_allocator* create_cuda(void) { return tm_cuda_allocator(0); }

//===-- Pools -----------------------------------------------------------------===//

static tm_allocator* create_pool_on(tm_stream* stream, const tm_cuda_pool_options* options) {
  tm_allocator* pool = stream ? tm_cuda_pool_allocator_create(stream, options) : NULL;
  tm_stream_release(stream);
  return pool;
}

static tm_allocator* create_own_pool(void) { return create_pool_on(tm_stream_create(0, 0), NULL); }

static tm_allocator* create_default_pool(void) {
  return create_pool_on(tm_stream_create(0, 0), &(tm_cuda_pool_options){.default_pool = true});
}

static tm_allocator* create_pool_on_legacy_stream(void) {
  return create_pool_on(tm_stream_adopt(NULL, 0), NULL);
}

//===-- Callbacks -------------------------------------------------------------===//

static tm_status malloc_block(size_t size, tm_stream* stream, void** out, void* user) {
  (void)stream;
  (void)user;
  *out = aligned_alloc(TM_HOST_ALIGNMENT, size);
  return *out ? TM_OK : TM_ERR_NO_MEMORY;
}

static void free_block(void* ptr, size_t size, tm_stream* stream, void* user) {
  (void)size;
  (void)stream;
  (void)user;
  free(ptr);
}

static tm_status ask_allocator(size_t size, tm_stream* stream, void** out, void* user) {
  return tm_allocator_alloc(user, size, stream, out);
}

static void return_to_allocator(void* ptr, size_t size, tm_stream* stream, void* user) {
  tm_allocator_free(user, ptr, size, stream);
}

static void release_allocator(void* user) { tm_allocator_release(user); }

static tm_allocator* create_callback_over_malloc(void) {
  return tm_callback_allocator_create(
      &(tm_callback_options){.alloc = malloc_block, .free = free_block});
}

// Takes the reference to `upstream` over.
static tm_allocator* create_callback_over(tm_allocator* upstream) {
  if (!upstream) {
    return NULL;
  }
  tm_allocator* allocator =
      tm_callback_allocator_create(&(tm_callback_options){.device = tm_allocator_device(upstream),
                                                          .stream = tm_allocator_stream(upstream),
                                                          .alloc = ask_allocator,
                                                          .free = return_to_allocator,
                                                          .destroy_user = release_allocator,
                                                          .user = upstream});
  if (!allocator) {
    tm_allocator_release(upstream);
  }
  return allocator;
}

static tm_allocator* create_callback_over_cuda(void) {
  return create_callback_over(tm_cuda_allocator(0));
}

static tm_allocator* create_callback_over_pool(void) {
  return create_callback_over(create_own_pool());
}

//===-- Stacks ----------------------------------------------------------------===//

// Takes the reference to `upstream` over.
static tm_allocator* create_stack_over(tm_allocator* upstream) {
  tm_allocator* stack = upstream ? tm_stack_allocator_create(upstream, NULL, NULL) : NULL;
  tm_allocator_release(upstream);
  return stack;
}

// The same over memory that knows no streams, with one.
static tm_allocator* create_stack_with_stream(tm_allocator* upstream) {
  tm_stream* stream = upstream ? tm_stream_create(0, 0) : NULL;
  tm_allocator* stack = stream ? tm_stack_allocator_create(upstream, stream, NULL) : NULL;
  tm_stream_release(stream);
  return stack;
}

static tm_allocator* create_stack_over_host(void) { return create_stack_over(tm_host_allocator()); }

static tm_allocator* create_stack_over_pinned(void) {
  return create_stack_with_stream(tm_pinned_allocator());
}

static tm_allocator* create_stack_over_cuda(void) {
  return create_stack_with_stream(tm_cuda_allocator(0));
}

static tm_allocator* create_stack_over_pool(void) { return create_stack_over(create_own_pool()); }

static tm_allocator* create_stack_over_default_pool(void) {
  return create_stack_over(create_default_pool());
}

static tm_allocator* create_stack_over_callback(void) {
  return create_stack_over(create_callback_over_malloc());
}

static tm_allocator* create_stack_over_stack(void) {
  return create_stack_over(create_stack_over_host());
}

//===-- Caches ----------------------------------------------------------------===//

// Takes the reference to `upstream` over.
static tm_allocator* create_cached_on(tm_allocator* upstream, tm_stream* stream) {
  tm_allocator* cached = upstream ? tm_cached_allocator_create(upstream, stream, NULL) : NULL;
  tm_allocator_release(upstream);
  return cached;
}

static tm_allocator* create_cached_with_stream(tm_allocator* upstream) {
  tm_stream* stream = upstream ? tm_stream_create(0, 0) : NULL;
  tm_allocator* cached = stream ? create_cached_on(upstream, stream) : NULL;
  tm_stream_release(stream);
  return cached;
}

static tm_allocator* create_cached_over_host(void) {
  return create_cached_on(tm_host_allocator(), NULL);
}

static tm_allocator* create_cached_over_pinned(void) {
  return create_cached_on(tm_pinned_allocator(), NULL);
}

static tm_allocator* create_cached_over_pinned_with_stream(void) {
  return create_cached_with_stream(tm_pinned_allocator());
}

static tm_allocator* create_cached_over_cuda(void) {
  return create_cached_with_stream(tm_cuda_allocator(0));
}

static tm_allocator* create_cached_over_pool(void) {
  return create_cached_on(create_own_pool(), NULL);
}

static tm_allocator* create_cached_over_callback(void) {
  return create_cached_on(create_callback_over_malloc(), NULL);
}

static tm_allocator* create_cached_over_cached(void) {
  return create_cached_on(create_cached_over_host(), NULL);
}

static tm_allocator* create_stack_over_cached(void) {
  return create_stack_over(create_cached_over_cuda());
}

//===-- Dry -------------------------------------------------------------------===//

static tm_allocator* create_dry(void) {
  return tm_dry_allocator_create(tm_device_make(TM_CPU, 0), NULL);
}

static tm_allocator* create_stack_over_dry(void) { return create_stack_over(create_dry()); }
static tm_allocator* create_cached_over_dry(void) { return create_cached_on(create_dry(), NULL); }

//===-- Rows ------------------------------------------------------------------===//

#define ON_HOST .device = {TM_CPU, 0}, .alignment = TM_HOST_ALIGNMENT
#define ON_PINNED .device = {TM_CPU_PINNED, 0}, .alignment = TM_HOST_ALIGNMENT, .uses_device = true
#define ON_DEVICE                                                                                  \
  .device = {TM_DEVICE, 0}, .alignment = TM_DEVICE_ALIGNMENT, .uses_device = true, .counts = true, \
  .runs_out = true

static const conformance_row rows[CONFORMANCE_ROWS] = {
    {"host", tm_host_allocator, ON_HOST, .is_process_wide = true},
    {"pinned", tm_pinned_allocator, ON_PINNED, .counts = true, .is_process_wide = true},
    {"cuda", create_cuda, ON_DEVICE, .is_process_wide = true},
    {"cuda_pool", create_own_pool, ON_DEVICE, .has_stream = true},
    {"cuda_pool: default", create_default_pool, ON_DEVICE, .has_stream = true},
    {"cuda_pool: legacy stream", create_pool_on_legacy_stream, ON_DEVICE, .has_stream = true},
    {"callback(malloc)", create_callback_over_malloc, ON_HOST, .counts = true},
    {"callback(cuda)", create_callback_over_cuda, ON_DEVICE},
    {"callback(cuda_pool)", create_callback_over_pool, ON_DEVICE, .has_stream = true},
    {"stack(host)", create_stack_over_host, ON_HOST, .counts = true, .is_owned = true},
    {"stack(pinned)", create_stack_over_pinned, ON_PINNED, .counts = true, .has_stream = true,
     .is_owned = true},
    {"stack(cuda)", create_stack_over_cuda, ON_DEVICE, .has_stream = true, .is_owned = true},
    {"stack(cuda_pool)", create_stack_over_pool, ON_DEVICE, .has_stream = true, .is_owned = true},
    {"stack(cuda_pool: default)", create_stack_over_default_pool, ON_DEVICE, .has_stream = true,
     .is_owned = true},
    {"stack(callback)", create_stack_over_callback, ON_HOST, .counts = true, .is_owned = true},
    {"stack(stack)", create_stack_over_stack, ON_HOST, .counts = true, .is_owned = true},
    {"stack(cached)", create_stack_over_cached, ON_DEVICE, .has_stream = true, .is_owned = true},
    {"cached(host)", create_cached_over_host, ON_HOST, .counts = true},
    {"cached(pinned)", create_cached_over_pinned, ON_PINNED, .counts = true},
    {"cached(pinned): with a stream", create_cached_over_pinned_with_stream, ON_PINNED,
     .counts = true, .has_stream = true},
    {"cached(cuda)", create_cached_over_cuda, ON_DEVICE, .has_stream = true},
    {"cached(cuda_pool)", create_cached_over_pool, ON_DEVICE, .has_stream = true},
    {"cached(callback)", create_cached_over_callback, ON_HOST, .counts = true},
    {"cached(cached)", create_cached_over_cached, ON_HOST, .counts = true},
    {"cached(dry)", create_cached_over_dry, ON_HOST, .counts = true, .is_dry = true},
    {"dry", create_dry, ON_HOST, .counts = true, .is_dry = true},
    {"stack(dry)", create_stack_over_dry, ON_HOST, .counts = true, .is_owned = true,
     .is_dry = true},
};

//===-- Adaptors --------------------------------------------------------------===//

static tm_allocator* limit_over(tm_allocator* upstream) {
  return tm_limit_adaptor_create(upstream, SIZE_MAX);
}

static tm_allocator* tracking_over(tm_allocator* upstream) {
  return tm_tracking_adaptor_create(upstream, NULL);
}

// The file has no name once it is open.
static tm_allocator* logging_over(tm_allocator* upstream) {
  static int count;
  const char* folder = getenv("TEST_TMPDIR");
  char path[256];
  (void)snprintf(path, sizeof path, "%s/conformance.%d.%d.csv", folder ? folder : "/tmp",
                 (int)getpid(), __atomic_fetch_add(&count, 1, __ATOMIC_RELAXED));
  tm_allocator* adaptor = tm_logging_adaptor_create(upstream, path);
  (void)unlink(path);
  return adaptor;
}

static tm_allocator* fault_over(tm_allocator* upstream) {
  return tm_fault_adaptor_create(upstream, NULL);
}

typedef struct adaptor_kind {
  const char* name;
  tm_allocator* (*create)(tm_allocator* upstream);
  bool counts;       // whether or not the upstream does
  bool is_no_owner;  // refuses what one thread at a time uses
  bool touches;      // the memory: refuses what is dry
} adaptor_kind;

static const adaptor_kind kinds[1 + CONFORMANCE_ADAPTORS] = {
    {"", NULL, false, false, false},
    {"statistics", tm_statistics_adaptor_create, true, false, false},
    {"limit", limit_over, false, false, false},
    {"tracking", tracking_over, false, false, false},
    {"logging", logging_over, false, false, false},
    {"locked", tm_locked_adaptor_create, false, true, false},
    {"guard", tm_guard_adaptor_create, true, false, true},
    {"fault", fault_over, false, false, false},
};

// Puts an adaptor over a row.
static void wrap(conformance_row* row, int kind, int place, char* name, size_t size) {
  (void)snprintf(name, size, "%s(%s)", kinds[kind].name, row->name);
  row->name = name;
  row->adaptors[place] = kind;
  row->counts = row->counts || kinds[kind].counts;
  row->is_refused = row->is_refused || (kinds[kind].is_no_owner && row->is_owned) ||
                    (kinds[kind].touches && row->is_dry);
  row->is_process_wide = false;
}

static const char* const pair_bases[CONFORMANCE_PAIR_BASES] = {"host", "cuda", "stack(cuda_pool)"};
static const char* const stacked_bases[CONFORMANCE_STACKED_BASES] = {"host", "cuda_pool"};

static conformance_row row_named(const char* name) {
  size_t i = 0;
  while (strcmp(rows[i].name, name) != 0) {
    i++;
  }
  return rows[i];
}

static char inner_name[64];
static char outer_name[96];

static conformance_row single_at(size_t index) {
  conformance_row row = rows[index / CONFORMANCE_ADAPTORS];
  wrap(&row, 1 + (int)(index % CONFORMANCE_ADAPTORS), 0, inner_name, sizeof inner_name);
  return row;
}

static conformance_row pair_at(size_t index) {
  const size_t pairs = (size_t)CONFORMANCE_ADAPTORS * CONFORMANCE_ADAPTORS;
  const int pair = (int)(index % pairs);
  conformance_row row = row_named(pair_bases[index / pairs]);
  wrap(&row, 1 + pair % CONFORMANCE_ADAPTORS, 0, inner_name, sizeof inner_name);
  wrap(&row, 1 + pair / CONFORMANCE_ADAPTORS, 1, outer_name, sizeof outer_name);
  return row;
}

static conformance_row stacked_at(size_t index) {
  conformance_row row = row_named(stacked_bases[index / CONFORMANCE_ADAPTORS]);
  wrap(&row, 1 + (int)(index % CONFORMANCE_ADAPTORS), 0, inner_name, sizeof inner_name);
  (void)snprintf(outer_name, sizeof outer_name, "stack(%s)", row.name);
  row.name = outer_name;
  row.counts = true;
  row.is_owned = true;
  row.is_stacked = true;
  return row;
}

conformance_row conformance_row_at(size_t index) {
  if (index < CONFORMANCE_FIRST_SINGLE) {
    return rows[index];
  }
  if (index < CONFORMANCE_FIRST_PAIR) {
    return single_at(index - CONFORMANCE_FIRST_SINGLE);
  }
  return index < CONFORMANCE_FIRST_STACKED ? pair_at(index - CONFORMANCE_FIRST_PAIR)
                                           : stacked_at(index - CONFORMANCE_FIRST_STACKED);
}

tm_allocator* conformance_create(const conformance_row* row) {
  tm_allocator* allocator = row->create();
  for (int i = 0; i < 2 && allocator && row->adaptors[i]; i++) {
    tm_allocator* adaptor = kinds[row->adaptors[i]].create(allocator);
    tm_allocator_release(allocator);
    allocator = adaptor;
  }
  return row->is_stacked ? create_stack_over(allocator) : allocator;
}
