// The thread's context: scopes, lookup, misuse, objects, longjmp.

#include "tm/context/context.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include "tests/support/counting_allocator.h"
#include "tests/support/expect_fatal.h"
#include "tm/alloc/host.h"
#include "tm/alloc/stack.h"
#include "tm/base/trace.h"
#include "tm/log.h"

// Allocators that only say where they are; the context never calls them.
static tm_allocator fakes[3][3];  // by device type and number

static tm_allocator* fake(tm_device_type type, int id) {
  static const tm_allocator_vtable vtable = {.name = "fake"};
  tm_allocator* allocator = &fakes[type][id];
  tm_allocator_init_(allocator, &vtable, tm_device_make(type, type == TM_DEVICE ? id : 0), NULL);
  return allocator;
}

static tm_stream* stream_at(int n) { return (tm_stream*)(uintptr_t)(0x1000 * (n + 1)); }

#define EXPECT_CURRENT(type, expected) cr_expect(eq(ptr, tm_current_allocator(type), expected))

Test(context, a_new_thread_has_the_host_allocator_only) {
  EXPECT_CURRENT(TM_CPU, tm_host_allocator());
  EXPECT_CURRENT(TM_CPU_PINNED, NULL);
  EXPECT_CURRENT(TM_DEVICE, NULL);
  cr_expect(tm_current_stream() == NULL);
  cr_expect(eq(sz, tm_context_depth(), 0));
  cr_expect(eq(int, tm_last_status(), TM_OK));  // lookups raise nothing
}

Test(context, a_scope_makes_its_allocator_current_and_restores_what_was) {
  tm_allocator* a = fake(TM_DEVICE, 0);
  tm_allocator* b = fake(TM_DEVICE, 1);
  TM_WITH_ALLOCATOR(a) {
    EXPECT_CURRENT(TM_DEVICE, a);
    TM_WITH_ALLOCATOR(b) { EXPECT_CURRENT(TM_DEVICE, b); }
    EXPECT_CURRENT(TM_DEVICE, a);
  }
  EXPECT_CURRENT(TM_DEVICE, NULL);
}

Test(context, device_types_have_stacks_of_their_own) {
  tm_allocator* device = fake(TM_DEVICE, 0);
  tm_allocator* pinned = fake(TM_CPU_PINNED, 0);
  tm_allocator* host = fake(TM_CPU, 0);
  TM_WITH_ALLOCATOR(device) TM_WITH_ALLOCATOR(pinned) TM_WITH_ALLOCATOR(host) {
    EXPECT_CURRENT(TM_DEVICE, device);
    EXPECT_CURRENT(TM_CPU_PINNED, pinned);
    EXPECT_CURRENT(TM_CPU, host);
  }
  EXPECT_CURRENT(TM_CPU, tm_host_allocator());
}

Test(context, lookup_by_id_finds_the_innermost_on_that_device) {
  tm_allocator* first = fake(TM_DEVICE, 0);
  tm_allocator* second = fake(TM_DEVICE, 1);
  TM_WITH_ALLOCATOR(first) TM_WITH_ALLOCATOR(second) {
    EXPECT_CURRENT(TM_DEVICE, second);
    cr_expect(eq(ptr, tm_current_allocator_on(tm_device_make(TM_DEVICE, 0)), first));
    cr_expect(eq(ptr, tm_current_allocator_on(tm_device_make(TM_DEVICE, 1)), second));
    cr_expect(eq(ptr, tm_current_allocator_on(tm_device_make(TM_DEVICE, -1)), second));
    cr_expect(tm_current_allocator_on(tm_device_make(TM_DEVICE, 2)) == NULL);
    cr_expect(tm_current_allocator_on(tm_device_make(TM_DEVICE, TM_MAX_DEVICES)) == NULL);
    cr_expect(tm_current_allocator_on(tm_device_make(TM_CPU, 1)) == NULL);
    cr_expect(tm_current_allocator((tm_device_type)7) == NULL);
  }
  cr_expect(tm_current_allocator_on(tm_device_make(TM_DEVICE, 0)) == NULL);
}

Test(context, pushing_null_changes_nothing_and_pops_as_one) {
  tm_allocator* a = fake(TM_DEVICE, 0);
  TM_WITH_ALLOCATOR(a) TM_WITH_ALLOCATOR(NULL) TM_WITH_STREAM(NULL) {
    EXPECT_CURRENT(TM_DEVICE, a);
    cr_expect(eq(sz, tm_context_depth(), 3));
  }
  cr_expect(eq(sz, tm_context_depth(), 0));
}

Test(context, streams_nest) {
  TM_WITH_STREAM(stream_at(1)) {
    cr_expect(eq(ptr, tm_current_stream(), stream_at(1)));
    TM_WITH_STREAM(stream_at(2)) cr_expect(eq(ptr, tm_current_stream(), stream_at(2)));
    cr_expect(eq(ptr, tm_current_stream(), stream_at(1)));
  }
  cr_expect(tm_current_stream() == NULL);
}

Test(context, guards_hold_until_the_end_of_their_block) {
  {
    TM_USE_ALLOCATOR(fake(TM_DEVICE, 0));
    TM_USE_STREAM(stream_at(1));
    EXPECT_CURRENT(TM_DEVICE, &fakes[TM_DEVICE][0]);
    cr_expect(eq(ptr, tm_current_stream(), stream_at(1)));
  }
  cr_expect(eq(sz, tm_context_depth(), 0));
  EXPECT_CURRENT(TM_DEVICE, NULL);
}

static int evaluated;

static tm_allocator* evaluate(void) {
  evaluated++;
  return fake(TM_DEVICE, 0);
}

Test(context, arguments_are_evaluated_once) {
  TM_WITH_ALLOCATOR(evaluate()) {}
  cr_expect(eq(int, evaluated, 1));
}

static int leave(int how) {
  int n = 0;
  for (int i = 0; i < 2; i++) {
    TM_WITH_STREAM(stream_at(0))
    TM_WITH_ALLOCATOR(fake(TM_DEVICE, 0)) {
      n++;
      if (how == 0) {
        return n;
      }
      if (how == 1) {
        break;  // leaves this block only
      }
      if (how == 2) {
        continue;
      }
      if (how == 3) {
        goto out;
      }
    }
  }
out:
  return n;
}

Test(context, every_way_out_of_a_block_restores_the_depth) {
  const int ran[] = {1, 2, 2, 1, 2};
  for (int how = 0; how < 5; how++) {
    cr_expect(eq(int, leave(how), ran[how]));
    cr_expect(eq(sz, tm_context_depth(), 0));
    EXPECT_CURRENT(TM_DEVICE, NULL);
  }
}

Test(context, is_one_statement_after_if_without_braces) {
  int ran = 0;
  if (ran)
    TM_WITH_ALLOCATOR(fake(TM_DEVICE, 0)) ran = 1;
  else
    TM_WITH_ALLOCATOR(fake(TM_DEVICE, 1)) ran = 2;
  cr_expect(eq(int, ran, 2));
}

static void nest(int depth) {
  if (depth == 0) {
    cr_expect(eq(ptr, tm_current_allocator_on(tm_device_make(TM_DEVICE, 1)), &fakes[TM_DEVICE][1]));
    cr_expect(eq(sz, tm_context_depth(), 4096));
    return;
  }
  TM_WITH_ALLOCATOR(&fakes[TM_DEVICE][depth % 2]) nest(depth - 1);
}

Test(context, depth_is_unbounded) {
  fake(TM_DEVICE, 0);
  fake(TM_DEVICE, 1);
  nest(4096);
  cr_expect(eq(sz, tm_context_depth(), 0));
}

Test(context, owned_allocators_are_released_when_their_scope_closes) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  tm_storage* outlives = NULL;
  TM_WITH_OWNED_ALLOCATOR(tm_stack_allocator_create(&upstream.base, NULL, NULL)) {
    cr_assert(eq(int, tm_context_alloc(NULL, tm_device_make(TM_CPU, 0), 100, &outlives), TM_OK));
  }
  EXPECT_CURRENT(TM_CPU, tm_host_allocator());
  tm_allocator_release(&upstream.base);
  cr_expect(not(upstream.destroyed));
  tm_storage_release(outlives);
  cr_expect(upstream.destroyed);
}

Test(context, what_needs_an_allocator_or_stream_names_the_one_that_is_missing) {
  tm_storage* storage = NULL;
  cr_expect(eq(int, tm_context_alloc(NULL, tm_device_make(TM_CPU_PINNED, 0), 8, &storage),
               TM_ERR_UNAVAILABLE));
  cr_expect(storage == NULL);
  cr_expect(strstr(tm_last_error()->message, "cpu_pinned") != NULL);
  cr_expect(tm_require_allocator(tm_device_make(TM_DEVICE, 3)) == NULL);
  cr_expect(strstr(tm_last_error()->message, "device 3") != NULL);
  cr_expect(tm_require_stream() == NULL);
  cr_expect(eq(int, tm_last_status(), TM_ERR_UNAVAILABLE));
}

static void* look_from_a_thread(void* seen) {
  *(bool*)seen = tm_current_allocator(TM_DEVICE) == NULL && tm_context_depth() == 0 &&
                 tm_current_allocator(TM_CPU) == tm_host_allocator();
  return NULL;
}

Test(context, a_new_thread_inherits_nothing) {
  bool fresh = false;
  TM_WITH_ALLOCATOR(fake(TM_DEVICE, 0)) {
    pthread_t thread;
    cr_assert(eq(int, pthread_create(&thread, NULL, look_from_a_thread, &fresh), 0));
    pthread_join(thread, NULL);
  }
  cr_expect(fresh);
}

//===-- Misuse ------------------------------------------------------------===//

Test(context, pop_on_an_empty_context_is_caught) {
  tm_frame frame = {.file = "here.c", .line = 7};
  EXPECT_FATAL(tm_pop(&frame),
               "the scope of here.c:7 is closed on a thread that has no scope open");
}

Test(context, guard_destroyed_out_of_order_is_caught_with_both_places) {
  tm_frame outer;
  tm_frame inner;
  tm_push_allocator(&outer, fake(TM_DEVICE, 0));
  const int line = __LINE__ + 1;
  tm_push_allocator(&inner, fake(TM_DEVICE, 1));
  char place[64];
  snprintf(place, sizeof place, "context_test.c:%d", line);
  EXPECT_FATAL(tm_pop(&outer), place);
  snprintf(place, sizeof place, "context_test.c:%d", line - 2);
  cr_expect(strstr(expect_fatal_message, place) != NULL);
  EXPECT_CURRENT(TM_DEVICE, &fakes[TM_DEVICE][1]);  // nothing was popped
  tm_pop(&inner);
  tm_pop(&outer);
}

// Both places are in the message that was caught last: of what is closed, and of what is open.
static void expect_places(int closed, int open) {
  char words[128];
  snprintf(words, sizeof words, "the scope of context_test.c:%d is closed", closed);
  cr_expect(strstr(expect_fatal_message, words) != NULL, "%s", expect_fatal_message);
  snprintf(words, sizeof words, "is that of context_test.c:%d", open);
  cr_expect(strstr(expect_fatal_message, words) != NULL, "%s", expect_fatal_message);
}

Test(context, guard_copied_is_caught_with_its_place) {
  const int line = __LINE__ + 2;
  tm_frame frame;
  tm_push_allocator(&frame, fake(TM_DEVICE, 0));
  tm_frame copy = frame;
  EXPECT_FATAL(tm_pop(&copy), "the innermost of the 1 open ones");
  expect_places(line, line);
  tm_pop(&frame);
}

Test(context, guard_closed_twice_is_caught_with_both_places) {
  tm_frame outer;
  tm_frame inner;
  const int line = __LINE__ + 1;
  tm_push_allocator(&outer, fake(TM_DEVICE, 0));
  tm_push_stream(&inner, stream_at(1));
  tm_pop(&inner);
  EXPECT_FATAL(tm_pop(&inner), "the innermost of the 1 open ones");
  expect_places(line + 1, line);
  EXPECT_CURRENT(TM_DEVICE, &fakes[TM_DEVICE][0]);  // nothing was popped
  tm_pop(&outer);
}

static void* pop_elsewhere(void* frame) {
  EXPECT_FATAL(tm_pop(frame), "closed on a thread that has no scope open");
  return NULL;
}

Test(context, guard_closed_on_another_thread_is_caught) {
  tm_frame frame;
  tm_push_allocator(&frame, fake(TM_DEVICE, 0));
  pthread_t thread;
  cr_assert(eq(int, pthread_create(&thread, NULL, pop_elsewhere, &frame), 0));
  pthread_join(thread, NULL);
  EXPECT_CURRENT(TM_DEVICE, &fakes[TM_DEVICE][0]);
  tm_pop(&frame);
}

//===-- longjmp -----------------------------------------------------------===//

static jmp_buf back;

__attribute__((noinline)) static void jump_over_scopes(void) {
  TM_USE_ALLOCATOR(fake(TM_DEVICE, 1));
  TM_USE_STREAM(stream_at(2));
  TM_SCOPE("jumped over");
  longjmp(back, 1);
}

// In functions of their own: gcc warns about variables of a function that calls setjmp.
__attribute__((noinline)) static void jump_and_come_back(void) {
  if (!setjmp(back)) {
    jump_over_scopes();
  }
}

Test(context, restore_drops_what_longjmp_jumped_over) {
  TM_SCOPE("kept");
  TM_WITH_ALLOCATOR(fake(TM_DEVICE, 0))
  TM_WITH_STREAM(stream_at(1)) {
    const tm_context_mark mark = tm_context_save();
    jump_and_come_back();
    cr_expect(eq(sz, tm_context_restore(&mark), 2));
    EXPECT_CURRENT(TM_DEVICE, &fakes[TM_DEVICE][0]);
    cr_expect(eq(ptr, tm_current_stream(), stream_at(1)));
    cr_expect(tm_current_allocator_on(tm_device_make(TM_DEVICE, 1)) == NULL);
    cr_expect(eq(sz, tm_context_depth(), 2));
    cr_expect(eq(sz, tm_trace_depth(), 1));
  }
  cr_expect(eq(sz, tm_context_depth(), 0));
}

Test(context, scopes_left_by_longjmp_are_noticed_when_the_next_closes) {
  tm_frame outer;
  tm_push_allocator(&outer, fake(TM_DEVICE, 0));
  const tm_context_mark mark = tm_context_save();
  jump_and_come_back();
  EXPECT_FATAL(tm_pop(&outer), "context_test.c:");
  tm_context_restore(&mark);
  tm_pop(&outer);
}

//===-- Contexts as objects -----------------------------------------------===//

Test(context, a_context_of_ones_own_replaces_the_threads) {
  tm_context* mine = tm_context_create();
  tm_allocator* a = fake(TM_DEVICE, 0);
  TM_SCOPE("outside");
  TM_WITH_ALLOCATOR(a) {
    TM_WITH_CONTEXT(mine) {
      cr_expect(eq(ptr, tm_current_context(), mine));
      EXPECT_CURRENT(TM_DEVICE, NULL);
      EXPECT_CURRENT(TM_CPU, tm_host_allocator());
      cr_expect(eq(sz, tm_trace_depth(), 0));
      TM_WITH_ALLOCATOR(fake(TM_DEVICE, 1)) EXPECT_CURRENT(TM_DEVICE, &fakes[TM_DEVICE][1]);
    }
    EXPECT_CURRENT(TM_DEVICE, a);
    cr_expect(eq(sz, tm_trace_depth(), 1));
  }
  TM_WITH_CONTEXT(NULL) EXPECT_CURRENT(TM_DEVICE, NULL);
  tm_context_release(mine);
}

static void* make_current(void* context) {
  EXPECT_FATAL(TM_WITH_CONTEXT(context){}, "already current on another thread");
  return NULL;
}

Test(context, a_context_current_on_two_threads_is_caught) {
  tm_context* mine = tm_context_create();
  TM_WITH_CONTEXT(mine) {
    pthread_t thread;
    cr_assert(eq(int, pthread_create(&thread, NULL, make_current, mine), 0));
    pthread_join(thread, NULL);
  }
  EXPECT_FATAL(TM_WITH_CONTEXT(mine) tm_context_release(mine), "while it is current");
}

__attribute__((noinline)) static void jump_out_of_a_context(tm_context* inner) {
  TM_USE_CONTEXT(inner);
  jump_over_scopes();
}

__attribute__((noinline)) static void jump_out_and_come_back(tm_context* inner) {
  if (!setjmp(back)) {
    jump_out_of_a_context(inner);
  }
}

Test(context, restore_drops_what_was_open_in_an_inner_context_too) {
  tm_context* inner = tm_context_create();
  const tm_context_mark mark = tm_context_save();
  jump_out_and_come_back(inner);
  cr_expect(eq(sz, tm_context_restore(&mark), 3));
  TM_WITH_CONTEXT(inner) {
    cr_expect(eq(sz, tm_context_depth(), 0));
    cr_expect(tm_current_stream() == NULL);
    EXPECT_CURRENT(TM_DEVICE, NULL);
  }
  tm_context_release(inner);
}

static void* end_inside_a_context(void* context) {
  static __thread tm_frame frame;
  tm_frame_open_context_(&frame, context, NULL, __FILE__, __LINE__);
  return NULL;
}

Test(context, a_context_that_is_current_when_its_thread_ends_is_free_again) {
  tm_context* mine = tm_context_create();
  pthread_t thread;
  cr_assert(eq(int, pthread_create(&thread, NULL, end_inside_a_context, mine), 0));
  pthread_join(thread, NULL);
  TM_WITH_CONTEXT(mine) cr_expect(eq(ptr, tm_current_context(), mine));
  tm_context_release(mine);
}

static ucontext_t scheduler;
static ucontext_t fibers[2];
static tm_context* fiber_contexts[2];
static int fiber_mistakes;

static void run_fiber(int n) {
  TM_WITH_ALLOCATOR(&fakes[TM_DEVICE][n]) {
    TM_SCOPE("fiber");
    for (int i = 0; i < 3; i++) {
      swapcontext(&fibers[n], &scheduler);
      fiber_mistakes += tm_current_allocator(TM_DEVICE) != &fakes[TM_DEVICE][n];
      fiber_mistakes += tm_trace_depth() != 1;
    }
  }
}

__attribute__((noinline)) static void make_fiber(int n) {
  static char stacks[2][64 * 1024];
  fake(TM_DEVICE, n);
  fiber_contexts[n] = tm_context_create();
  getcontext(&fibers[n]);
  fibers[n].uc_stack.ss_sp = stacks[n];
  fibers[n].uc_stack.ss_size = sizeof stacks[n];
  fibers[n].uc_link = &scheduler;
  makecontext(&fibers[n], (void (*)(void))run_fiber, 1, n);
}

__attribute__((noinline)) static void resume_fiber(int n) {
  TM_WITH_CONTEXT(fiber_contexts[n]) swapcontext(&scheduler, &fibers[n]);
}

Test(context, fibers_carry_their_contexts) {
  make_fiber(0);
  make_fiber(1);
  for (int turn = 0; turn < 8; turn++) {
    resume_fiber(turn % 2);
    EXPECT_CURRENT(TM_DEVICE, NULL);
    cr_expect(eq(sz, tm_trace_depth(), 0));
  }
  cr_expect(eq(int, fiber_mistakes, 0));
  tm_context_release(fiber_contexts[0]);
  tm_context_release(fiber_contexts[1]);
}

static char logged[512];

static void keep_line(tm_log_level level, const char* line, void* user) {
  (void)level;
  (void)user;
  snprintf(logged, sizeof logged, "%s", line);
}

static void* end_with_open_scopes(void* unused) {
  static __thread tm_frame frames[2];
  tm_push_allocator(&frames[0], &fakes[TM_DEVICE][0]);
  tm_push_stream(&frames[1], stream_at(1));
  return unused;
}

Test(context, scopes_open_at_thread_exit_are_counted_and_reported) {
  fake(TM_DEVICE, 0);
  tm_set_log_sink(keep_line, NULL);
  pthread_t thread;
  cr_assert(eq(int, pthread_create(&thread, NULL, end_with_open_scopes, NULL), 0));
  pthread_join(thread, NULL);
  cr_expect(strstr(logged, "2 scopes") != NULL);
}

static void* exit_inside_scopes(void* unused) {
  TM_USE_ALLOCATOR(&fakes[TM_DEVICE][0]);
  TM_WITH_STREAM(stream_at(1)) pthread_exit(unused);
  return unused;
}

Test(context, pthread_exit_closes_scopes) {
  fake(TM_DEVICE, 0);
  tm_set_log_sink(keep_line, NULL);
  pthread_t thread;
  cr_assert(eq(int, pthread_create(&thread, NULL, exit_inside_scopes, NULL), 0));
  pthread_join(thread, NULL);
  cr_expect(eq(str, logged, ""));
}

static bool is_waiting;

static void* wait_inside_scopes(void* unused) {
  TM_USE_ALLOCATOR(&fakes[TM_DEVICE][0]);
  TM_WITH_STREAM(stream_at(1)) {
    TM_SCOPE("waiting");
    __atomic_store_n(&is_waiting, true, __ATOMIC_RELEASE);
    for (;;) (void)pause();  // a cancellation point
  }
  return unused;
}

Test(context, cancellation_closes_scopes) {
  fake(TM_DEVICE, 0);
  tm_set_log_sink(keep_line, NULL);
  pthread_t thread;
  void* result = NULL;
  cr_assert(eq(int, pthread_create(&thread, NULL, wait_inside_scopes, NULL), 0));
  while (!__atomic_load_n(&is_waiting, __ATOMIC_ACQUIRE)) (void)sched_yield();
  cr_assert(eq(int, pthread_cancel(thread), 0));
  pthread_join(thread, &result);
  cr_expect(eq(ptr, result, PTHREAD_CANCELED));
  cr_expect(eq(str, logged, ""));  // none was left for the thread's end to report
}

//===-- Out of memory -----------------------------------------------------===//

typedef struct reliever {
  counting_allocator* upstream;
  size_t raise_to;  // the budget after the call
  int calls;
  bool frees;
  tm_status inside;
} reliever;

static bool relieve(const tm_oom_request* request, void* user) {
  reliever* self = user;
  self->calls++;
  tm_storage* storage = NULL;
  self->inside = tm_context_alloc(NULL, request->device, 8, &storage);
  self->upstream->budget = self->raise_to;
  return self->frees;
}

static tm_status allocate_4096(tm_storage** out) {
  return tm_context_alloc(NULL, tm_device_make(TM_CPU, 0), 4096, out);
}

Test(context, a_handler_that_frees_lets_the_allocation_succeed) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  upstream.budget = 0;
  reliever r = {.upstream = &upstream, .raise_to = 8192, .frees = true};
  tm_storage* storage = NULL;
  TM_WITH_ALLOCATOR(&upstream.base)
  TM_WITH_OOM_HANDLER(relieve, &r) cr_expect(eq(int, allocate_4096(&storage), TM_OK));
  cr_expect(eq(int, r.calls, 1));
  cr_expect(eq(int, r.inside, TM_ERR_NO_MEMORY));  // the failing device fails at once inside
  tm_storage_release(storage);
}

Test(context, handlers_are_asked_innermost_first_until_one_frees) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  upstream.budget = 0;
  reliever outer = {.upstream = &upstream, .raise_to = 8192, .frees = true};
  reliever inner = {.upstream = &upstream, .raise_to = 0, .frees = false};
  tm_storage* storage = NULL;
  TM_WITH_ALLOCATOR(&upstream.base)
  TM_WITH_OOM_HANDLER(relieve, &outer)
  TM_WITH_OOM_HANDLER(NULL, NULL)
  TM_WITH_OOM_HANDLER(relieve, &inner) { cr_expect(eq(int, allocate_4096(&storage), TM_OK)); }
  cr_expect(eq(int, inner.calls, 1));
  cr_expect(eq(int, outer.calls, 1));
  tm_storage_release(storage);
}

Test(context, handlers_are_asked_a_bounded_number_of_times) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  upstream.budget = 0;
  reliever liar = {.upstream = &upstream, .raise_to = 0, .frees = true};
  tm_storage* storage = NULL;
  TM_WITH_ALLOCATOR(&upstream.base)
  TM_WITH_OOM_HANDLER(relieve, &liar) {
    cr_expect(eq(int, allocate_4096(&storage), TM_ERR_NO_MEMORY));
  }
  cr_expect(storage == NULL);
  cr_expect(eq(int, liar.calls, TM_OOM_MAX_RETRIES));
  cr_expect(strstr(tm_last_error()->message, "4096 bytes") != NULL);
}

// What a handler has seen, and the allocation from elsewhere that it made meanwhile.
typedef struct witness {
  tm_oom_request seen;
  int calls;
  bool asks_elsewhere;
  tm_status elsewhere;
} witness;

static bool testify(const tm_oom_request* request, void* user) {
  witness* self = user;
  self->seen = *request;
  self->calls++;
  if (self->asks_elsewhere) {
    tm_storage* storage = NULL;
    self->elsewhere = tm_context_alloc(NULL, tm_device_make(TM_CPU_PINNED, 0), 512, &storage);
  }
  return false;
}

static void expect_seen(const witness* w, int calls, tm_device_type type, size_t size,
                        int attempt) {
  cr_expect(eq(int, w->calls, calls));
  cr_expect(eq(int, w->seen.device.type, (int)type));
  cr_expect(eq(sz, w->seen.size, size));
  cr_expect(eq(int, w->seen.attempt, attempt));
}

Test(context, a_handler_that_allocates_elsewhere_has_only_those_outside_it_asked) {
  counting_allocator host;
  counting_allocator pinned;
  counting_allocator_init(&host);
  counting_allocator_init(&pinned);
  tm_allocator_init_(&pinned.base, host.base.vtable, tm_device_make(TM_CPU_PINNED, 0), NULL);
  host.budget = pinned.budget = 0;
  witness outer = {.calls = 0};
  witness middle = {.asks_elsewhere = true};
  witness inner = {.calls = 0};
  tm_storage* storage = NULL;
  TM_WITH_ALLOCATOR(&host.base)
  TM_WITH_ALLOCATOR(&pinned.base)
  TM_WITH_OOM_HANDLER(testify, &outer)
  TM_WITH_OOM_HANDLER(testify, &middle)
  TM_WITH_OOM_HANDLER(testify, &inner) {
    cr_expect(eq(int, allocate_4096(&storage), TM_ERR_NO_MEMORY));
  }
  expect_seen(&inner, 1, TM_CPU, 4096, 1);
  expect_seen(&middle, 1, TM_CPU, 4096, 2);
  cr_expect(eq(int, middle.elsewhere, TM_ERR_NO_MEMORY));
  expect_seen(&outer, 2, TM_CPU, 4096, 3);  // first for the pinned memory, then for the host's
}
