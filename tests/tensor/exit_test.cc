// Tensors that outlive main: globals of C++ made before and after the first device call,
// thread-local ones, those of exit handlers and of a destructor function, while another thread goes
// on. From our exit handler on, device frees do nothing. It passes by exiting 0, with no report of
// a sanitizer.

#include <pthread.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tm/alloc/cached.h"
#include "tm/alloc/cuda.h"
#include "tm/alloc/cuda_pool.h"
#include "tm/alloc/device.h"
#include "tm/alloc/host.h"
#include "tm/alloc/pinned.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/stream.h"
#include "tm/context/context.h"
#include "tm/tensor/copy.h"
#include "tm/tensor/tensor.h"

namespace {

bool has_devices;

[[noreturn]] void fail(const char* what) {
  fprintf(stderr, "FAILED: %s: %s\n", what, tm_last_error()->message);
  _exit(1);
}

constexpr int kinds = 8;

// One tensor of each kind, with the allocators they come from.
class holder {
 public:
  holder() noexcept {
    for (tm_tensor& tensor : tensors_) tensor = tm_null();
  }
  holder(const holder&) = delete;
  holder& operator=(const holder&) = delete;
  ~holder() { let_go(); }

  tm_allocator* allocator(unsigned i) const { return allocators_[i % kinds]; }

  void take() {
    stream_ = tm_stream_create(0, 0);
    allocators_[0] = tm_cuda_allocator(0);
    allocators_[1] = tm_cuda_pool_allocator_create(stream_, nullptr);
    allocators_[2] = tm_stack_allocator_create(allocators_[1], nullptr, nullptr);
    allocators_[3] = tm_stack_allocator_create(tm_cuda_allocator(0), stream_, nullptr);
    allocators_[4] = tm_pinned_allocator();
    allocators_[5] = tm_stack_allocator_create(tm_host_allocator(), nullptr, nullptr);
    allocators_[6] = tm_cached_allocator_create(tm_cuda_allocator(0), stream_, nullptr);
    allocators_[7] = tm_cached_allocator_create(tm_pinned_allocator(), nullptr, nullptr);
    TM_USE_STREAM(stream_);
    for (int i = 0; i < kinds; i++) {
      tensors_[i] = tm_empty_from(allocators_[i], TM_SHAPE(1000), TM_F32);
      if (!tm_ok(&tensors_[i])) fail("a tensor");
      if (tm_clear(&tensors_[i]) != TM_OK) fail("a fill");
    }
  }

  void let_go() {
    for (int i = kinds - 1; i >= 0; i--) {
      tm_release(&tensors_[i]);
      tm_allocator_release(allocators_[i]);
      allocators_[i] = nullptr;
    }
    tm_stream_release(stream_);
    stream_ = nullptr;
  }

 private:
  tm_stream* stream_ = nullptr;
  tm_allocator* allocators_[kinds] = {};
  tm_tensor tensors_[kinds];
};

holder before_first_use;
holder* of_destructor_function;  // its destructor never runs
holder of_early_handler;
holder of_late_handler;
thread_local holder of_thread;

void expect_exiting() {
  if (tm_device_sync(0) != TM_ERR_UNAVAILABLE) fail("a device call while exiting");
  if (!strstr(tm_last_error()->message, "exiting")) fail("what it says");
  tm_tensor host = tm_empty(TM_SHAPE(1000), TM_F32, TM_CPU);
  if (!tm_ok(&host) || tm_clear(&host) != TM_OK) fail("host memory while exiting");
  tm_release(&host);
}

// Runs after the library's own handler, which is registered at the first device call.
void early_handler() {
  if (has_devices) expect_exiting();
  of_early_handler.let_go();
}

// Runs before it: the devices are still there.
void late_handler() {
  if (tm_device_sync(0) != TM_OK) fail("a device call in a handler registered later");
  of_late_handler.let_go();
}

__attribute__((destructor)) void at_the_very_end() {
  if (has_devices) expect_exiting();
  if (of_destructor_function) of_destructor_function->let_go();
}

bool thread_is_busy;

void* never_stop(void* /*unused*/) {
  holder own;
  own.take();
  for (unsigned i = 0;; i++) {
    tm_tensor tensor = tm_empty_from(own.allocator(i), TM_SHAPE(500), TM_F32);
    if (!tm_ok(&tensor) && tm_last_status() != TM_ERR_UNAVAILABLE) fail("the other thread");
    tm_release(&tensor);
    __atomic_store_n(&thread_is_busy, i > 100, __ATOMIC_RELEASE);
  }
  return nullptr;
}

void* end_with_thread_locals(void* /*unused*/) {
  of_thread.take();
  return nullptr;
}

void start_threads() {
  pthread_t thread;
  if (pthread_create(&thread, nullptr, end_with_thread_locals, nullptr) != 0) fail("a thread");
  pthread_join(thread, nullptr);
  if (pthread_create(&thread, nullptr, never_stop, nullptr) != 0) fail("a thread");
  pthread_detach(thread);
  while (!__atomic_load_n(&thread_is_busy, __ATOMIC_ACQUIRE)) usleep(100);
}

}  // namespace

int main() {
  int32_t count;
  if (atexit(early_handler) != 0) return 1;
  if (tm_device_count(&count) != TM_OK) {
    printf("SKIPPED: %s\n", tm_last_error()->message);
    return 0;
  }
  has_devices = true;
  if (atexit(late_handler) != 0) return 1;
  static holder after_first_use;
  of_destructor_function = new holder;
  holder* const all[] = {&before_first_use, of_destructor_function, &of_early_handler,
                         &of_late_handler,  &after_first_use,       &of_thread};
  for (holder* one : all) one->take();
  start_threads();
  printf("main has returned\n");
  return 0;
}
