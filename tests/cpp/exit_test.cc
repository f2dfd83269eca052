// Globals and thread-locals: destroyed after main, in whatever order, and when a thread ends. It
// passes by exiting 0, with nothing left on the host (AddressSanitizer's leak check says so).

#include <cstdio>
#include <cstdlib>
#include <thread>

#include "tests/cpp/support.hpp"

namespace {

// Destroyed last to first: the memory before its allocator and stream, and, in the second group,
// after them.
tmcore::tensor early_tensor;
tmcore::buffer early_buffer;
tmcore::stream stream;
tmcore::event event;
tmcore::allocator arena;
tmcore::tensor late_tensor;
// Made before main.
tmcore::tensor_<float> late_host({3, 4}, tmcore::host_allocator());  // NOLINT(cert-err58-cpp)
tmcore::context own;

thread_local tmcore::tensor of_thread;
thread_local tmcore::allocator arena_of_thread;
thread_local tmcore::context context_of_thread;

void use_thread_locals() {
  arena_of_thread = tmcore::stack_allocator(tmcore::host_allocator());
  context_of_thread = tmcore::context::create();
  const tmcore::context_guard guard{context_of_thread, arena_of_thread};
  of_thread = tmcore::tensor({100}, TM_F32, TM_CPU);
}

void use_host() {
  arena = tmcore::stack_allocator(tmcore::host_allocator());
  early_tensor = tmcore::tensor({100}, TM_F32, arena);
  late_tensor = early_tensor;
  early_buffer = tmcore::buffer(5, TM_I64, arena);
  own = tmcore::context::create();
}

void use_device() {
  stream = tmcore::stream::create(0);
  event = tmcore::event::create(0);
  event.record(stream);
  arena = tmcore::stack_allocator(tmcore::cuda_pool_allocator(stream), stream);
  const tmcore::context_guard guard{stream, arena};
  early_tensor = tmcore::tensor({100}, TM_F32, TM_DEVICE);
  late_tensor = tmcore::tensor({100}, TM_F32, tmcore::cuda_allocator(0));
  early_buffer = tmcore::buffer(5, TM_I64, tmcore::pinned_allocator());
  static tmcore::tensor of_function = early_tensor;
  tmcore::clear(of_function);
}

}  // namespace

int main() {  // NOLINT(bugprone-exception-escape): that would fail the test
  use_host();
  use_thread_locals();
  std::thread(use_thread_locals).join();
  int32_t devices;
  if (tm_device_count(&devices) == TM_OK) {
    use_device();
  } else {
    std::printf("SKIPPED: the device's part: %s\n", tm_last_error()->message);
  }
  TM_CHECK(late_host && early_tensor);
  return 0;
}
