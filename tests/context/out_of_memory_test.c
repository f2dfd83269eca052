// What the context does when memory runs out: its handlers, what they may do, and what they see.

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "tests/support/counting_allocator.h"
#include "tests/support/machine.h"
#include "tm/alloc/cuda_pool.h"
#include "tm/alloc/oom_report.h"
#include "tm/alloc/pinned.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/storage.h"
#include "tm/alloc/stream.h"
#include "tm/context/context.h"

#define MIB ((size_t)1 << 20)

static tm_status allocate_4096(tm_storage** out) {
  return tm_context_alloc(NULL, tm_device_make(TM_CPU, 0), 4096, out);
}

// A handler that gives the upstream a new budget, and what it has seen and tried meanwhile.
typedef struct handler {
  counting_allocator* upstream;
  size_t budget;  // after the call
  bool frees;
  int calls;
  bool has_report;
  tm_oom_report seen;
  tm_status implicit;
  tm_status explicit;
  tm_status raw;
  tm_status trim;
} handler;

static bool handle(const tm_oom_request* request, void* user) {
  handler* self = user;
  tm_allocator* allocator = &self->upstream->base;
  tm_storage* storage = NULL;
  void* block = NULL;
  self->calls++;
  self->has_report = request->report != NULL;
  if (request->report) {
    self->seen = *request->report;
  }
  self->upstream->budget = self->budget;
  self->implicit = tm_context_alloc(NULL, request->device, 8, &storage);
  self->explicit = tm_context_alloc(allocator, request->device, 8, &storage);
  self->raw = tm_allocator_alloc(allocator, 8, NULL, &block);
  tm_allocator_free(allocator, block, 8, NULL);
  self->trim = tm_allocator_trim(allocator, 0);
  (void)TM_RAISE(TM_ERR_INVALID, "a failure of the handler's own");
  return self->frees;
}

static counting_allocator exhausted(void) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  upstream.budget = 0;
  return upstream;
}

Test(out_of_memory, handlers_see_the_report_and_it_is_of_the_latest_attempt) {
  counting_allocator upstream = exhausted();
  handler outer = {.upstream = &upstream, .budget = 0};
  handler inner = {.upstream = &upstream, .budget = 512, .frees = true};
  tm_storage* storage = NULL;
  TM_WITH_ALLOCATOR(&upstream.base)
  TM_WITH_OOM_HANDLER(handle, &outer)
  TM_WITH_OOM_HANDLER(handle, &inner) {
    cr_expect(eq(int, allocate_4096(&storage), TM_ERR_NO_MEMORY));
  }
  cr_expect(eq(int, inner.calls, TM_OOM_MAX_RETRIES));
  cr_expect(inner.has_report);
  cr_expect(eq(u64, inner.seen.asked_bytes, 4096));
  cr_expect(eq(str, inner.seen.allocator, "counting"));
  cr_expect(eq(int, outer.calls, 0));  // the retries are used up
  cr_expect(eq(int, tm_last_status(), TM_ERR_NO_MEMORY));
  cr_expect(strstr(tm_last_error()->message, "0 of 512 live") != NULL, "%s",
            tm_last_error()->message);  // of the last attempt, not of the first
  cr_assert(tm_last_oom_report() != NULL);
  cr_expect(eq(u64, tm_last_oom_report()->asked_bytes, 4096));
}

Test(out_of_memory, inside_a_handler_the_device_gives_nothing_but_to_raw_calls) {
  counting_allocator upstream = exhausted();
  handler h = {.upstream = &upstream, .budget = 8192, .frees = true};
  tm_storage* storage = NULL;
  TM_WITH_ALLOCATOR(&upstream.base)
  TM_WITH_OOM_HANDLER(handle, &h) cr_expect(eq(int, allocate_4096(&storage), TM_OK));
  cr_expect(eq(int, h.calls, 1));
  cr_expect(eq(int, h.implicit, TM_ERR_NO_MEMORY));
  cr_expect(eq(int, h.explicit, TM_ERR_NO_MEMORY));
  cr_expect(eq(int, h.raw, TM_OK));
  cr_expect(eq(int, h.trim, TM_OK));
  tm_storage_release(storage);
  cr_expect(eq(sz, upstream.live_bytes, 0));
}

Test(out_of_memory, a_refusal_inside_a_handler_has_a_report_too) {
  counting_allocator upstream = exhausted();
  handler h = {.upstream = &upstream, .budget = 0};
  tm_storage* storage = NULL;
  TM_WITH_OOM_HANDLER(handle, &h) {
    cr_expect(eq(int, tm_context_alloc(&upstream.base, tm_device_make(TM_CPU, 0), 99, &storage),
                 TM_ERR_NO_MEMORY));
  }
  cr_expect(eq(int, h.calls, 1));
  cr_assert(tm_last_oom_report() != NULL);
  cr_expect(eq(u64, tm_last_oom_report()->asked_bytes, 99));  // of the outer one again
}

Test(out_of_memory, raw_allocations_and_reservations_ask_no_handler) {
  counting_allocator upstream = exhausted();
  tm_auto_allocator stack = tm_stack_allocator_create(&upstream.base, NULL, NULL);
  handler h = {.upstream = &upstream, .budget = 8 * MIB, .frees = true};
  void* block = &block;
  TM_WITH_ALLOCATOR(stack)
  TM_WITH_OOM_HANDLER(handle, &h) {
    cr_expect(eq(int, tm_allocator_alloc(stack, 64, NULL, &block), TM_ERR_NO_MEMORY));
    cr_expect(block == NULL);
    cr_expect(eq(int, tm_stack_reserve(stack, 64), TM_ERR_NO_MEMORY));
    cr_expect(eq(int, h.calls, 0));
    cr_expect(eq(int, tm_context_reserve(stack, 64), TM_OK));
    cr_expect(eq(int, h.calls, 1));
    cr_expect(eq(int, h.implicit, TM_ERR_NO_MEMORY));
  }
}

Test(out_of_memory, a_reservation_that_no_handler_helps_leaves_the_earlier_one) {
  counting_allocator upstream = exhausted();
  upstream.budget = 4 * MIB;
  tm_auto_allocator stack = tm_stack_allocator_create(&upstream.base, NULL, NULL);
  handler h = {.upstream = &upstream, .budget = 4 * MIB};
  cr_expect(eq(int, tm_context_reserve(stack, 3 * MIB), TM_OK));
  TM_WITH_OOM_HANDLER(handle, &h) {
    cr_expect(eq(int, tm_context_reserve(stack, 9 * MIB), TM_ERR_NO_MEMORY));
  }
  cr_expect(eq(int, h.calls, 1));
  cr_assert(tm_last_oom_report() != NULL);
  cr_expect(eq(u64, tm_last_oom_report()->asked_bytes, 9 * MIB));
  cr_expect(eq(u64, tm_last_oom_report()->largest_free_bytes, 3 * MIB));
  upstream.budget = 0;  // what is reserved needs no more
  void* block;
  cr_expect(eq(int, tm_allocator_alloc(stack, 3 * MIB, NULL, &block), TM_OK));
  tm_allocator_free(stack, block, 3 * MIB, NULL);
}

Test(out_of_memory, only_a_stack_can_be_reserved_in) {
  counting_allocator upstream = exhausted();
  handler h = {.upstream = &upstream};
  TM_WITH_OOM_HANDLER(handle, &h) {
    cr_expect(eq(int, tm_context_reserve(&upstream.base, 64), TM_ERR_INVALID));
    tm_clear_error();
    cr_expect(eq(int, tm_context_reserve(NULL, 64), TM_ERR_INVALID));
  }
  cr_expect(eq(int, h.calls, 0));
}

static bool reserve_inside(const tm_oom_request* request, void* user) {
  (void)request;
  tm_allocator* stack = user;
  const counting_allocator* upstream = (const counting_allocator*)tm_stack_upstream(stack);
  const uint64_t failures = upstream->failures;
  cr_expect(eq(int, tm_context_reserve(stack, 64), TM_ERR_NO_MEMORY));
  cr_expect(strstr(tm_last_error()->message, "inside its out-of-memory handler") != NULL);
  cr_expect(eq(u64, upstream->failures, failures));  // it was not asked
  return false;
}

Test(out_of_memory, a_reservation_inside_a_handler_of_the_device_fails_at_once) {
  counting_allocator upstream = exhausted();
  tm_allocator* stack = tm_stack_allocator_create(&upstream.base, NULL, NULL);
  TM_WITH_OOM_HANDLER(reserve_inside, stack) {
    cr_expect(eq(int, tm_context_reserve(stack, 64), TM_ERR_NO_MEMORY));
  }
  cr_expect(upstream.failures > 0);
  tm_allocator_release(stack);
}

//===-- Locks -----------------------------------------------------------------===//

// Uses the allocator that has failed in every way there is: one that held a lock would wait for
// itself for ever.
static bool use_all(const tm_oom_request* request, void* user) {
  tm_allocator* allocator = user;
  void* block = NULL;
  tm_allocator_stats stats;
  cr_expect(request->report != NULL);
  cr_expect(eq(int, tm_allocator_alloc(allocator, 4096, NULL, &block), TM_OK));
  tm_allocator_free(allocator, block, 4096, NULL);
  cr_expect(eq(int, tm_allocator_get_stats(allocator, &stats), TM_OK));
  cr_expect(eq(int, tm_allocator_trim(allocator, 0), TM_OK));
  return false;
}

static void run_out_of(tm_allocator* allocator, size_t size) {
  tm_storage* storage = NULL;
  TM_WITH_OOM_HANDLER(use_all, allocator) {
    cr_expect(
        eq(int, tm_context_alloc(allocator, allocator->device, size, &storage), TM_ERR_NO_MEMORY));
  }
  cr_expect(storage == NULL);
}

Test(out_of_memory, no_lock_is_held_while_a_handler_runs) {
  machine_configure(1, "64MiB");
  machine_require_devices(1);
  tm_auto_stream stream = tm_stream_create(0, 0);
  tm_auto_allocator pool = tm_cuda_pool_allocator_create(stream, NULL);
  tm_auto_allocator stack = tm_stack_allocator_create(pool, NULL, NULL);
  run_out_of(pool, (size_t)1 << 46);
  run_out_of(stack, (size_t)1 << 46);
  machine_fail("cudaHostAlloc", 1, 2, cudaErrorMemoryAllocation);  // both tries
  run_out_of(tm_pinned_allocator(), MIB);
  machine_fail_nothing();
}

//===-- Memory of two kinds -------------------------------------------------===//

// Handlers inside handlers: while one frees memory of the first kind, the second runs out.
typedef struct two_kinds {
  counting_allocator* first;
  counting_allocator* second;
  tm_status second_inside;
  tm_status first_inside;
} two_kinds;

static bool ask_the_first(const tm_oom_request* request, void* user) {
  two_kinds* self = user;
  tm_storage* storage = NULL;
  if (tm_device_equal(request->device, self->second->base.device)) {
    self->first->budget = 8192;
    self->first_inside = tm_context_alloc(&self->first->base, request->device, 8, &storage);
    tm_storage_release(storage);
  }
  return false;
}

static bool ask_the_second(const tm_oom_request* request, void* user) {
  two_kinds* self = user;
  tm_storage* storage = NULL;
  self->second_inside = tm_context_alloc(&self->second->base, request->device, 8, &storage);
  return false;
}

Test(out_of_memory, a_device_gives_nothing_either_while_another_runs_out_inside_its_handler) {
  counting_allocator first = exhausted();
  counting_allocator second = exhausted();
  second.base.device = tm_device_make(TM_CPU_PINNED, 0);
  two_kinds both = {.first = &first, .second = &second, .first_inside = TM_OK};
  tm_storage* storage = NULL;
  TM_WITH_OOM_HANDLER(ask_the_first, &both)
  TM_WITH_OOM_HANDLER(ask_the_second, &both) {
    cr_expect(eq(int, tm_context_alloc(&first.base, first.base.device, 4096, &storage),
                 TM_ERR_NO_MEMORY));
  }
  cr_expect(eq(int, both.second_inside, TM_ERR_NO_MEMORY));
  cr_expect(eq(int, both.first_inside, TM_ERR_NO_MEMORY));
}
