// Handles of one object on many threads: counts are atomic, contexts are each thread's own.

#include <thread>
#include <vector>

#include "tests/cpp/support.hpp"

namespace {

enum { THREADS = 4, ROUNDS = 500 };

void shared_memory_is_freed_once() {
  counting_upstream upstream;
  const tmcore::allocator shared = tmcore::allocator::share(upstream.get());
  std::vector<std::thread> threads;
  {
    const tmcore::tensor_<int> x({ROUNDS}, shared);
    for (int t = 0; t < THREADS; t++) {
      threads.emplace_back([x, shared] {
        for (int i = 0; i < ROUNDS; i++) {
          const tmcore::tensor_<int> part = x.slice(i, 1);
          const tmcore::context_guard guard{tmcore::allocator(shared)};
          TM_CHECK(tmcore::current_allocator(TM_CPU) == shared);
          TM_CHECK_EQ(part.size(), 1);
        }
        TM_CHECK(tmcore::current_allocator(TM_CPU) == tmcore::host_allocator());
      });
    }
  }  // the threads may outlive it
  for (std::thread& thread : threads) {
    thread.join();
  }
}

// Freed on another thread than the one that has made it: a stack takes it back later.
void tensors_move_between_threads() {
  const tmcore::allocator stack = tmcore::stack_allocator(tmcore::host_allocator());
  for (int i = 0; i < ROUNDS / 10; i++) {
    tmcore::tensor_<int> x({100}, stack);
    x.data()[99] = i;
    std::thread([i, moved = std::move(x)] { TM_CHECK_EQ(moved.data()[99], i); }).join();
  }
  const tmcore::tensor last({100}, TM_I32, stack);
  TM_CHECK_EQ(stack.stats().live_blocks, 1u);
}

}  // namespace

int main() {
  RUN_TEST(shared_memory_is_freed_once);
  RUN_TEST(tensors_move_between_threads);
  return 0;
}
