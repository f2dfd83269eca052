// A forked child whose parent used CUDA: it has no device, whatever it inherited, and goes on with
// host memory. It says on stderr what did not hold; the parent goes on as if nothing were.

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/machine.h"
#include "tests/support/sanitizers.h"
#include "tm/alloc/callback.h"
#include "tm/alloc/cuda.h"
#include "tm/alloc/cuda_pool.h"
#include "tm/alloc/event.h"
#include "tm/alloc/host.h"
#include "tm/alloc/pinned.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/stream.h"
#include "tm/context/context.h"
#include "tm/tensor/copy.h"

enum { LARGE = 64 << 20 };  // bytes: over what any stack here holds

static tm_stream* stream;
static tm_event* event;

//===-- What is inherited -----------------------------------------------------------===//

static tm_allocator* create_cuda(void) { return tm_cuda_allocator(0); }
static tm_allocator* create_pool(void) { return tm_cuda_pool_allocator_create(stream, NULL); }

static tm_allocator* create_stack_over_cuda(void) {
  return tm_stack_allocator_create(tm_cuda_allocator(0), stream, NULL);
}

static tm_allocator* create_stack_over_pool(void) {
  tm_auto_allocator pool = create_pool();
  return tm_stack_allocator_create(pool, NULL, NULL);
}

static tm_allocator* create_stack_over_pinned(void) {
  return tm_stack_allocator_create(tm_pinned_allocator(), stream, NULL);
}

static tm_status ask(size_t size, tm_stream* on, void** out, void* user) {
  return tm_allocator_alloc(user, size, on, out);
}

static void give(void* ptr, size_t size, tm_stream* on, void* user) {
  tm_allocator_free(user, ptr, size, on);
}

static void drop(void* user) { tm_allocator_release(user); }

static tm_allocator* create_callback(void) {
  return tm_callback_allocator_create(&(tm_callback_options){.device = {TM_DEVICE, 0},
                                                             .stream = stream,
                                                             .alloc = ask,
                                                             .free = give,
                                                             .destroy_user = drop,
                                                             .user = create_pool()});
}

static tm_allocator* (*const creators[])(void) = {
    create_cuda,     create_pool,         create_stack_over_cuda,   create_stack_over_pool,
    create_callback, tm_pinned_allocator, create_stack_over_pinned,
};

enum { KINDS = sizeof creators / sizeof *creators };

typedef struct inheritance {
  tm_allocator* allocator;
  tm_tensor tensor;
  void* block;
} inheritance;

static inheritance inherit(int kind) {
  inheritance i = {.allocator = creators[kind]()};
  cr_assert(i.allocator != NULL, "%s", tm_last_error()->message);
  i.tensor = tm_empty_from(i.allocator, TM_SHAPE(100), TM_F32);
  cr_assert(tm_ok(&i.tensor), "%s", tm_last_error()->message);
  cr_assert(eq(int, tm_allocator_alloc(i.allocator, 1000, NULL, &i.block), TM_OK));
  return i;
}

static void let_go(inheritance* i) {
  tm_release(&i->tensor);
  tm_allocator_free(i->allocator, i->block, 1000, NULL);
  tm_allocator_release(i->allocator);
}

//===-- The child -------------------------------------------------------------------===//

// Ends the child, with a message, where something does not hold.
#define MUST(condition)                                                                \
  do {                                                                                 \
    if (!(condition)) {                                                                \
      fprintf(stderr, "%s:%d: in the child: %s: %s\n", __FILE__, __LINE__, #condition, \
              tm_last_error()->message);                                               \
      _exit(1);                                                                        \
    }                                                                                  \
  } while (0)

static void expect_unavailable(tm_allocator* allocator) {
  void* block = &block;
  MUST(tm_allocator_alloc(allocator, LARGE, NULL, &block) == TM_ERR_UNAVAILABLE && !block);
  MUST(strstr(tm_last_error()->message, "fork"));
  tm_auto_tensor tensor = tm_empty_from(allocator, TM_SHAPE(LARGE), TM_U8);
  MUST(!tm_ok(&tensor) && tm_last_status() == TM_ERR_UNAVAILABLE);
}

static void expect_no_streams(void) {
  bool done = true;
  MUST(tm_stream_sync(stream) == TM_ERR_UNAVAILABLE);
  MUST(tm_stream_query(stream, &done) == TM_ERR_UNAVAILABLE && !done);
  MUST(tm_stream_wait(stream, event) == TM_ERR_UNAVAILABLE);
  MUST(tm_event_record(event, stream) == TM_ERR_UNAVAILABLE);
  MUST(tm_event_sync(event) == TM_ERR_UNAVAILABLE);
  MUST(!tm_stream_create(0, 0) && tm_last_status() == TM_ERR_UNAVAILABLE);
  MUST(!tm_event_create(0, false) && tm_last_status() == TM_ERR_UNAVAILABLE);
  MUST(!tm_cuda_allocator(0) && tm_last_status() == TM_ERR_UNAVAILABLE);
}

static void expect_host_memory(void) {
  tm_auto_allocator stack = tm_stack_allocator_create(tm_host_allocator(), NULL, NULL);
  TM_WITH_ALLOCATOR(stack) {
    tm_auto_tensor x = tm_empty(TM_SHAPE(1000), TM_I32, TM_CPU);
    MUST(tm_ok(&x) && tm_clear(&x) == TM_OK && TM_DATA(int32_t, &x)[999] == 0);
  }
}

static void live_as_child(inheritance* all) {
  expect_no_streams();
  for (int kind = 0; kind < KINDS; kind++) {
    expect_unavailable(all[kind].allocator);
    if (all[kind].tensor.device.type == TM_DEVICE) {
      MUST(tm_clear(&all[kind].tensor) == TM_ERR_UNAVAILABLE);
    }
    let_go(&all[kind]);
  }
  tm_event_release(event);
  expect_host_memory();
}

static void expect_child_ends_well(pid_t child) {
  int status = -1;
  cr_assert(waitpid(child, &status, 0) == child);
  cr_expect(eq(int, WTERMSIG(status), 0), "the child ended by a signal");
  cr_expect(eq(int, WEXITSTATUS(status), 0));
}

// The child also leaves the scopes that were open at the fork.
Test(fork, a_child_has_no_device_and_lets_go_of_all_it_inherited) {
  machine_configure(1, "256MiB");
  machine_require_devices(1);
  stream = tm_stream_create(0, 0);
  event = tm_event_create(0, false);
  cr_assert(stream && event);
  inheritance all[KINDS];
  for (int kind = 0; kind < KINDS; kind++) {
    all[kind] = inherit(kind);
  }
  pid_t child = -1;
  TM_WITH_STREAM(stream)
  TM_WITH_ALLOCATOR(tm_pinned_allocator())
  TM_WITH_ALLOCATOR(all[1].allocator) {
    child = fork();
    cr_assert(child >= 0);
    if (child == 0) {
      tm_auto_tensor nothing = tm_empty(TM_SHAPE(10), TM_F32, TM_DEVICE);
      MUST(!tm_ok(&nothing) && tm_last_status() == TM_ERR_UNAVAILABLE);
    }
  }
  if (child == 0) {
    live_as_child(all);
    MUST(tm_context_depth() == 0 && !tm_current_allocator(TM_DEVICE));
    tm_stream_release(stream);
    _exit(0);
  }
  expect_child_ends_well(child);
  for (int kind = 0; kind < KINDS; kind++) {
    let_go(&all[kind]);
  }
  cr_expect(eq(int, tm_stream_sync(stream), TM_OK));
  cr_expect(eq(i64, machine_live_allocations(0), 0));
  tm_event_release(event);
  tm_stream_release(stream);
}

Test(fork, a_child_of_a_process_that_used_no_device_has_its_own) {
  if (UNDER_TSAN) machine_skip("ThreadSanitizer lets no forked child start threads");
  machine_require_calls_that_do_not_wait();  // of the child
  machine_configure(1, "256MiB");
  const pid_t child = fork();
  cr_assert(child >= 0);
  if (child == 0) {
    int32_t count = 0;
    if (tm_device_count(&count) != TM_OK) _exit(0);  // a machine without one
    stream = tm_stream_create(0, 0);
    inheritance i = inherit(3);
    TM_WITH_STREAM(stream) MUST(tm_clear(&i.tensor) == TM_OK);
    let_go(&i);
    MUST(tm_stream_sync(stream) == TM_OK);
    tm_stream_release(stream);
    _exit(0);
  }
  expect_child_ends_well(child);
}
