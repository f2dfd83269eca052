// The budget, and what is reserved of it.

#include "tm/alloc/limit_adaptor.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <string.h>

#include "tests/support/counting_allocator.h"
#include "tests/support/expect_fatal.h"
#include "tests/support/failing.h"
#include "tests/support/random.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/alloc/cached.h"
#include "tm/alloc/host.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/storage.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

static tm_allocator* create(tm_allocator* upstream, size_t bytes) {
  tm_allocator* adaptor = tm_limit_adaptor_create(upstream, bytes);
  cr_assert(adaptor != NULL, "%s", tm_last_error()->message);
  return adaptor;
}

static tm_status take(tm_allocator* allocator, size_t size, void** out) {
  return tm_allocator_alloc(allocator, size, NULL, out);
}

static tm_limit_state state_of(tm_allocator* adaptor) {
  tm_limit_state state;
  cr_assert(eq(int, tm_limit_get(adaptor, &state), TM_OK));
  return state;
}

Test(limit_adaptor, what_goes_beyond_the_budget_is_refused_with_the_figures) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  tm_allocator* adaptor = create(&upstream.base, 1024);
  void* a;
  void* b = &b;
  cr_assert(eq(int, take(adaptor, 700, &a), TM_OK));  // 768, rounded to 256
  cr_expect(eq(int, take(adaptor, 257, &b), TM_ERR_NO_MEMORY));
  cr_expect(b == NULL);
  cr_expect(eq(str, (char*)tm_last_error()->message,
               "limit: 512 bytes asked; 768 used and 0 reserved of a budget of 1024 bytes"));
  cr_expect(eq(u64, upstream.allocs, 1));
  cr_expect(eq(u64, upstream.failures, 0));
  cr_assert(eq(int, take(adaptor, 256, &b), TM_OK));  // to the last byte
  tm_allocator_free(adaptor, a, 700, NULL);
  tm_allocator_free(adaptor, b, 256, NULL);
  const tm_limit_state state = state_of(adaptor);
  cr_expect(eq(sz, state.budget, 1024));
  cr_expect(eq(sz, state.used, 0));
  cr_expect(eq(sz, state.peak, 1024));
  tm_allocator_release(adaptor);
  tm_allocator_release(&upstream.base);
  cr_expect(upstream.destroyed);
}

Test(limit_adaptor, a_refusal_of_the_upstream_costs_no_budget) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  upstream.budget = 512;
  tm_allocator* adaptor = create(&upstream.base, SIZE_MAX);
  void* block = &block;
  cr_expect(eq(int, take(adaptor, 1000, &block), TM_ERR_NO_MEMORY));
  cr_expect(block == NULL);
  cr_expect(eq(sz, state_of(adaptor).used, 0));
  tm_limit_reservation room;
  cr_assert(eq(int, tm_limit_reserve(adaptor, 4096, &room), TM_OK));
  cr_expect(eq(int, tm_limit_commit(&room, 1000, NULL, &block), TM_ERR_NO_MEMORY));
  cr_expect(eq(sz, room.bytes, 4096));
  cr_expect(eq(sz, state_of(adaptor).reserved, 4096));
  tm_limit_cancel(&room);
  tm_allocator_release(adaptor);
  tm_allocator_release(&upstream.base);
}

Test(limit_adaptor, a_reservation_cannot_fail_for_the_budget) {
  tm_auto_allocator adaptor = create(tm_host_allocator(), 1024);
  tm_limit_reservation room;
  cr_assert(eq(int, tm_limit_reserve(adaptor, 500, &room), TM_OK));  // 512
  void* other;
  cr_assert(eq(int, take(adaptor, 512, &other), TM_OK));  // the rest
  void* block = NULL;
  cr_expect(eq(int, take(adaptor, 1, &block), TM_ERR_NO_MEMORY));
  cr_assert(eq(int, tm_limit_commit(&room, 300, NULL, &block), TM_OK));  // 320
  cr_expect(eq(sz, room.bytes, 192));
  tm_storage* storage;
  cr_assert(eq(int, tm_limit_commit_storage(&room, 192, NULL, &storage), TM_OK));
  cr_expect(eq(sz, room.bytes, 0));
  cr_expect(eq(sz, state_of(adaptor).used, 1024));
  cr_expect(eq(sz, state_of(adaptor).reserved, 0));
  tm_limit_cancel(&room);
  tm_storage_release(storage);
  tm_allocator_free(adaptor, block, 300, NULL);
  tm_allocator_free(adaptor, other, 512, NULL);
  cr_expect(eq(sz, state_of(adaptor).used, 0));
}

// A region or segment that came out of a reservation goes back there where it cannot be kept.
static void expect_reservation_survives(tm_allocator* above, tm_limit_reservation* room) {
  const size_t left = room->bytes;
  tm_status status = TM_ERR_NO_MEMORY;
  for (long n = 1; status != TM_OK && n < 100; n++) {
    void* block = NULL;
    TM_WITH_RESERVATION(room) {
      tm_bookkeeping_fail_nth(n);
      status = tm_allocator_alloc(above, 4096, NULL, &block);
      tm_bookkeeping_fail_nth(0);
    }
    cr_expect(status == TM_OK || room->bytes == left, "%s, call %ld: %zu of %zu bytes are left",
              tm_allocator_name(above), n, room->bytes, left);
    tm_allocator_free(above, block, 4096, NULL);
  }
  cr_expect(eq(int, status, TM_OK));
  cr_expect(room->bytes < left);
}

Test(limit_adaptor, what_fails_after_all_goes_back_to_its_reservation) {
  tm_auto_allocator adaptor = create(tm_host_allocator(), 64 * MIB);
  tm_limit_reservation room;
  cr_assert(eq(int, tm_limit_reserve(adaptor, 32 * MIB, &room), TM_OK));
  tm_allocator* stack = tm_stack_allocator_create(adaptor, NULL, NULL);
  expect_reservation_survives(stack, &room);
  tm_allocator* cached = tm_cached_allocator_create(adaptor, NULL, NULL);
  expect_reservation_survives(cached, &room);
  tm_allocator_release(stack);
  tm_allocator_release(cached);
  cr_expect(eq(sz, state_of(adaptor).reserved, room.bytes));
  cr_expect(eq(sz, state_of(adaptor).used, 0));
  tm_limit_cancel(&room);
}

Test(limit_adaptor, a_cancelled_reservation_gives_back_what_was_not_used) {
  tm_auto_allocator adaptor = create(tm_host_allocator(), 1024);
  tm_limit_reservation room;
  cr_assert(eq(int, tm_limit_reserve(adaptor, 1024, &room), TM_OK));
  tm_limit_reservation second = room;
  cr_expect(eq(int, tm_limit_reserve(adaptor, 64, &second), TM_ERR_NO_MEMORY));
  cr_expect(second.limit == NULL && second.bytes == 0);
  void* block;
  cr_assert(eq(int, tm_limit_commit(&room, 64, NULL, &block), TM_OK));
  tm_limit_cancel(&room);
  cr_expect(room.limit == NULL && room.bytes == 0);
  tm_limit_cancel(&room);
  tm_limit_cancel(NULL);
  cr_expect(eq(sz, state_of(adaptor).reserved, 0));
  cr_expect(eq(sz, state_of(adaptor).used, 64));
  tm_allocator_free(adaptor, block, 64, NULL);
}

Test(limit_adaptor, a_reservation_keeps_the_adaptor_alive) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  tm_allocator* adaptor = create(&upstream.base, 4096);
  tm_allocator_release(&upstream.base);
  tm_limit_reservation room;
  cr_assert(eq(int, tm_limit_reserve(adaptor, 1000, &room), TM_OK));
  tm_allocator_release(adaptor);
  cr_expect(not(upstream.destroyed));
  tm_limit_cancel(&room);
  cr_expect(upstream.destroyed);
}

Test(limit_adaptor, a_block_draws_on_its_reservation_and_then_on_the_budget) {
  tm_auto_allocator adaptor = create(tm_host_allocator(), 1024);
  tm_auto_allocator other = create(tm_host_allocator(), 64);
  tm_limit_reservation room;
  cr_assert(eq(int, tm_limit_reserve(adaptor, 512, &room), TM_OK));
  void* blocks[3] = {NULL};
  void* elsewhere = NULL;
  TM_WITH_RESERVATION(&room) {
    cr_expect(eq(int, take(adaptor, 256, &blocks[0]), TM_OK));
    cr_expect(eq(int, take(other, 64, &elsewhere), TM_OK));  // not of this adaptor
    cr_expect(eq(sz, room.bytes, 256));
    TM_WITH_RESERVATION(NULL) { cr_expect(eq(int, take(adaptor, 256, &blocks[1]), TM_OK)); }
    cr_expect(eq(sz, room.bytes, 256));
    cr_expect(eq(int, take(adaptor, 512, &blocks[2]), TM_OK));  // half of it from the budget
    cr_expect(eq(sz, room.bytes, 0));
    break;
  }
  cr_expect(eq(sz, state_of(adaptor).used, 1024));
  cr_expect(tm_limit_draw_on_(NULL) == NULL);  // the block has put it back
  tm_limit_cancel(&room);
  tm_allocator_free(adaptor, blocks[0], 256, NULL);
  tm_allocator_free(adaptor, blocks[1], 256, NULL);
  tm_allocator_free(adaptor, blocks[2], 512, NULL);
  tm_allocator_free(other, elsewhere, 64, NULL);
}

Test(limit_adaptor, a_guard_draws_until_its_block_ends) {
  tm_auto_allocator adaptor = create(tm_host_allocator(), 1024);
  tm_limit_reservation room;
  cr_assert(eq(int, tm_limit_reserve(adaptor, 512, &room), TM_OK));
  void* blocks[2] = {NULL};
  {
    TM_USE_RESERVATION(NULL);
    TM_USE_RESERVATION(&room);
    cr_expect(eq(int, take(adaptor, 256, &blocks[0]), TM_OK));
  }
  cr_expect(eq(sz, room.bytes, 256));
  cr_expect(eq(int, take(adaptor, 256, &blocks[1]), TM_OK));
  cr_expect(eq(sz, room.bytes, 256));
  tm_limit_cancel(&room);
  tm_allocator_free(adaptor, blocks[0], 256, NULL);
  tm_allocator_free(adaptor, blocks[1], 256, NULL);
}

Test(limit_adaptor, a_smaller_budget_takes_nothing_away) {
  tm_auto_allocator adaptor = create(tm_host_allocator(), 1024);
  void* a;
  void* b = NULL;
  cr_assert(eq(int, take(adaptor, 1024, &a), TM_OK));
  cr_assert(eq(int, tm_limit_set_budget(adaptor, 512), TM_OK));
  cr_expect(eq(int, take(adaptor, 64, &b), TM_ERR_NO_MEMORY));
  tm_allocator_free(adaptor, a, 1024, NULL);
  cr_assert(eq(int, take(adaptor, 512, &b), TM_OK));
  tm_allocator_free(adaptor, b, 512, NULL);
}

Test(limit_adaptor, under_a_stack_an_allocation_trims_and_tries_again) {
  tm_auto_allocator adaptor = create(tm_host_allocator(), 5 * MIB);
  tm_auto_allocator stack = tm_stack_allocator_create(adaptor, NULL, NULL);
  cr_assert(stack != NULL);
  void* first;
  void* second;
  cr_assert(eq(int, take(stack, 3 * MIB, &first), TM_OK));
  tm_allocator_free(stack, first, 3 * MIB, NULL);
  void* held;
  cr_assert(eq(int, take(adaptor, 1 * MIB, &held), TM_OK));
  cr_assert(eq(int, take(stack, 4 * MIB, &second), TM_OK), "%s", tm_last_error()->message);
  tm_allocator_free(stack, second, 4 * MIB, NULL);
  tm_allocator_free(adaptor, held, 1 * MIB, NULL);
}

Test(limit_adaptor, misuse_is_an_error) {
  cr_expect(tm_limit_adaptor_create(NULL, 100) == NULL);
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
  tm_clear_error();
  tm_limit_reservation room = {.bytes = 7};
  cr_expect(eq(int, tm_limit_reserve(tm_host_allocator(), 10, &room), TM_ERR_INVALID));
  cr_expect(strstr(tm_last_error()->message, "is a host, no limit") != NULL);
  cr_expect(eq(sz, room.bytes, 0));
  tm_auto_allocator adaptor = create(tm_host_allocator(), 1024);
  cr_expect(eq(int, tm_limit_reserve(adaptor, 10, NULL), TM_ERR_INVALID));
  cr_expect(eq(int, tm_limit_reserve(adaptor, SIZE_MAX, &room), TM_ERR_OVERFLOW));
  cr_expect(eq(int, tm_limit_get(adaptor, NULL), TM_ERR_INVALID));
  void* block = &block;
  cr_expect(eq(int, tm_limit_commit(&room, 10, NULL, &block), TM_ERR_INVALID));
  cr_expect(block == NULL);
  cr_expect(eq(int, tm_limit_commit(NULL, 10, NULL, &block), TM_ERR_INVALID));
  cr_assert(eq(int, tm_limit_reserve(adaptor, 128, &room), TM_OK));
  block = &block;
  cr_expect(eq(int, tm_limit_commit(&room, 129, NULL, &block), TM_ERR_OUT_OF_RANGE));
  cr_expect(block == NULL);
  cr_expect(strstr(tm_last_error()->message,
                   "192 bytes asked of a reservation that has 128 left") != NULL);
  cr_expect(eq(int, tm_limit_commit(&room, SIZE_MAX, NULL, &block), TM_ERR_INVALID));
  cr_expect(eq(int, tm_limit_commit(&room, 10, NULL, NULL), TM_ERR_INVALID));
  cr_expect(eq(int, tm_limit_commit(&room, 0, NULL, &block), TM_OK));
  cr_expect(eq(sz, room.bytes, 128));
  tm_limit_cancel(&room);
  cr_assert(eq(int, tm_limit_reserve(adaptor, 0, &room), TM_OK));
  tm_limit_cancel(&room);
}

Test(limit_adaptor, a_foreign_free_is_fatal) {
  tm_auto_allocator adaptor = create(tm_host_allocator(), 1024);
  char foreign[64];
  EXPECT_FATAL(tm_allocator_free(adaptor, foreign, 64, NULL), "no block of this allocator");
}

//===-- Against a model -------------------------------------------------------===//

enum { STEPS = 200000, MAX_LIVE = 40, ROOMS = 4, BUDGET = 64 * 400 };

typedef struct model {
  tm_allocator* adaptor;
  void* live[MAX_LIVE];
  size_t sizes[MAX_LIVE];
  tm_limit_reservation rooms[ROOMS];
  size_t left[ROOMS];  // what the model says of rooms
  size_t used;
  size_t reserved;
  size_t peak;
} model;

static size_t rounded(size_t size) { return (size + 63) / 64 * 64; }

static void note_peak(model* m) {
  m->peak = m->used + m->reserved > m->peak ? m->used + m->reserved : m->peak;
}

static void step_block(model* m, test_random* random) {
  const size_t i = test_random_below(random, MAX_LIVE);
  if (m->live[i]) {
    tm_allocator_free(m->adaptor, m->live[i], m->sizes[i], NULL);
    m->live[i] = NULL;
    m->used -= rounded(m->sizes[i]);
    return;
  }
  const size_t room = test_random_below(random, (size_t)2 * ROOMS);  // upper half: none
  const size_t size = 1 + test_random_below(random, 2000);
  m->sizes[i] = size;
  if (room < ROOMS && m->rooms[room].limit) {
    const bool fits = rounded(size) <= m->left[room];
    cr_assert(eq(int, tm_limit_commit(&m->rooms[room], size, NULL, &m->live[i]),
                 fits ? TM_OK : TM_ERR_OUT_OF_RANGE));
    m->left[room] -= fits ? rounded(size) : 0;
    m->reserved -= fits ? rounded(size) : 0;
    m->used += fits ? rounded(size) : 0;
  } else {
    const bool fits = m->used + m->reserved + rounded(size) <= BUDGET;
    cr_assert(eq(int, take(m->adaptor, size, &m->live[i]), fits ? TM_OK : TM_ERR_NO_MEMORY));
    m->used += fits ? rounded(size) : 0;
  }
}

static void step_room(model* m, test_random* random) {
  const size_t i = test_random_below(random, ROOMS);
  if (m->rooms[i].limit) {
    tm_limit_cancel(&m->rooms[i]);
    m->reserved -= m->left[i];
    m->left[i] = 0;
    return;
  }
  const size_t bytes = test_random_below(random, 6000);
  const bool fits = m->used + m->reserved + rounded(bytes) <= BUDGET;
  cr_assert(
      eq(int, tm_limit_reserve(m->adaptor, bytes, &m->rooms[i]), fits ? TM_OK : TM_ERR_NO_MEMORY));
  m->left[i] = fits ? rounded(bytes) : 0;
  m->reserved += m->left[i];
}

Test(limit_adaptor, is_what_a_model_says) {
  static model m;
  test_random random = test_random_start("limit_adaptor");
  m.adaptor = create(tm_host_allocator(), BUDGET);
  for (int step = 0; step < STEPS; step++) {
    if (test_random_below(&random, 5) == 0) {
      step_room(&m, &random);
    } else {
      step_block(&m, &random);
    }
    note_peak(&m);
    const tm_limit_state state = state_of(m.adaptor);
    cr_assert(state.used == m.used && state.reserved == m.reserved && state.peak == m.peak);
  }
  for (int i = 0; i < MAX_LIVE; i++) {
    tm_allocator_free(m.adaptor, m.live[i], m.sizes[i], NULL);
  }
  for (int i = 0; i < ROOMS; i++) {
    tm_limit_cancel(&m.rooms[i]);
  }
  cr_expect(eq(sz, state_of(m.adaptor).used, 0));
  tm_allocator_release(m.adaptor);
}

//===-- Failures --------------------------------------------------------------===//

static tm_status reserve_and_use(tm_allocator* upstream) {
  tm_auto_allocator adaptor = tm_limit_adaptor_create(upstream, 1024);
  if (!adaptor) {
    return tm_last_status();
  }
  tm_limit_reservation room;
  TM_TRY(tm_limit_reserve(adaptor, 640, &room));
  void* block;
  tm_status status = tm_limit_commit(&room, 100, NULL, &block);
  if (status == TM_OK) {
    tm_allocator_free(adaptor, block, 100, NULL);
    tm_storage* storage;
    status = tm_limit_commit_storage(&room, 100, NULL, &storage);
    if (status == TM_OK) {
      tm_storage_release(storage);
    }
  }
  const size_t reserved = room.bytes;
  tm_limit_cancel(&room);
  tm_limit_state state = {.used = 1};
  TM_TRY(status);
  TM_TRY(tm_limit_get(adaptor, &state));
  return state.used == 0 && state.reserved == 0 && reserved == 640 - 256 ? TM_OK : TM_ERR_CORRUPT;
}

Test(limit_adaptor, survives_every_failure) {
  expect_survives_every_failure_or_retries(reserve_and_use);
}
