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

// A task takes the caller's context along by copying a handle.
void captured_contexts_go_along_with_tasks() {
  counting_upstream upstream;
  const tmcore::allocator shared = tmcore::allocator::share(upstream.get());
  tmcore::context token;
  {
    const tmcore::allocator arena = tmcore::stack_allocator(shared);
    const tmcore::context_guard guard{arena};
    token = tmcore::context::capture();
  }
  std::vector<std::thread> threads;
  threads.reserve(THREADS);
  for (int t = 0; t < THREADS; t++) {
    threads.emplace_back([token, shared] {
      const tmcore::context_guard guard{token};
      TM_CHECK(tmcore::current_allocator(TM_CPU) == shared);  // in the arena's place
      TM_CHECK_EQ(tmcore::tensor({10}, TM_I32, TM_CPU).size(), 10);
    });
  }
  token = {};  // the threads hold theirs
  for (std::thread& thread : threads) {
    thread.join();
  }
}

void arenas_go_along_with_one_task() {
  const tmcore::allocator arena = tmcore::stack_allocator(tmcore::host_allocator());
  const tmcore::tensor_<int> x({3}, arena);
  x.data()[2] = 7;
  {
    const tmcore::context_guard guard{arena};
    std::thread([token = tmcore::context::capture_move(), &arena] {
      const tmcore::context_guard inside{token};
      TM_CHECK(tmcore::current_allocator(TM_CPU) == arena);
      const tmcore::tensor_<int> y({3}, TM_CPU);
      TM_CHECK_EQ(arena.stats().live_blocks, 2u);
    }).join();
  }
  TM_CHECK_EQ(arena.stats().live_blocks, 1u);  // it is here again
  TM_CHECK_EQ(x.data()[2], 7);
}

}  // namespace

int main() {
  RUN_TEST(shared_memory_is_freed_once);
  RUN_TEST(tensors_move_between_threads);
  RUN_TEST(captured_contexts_go_along_with_tasks);
  RUN_TEST(arenas_go_along_with_one_task);
  return 0;
}
