// Contexts handed over to other threads: shared tokens, and tokens that bring arenas along.

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/counting_allocator.h"
#include "tests/support/expect_fatal.h"
#include "tests/support/failing.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/alloc/host.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/statistics_adaptor.h"
#include "tm/alloc/stream.h"
#include "tm/base/trace.h"
#include "tm/context/context.h"

static const tm_device cpu = {TM_CPU, 0};

// Runs `function` on a thread of its own to its end.
static void* on_a_thread(void* (*function)(void*), void* argument) {
  pthread_t thread;
  void* result = NULL;
  cr_assert(eq(int, pthread_create(&thread, NULL, function, argument), 0));
  pthread_join(thread, &result);
  return result;
}

static tm_allocator* stack_over(counting_allocator* upstream) {
  tm_allocator* stack = tm_stack_allocator_create(&upstream->base, NULL, NULL);
  cr_assert(stack != NULL);
  return stack;
}

//===-- Shared tokens -----------------------------------------------------===//

typedef struct seen {
  tm_context* token;
  tm_allocator* allocator;
  tm_stream* stream;
  size_t depth;
  size_t depth_outside;
  char trace[256];
  tm_allocator* allocator_outside;
} seen;

static void* look_around(void* argument) {
  seen* s = argument;
  TM_SCOPE("the thread's own");
  TM_WITH_CONTEXT(s->token) {
    s->allocator = tm_current_allocator(TM_CPU);
    s->stream = tm_current_stream();
    s->depth = tm_context_depth();
    TM_SCOPE("task");
    tm_trace_text(s->trace, sizeof s->trace);
  }
  s->allocator_outside = tm_current_allocator(TM_CPU);
  s->depth_outside = tm_context_depth();
  return NULL;
}

Test(hand_over, a_thread_that_attaches_finds_what_was_captured) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  tm_auto_stream stream = tm_stream_create(0, 0);
  seen s = {0};
  TM_WITH_ALLOCATOR(&upstream.base)
  TM_WITH_STREAM(stream) {
    TM_SCOPE("engine");
    char name[] = "step 17";
    TM_SCOPE_COPY(name);
    s.token = tm_context_capture();
    memset(name, 'x', sizeof name - 1);
  }
  cr_assert(s.token != NULL);
  on_a_thread(look_around, &s);
  cr_expect(eq(ptr, s.allocator, &upstream.base));
  cr_expect(eq(ptr, s.stream, stream));
  cr_expect(eq(sz, s.depth, 0));
  cr_expect(eq(ptr, s.allocator_outside, tm_host_allocator()));
  cr_expect(eq(sz, s.depth_outside, 0));
  cr_expect(strncmp(s.trace, "task (hand_over_test.c:", 23) == 0, "%s", s.trace);
  cr_expect(strstr(s.trace, " < step 17 (hand_over_test.c:") != NULL, "%s", s.trace);
  cr_expect(strstr(s.trace, " < engine (hand_over_test.c:") != NULL, "%s", s.trace);
  cr_expect(strstr(s.trace, "own") == NULL, "%s", s.trace);
  tm_context_release(s.token);
}

Test(hand_over, a_token_brings_every_device_and_the_innermost_of_each) {
  static const tm_allocator_vtable vtable = {.name = "fake"};
  tm_allocator fakes[3];
  for (int id = 0; id < 3; id++) {
    tm_allocator_init_(&fakes[id], &vtable, tm_device_make(TM_DEVICE, id), NULL);
  }
  tm_context* token = NULL;
  TM_WITH_ALLOCATOR(&fakes[0])
  TM_WITH_ALLOCATOR(&fakes[2])
  TM_WITH_ALLOCATOR(&fakes[1]) token = tm_context_capture();
  TM_WITH_CONTEXT(token) {
    for (int id = 0; id < 3; id++) {
      cr_expect(eq(ptr, tm_current_allocator_on(tm_device_make(TM_DEVICE, id)), &fakes[id]));
      cr_expect(eq(int, fakes[id].references, 2 + (id == 1)));
    }
    cr_expect(eq(ptr, tm_current_allocator(TM_DEVICE), &fakes[1]));
    cr_expect(tm_current_allocator(TM_CPU_PINNED) == NULL);
  }
  tm_context_release(token);
  for (int id = 0; id < 3; id++) {
    cr_expect(eq(int, fakes[id].references, 1));
  }
}

Test(hand_over, an_arena_is_replaced_by_its_upstream) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  tm_auto_allocator inner = stack_over(&upstream);
  tm_auto_allocator outer = tm_stack_allocator_create(inner, NULL, NULL);
  seen s = {0};
  TM_WITH_ALLOCATOR(outer) s.token = tm_context_capture();
  on_a_thread(look_around, &s);
  cr_expect(eq(ptr, s.allocator, &upstream.base));
  tm_context_release(s.token);
}

// Takes the reference to `upstream` over.
static tm_allocator* statistics_over(tm_allocator* upstream) {
  tm_allocator* adaptor = tm_statistics_adaptor_create(upstream);
  cr_assert(adaptor != NULL);
  tm_allocator_release(upstream);
  return adaptor;
}

Test(hand_over, an_adaptor_over_an_arena_is_replaced_by_the_arenas_upstream) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  tm_auto_allocator below = statistics_over(tm_allocator_retain(&upstream.base));
  tm_auto_allocator arena = tm_stack_allocator_create(below, NULL, NULL);
  tm_auto_allocator above = statistics_over(statistics_over(tm_allocator_retain(arena)));
  seen s = {0};
  TM_WITH_ALLOCATOR(above) s.token = tm_context_capture();
  on_a_thread(look_around, &s);
  cr_expect(eq(ptr, s.allocator, below));
  tm_context_release(s.token);
  TM_WITH_ALLOCATOR(below) s.token = tm_context_capture();
  on_a_thread(look_around, &s);
  cr_expect(eq(ptr, s.allocator, below));  // any thread may use it
  tm_context_release(s.token);
}

typedef struct worker {
  tm_context* token;
  pthread_barrier_t* barrier;
  int mistakes;
} worker;

// Threads attach one token at a time, and what one opens no other sees.
static void* work_in_the_token(void* argument) {
  worker* self = argument;
  counting_allocator mine;
  counting_allocator_init(&mine);
  for (int i = 0; i < 200; i++) {
    TM_WITH_CONTEXT(self->token) {
      self->mistakes += tm_current_allocator(TM_CPU) == &mine.base;
      TM_WITH_ALLOCATOR(&mine.base) {
        if (i == 0) (void)pthread_barrier_wait(self->barrier);
        tm_storage* storage = NULL;
        self->mistakes += tm_context_alloc(NULL, cpu, 100, &storage) != TM_OK;
        tm_storage_release(storage);
        if (i == 0) (void)pthread_barrier_wait(self->barrier);
        self->mistakes += tm_context_depth() != 1;
      }
    }
  }
  self->mistakes += mine.allocs != 200;
  return NULL;
}

Test(hand_over, threads_that_attach_one_token_have_contexts_of_their_own) {
  enum { THREADS = 4 };
  pthread_barrier_t barrier;
  (void)pthread_barrier_init(&barrier, NULL, THREADS);
  tm_context* token = tm_context_capture();
  pthread_t threads[THREADS];
  worker workers[THREADS];
  for (int i = 0; i < THREADS; i++) {
    workers[i] = (worker){.token = token, .barrier = &barrier};
    cr_assert(eq(int, pthread_create(&threads[i], NULL, work_in_the_token, &workers[i]), 0));
  }
  for (int i = 0; i < THREADS; i++) {
    pthread_join(threads[i], NULL);
    cr_expect(eq(int, workers[i].mistakes, 0));
  }
  tm_context_release(token);
  (void)pthread_barrier_destroy(&barrier);
}

Test(hand_over, a_token_keeps_what_it_holds_and_an_attached_one_lives) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  tm_context* token = NULL;
  TM_WITH_ALLOCATOR(&upstream.base) token = tm_context_capture();
  tm_allocator_release(&upstream.base);
  cr_expect(upstream.destroyed == false);
  TM_WITH_CONTEXT(token) {
    tm_context_release(token);
    cr_expect(upstream.destroyed == false);
    cr_expect(eq(ptr, tm_current_allocator(TM_CPU), &upstream.base));
  }
  cr_expect(upstream.destroyed);
}

Test(hand_over, each_reference_to_a_token_keeps_it) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  tm_context* token = NULL;
  TM_WITH_ALLOCATOR(&upstream.base) token = tm_context_capture();
  tm_allocator_release(&upstream.base);
  cr_expect(eq(ptr, tm_context_retain(token), token));
  tm_context_release(token);
  cr_expect(upstream.destroyed == false);
  tm_context_release(token);
  cr_expect(upstream.destroyed);
  cr_expect(tm_context_retain(NULL) == NULL);
  tm_context_release(NULL);
}

Test(hand_over, tokens_nest_and_each_shows_what_it_captured) {
  counting_allocator a;
  counting_allocator b;
  counting_allocator_init(&a);
  counting_allocator_init(&b);
  tm_context* first = NULL;
  tm_context* second = NULL;
  TM_WITH_ALLOCATOR(&a.base) first = tm_context_capture();
  TM_WITH_ALLOCATOR(&b.base) second = tm_context_capture();
  const int64_t live = tm_bookkeeping_live();
  TM_WITH_CONTEXT(first) {
    TM_WITH_CONTEXT(second) {
      TM_WITH_CONTEXT(first) cr_expect(eq(ptr, tm_current_allocator(TM_CPU), &a.base));
      cr_expect(eq(ptr, tm_current_allocator(TM_CPU), &b.base));
    }
    cr_expect(eq(ptr, tm_current_allocator(TM_CPU), &a.base));
  }
  cr_expect(eq(ptr, tm_current_allocator(TM_CPU), tm_host_allocator()));
  cr_expect(eq(i64, tm_bookkeeping_live(), live));
  tm_context_release(first);
  tm_context_release(second);
}

static void attach(tm_context* token) { TM_WITH_CONTEXT(token){}; }

__attribute__((noinline)) static void expect_no_memory_for(tm_context* token) {
  EXPECT_FATAL(attach(token), "a context attached more than once");
}

Test(hand_over, attaching_needs_memory_only_where_the_token_is_attached_already) {
  tm_context* token = tm_context_capture();
  tm_context* other = tm_context_capture();
  tm_bookkeeping_fail_nth(1);
  TM_WITH_CONTEXT(token)
  TM_WITH_CONTEXT(other) {
    expect_no_memory_for(token);
    cr_expect(eq(sz, tm_context_depth(), 0));
  }
  cr_expect(eq(sz, tm_context_depth(), 0));
  tm_context_release(token);
  tm_context_release(other);
}

//===-- Moved tokens ------------------------------------------------------===//

typedef struct borrower {
  tm_context* token;
  tm_storage* storage;  // made while attached
  tm_allocator* found;
  tm_status inside;
  tm_status afterwards;
} borrower;

static tm_status allocate(tm_allocator* allocator, tm_storage** out) {
  return tm_context_alloc(allocator, cpu, 1000, out);
}

static void* use_the_arena(void* argument) {
  borrower* b = argument;
  TM_WITH_CONTEXT(b->token) {
    b->found = tm_current_allocator(TM_CPU);
    b->inside = allocate(NULL, &b->storage);
  }
  tm_storage* storage = NULL;
  b->afterwards = allocate(b->found, &storage);
  tm_storage_release(storage);
  return NULL;
}

static tm_context* capture_moved(tm_allocator* allocator) {
  tm_context* token = NULL;
  TM_WITH_ALLOCATOR(allocator) token = tm_context_capture_move();
  return token;
}

Test(hand_over, a_moved_arena_is_used_where_its_token_is_attached_and_nowhere_else) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  tm_auto_allocator stack = stack_over(&upstream);
  tm_storage* before = NULL;
  tm_storage* refused = NULL;
  cr_assert(eq(int, allocate(stack, &before), TM_OK));
  memset(before->data, 7, before->size);
  borrower b = {.token = capture_moved(stack)};
  cr_assert(b.token != NULL);
  cr_expect(eq(int, allocate(stack, &refused), TM_ERR_BUSY));
  cr_expect(refused == NULL);
  on_a_thread(use_the_arena, &b);
  cr_expect(eq(ptr, b.found, stack));
  cr_expect(eq(int, b.inside, TM_OK));
  cr_expect(eq(int, b.afterwards, TM_ERR_BUSY));
  cr_expect(eq(int, allocate(stack, &refused), TM_ERR_BUSY));  // the token is still out
  tm_storage_release(b.storage);                               // legal on any thread
  for (size_t i = 0; i < before->size; i++) {
    cr_assert(eq(int, ((unsigned char*)before->data)[i], 7));
  }
  tm_context_release(b.token);
  tm_storage* after = NULL;
  cr_expect(eq(int, allocate(stack, &after), TM_OK));
  cr_expect(eq(u64, upstream.allocs, 1));
  tm_storage_release(after);
  tm_storage_release(before);
  tm_allocator_stats stats;
  cr_expect(eq(int, tm_allocator_get_stats(stack, &stats), TM_OK));
  cr_expect(eq(u64, stats.live_blocks, 0));
}

Test(hand_over, a_moved_token_goes_from_thread_to_thread) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  tm_auto_allocator inner = stack_over(&upstream);
  tm_auto_allocator outer = tm_stack_allocator_create(inner, NULL, NULL);
  borrower b = {.token = capture_moved(outer)};
  for (int i = 0; i < 10; i++) {
    b.inside = TM_ERR_INVALID;
    on_a_thread(use_the_arena, &b);
    cr_expect(eq(int, b.inside, TM_OK));
    tm_storage_release(b.storage);
  }
  use_the_arena(&b);  // the thread that captured it attaches it as well
  cr_expect(eq(int, b.inside, TM_OK));
  cr_expect(eq(int, b.afterwards, TM_ERR_BUSY));
  tm_storage_release(b.storage);
  tm_context_release(b.token);
  tm_storage* storage = NULL;
  cr_expect(eq(int, allocate(inner, &storage), TM_OK));
  tm_storage_release(storage);
}

Test(hand_over, a_moved_token_brings_an_arena_below_an_adaptor_along) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  tm_auto_allocator arena = stack_over(&upstream);
  tm_auto_allocator adaptor = statistics_over(tm_allocator_retain(arena));
  borrower b = {.token = capture_moved(adaptor)};
  on_a_thread(use_the_arena, &b);
  cr_expect(eq(ptr, b.found, adaptor));
  cr_expect(eq(int, b.inside, TM_OK));
  tm_storage* refused = NULL;
  cr_expect(eq(int, allocate(arena, &refused), TM_ERR_BUSY));
  tm_storage_release(b.storage);
  tm_context_release(b.token);
  tm_storage* storage = NULL;
  cr_expect(eq(int, allocate(adaptor, &storage), TM_OK));
  tm_storage_release(storage);
}

static void* attach_too(void* token) {
  EXPECT_FATAL(TM_WITH_CONTEXT(token){}, "already current on another thread");
  return NULL;
}

Test(hand_over, what_stands_for_a_token_is_not_kept_past_its_block) {
  tm_context* token = tm_context_capture();
  EXPECT_FATAL(
      TM_WITH_CONTEXT(token) { (void)tm_context_retain(tm_current_context()); },
      "retain the captured one");
  TM_WITH_CONTEXT(token) {
    tm_context* kept = tm_context_retain(tm_current_context());
    cr_expect(ne(ptr, kept, token));
    tm_context_release(kept);
  }
  tm_context_release(token);
}

Test(hand_over, a_moved_token_attached_by_two_threads_is_caught) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  tm_auto_allocator stack = stack_over(&upstream);
  tm_context* token = capture_moved(stack);
  TM_WITH_CONTEXT(token) {
    on_a_thread(attach_too, token);
    EXPECT_FATAL(TM_WITH_CONTEXT(token){}, "already current on this thread");
    EXPECT_FATAL(tm_context_release(token), "released while it is current");
    tm_storage* storage = NULL;
    cr_expect(eq(int, allocate(NULL, &storage), TM_OK));
    tm_storage_release(storage);
  }
  tm_context_release(token);
}

static void* own(void* stack) {
  tm_storage* storage = NULL;
  const tm_status status = allocate(stack, &storage);
  tm_storage_release(storage);
  return (void*)(intptr_t)status;
}

typedef struct owner {
  tm_allocator* stack;
  pthread_barrier_t barrier;
} owner;

static void* own_until_told(void* argument) {
  owner* o = argument;
  (void)own(o->stack);
  (void)pthread_barrier_wait(&o->barrier);
  (void)pthread_barrier_wait(&o->barrier);
  return NULL;
}

Test(hand_over, an_arena_of_another_thread_cannot_be_moved) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  tm_auto_allocator mine = stack_over(&upstream);
  tm_auto_allocator theirs = tm_stack_allocator_create(mine, NULL, NULL);
  cr_assert(eq(int, (int)(intptr_t)own(mine), TM_OK));
  cr_assert(eq(int, tm_stack_hand_over(mine), TM_OK));
  owner o = {.stack = theirs};
  (void)pthread_barrier_init(&o.barrier, NULL, 2);
  pthread_t thread;
  cr_assert(eq(int, pthread_create(&thread, NULL, own_until_told, &o), 0));
  (void)pthread_barrier_wait(&o.barrier);
  cr_expect(capture_moved(theirs) == NULL);
  cr_expect(eq(int, tm_last_status(), TM_ERR_BUSY));
  cr_expect(eq(int, theirs->references, 1));
  (void)pthread_barrier_wait(&o.barrier);
  pthread_join(thread, NULL);
  cr_expect(eq(int, (int)(intptr_t)own(mine), TM_OK));  // its thread has ended
  cr_expect(eq(int, (int)(intptr_t)own(theirs), TM_OK));
  (void)pthread_barrier_destroy(&o.barrier);
}

//===-- Failures ----------------------------------------------------------===//

static tm_status capture_both(tm_allocator* upstream) {
  tm_status status = TM_OK;
  TM_WITH_ALLOCATOR(upstream) {
    TM_SCOPE_COPY("a name");
    tm_context* shared = tm_context_capture();
    status = shared ? TM_OK : tm_last_status();
    tm_context* moved = status == TM_OK ? tm_context_capture_move() : NULL;
    status = moved ? TM_OK : tm_last_status();
    tm_context_release(shared);
    tm_context_release(moved);
  }
  return status;
}

Test(hand_over, capturing_survives_every_failure) { expect_survives_every_failure(capture_both); }

static void* attach_without_memory(void* argument) {
  borrower* b = argument;
  tm_bookkeeping_fail_nth(1);  // this thread's identity
  TM_WITH_CONTEXT(b->token) b->inside = allocate(NULL, &b->storage);
  b->afterwards = tm_last_status();
  return NULL;
}

Test(hand_over, a_thread_without_memory_for_its_identity_attaches_all_the_same) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  tm_auto_allocator stack = stack_over(&upstream);
  tm_storage* storage = NULL;
  cr_assert(eq(int, allocate(stack, &storage), TM_OK));
  borrower b = {.token = capture_moved(stack)};
  on_a_thread(attach_without_memory, &b);
  cr_expect(eq(int, b.inside, TM_OK));
  cr_expect(eq(int, b.afterwards, TM_OK));  // attaching left no error behind
  tm_storage_release(b.storage);
  tm_context_release(b.token);
  tm_storage_release(storage);
}

static bool capture_inside(const tm_oom_request* request, void* user) {
  (void)request;
  tm_status* statuses = user;
  statuses[0] = tm_context_capture() ? TM_OK : tm_last_status();
  statuses[1] = tm_context_capture_move() ? TM_OK : tm_last_status();
  return false;
}

Test(hand_over, cannot_be_captured_inside_an_out_of_memory_handler) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  upstream.budget = 0;
  tm_status statuses[2] = {TM_OK, TM_OK};
  tm_storage* storage = NULL;
  TM_WITH_ALLOCATOR(&upstream.base)
  TM_WITH_OOM_HANDLER(capture_inside, statuses) {
    cr_expect(eq(int, allocate(NULL, &storage), TM_ERR_NO_MEMORY));
  }
  cr_expect(eq(int, statuses[0], TM_ERR_INVALID));
  cr_expect(eq(int, statuses[1], TM_ERR_INVALID));
  cr_expect(eq(int, upstream.base.references, 1));
}

static bool never_asked(const tm_oom_request* request, void* user) {
  (void)request;
  *(bool*)user = true;
  return false;
}

static void* run_out(void* token) {
  tm_storage* storage = NULL;
  tm_status status = TM_OK;
  TM_WITH_CONTEXT(token) status = allocate(NULL, &storage);
  return (void*)(intptr_t)status;
}

Test(hand_over, handlers_stay_with_the_frames_they_belong_to) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  upstream.budget = 0;
  bool asked = false;
  TM_WITH_ALLOCATOR(&upstream.base)
  TM_WITH_OOM_HANDLER(never_asked, &asked) {
    tm_context* token = tm_context_capture();
    cr_expect(eq(int, (int)(intptr_t)on_a_thread(run_out, token), TM_ERR_NO_MEMORY));
    cr_expect(eq(int, (int)(intptr_t)run_out(token), TM_ERR_NO_MEMORY));
    tm_context_release(token);
  }
  cr_expect(asked == false);
}

//===-- Ways out ----------------------------------------------------------===//

static __thread jmp_buf back;

__attribute__((noinline)) static void jump_out_of_the_token(tm_context* token, tm_context* moved) {
  TM_USE_CONTEXT(token);
  TM_USE_CONTEXT(moved);
  TM_USE_CONTEXT(token);
  TM_USE_ALLOCATOR(tm_host_allocator());
  longjmp(back, 1);
}

__attribute__((noinline)) static void jump_and_come_back(tm_context* token, tm_context* moved) {
  if (!setjmp(back)) {
    jump_out_of_the_token(token, moved);
  }
}

Test(hand_over, restore_leaves_tokens_that_longjmp_jumped_out_of) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  tm_auto_allocator stack = stack_over(&upstream);
  cr_assert(eq(int, (int)(intptr_t)own(stack), TM_OK));
  const int64_t live = tm_bookkeeping_live();
  tm_context* token = NULL;
  tm_context* moved = NULL;
  TM_WITH_ALLOCATOR(stack) {
    token = tm_context_capture();
    moved = tm_context_capture_move();
  }
  const tm_context_mark mark = tm_context_save();
  jump_and_come_back(token, moved);
  cr_expect(eq(sz, tm_context_restore(&mark), 4));
  cr_expect(eq(ptr, tm_current_allocator(TM_CPU), tm_host_allocator()));
  cr_expect(eq(int, (int)(intptr_t)own(stack), TM_ERR_BUSY));  // it is the token's again
  TM_WITH_CONTEXT(moved) {
    cr_expect(eq(ptr, tm_current_allocator(TM_CPU), stack));
    cr_expect(eq(int, (int)(intptr_t)own(stack), TM_OK));
  }
  tm_context_release(moved);
  tm_context_release(token);
  cr_expect(eq(int, (int)(intptr_t)own(stack), TM_OK));
  cr_expect(eq(i64, tm_bookkeeping_live(), live));
}

static void* end_inside(void* tokens) {
  static __thread tm_frame frames[3];
  tm_context** pair = tokens;
  tm_frame_open_context_(&frames[0], pair[0], NULL, __FILE__, __LINE__);
  tm_frame_open_context_(&frames[1], pair[1], NULL, __FILE__, __LINE__);
  tm_frame_open_context_(&frames[2], pair[0], NULL, __FILE__, __LINE__);
  return NULL;
}

Test(hand_over, a_thread_that_ends_inside_its_tokens_leaves_them) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  tm_allocator* stack = stack_over(&upstream);
  tm_context* tokens[2];
  TM_WITH_ALLOCATOR(stack) {
    tokens[0] = tm_context_capture();
    tokens[1] = tm_context_capture_move();
  }
  on_a_thread(end_inside, tokens);
  TM_WITH_CONTEXT(tokens[1]) cr_expect(eq(int, (int)(intptr_t)own(stack), TM_OK));
  tm_context_release(tokens[0]);
  tm_context_release(tokens[1]);
  tm_allocator_release(stack);
  tm_allocator_release(&upstream.base);
  cr_expect(upstream.destroyed);
}

// In the child of a fork the thread that forked goes on where it was.
static int go_on_in_the_child(tm_allocator* stack) {
  tm_storage* storage = NULL;
  const bool right = tm_current_allocator(TM_CPU) == stack && allocate(NULL, &storage) == TM_OK;
  tm_storage_release(storage);
  return right ? 0 : 1;
}

Test(hand_over, a_forked_child_goes_on_inside_a_token) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  tm_auto_allocator stack = stack_over(&upstream);
  tm_context* token = capture_moved(stack);
  int status = -1;
  TM_WITH_CONTEXT(token) {
    const pid_t child = fork();
    if (child == 0) {
      _exit(go_on_in_the_child(stack));
    }
    cr_assert(eq(int, (int)waitpid(child, &status, 0), (int)child));
  }
  cr_expect(eq(int, status, 0));
  tm_context_release(token);
}
