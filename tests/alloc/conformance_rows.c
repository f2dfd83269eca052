#include "tests/alloc/conformance_rows.h"

#include <stdlib.h>

#include "tm/alloc/cached.h"
#include "tm/alloc/callback.h"
#include "tm/alloc/cuda.h"
#include "tm/alloc/cuda_pool.h"
#include "tm/alloc/dry.h"
#include "tm/alloc/host.h"
#include "tm/alloc/pinned.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/stream.h"

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

const conformance_row conformance_rows[CONFORMANCE_ROWS] = {
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
