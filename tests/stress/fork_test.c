// Forks while other threads hold the library's locks: no child may find one held for ever. Each
// ends by an alarm where it does.

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/sanitizers.h"
#include "tm/alloc/cached.h"
#include "tm/alloc/callback.h"
#include "tm/alloc/cuda.h"
#include "tm/alloc/cuda_pool.h"
#include "tm/alloc/device.h"
#include "tm/alloc/dry.h"
#include "tm/alloc/event.h"
#include "tm/alloc/host.h"
#include "tm/alloc/locked_adaptor.h"
#include "tm/alloc/pinned.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/statistics_adaptor.h"
#include "tm/alloc/storage.h"
#include "tm/alloc/stream.h"
#include "tm/alloc/tracking_adaptor.h"
#include "tm/check.h"

enum { THREADS = 10, FORKS = 100, HAND_OVERS = 200, SIZE = 4096, CHILD_SECONDS = 20 };

static tm_stream* stream;
static tm_allocator* pool;
static tm_allocator* cached[3];  // over the host, the pool and pinned memory
static tm_allocator* dry;
static tm_allocator* adapted;  // adaptors with locks, over the host
static tm_allocator* foreign;  // puts off frees during captures, which takes a lock
static bool stop;

//===-- The parent's threads --------------------------------------------------------===//

static void use_memory(tm_allocator* allocator, tm_stream* on) {
  void* block;
  TM_CHECK_OK(tm_allocator_alloc(allocator, SIZE, on, &block));
  tm_allocator_free(allocator, block, SIZE, on);
}

// A stack that is handed over again and again takes the lock of the owners.
static void use_stack(void) {
  tm_auto_allocator stack = tm_stack_allocator_create(tm_host_allocator(), NULL, NULL);
  TM_CHECK(stack != NULL);
  for (int i = 0; i < HAND_OVERS; i++) {
    use_memory(stack, NULL);
    TM_CHECK_OK(tm_stack_hand_over(stack));
  }
}

static void use_foreign(void) {
  for (int i = 0; i < HAND_OVERS; i++) {
    use_memory(foreign, NULL);
  }
}

// Segments come, go and are put together.
static void use_cached(void) {
  for (int i = 0; i < HAND_OVERS / 4; i++) {
    void* block;
    TM_CHECK_OK(tm_allocator_alloc(cached[0], (size_t)SIZE << i % 12, NULL, &block));
    use_memory(cached[0], NULL);
    tm_allocator_free(cached[0], block, (size_t)SIZE << i % 12, NULL);
    use_memory(dry, NULL);
  }
  TM_CHECK_OK(tm_allocator_trim(cached[0], 0));
}

static void use_adaptors(void) {
  for (int i = 0; i < HAND_OVERS; i++) {
    use_memory(adapted, NULL);
  }
}

static void use_devices(tm_stream* own) {
  use_memory(pool, NULL);
  use_memory(pool, own);  // takes an event from the cache
  use_memory(tm_pinned_allocator(), own);
  use_memory(cached[1], own);
  use_memory(cached[2], own);
}

static void* hold_locks(void* argument) {
  tm_auto_stream own = tm_stream_create(0, 0);
  TM_CHECK(own != NULL);
  while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
    switch ((intptr_t)argument % 5) {
      case 0:
        use_stack();
        break;
      case 1:
        use_devices(own);
        break;
      case 2:
        use_cached();
        break;
      case 3:
        use_adaptors();
        break;
      default:
        use_foreign();
    }
  }
  TM_CHECK_OK(tm_stream_sync(own));
  return NULL;
}

static tm_status give_memory(size_t size, tm_stream* on, void** out, void* memory) {
  (void)size;
  (void)on;
  *out = memory;
  return TM_OK;
}

// Over the upstreams, which the adaptors keep alive.
static tm_allocator* make_adapted(void) {
  tm_auto_allocator counted = tm_statistics_adaptor_create(tm_host_allocator());
  tm_auto_allocator locked = tm_locked_adaptor_create(counted);
  return tm_tracking_adaptor_create(locked, NULL);
}

static void take_memory(void* block, size_t size, tm_stream* on, void* memory) {
  (void)size;
  (void)on;
  TM_CHECK(block == memory);
}

static tm_allocator* make_foreign(void) {
  static _Alignas(256) char memory[SIZE];
  return tm_callback_allocator_create(&(tm_callback_options){.device = tm_device_make(TM_DEVICE, 0),
                                                             .alloc = give_memory,
                                                             .free = take_memory,
                                                             .user = memory});
}

//===-- The child -------------------------------------------------------------------===//

static void expect_no_device(tm_allocator* allocator, void* inherited) {
  void* block;
  TM_CHECK_EQ(tm_allocator_alloc(allocator, SIZE, NULL, &block), TM_ERR_UNAVAILABLE);
  tm_allocator_free(allocator, inherited, SIZE, NULL);
  TM_CHECK_EQ(tm_allocator_trim(allocator, 0), TM_ERR_UNAVAILABLE);
  tm_allocator_stats stats;
  TM_CHECK_EQ(tm_allocator_get_stats(allocator, &stats), TM_ERR_UNAVAILABLE);
  tm_allocator_release(allocator);
}

// Of a cache of the host's memory a child has its own, with the blocks that were live.
static void go_on_with_cached(void* inherited) {
  tm_allocator_free(cached[0], inherited, SIZE, NULL);
  use_memory(dry, NULL);
  use_cached();
  TM_CHECK(tm_cached_is_valid(cached[0]));
  tm_allocator_release(cached[0]);
}

static void live_as_child(tm_allocator* stack, tm_storage* storage, void* pinned_block,
                          void* const inherited[3]) {
  (void)alarm(CHILD_SECONDS);
  void* block;
  TM_CHECK_EQ(tm_allocator_alloc(pool, SIZE, NULL, &block), TM_ERR_UNAVAILABLE);
  TM_CHECK_EQ(tm_allocator_alloc(tm_pinned_allocator(), SIZE, stream, &block), TM_ERR_UNAVAILABLE);
  TM_CHECK_EQ(tm_stream_sync(stream), TM_ERR_UNAVAILABLE);
  TM_CHECK(tm_cuda_allocator(0) == NULL);
  tm_storage_release(storage);
  tm_allocator_free(tm_pinned_allocator(), pinned_block, SIZE, stream);
  TM_CHECK_OK(tm_allocator_trim(tm_pinned_allocator(), 0));
  expect_no_device(cached[1], inherited[1]);
  expect_no_device(cached[2], inherited[2]);
  go_on_with_cached(inherited[0]);
  use_memory(foreign, NULL);
  use_memory(tm_host_allocator(), NULL);
  use_memory(adapted, NULL);
  use_memory(stack, NULL);  // nobody's: becomes this thread's
  tm_allocator_release(stack);
  use_stack();
  _exit(0);
}

static void fork_once(void) {
  tm_allocator* stack = tm_stack_allocator_create(tm_host_allocator(), NULL, NULL);
  tm_storage* storage;
  void* block;
  TM_CHECK_OK(tm_storage_alloc(pool, SIZE, NULL, &storage));
  TM_CHECK_OK(tm_allocator_alloc(tm_pinned_allocator(), SIZE, stream, &block));
  void* inherited[3];
  for (int i = 0; i < 3; i++) {
    TM_CHECK_OK(tm_allocator_alloc(cached[i], SIZE, NULL, &inherited[i]));
  }
  const pid_t child = fork();
  TM_CHECK(child >= 0);
  if (child == 0) {
    live_as_child(stack, storage, block, inherited);
  }
  int status = -1;
  TM_CHECK_EQ(waitpid(child, &status, 0), child);
  TM_CHECK_EQ(status, 0);
  for (int i = 0; i < 3; i++) {
    tm_allocator_free(cached[i], inherited[i], SIZE, NULL);
  }
  tm_allocator_free(tm_pinned_allocator(), block, SIZE, stream);
  tm_storage_release(storage);
  tm_allocator_release(stack);
}

//===-- The first use ---------------------------------------------------------------===//

static void* use_first(void* unused) {
  (void)unused;
  int32_t count;
  TM_CHECK_OK(tm_device_count(&count));
  return NULL;
}

// A fork in the middle of the process's first device call: the child has a device or has none, but
// an answer. In a child of its own, since a process has one first call.
static void fork_at_first_use(void) {
  const pid_t first = fork();
  TM_CHECK(first >= 0);
  if (first == 0) {
    (void)alarm(CHILD_SECONDS);
    pthread_t thread;
    TM_CHECK_EQ(pthread_create(&thread, NULL, use_first, NULL), 0);
    const pid_t child = fork();
    if (child == 0) {
      (void)alarm(CHILD_SECONDS / 2);
      int32_t count;
      const tm_status status = tm_device_count(&count);
      _exit(status != TM_OK && status != TM_ERR_UNAVAILABLE);
    }
    int status = -1;
    TM_CHECK_EQ(waitpid(child, &status, 0), child);
    TM_CHECK_EQ(pthread_join(thread, NULL), 0);
    _exit(status != 0);
  }
  int status = -1;
  TM_CHECK_EQ(waitpid(first, &status, 0), first);
  TM_CHECK_EQ(status, 0);
}

// Whether there are devices, found out in a child, so that this process has not used them.
static bool has_devices(void) {
  const pid_t child = fork();
  if (child == 0) {
    int32_t count;
    _exit(tm_device_count(&count) != TM_OK);
  }
  int status = -1;
  return waitpid(child, &status, 0) == child && status == 0;
}

int main(void) {
  if (UNDER_ASAN || UNDER_TSAN) {
    puts("SKIPPED: the sanitizers hold locks of their own across a fork");
    return 0;
  }
  if (!has_devices()) {
    puts("SKIPPED: there is no device");
    return 0;
  }
  for (int i = 0; i < FORKS; i++) {
    fork_at_first_use();
  }
  stream = tm_stream_create(0, 0);
  pool = tm_cuda_pool_allocator_create(stream, NULL);
  foreign = make_foreign();
  dry = tm_dry_allocator_create(tm_device_make(TM_DEVICE, 0), NULL);
  cached[0] = tm_cached_allocator_create(tm_host_allocator(), NULL, NULL);
  cached[1] = tm_cached_allocator_create(pool, NULL, NULL);
  cached[2] = tm_cached_allocator_create(tm_pinned_allocator(), NULL, NULL);
  adapted = make_adapted();
  TM_CHECK(pool != NULL && foreign != NULL && adapted != NULL && dry != NULL);
  TM_CHECK(cached[0] != NULL && cached[1] != NULL && cached[2] != NULL);
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; i++) {
    TM_CHECK_EQ(pthread_create(&threads[i], NULL, hold_locks, (void*)(intptr_t)i), 0);
  }
  for (int i = 0; i < FORKS; i++) {
    fork_once();
  }
  __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
  for (int i = 0; i < THREADS; i++) {
    TM_CHECK_EQ(pthread_join(threads[i], NULL), 0);
  }
  TM_CHECK_OK(tm_stream_sync(stream));
  for (int i = 0; i < 3; i++) {
    tm_allocator_release(cached[i]);
  }
  tm_allocator_release(dry);
  tm_allocator_release(adapted);
  tm_allocator_release(foreign);
  tm_allocator_release(pool);
  tm_stream_release(stream);
  printf("%d forks among %d threads\n", FORKS, THREADS);
  return 0;
}
