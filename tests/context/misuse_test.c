// Entries whose allocator, function, handler or stack is gone: told, with the place, and never
// followed.

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "tests/support/counting_allocator.h"
#include "tests/support/expect_fatal.h"
#include "tests/support/machine.h"
#include "tm/alloc/host.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/stream.h"
#include "tm/base/trace.h"
#include "tm/context/context.h"

static jmp_buf back;

//===-- Destroying what is pushed -----------------------------------------===//

static const char* place_at(int line) {
  static char place[64];
  snprintf(place, sizeof place, "misuse_test.c:%d has made current", line);
  return place;
}

Test(misuse, destroying_an_allocator_that_is_pushed_is_caught_with_the_place) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  tm_frame frame;
  const int line = __LINE__ + 1;
  tm_push_allocator(&frame, &upstream.base);
  EXPECT_FATAL(tm_allocator_release(&upstream.base), place_at(line));
  cr_expect(upstream.destroyed == false);
  tm_pop(&frame);
}

Test(misuse, destroying_a_stack_that_is_pushed_is_caught) {
  tm_allocator* stack = tm_stack_allocator_create(tm_host_allocator(), NULL, NULL);
  TM_WITH_ALLOCATOR(stack) EXPECT_FATAL(tm_allocator_release(stack), "a stack is destroyed that");
}

Test(misuse, destroying_an_allocator_that_another_hides_is_caught) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  const int line = __LINE__ + 1;
  TM_WITH_ALLOCATOR(&upstream.base)
  TM_WITH_ALLOCATOR(tm_host_allocator())
  TM_WITH_STREAM(NULL) EXPECT_FATAL(tm_allocator_release(&upstream.base), place_at(line));
}

Test(misuse, destroying_an_allocator_that_an_outer_context_holds_is_caught) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  tm_context* inner = tm_context_create();
  const int line = __LINE__ + 1;
  TM_WITH_ALLOCATOR(&upstream.base)
  TM_WITH_CONTEXT(inner) EXPECT_FATAL(tm_allocator_release(&upstream.base), place_at(line));
  tm_context_release(inner);
}

Test(misuse, destroying_a_stream_that_is_pushed_is_caught) {
  machine_require_devices(1);
  tm_stream* stream = tm_stream_create(0, 0);
  const int line = __LINE__ + 1;
  TM_WITH_STREAM(stream) EXPECT_FATAL(tm_stream_release(stream), place_at(line));
}

Test(misuse, releasing_one_of_several_references_is_not) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  TM_WITH_ALLOCATOR(tm_allocator_retain(&upstream.base)) {
    tm_allocator_release(&upstream.base);
    cr_expect(upstream.destroyed == false);
  }
  tm_allocator_release(&upstream.base);
  cr_expect(upstream.destroyed);
}

Test(misuse, what_was_popped_may_be_destroyed) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  TM_WITH_ALLOCATOR(tm_host_allocator()) {
    TM_WITH_OWNED_ALLOCATOR(&upstream.base) cr_expect(upstream.destroyed == false);
    cr_expect(upstream.destroyed);
  }
}

//===-- Handlers that longjmp left ----------------------------------------===//

static int asked;

static bool relieve(const tm_oom_request* request, void* user) {
  (void)request;
  (void)user;
  asked++;
  return false;
}

static tm_status run_out(void) {
  tm_storage* storage = NULL;
  return tm_context_alloc(NULL, tm_device_make(TM_CPU, 0), 4096, &storage);
}

// A sanitizer that keeps locals on the heap would hide that the function is gone.
__attribute__((no_sanitize_address)) static void open_a_handler_and_jump(void) {
  TM_USE_OOM_HANDLER(relieve, NULL);
  longjmp(back, 1);
}

static void (*volatile open_and_jump)(void) = open_a_handler_and_jump;

// Opens the handler's scope `pages` below its caller and jumps over it.
__attribute__((noinline)) static void jump_from(int pages) {
  volatile char page[4096];
  page[0] = (char)pages;
  if (pages > 0) {
    jump_from(pages - 1);
  } else {
    open_and_jump();
  }
  page[1] = page[0];
}

__attribute__((noinline)) static void leave_a_handler(int pages) {
  if (!setjmp(back)) {
    jump_from(pages);
  }
}

static void expect_handler_is_not_asked(int pages) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  upstream.budget = 0;
  const tm_context_mark mark = tm_context_save();
  tm_frame frame;
  tm_push_allocator(&frame, &upstream.base);
  leave_a_handler(pages);
  EXPECT_FATAL((void)!run_out(), "out-of-memory handler is asked whose scope was left");
  cr_expect(eq(int, asked, 0));
  (void)tm_context_restore(&mark);
}

Test(misuse, a_handler_left_just_below_is_not_asked) { expect_handler_is_not_asked(0); }

Test(misuse, a_handler_left_far_below_is_not_asked) { expect_handler_is_not_asked(40); }

// Fills what the frames that are gone have left, and runs out of memory from a frame among them.
__attribute__((noinline)) static void run_out_among_what_was_left(int pages) {
  volatile char page[4096];
  for (size_t i = 0; i < sizeof page; i++) page[i] = 0x41;
  if (pages > 0) {
    run_out_among_what_was_left(pages - 1);
  } else {
    (void)!run_out();
  }
  page[0] = 0;
}

Test(misuse, a_handler_that_was_overwritten_is_not_asked) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  upstream.budget = 0;
  const tm_context_mark mark = tm_context_save();
  tm_frame frame;
  tm_push_allocator(&frame, &upstream.base);
  leave_a_handler(3);
  EXPECT_FATAL(run_out_among_what_was_left(20), "out-of-memory handler is asked whose scope");
  cr_expect(eq(int, asked, 0));
  (void)tm_context_restore(&mark);
}

Test(misuse, a_handler_of_a_frame_that_still_runs_is_asked_from_any_depth) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  upstream.budget = 0;
  TM_WITH_ALLOCATOR(&upstream.base)
  TM_WITH_OOM_HANDLER(relieve, NULL) run_out_among_what_was_left(40);
  cr_expect(eq(int, asked, 1));
}

//===-- Stacks that are gone ----------------------------------------------===//

static ucontext_t scheduler;
static ucontext_t fiber;

// Leaves an entry and a scope open on its stack, in the thread's own context.
static void run_fiber(void) {
  tm_frame frame;
  TM_SCOPE("on the fiber");
  tm_push_allocator(&frame, tm_host_allocator());
  swapcontext(&fiber, &scheduler);
}

static void run_and_unmap_a_fiber(void) {
  enum { SIZE = 256 * 1024 };
  void* stack = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  cr_assert(stack != MAP_FAILED);
  getcontext(&fiber);
  fiber.uc_stack.ss_sp = stack;
  fiber.uc_stack.ss_size = SIZE;
  fiber.uc_link = &scheduler;
  makecontext(&fiber, run_fiber, 0);
  swapcontext(&scheduler, &fiber);
  cr_assert(eq(int, munmap(stack, SIZE), 0));
}

Test(misuse, an_entry_on_a_stack_that_is_not_mapped_any_more_is_told) {
  const tm_context_mark mark = tm_context_save();
  tm_frame outer;
  tm_push_allocator(&outer, tm_host_allocator());
  run_and_unmap_a_fiber();
  EXPECT_FATAL(tm_pop(&outer), "whose function was left without closing it");
  cr_expect(strstr(expect_fatal_message, "misuse_test.c:") != NULL);
  cr_expect(eq(sz, tm_context_restore(&mark), 2));
}

Test(misuse, running_out_and_destroying_do_not_follow_such_an_entry) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  const tm_context_mark mark = tm_context_save();
  run_and_unmap_a_fiber();
  tm_allocator_release(&upstream.base);  // what it is not known to hold may go
  cr_expect(upstream.destroyed);
  cr_expect(tm_stream_sync(NULL) != TM_OK);
  cr_expect(strstr(tm_last_error()->trace, "left without closing") != NULL);
  cr_expect(eq(sz, tm_context_restore(&mark), 1));
}
