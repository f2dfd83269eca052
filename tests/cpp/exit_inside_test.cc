// exit() and the end of a thread inside scopes: what globals and thread-locals hold is destroyed
// while it is current, and that is no mistake. It passes by exiting 0: a child for each way out.

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "tests/cpp/support.hpp"

namespace {

enum { EXIT_STATUS = 3 };

tmcore::allocator arena;
tmcore::context own;
tmcore::context token;
tmcore::context moved;

void make_globals() {
  arena = tmcore::stack_allocator(tmcore::host_allocator());
  own = tmcore::context::create();
  const tmcore::context_guard guard{arena};
  token = tmcore::context::capture();
  moved = tmcore::context::capture_move();
}

[[noreturn]] void inside_an_allocator() {
  const tmcore::context_guard guard{arena, tmcore::host_allocator()};
  std::exit(EXIT_STATUS);
}

[[noreturn]] void inside_one_of_a_function() {
  static const tmcore::allocator of_function = tmcore::stack_allocator(tmcore::host_allocator());
  const tmcore::context_guard guard{of_function};
  std::exit(EXIT_STATUS);
}

[[noreturn]] void inside_contexts() {
  const tmcore::context_guard guard{own, token, moved, token, arena};
  std::exit(EXIT_STATUS);
}

// What runs after exit() has been called uses memory of its own.
[[noreturn]] void with_a_handler_that_allocates() {
  (void)std::atexit([] {
    tmcore::tensor late({100}, TM_F32, TM_CPU);
    TM_CHECK(tm_current_allocator(TM_CPU) == tm_host_allocator());
  });
  const tmcore::context_guard guard{token, arena};
  std::exit(EXIT_STATUS);
}

[[noreturn]] void by_returning_with_an_entry_that_stays() {
  static tm_frame frame;
  tm_push_allocator(&frame, arena.get());
  std::exit(EXIT_STATUS);
}

[[noreturn]] void while_another_thread_runs_on() {
  static std::atomic<bool> entered;
  std::thread([] {
    const tmcore::context_guard guard{own};
    entered = true;
    for (;;) pause();
  }).detach();
  while (!entered) std::this_thread::yield();
  std::exit(EXIT_STATUS);
}

// The same with one that a global closes when it is destroyed.
[[noreturn]] void while_a_static_guard_is_open() {
  static const tmcore::context_guard guard{own, token, arena, tmcore::host_allocator()};
  std::exit(EXIT_STATUS);
}

// A thread may be inside a context that is destroyed before what ran its first scope.
[[noreturn]] void while_another_thread_is_in_a_later_context() {
  static std::atomic<bool> entered;
  static const tmcore::context late = tmcore::context::create();
  std::thread([] {
    const tmcore::context_guard guard{late};
    entered = true;
    for (;;) pause();
  }).detach();
  while (!entered) std::this_thread::yield();
  std::exit(EXIT_STATUS);
}

// A moved token is left as it was by a thread that ends with scopes open in it.
[[noreturn]] void by_a_thread_that_leaves_scopes() {
  std::thread([] {
    static tm_frame frames[2];
    (void)tm_frame_open_context_(&frames[0], moved.get(), nullptr, __FILE__, __LINE__);
    tm_push_allocator(&frames[1], tm_host_allocator());
  }).join();
  const tmcore::context_guard guard{moved};
  TM_CHECK_EQ(tm_context_depth(), 0u);
  TM_CHECK_EQ(tm_trace_depth(), 0u);
  TM_CHECK(tm_current_allocator(TM_CPU) == arena.get());
  std::exit(EXIT_STATUS);
}

// Destructors of thread-specific data run after the thread has left its scopes.
[[noreturn]] void by_a_thread_whose_destructor_closes_a_scope() {
  static pthread_key_t key;
  (void)pthread_key_create(&key, [](void* frame) { tm_pop(static_cast<tm_frame*>(frame)); });
  std::thread([] {
    static tm_frame frame;
    tm_push_allocator(&frame, arena.get());
    (void)pthread_setspecific(key, &frame);
  }).join();
  std::exit(EXIT_STATUS);
}

int run_in_a_child(void (*way_out)()) {
  const pid_t child = fork();
  if (child == 0) {
    make_globals();
    way_out();
  }
  int status = -1;
  TM_CHECK_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace

int main() {  // NOLINT(bugprone-exception-escape): that would fail the test
  void (*const ways_out[])() = {
      inside_an_allocator,
      inside_one_of_a_function,
      inside_contexts,
      with_a_handler_that_allocates,
      by_returning_with_an_entry_that_stays,
      while_another_thread_runs_on,
      while_a_static_guard_is_open,
      while_another_thread_is_in_a_later_context,
      by_a_thread_that_leaves_scopes,
      by_a_thread_whose_destructor_closes_a_scope,
  };
  int mistakes = 0;
  for (size_t i = 0; i < sizeof ways_out / sizeof *ways_out; i++) {
    const int status = run_in_a_child(ways_out[i]);
    if (status != EXIT_STATUS) {
      std::printf("way out %zu: %d\n", i, status);
      mistakes++;
    }
  }
  return mistakes;
}
