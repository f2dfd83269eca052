#include "tests/support/counting_allocator.h"

#include <stdlib.h>
#include <string.h>

static tm_status counting_alloc(tm_allocator* self, size_t size, tm_stream* stream, void** out) {
  (void)stream;
  counting_allocator* a = (counting_allocator*)self;
  const bool failing = a->fail_in > 0 && --a->fail_in == 0;
  void* block = failing || size > a->budget - a->live_bytes ? NULL : aligned_alloc(256, size);
  if (!block) {
    a->failures++;
    return TM_RAISE(TM_ERR_NO_MEMORY, "counting: %zu bytes asked, %zu of %zu live", size,
                    a->live_bytes, a->budget);
  }
  a->allocs++;
  a->live_bytes += size;
  a->peak_bytes = a->live_bytes > a->peak_bytes ? a->live_bytes : a->peak_bytes;
  *out = block;
  return TM_OK;
}

static void counting_free(tm_allocator* self, void* ptr, size_t size, tm_stream* stream) {
  (void)stream;
  counting_allocator* a = (counting_allocator*)self;
  a->frees++;
  a->live_bytes -= size;
  free(ptr);
}

static void counting_destroy(tm_allocator* self) {
  tm_allocator_deinit_(self);
  ((counting_allocator*)self)->destroyed = true;
}

static const tm_allocator_vtable counting_vtable = {
    .name = "counting",
    .destroy = counting_destroy,
    .alloc = counting_alloc,
    .free = counting_free,
};

void counting_allocator_init(counting_allocator* allocator) {
  memset(allocator, 0, sizeof *allocator);
  tm_allocator_init_(&allocator->base, &counting_vtable, tm_device_make(TM_CPU, 0), NULL);
  allocator->base.alignment = 256;
  allocator->base.ignores_stream = true;
  allocator->budget = SIZE_MAX;
}
