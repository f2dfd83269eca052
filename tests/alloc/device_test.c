// Devices, and what becomes of every device call when the process loses them.

#include "tm/alloc/device.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <cuda_runtime_api.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/machine.h"
#include "tm/alloc/cuda.h"
#include "tm/alloc/cuda_pool.h"
#include "tm/alloc/event.h"
#include "tm/alloc/host.h"
#include "tm/alloc/pinned.h"
#include "tm/alloc/storage.h"
#include "tm/alloc/stream.h"

#define MIB ((size_t)1 << 20)

//===-- What there is -----------------------------------------------------------===//

Test(device, types_have_names) {
  cr_expect(eq(str, (char*)tm_device_type_name(TM_CPU), "cpu"));
  cr_expect(eq(str, (char*)tm_device_type_name(TM_CPU_PINNED), "cpu_pinned"));
  cr_expect(eq(str, (char*)tm_device_type_name(TM_DEVICE), "device"));
  cr_expect(eq(str, (char*)tm_device_type_name((tm_device_type)7), "unknown"));
  cr_expect(tm_device_equal(tm_device_make(TM_DEVICE, 3), (tm_device){TM_DEVICE, 3}));
  cr_expect(not(tm_device_equal(tm_device_make(TM_DEVICE, 3), tm_device_make(TM_DEVICE, 2))));
}

Test(device, have_a_text) {
  static const struct {
    tm_device device;
    const char* expected;
  } rows[] = {
      {{TM_CPU, 0}, "cpu"},         {{TM_CPU_PINNED, 0}, "cpu_pinned"},
      {{TM_DEVICE, 0}, "device:0"}, {{TM_DEVICE, 63}, "device:63"},
      {{TM_DEVICE, -1}, "device"},  {{TM_CPU, 3}, "cpu:3"},
      {{7, 1}, "unknown:1"},
  };
  char text[TM_DEVICE_TEXT_SIZE];
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    tm_device_text(rows[i].device, text, sizeof text);
    cr_expect(eq(str, text, (char*)rows[i].expected));
  }
  tm_device_text((tm_device){TM_DEVICE, 12}, text, 4);
  cr_expect(eq(str, text, "dev"));
}

Test(device, are_counted) {
  machine_configure(3, "64MiB");
  machine_require_devices(1);
  int32_t count = 0;
  int expected = 0;
  cr_expect(eq(int, tm_device_count(&count), TM_OK));
  cr_assert(cudaGetDeviceCount(&expected) == cudaSuccess);
  cr_expect(eq(int, count, expected));
  cr_expect(count == 3 || machine_is_simulated() == false);
  cr_expect(eq(int, tm_device_count(NULL), TM_ERR_INVALID));
}

Test(device, have_memory) {
  machine_configure(2, "64MiB,128MiB");
  machine_require_devices(1);
  size_t available = 1;
  size_t total = 1;
  cr_expect(eq(int, tm_device_memory(0, &available, &total), TM_OK));
  cr_expect(available > 0 && available <= total);
  cr_expect(total == 64 * MIB || machine_is_simulated() == false);
  cr_expect(eq(int, tm_device_memory(64, &available, &total), TM_ERR_OUT_OF_RANGE));
  cr_expect(eq(sz, available, 0));
  cr_expect(eq(sz, total, 0));
  cr_expect(eq(int, tm_device_memory(-1, &available, &total), TM_ERR_OUT_OF_RANGE));
  cr_expect(eq(int, tm_device_memory(0, NULL, &total), TM_ERR_INVALID));
  cr_expect(eq(int, tm_device_sync(0), TM_OK));
  cr_expect(eq(int, tm_device_sync(63), TM_ERR_OUT_OF_RANGE));
  machine_require_devices(2);
  cr_expect(eq(int, tm_device_memory(1, &available, &total), TM_OK));
  cr_expect(total == 128 * MIB || machine_is_simulated() == false);
  int current = -1;
  cr_assert(cudaGetDevice(&current) == cudaSuccess);
  cr_expect(eq(int, current, 0));
}

Test(device, every_device_has_one_allocator) {
  machine_configure(2, "64MiB");
  machine_require_devices(2);
  tm_allocator* first = tm_cuda_allocator(0);
  tm_allocator* second = tm_cuda_allocator(1);
  cr_assert(first && second && first != second);
  cr_expect(eq(ptr, tm_cuda_allocator(1), second));
  cr_expect(eq(int, tm_allocator_device(second).id, 1));
  void* block;
  cr_assert(eq(int, tm_allocator_alloc(second, MIB, NULL, &block), TM_OK));
  struct cudaPointerAttributes attributes;
  cr_assert(cudaPointerGetAttributes(&attributes, block) == cudaSuccess);
  cr_expect(eq(int, attributes.device, 1));
  cr_expect(eq(int, (int)attributes.type, (int)cudaMemoryTypeDevice));
  tm_allocator_free(second, block, MIB, NULL);
  cr_expect(eq(ptr, tm_cuda_allocator(2), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_OUT_OF_RANGE), "%s", tm_last_error()->message);
}

Test(device, cuda_memory_is_freed_after_what_is_queued) {
  machine_configure(1, "64MiB");
  machine_require_devices(1);
  tm_auto_stream stream = tm_stream_create(0, 0);
  tm_allocator* cuda = tm_cuda_allocator(0);
  void* block;
  cr_assert(eq(int, tm_allocator_alloc(cuda, 16 * MIB, stream, &block), TM_OK));
  for (int i = 0; i < 100; i++) {
    cr_assert(cudaMemsetAsync(block, i, 16 * MIB, tm_stream_handle(stream)) == cudaSuccess);
  }
  tm_allocator_free(cuda, block, 16 * MIB, stream);
  bool done = false;
  cr_expect(eq(int, tm_stream_query(stream, &done), TM_OK));
  cr_expect(done);
}

Test(device, an_allocation_for_a_captured_stream_is_refused) {
  machine_configure(1, "64MiB");
  machine_require_devices(1);
  tm_auto_stream stream = tm_stream_create(0, 0);
  tm_allocator* cuda = tm_cuda_allocator(0);
  machine_fail("cudaStreamIsCapturing", 1, 0, cudaErrorStreamCaptureImplicit);
  void* block = &block;
  cr_expect(eq(int, tm_allocator_alloc(cuda, MIB, stream, &block), TM_ERR_CAPTURING));
  cr_expect(eq(ptr, block, NULL));
  machine_fail_nothing();
  tm_allocator_stats stats;
  cr_assert(eq(int, tm_allocator_get_stats(cuda, &stats), TM_OK));
  cr_expect(eq(u64, stats.upstream_calls, 0));
}

//===-- A lost device -----------------------------------------------------------===//

Test(device, a_sticky_error_is_remembered_for_its_device_only) {
  machine_configure(2, "64MiB");
  machine_require_devices(2);
  tm_stream* stream = tm_stream_create(1, 0);
  tm_event* event = tm_event_create(1, true);
  tm_allocator* pool = tm_cuda_pool_allocator_create(stream, NULL);
  cr_assert(stream && event && pool);
  tm_storage* storage;
  cr_assert(eq(int, tm_storage_alloc(pool, MIB, NULL, &storage), TM_OK));
  machine_break_device(1, cudaErrorLaunchFailure);
  cr_expect(eq(int, tm_stream_sync(stream), TM_ERR_DEVICE_LOST));
  const char* message = tm_last_error()->message;
  cr_expect(strstr(message, "cudaErrorLaunchFailure") != NULL, "%s", message);
  cr_expect(strstr(message, "earlier asynchronous work") != NULL, "%s", message);

  size_t available;
  size_t total;
  bool done;
  cr_expect(eq(int, tm_device_memory(1, &available, &total), TM_ERR_DEVICE_LOST));
  cr_expect(strstr(message, "cudaErrorLaunchFailure") != NULL, "%s", message);
  cr_expect(eq(int, tm_event_record(event, stream), TM_ERR_DEVICE_LOST));
  cr_expect(eq(int, tm_event_query(event, &done), TM_ERR_DEVICE_LOST));
  cr_expect(eq(ptr, tm_stream_create(1, 0), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_DEVICE_LOST));
  cr_expect(eq(ptr, tm_cuda_allocator(1), NULL));
  tm_storage_release(storage);
  tm_allocator_release(pool);
  tm_event_release(event);
  tm_stream_release(stream);

  tm_auto_stream elsewhere = tm_stream_create(0, 0);
  cr_expect(eq(int, tm_stream_sync(elsewhere), TM_OK), "%s", tm_last_error()->message);
  void* block;
  cr_expect(eq(int, tm_allocator_alloc(tm_cuda_allocator(0), MIB, NULL, &block), TM_OK));
  tm_allocator_free(tm_cuda_allocator(0), block, MIB, NULL);
  cr_expect(eq(int, tm_allocator_alloc(tm_host_allocator(), MIB, NULL, &block), TM_OK));
  tm_allocator_free(tm_host_allocator(), block, MIB, NULL);
}

Test(device, an_error_that_passes_loses_nothing) {
  machine_configure(1, "64MiB");
  machine_require_devices(1);
  machine_fail("cudaMemGetInfo", 1, 1, cudaErrorInvalidValue);
  size_t available;
  size_t total;
  cr_expect(eq(int, tm_device_memory(0, &available, &total), TM_ERR_CUDA));
  cr_expect(eq(int, tm_device_memory(0, &available, &total), TM_OK));
  machine_fail("cudaMemGetInfo", 1, 1, cudaErrorStreamCaptureUnsupported);
  cr_expect(eq(int, tm_device_memory(0, &available, &total), TM_ERR_CAPTURING));
  cr_expect(eq(int, cudaGetLastError(), cudaSuccess));
}

Test(device, without_a_driver_the_reason_is_the_drivers) {
  machine_configure(1, "64MiB");
  machine_fail("cudaGetDeviceCount", 1, 0, cudaErrorInsufficientDriver);
  int32_t count = 5;
  cr_expect(eq(int, tm_device_count(&count), TM_ERR_UNAVAILABLE));
  cr_expect(eq(int, count, 0));
  cr_expect(strstr(tm_last_error()->message, "cudaErrorInsufficientDriver") != NULL);
  cr_expect(eq(ptr, tm_cuda_allocator(0), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_UNAVAILABLE));
  cr_expect(eq(ptr, tm_stream_create(0, 0), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_UNAVAILABLE));
  void* block = &block;
  cr_expect(
      eq(int, tm_allocator_alloc(tm_pinned_allocator(), 100, NULL, &block), TM_ERR_UNAVAILABLE));
  cr_expect(eq(ptr, block, NULL));
  cr_expect(eq(int, tm_allocator_trim(tm_pinned_allocator(), 0), TM_OK));
  cr_assert(eq(int, tm_allocator_alloc(tm_host_allocator(), 100, NULL, &block), TM_OK));
  tm_allocator_free(tm_host_allocator(), block, 100, NULL);
  machine_fail_nothing();
  cr_expect(eq(int, tm_device_count(&count), TM_OK));
}

//===-- A forked child ----------------------------------------------------------===//

typedef struct inheritance {
  tm_stream* stream;
  tm_event* event;
  tm_allocator* pool;
  tm_storage* storage;
  void* pinned_block;
} inheritance;

// Returns the number of the first expectation that does not hold in the child; 0: all do.
static int look_around_in_child(const inheritance* i) {
  void* block = &block;
  if (tm_device_sync(0) != TM_ERR_UNAVAILABLE) return 1;
  if (!strstr(tm_last_error()->message, "fork")) return 2;
  if (tm_allocator_alloc(i->pool, MIB, NULL, &block) != TM_ERR_UNAVAILABLE || block) return 3;
  if (tm_allocator_alloc(tm_pinned_allocator(), 10, NULL, &block) != TM_ERR_UNAVAILABLE) return 4;
  if (tm_stream_sync(i->stream) != TM_ERR_UNAVAILABLE) return 5;
  if (tm_event_record(i->event, i->stream) != TM_ERR_UNAVAILABLE) return 6;
  if (tm_cuda_allocator(0)) return 7;
  tm_storage_release(i->storage);
  tm_allocator_free(tm_pinned_allocator(), i->pinned_block, MIB, i->stream);
  tm_allocator_release(i->pool);
  tm_event_release(i->event);
  tm_stream_release(i->stream);
  if (tm_allocator_alloc(tm_host_allocator(), 100, NULL, &block) != TM_OK) return 8;
  tm_allocator_free(tm_host_allocator(), block, 100, NULL);
  return 0;
}

Test(device, a_forked_child_has_none) {
  machine_configure(1, "64MiB");
  machine_require_devices(1);
  inheritance i = {.stream = tm_stream_create(0, 0), .event = tm_event_create(0, false)};
  i.pool = tm_cuda_pool_allocator_create(i.stream, NULL);
  cr_assert(i.pool != NULL);
  cr_assert(eq(int, tm_storage_alloc(i.pool, MIB, NULL, &i.storage), TM_OK));
  cr_assert(
      eq(int, tm_allocator_alloc(tm_pinned_allocator(), MIB, i.stream, &i.pinned_block), TM_OK));
  const pid_t child = fork();
  cr_assert(child >= 0);
  if (child == 0) {
    _exit(look_around_in_child(&i));
  }
  int status = -1;
  cr_assert(waitpid(child, &status, 0) == child);
  cr_expect(eq(int, WTERMSIG(status), 0), "the child ended by a signal");
  cr_expect(eq(int, WEXITSTATUS(status), 0));
  memset(i.pinned_block, 1, MIB);  // the parent's is untouched
  tm_allocator_free(tm_pinned_allocator(), i.pinned_block, MIB, i.stream);
  tm_storage_release(i.storage);
  tm_allocator_release(i.pool);
  cr_expect(eq(int, tm_stream_sync(i.stream), TM_OK));
  tm_event_release(i.event);
  tm_stream_release(i.stream);
}
