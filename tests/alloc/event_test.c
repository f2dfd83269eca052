#include "tm/alloc/event.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <unistd.h>

#include "alloc/event_cache.h"
#include "tests/support/failing.h"
#include "tests/support/gate.h"
#include "tests/support/machine.h"
#include "tm/alloc/bookkeeping.h"

static tm_stream* stream;

static void setup(int devices) {
  machine_configure(devices, "64MiB");
  machine_require_devices(devices);
  stream = tm_stream_create(0, 0);
  cr_assert(stream != NULL, "%s", tm_last_error()->message);
}

static tm_event* create(bool timing) {
  tm_event* event = tm_event_create(0, timing);
  cr_assert(event != NULL, "%s", tm_last_error()->message);
  return event;
}

static bool is_done(tm_event* event) {
  bool done = false;
  cr_assert(eq(int, tm_event_query(event, &done), TM_OK), "%s", tm_last_error()->message);
  return done;
}

Test(event, is_done_when_what_was_recorded_is) {
  setup(1);
  tm_auto_event event = create(false);
  cr_expect(is_done(event));  // nothing recorded yet
  cr_expect(eq(int, tm_event_sync(event), TM_OK));
  gate g;
  gate_close(&g, stream);
  cr_assert(eq(int, tm_event_record(event, stream), TM_OK));
  cr_expect(not(is_done(event)));
  cr_expect(eq(int, cudaGetLastError(), cudaSuccess));
  gate_open(&g);
  cr_expect(eq(int, tm_event_sync(event), TM_OK));
  cr_expect(is_done(event));
  tm_stream_release(stream);
}

Test(event, recording_again_moves_the_mark) {
  setup(1);
  tm_auto_event event = create(false);
  cr_assert(eq(int, tm_event_record(event, stream), TM_OK));
  cr_assert(eq(int, tm_event_sync(event), TM_OK));
  gate g;
  gate_close(&g, stream);
  cr_expect(is_done(event));
  cr_assert(eq(int, tm_event_record(event, stream), TM_OK));
  cr_expect(not(is_done(event)));
  gate_open(&g);
  cr_expect(eq(int, tm_stream_sync(stream), TM_OK));
  cr_expect(is_done(event));
  tm_stream_release(stream);
}

Test(event, measures_time_between_two) {
  setup(1);
  tm_auto_event start = create(true);
  tm_auto_event end = create(true);
  gate g;
  gate_close(&g, stream);
  cr_assert(eq(int, tm_event_record(start, stream), TM_OK));
  gate second;
  gate_close(&second, stream);
  cr_assert(eq(int, tm_event_record(end, stream), TM_OK));
  float milliseconds = 5;
  cr_expect(eq(int, tm_event_elapsed(start, end, &milliseconds), TM_ERR_BUSY));
  cr_expect(eq(flt, milliseconds, 0));
  gate_open(&g);
  cr_assert(eq(int, tm_event_sync(start), TM_OK));
  (void)usleep(20 * 1000);
  gate_open(&second);
  cr_assert(eq(int, tm_event_sync(end), TM_OK));
  cr_expect(eq(int, tm_event_elapsed(start, end, &milliseconds), TM_OK));
  cr_expect(milliseconds >= 15 && milliseconds < 60000, "%f ms", milliseconds);
  tm_stream_release(stream);
}

Test(event, refuses_to_time_what_was_not_timed) {
  setup(1);
  tm_auto_event timed = create(true);
  tm_auto_event recorded = create(true);
  tm_auto_event untimed = create(false);
  cr_assert(eq(int, tm_event_record(recorded, stream), TM_OK));
  cr_assert(eq(int, tm_event_record(untimed, stream), TM_OK));
  cr_assert(eq(int, tm_stream_sync(stream), TM_OK));
  float milliseconds = 5;
  cr_expect(eq(int, tm_event_elapsed(recorded, timed, &milliseconds), TM_ERR_INVALID));
  cr_expect(eq(flt, milliseconds, 0));
  cr_expect(eq(int, tm_event_elapsed(timed, recorded, &milliseconds), TM_ERR_INVALID));
  cr_expect(eq(int, tm_event_elapsed(recorded, untimed, &milliseconds), TM_ERR_INVALID));
  cr_expect(eq(int, tm_event_elapsed(untimed, recorded, &milliseconds), TM_ERR_INVALID));
  cr_expect(eq(int, tm_event_elapsed(recorded, recorded, NULL), TM_ERR_INVALID));
  cr_expect(eq(int, cudaGetLastError(), cudaSuccess));
  tm_stream_release(stream);
}

Test(event, null_is_an_error_and_never_a_crash) {
  setup(1);
  tm_auto_event event = create(true);
  bool flag = true;
  float milliseconds;
  tm_clear_error();
  cr_expect(eq(int, tm_event_record(NULL, stream), TM_ERR_INVALID));
  cr_expect(eq(int, tm_event_record(event, NULL), TM_ERR_INVALID));
  cr_expect(eq(int, tm_event_sync(NULL), TM_ERR_INVALID));
  cr_expect(eq(int, tm_event_query(NULL, &flag), TM_ERR_INVALID));
  cr_expect(not(flag));
  cr_expect(eq(int, tm_event_query(event, NULL), TM_ERR_INVALID));
  cr_expect(eq(int, tm_event_elapsed(NULL, event, &milliseconds), TM_ERR_INVALID));
  cr_expect(eq(int, tm_event_elapsed(event, NULL, &milliseconds), TM_ERR_INVALID));
  cr_expect(eq(ptr, tm_event_handle(NULL), NULL));
  cr_expect(tm_device_equal(tm_event_device(NULL), (tm_device){TM_CPU, 0}));
  cr_expect(eq(ptr, tm_event_retain(NULL), NULL));
  tm_event_release(NULL);
  tm_stream_release(stream);
}

Test(event, has_a_text) {
  setup(1);
  tm_auto_event timed = create(true);
  tm_auto_event plain = create(false);
  char text[TM_EVENT_TEXT_SIZE];
  char expected[TM_EVENT_TEXT_SIZE];
  tm_event_text(timed, text, sizeof text);
  snprintf(expected, sizeof expected, "event(device 0, %p, timing)", (void*)tm_event_handle(timed));
  cr_expect(eq(str, text, expected));
  tm_event_text(plain, text, sizeof text);
  snprintf(expected, sizeof expected, "event(device 0, %p)", (void*)tm_event_handle(plain));
  cr_expect(eq(str, text, expected));
  tm_event_text(NULL, text, sizeof text);
  cr_expect(eq(str, text, "event(null)"));
  tm_event_text(NULL, text, 6);
  cr_expect(eq(str, text, "event"));
  tm_stream_release(stream);
}

Test(event, that_was_never_recorded_needs_no_waiting) {
  setup(1);
  tm_auto_event event = create(false);
  cr_expect(eq(int, tm_stream_wait(stream, event), TM_OK));
  cr_expect(eq(int, tm_stream_sync(stream), TM_OK));
  tm_stream_release(stream);
}

Test(event, times_one_device) {
  setup(2);
  tm_auto_stream elsewhere = tm_stream_create(1, 0);
  tm_auto_event start = create(true);
  tm_auto_event end = tm_event_create(1, true);
  cr_assert(eq(int, tm_event_record(start, stream), TM_OK));
  cr_assert(eq(int, tm_event_record(end, elsewhere), TM_OK));
  float milliseconds = 5;
  cr_expect(eq(int, tm_event_elapsed(start, end, &milliseconds), TM_ERR_INVALID));
  cr_expect(eq(flt, milliseconds, 0));
  cr_expect(eq(int, tm_stream_sync(stream), TM_OK));
  cr_expect(eq(int, tm_stream_sync(elsewhere), TM_OK));
  tm_stream_release(stream);
}

static void store_one(void* user) { *(int*)user = 1; }

Test(event, is_waited_for_by_a_stream_of_another_device) {
  setup(2);
  tm_auto_stream elsewhere = tm_stream_create(1, 0);
  tm_auto_event event = create(false);
  int stored = 0;
  gate g;
  gate_close(&g, stream);
  cr_assert(eq(int, tm_stream_call_host(stream, store_one, &stored), TM_OK));
  cr_assert(eq(int, tm_event_record(event, stream), TM_OK));
  cr_assert(eq(int, tm_stream_wait(elsewhere, event), TM_OK));
  bool done = true;
  cr_assert(eq(int, tm_stream_query(elsewhere, &done), TM_OK));
  cr_expect(not(done));
  gate_open(&g);
  cr_assert(eq(int, tm_stream_sync(elsewhere), TM_OK));
  cr_expect(eq(int, stored, 1));
  cr_expect(eq(int, tm_stream_sync(stream), TM_OK));
  tm_stream_release(stream);
}

Test(event, belongs_to_one_device) {
  setup(2);
  tm_auto_event elsewhere = tm_event_create(1, false);
  cr_assert(elsewhere != NULL);
  cr_expect(eq(int, tm_event_record(elsewhere, stream), TM_ERR_INVALID));
  cr_expect(eq(ptr, tm_event_create(2, false), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_OUT_OF_RANGE));
  tm_auto_stream second = tm_stream_create(1, 0);
  cr_expect(eq(int, tm_event_record(elsewhere, second), TM_OK));
  cr_expect(eq(int, tm_stream_wait(stream, elsewhere), TM_OK));
  cr_expect(eq(int, tm_stream_sync(stream), TM_OK));
  int current = -1;
  cr_assert(cudaGetDevice(&current) == cudaSuccess);
  cr_expect(eq(int, current, 0));
  tm_stream_release(stream);
}

Test(event, a_released_event_may_be_pending) {
  setup(1);
  tm_event* event = create(false);
  tm_auto_stream second = tm_stream_create(0, 0);
  gate g;
  gate_close(&g, stream);
  cr_assert(eq(int, tm_event_record(event, stream), TM_OK));
  cr_assert(eq(int, tm_stream_wait(second, event), TM_OK));
  tm_event_release(event);
  bool done = true;
  cr_assert(eq(int, tm_stream_query(second, &done), TM_OK));
  cr_expect(not(done));
  gate_open(&g);
  cr_expect(eq(int, tm_stream_sync(second), TM_OK));
  tm_stream_release(stream);
}

Test(event_cache, gives_an_event_out_again) {
  setup(1);
  tm_event* first = tm_event_acquire_(0);
  tm_event* second = tm_event_acquire_(0);
  cr_assert(first && second && first != second);
  tm_event_recycle_(first);
  const uint64_t calls = tm_bookkeeping_calls();
  cr_expect(eq(ptr, tm_event_acquire_(0), first));
  cr_expect(eq(u64, tm_bookkeeping_calls(), calls));
  tm_event_recycle_(first);
  tm_event_recycle_(second);
  tm_event_recycle_(NULL);
  const int64_t live = tm_bookkeeping_live();
  tm_event_cache_clear_();
  cr_expect(eq(i64, tm_bookkeeping_live(), live - 2));
  cr_expect(eq(ptr, tm_event_acquire_(-1), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_OUT_OF_RANGE));
  tm_stream_release(stream);
}

Test(event_cache, holds_a_bounded_number) {
  setup(1);
  enum { EVENTS = 1000 };
  static tm_event* events[EVENTS];
  const int64_t live = tm_bookkeeping_live();
  for (int i = 0; i < EVENTS; i++) {
    events[i] = tm_event_acquire_(0);
    cr_assert(events[i] != NULL);
  }
  for (int i = 0; i < EVENTS; i++) {
    tm_event_recycle_(events[i]);
  }
  cr_expect(le(i64, tm_bookkeeping_live(), live + 256));
  tm_event_cache_clear_();
  cr_expect(eq(i64, tm_bookkeeping_live(), live));
  tm_stream_release(stream);
}

static tm_status create_record_and_time(tm_allocator* upstream) {
  (void)upstream;
  tm_auto_event start = tm_event_create(0, true);
  tm_auto_event end = start ? tm_event_create(0, true) : NULL;
  if (!end) {
    return tm_last_status();
  }
  TM_TRY(tm_event_record(start, stream));
  TM_TRY(tm_event_record(end, stream));
  TM_TRY(tm_event_sync(end));
  float milliseconds;
  return tm_event_elapsed(start, end, &milliseconds);
}

Test(event, survives_every_failure) {
  setup(1);
  expect_survives_every_failure(create_record_and_time);
  tm_stream_release(stream);
}

Test(event, survives_every_cuda_failure) {
  setup(1);
  expect_survives_every_cuda_failure(create_record_and_time);
  tm_stream_release(stream);
}
