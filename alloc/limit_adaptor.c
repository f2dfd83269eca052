// The budget:
//
//   |---- used ----|-- reserved --|-------- free --------|
//   0                                                  budget
//
// An allocation out of a reservation moves bytes from `reserved` to `used`, in one step under the
// lock, so that nobody else gets them in between.

#include "tm/alloc/limit_adaptor.h"

#include <string.h>

#include "alloc/adaptor.h"
#include "tm/base/checked.h"
#include "tm/base/fatal.h"

typedef struct limit {
  tm_allocator base;  // must be first
  tm_limit_state state;
} limit;

// What this thread allocates comes out of it, through the adaptor that it is of.
static __thread tm_limit_reservation* drawn_on;

// Where the bytes of an allocation came from.
typedef struct charge {
  size_t bytes;
  size_t from_reservation;  // of them
  tm_limit_reservation* reservation;
} charge;

// The latest block of the adaptor that this thread draws on. If what it was for fails after all,
// the reservation gets back what came out of it. Everything else goes to the budget.
static __thread struct {
  const void* ptr;
  size_t from_reservation;
} latest;

//===-- The budget ----------------------------------------------------------===//

static size_t free_bytes(const tm_limit_state* state) {
  const size_t taken = state->used + state->reserved;
  return taken < state->budget ? state->budget - taken : 0;
}

static void note_peak(tm_limit_state* state) {
  const size_t taken = state->used + state->reserved;
  state->peak = taken > state->peak ? taken : state->peak;
}

static tm_status raise_over_budget(size_t bytes, const tm_limit_state* state) {
  return TM_RAISE(TM_ERR_NO_MEMORY,
                  "limit: %zu bytes asked; %zu used and %zu reserved of a budget of %zu bytes",
                  bytes, state->used, state->reserved, state->budget);
}

// Under the lock.
static bool take(limit* l, charge* c) {
  const size_t left = c->reservation ? c->reservation->bytes : 0;
  c->from_reservation = c->bytes < left ? c->bytes : left;
  const size_t rest = c->bytes - c->from_reservation;
  if (rest && rest > free_bytes(&l->state)) {
    return false;
  }
  l->state.used += c->bytes;
  l->state.reserved -= c->from_reservation;
  if (c->reservation) {
    c->reservation->bytes -= c->from_reservation;
  }
  note_peak(&l->state);
  return true;
}

static tm_status charge_budget(limit* l, charge* c) {
  tm_adaptor_lock_(&l->base);
  const tm_limit_state before = l->state;
  const bool taken = take(l, c);
  tm_adaptor_unlock_(&l->base);
  return taken ? TM_OK : raise_over_budget(c->bytes, &before);
}

static void refund(limit* l, const charge* c) {
  tm_adaptor_lock_(&l->base);
  l->state.used -= c->bytes;
  l->state.reserved += c->from_reservation;
  if (c->reservation) {
    c->reservation->bytes += c->from_reservation;
  }
  tm_adaptor_unlock_(&l->base);
}

//===-- Slots ---------------------------------------------------------------===//

// The one that this thread draws on, if it is of this adaptor.
static tm_limit_reservation* reservation_of(const tm_allocator* self) {
  return drawn_on && drawn_on->limit == self ? drawn_on : NULL;
}

static tm_status limit_alloc(tm_allocator* self, size_t size, tm_stream* stream, void** out) {
  limit* l = (limit*)self;
  charge c = {.bytes = tm_adaptor_rounded_(self, size), .reservation = reservation_of(self)};
  TM_TRY(charge_budget(l, &c));
  const tm_status status = tm_adaptor_ask_(self, size, stream, out);
  if (status != TM_OK) {
    refund(l, &c);
    return status;
  }
  if (c.reservation) {
    latest.ptr = *out;
    latest.from_reservation = c.from_reservation;
  }
  return TM_OK;
}

// What a free gives back, and to whom.
static charge charge_of(const tm_allocator* self, const void* ptr, size_t bytes) {
  const bool undone = tm_is_undoing_() && reservation_of(self) && latest.ptr == ptr;
  return (charge){.bytes = bytes,
                  .from_reservation = undone ? latest.from_reservation : 0,
                  .reservation = undone ? drawn_on : NULL};
}

static void check_is_used(const limit* l, size_t bytes) {
  tm_adaptor_lock_(&l->base);
  const size_t used = l->state.used;
  tm_adaptor_unlock_(&l->base);
  if (bytes > used) {
    TM_FATAL("limit: %zu bytes are freed, and %zu are in use: it is no block of this allocator",
             bytes, used);
  }
}

// The budget gets the bytes last: who is admitted for them finds them in the upstream.
static void limit_free(tm_allocator* self, void* ptr, size_t size, tm_stream* stream) {
  const size_t bytes = tm_adaptor_rounded_(self, size);
  check_is_used((const limit*)self, bytes);
  const charge c = charge_of(self, ptr, bytes);
  tm_adaptor_give_back_(self, ptr, size, stream);
  refund((limit*)self, &c);
}

// The upstream's, and the budget also where that keeps none.
static tm_status limit_get_stats(tm_allocator* self, tm_allocator_stats* out) {
  const tm_status status = tm_adaptor_get_stats_(self, out);
  tm_adaptor_lock_(self);
  out->limit_bytes = ((const limit*)self)->state.budget;
  tm_adaptor_unlock_(self);
  return status;
}

static const tm_allocator_vtable limit_vtable = {
    .name = "limit",
    .destroy = tm_adaptor_destroy_,
    .alloc = limit_alloc,
    .free = limit_free,
    .trim = tm_adaptor_trim_,
    .get_stats = limit_get_stats,
};

tm_allocator* tm_limit_adaptor_create(tm_allocator* upstream, size_t bytes) {
  limit* l = tm_adaptor_create_(sizeof *l, &limit_vtable, upstream,
                                "tm_limit_adaptor_create: the upstream");
  if (!l) {
    return NULL;
  }
  l->state.budget = bytes;
  return &l->base;
}

//===-- The state -----------------------------------------------------------===//

static tm_status check(const tm_allocator* adaptor, const char* what) {
  return tm_adaptor_check_(adaptor, &limit_vtable, what);
}

tm_status tm_limit_get(tm_allocator* adaptor, tm_limit_state* out) {
  if (!out) {
    return TM_RAISE(TM_ERR_INVALID, "tm_limit_get: out is NULL");
  }
  memset(out, 0, sizeof *out);
  TM_TRY(check(adaptor, "tm_limit_get: the allocator"));
  tm_adaptor_lock_(adaptor);
  *out = ((limit*)adaptor)->state;
  tm_adaptor_unlock_(adaptor);
  return TM_OK;
}

tm_status tm_limit_set_budget(tm_allocator* adaptor, size_t bytes) {
  TM_TRY(check(adaptor, "tm_limit_set_budget: the allocator"));
  tm_adaptor_lock_(adaptor);
  ((limit*)adaptor)->state.budget = bytes;
  tm_adaptor_unlock_(adaptor);
  return TM_OK;
}

//===-- Reservations --------------------------------------------------------===//

tm_status tm_limit_reserve(tm_allocator* adaptor, size_t bytes, tm_limit_reservation* out) {
  if (!out) {
    return TM_RAISE(TM_ERR_INVALID, "tm_limit_reserve: out is NULL");
  }
  *out = (tm_limit_reservation){0};
  TM_TRY(check(adaptor, "tm_limit_reserve: the allocator"));
  size_t rounded = 0;
  if (!tm_checked_round_up(bytes, adaptor->alignment, &rounded)) {
    return TM_RAISE(TM_ERR_OVERFLOW, "limit: a reservation of %zu bytes asked", bytes);
  }
  limit* l = (limit*)adaptor;
  tm_adaptor_lock_(adaptor);
  const tm_limit_state before = l->state;
  const bool fits = rounded <= free_bytes(&before);
  if (fits) {
    l->state.reserved += rounded;
    note_peak(&l->state);
  }
  tm_adaptor_unlock_(adaptor);
  if (!fits) {
    return raise_over_budget(rounded, &before);
  }
  *out = (tm_limit_reservation){.limit = tm_allocator_retain(adaptor), .bytes = rounded};
  return TM_OK;
}

// A size that does not round up is left to the allocation, which says so.
static tm_status check_commit(const tm_limit_reservation* reservation, size_t size) {
  if (!reservation || !reservation->limit) {
    return TM_RAISE(TM_ERR_INVALID, "tm_limit_commit: there is no reservation, or it is cancelled");
  }
  size_t rounded = 0;
  if (size <= PTRDIFF_MAX && tm_checked_round_up(size, reservation->limit->alignment, &rounded) &&
      rounded > reservation->bytes) {
    return TM_RAISE(TM_ERR_OUT_OF_RANGE,
                    "limit: %zu bytes asked of a reservation that has %zu left", rounded,
                    reservation->bytes);
  }
  return TM_OK;
}

tm_limit_reservation* tm_limit_draw_on_(tm_limit_reservation* reservation) {
  tm_limit_reservation* before = drawn_on;
  drawn_on = reservation;
  return before;
}

tm_status tm_limit_commit(tm_limit_reservation* reservation, size_t size, tm_stream* stream,
                          void** out) {
  if (out) {
    *out = NULL;
  }
  TM_TRY(check_commit(reservation, size));
  tm_limit_reservation* before = tm_limit_draw_on_(reservation);
  const tm_status status = tm_allocator_alloc(reservation->limit, size, stream, out);
  (void)tm_limit_draw_on_(before);
  return status;
}

tm_status tm_limit_commit_storage(tm_limit_reservation* reservation, size_t size, tm_stream* stream,
                                  tm_storage** out) {
  if (out) {
    *out = NULL;
  }
  TM_TRY(check_commit(reservation, size));
  tm_limit_reservation* before = tm_limit_draw_on_(reservation);
  const tm_status status = tm_storage_alloc(reservation->limit, size, stream, out);
  (void)tm_limit_draw_on_(before);
  return status;
}

void tm_limit_cancel(tm_limit_reservation* reservation) {
  if (!reservation || !reservation->limit) {
    return;
  }
  tm_allocator* adaptor = reservation->limit;
  tm_adaptor_lock_(adaptor);
  ((limit*)adaptor)->state.reserved -= reservation->bytes;
  *reservation = (tm_limit_reservation){0};
  tm_adaptor_unlock_(adaptor);
  tm_allocator_release(adaptor);
}
