// RMM's logs: its columns as its versions write them, and the line of whatever is wrong.

#include "trace/rmm_log.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/support/failing.h"
#include "tests/trace/parse.h"

#define HEADER "Thread,Time,Action,Pointer,Size,Stream\n"
#define TIME "10:31:07.112233,"
#define FIRST "7," TIME "allocate,0x7f00,64,0x0\n"

//===-- What is read ------------------------------------------------------===//

Test(rmm_log, events_come_in_order_with_their_lines) {
  allocation_log log = parsed(LOG_RMM, HEADER FIRST "7," TIME
                                                    "allocate,0x8f00,128,0x0\n"
                                                    "7," TIME "free,0x7f00,64,0x0\n");
  expect_events(&log, "+0:64 +1:128 -0");
  cr_expect(eq(u64, log.events[0].line, 2));
  cr_expect(eq(u64, log.events[2].line, 4));
  cr_expect(eq(u64, log.peak_live_bytes, 192));
  cr_expect(eq(u64, log.last_live_bytes, 128));
  cr_expect(eq(u64, log.last_live_blocks, 1));
  allocation_log_deinit(&log);
  cr_expect(eq(sz, log.event_count, 0));
}

Test(rmm_log, addresses_that_come_again_are_other_blocks) {
  allocation_log log = parsed(LOG_RMM, HEADER FIRST "7," TIME
                                                    "free,0x7f00,64,0x0\n"
                                                    "7," TIME
                                                    "allocate,0x7f00,32,0x0\n"
                                                    "7," TIME "free,0x7f00,32,0x0\n");
  expect_events(&log, "+0:64 -0 +1:32 -1");
  allocation_log_deinit(&log);
}

Test(rmm_log, versions_write_numbers_in_their_ways) {
  allocation_log log = parsed(LOG_RMM,
                              "\xef\xbb\xbfThread,Time,Action,Pointer,Size,Stream\r\n"
                              "140202,10:31:07:112233,allocate,7F00AB,64,0\r\n"
                              "0x223aa,1700000000.25, deallocate, 0x7f00ab, 64, 0x0\r\n"
                              "\r\n"
                              "7fab,2024-02-29T10:31:07Z,allocate failure,(nil),99,(nil)\r\n"
                              "7fab,10:31:07,allocate failure,nullptr,98,0x55d0\r\n"
                              "7fab,10:31:07,allocate failure,0x0,97,0");
  expect_events(&log, "+0:64 -0 @1 !99 #1 !98 #0 !97");
  cr_expect(eq(u32, log.thread_count, 2));
  cr_expect(eq(u32, log.stream_count, 2));
  cr_expect(eq(u64, log.failures, 3));
  cr_expect(eq(u64, log.events[4].line, 7));
  allocation_log_deinit(&log);
}

Test(rmm_log, the_per_thread_default_stream_is_one_per_thread) {
  allocation_log log = parsed(LOG_RMM, HEADER "1," TIME
                                              "allocate,0x1,1,0x2\n"
                                              "2," TIME
                                              "allocate,0x2,1,0x2\n"
                                              "1," TIME
                                              "allocate,0x3,1,0x2\n"
                                              "2," TIME
                                              "allocate,0x4,1,0x1\n"
                                              "1," TIME "allocate,0x5,1,0x1\n");
  expect_events(&log, "+0:1 @1 #1 +1:1 @0 #0 +2:1 @1 #2 +3:1 @0 +4:1");
  allocation_log_deinit(&log);
}

Test(rmm_log, nothing_may_be_allocated_anywhere) {
  allocation_log log = parsed(LOG_RMM, HEADER FIRST "7," TIME
                                                    "allocate,0x7f00,0,0x0\n"
                                                    "7," TIME
                                                    "allocate,(nil),0,0x0\n"
                                                    "7," TIME
                                                    "allocate,(nil),0,0x0\n"
                                                    "7," TIME
                                                    "free,0x7f00,64,0x0\n"
                                                    "7," TIME
                                                    "free,0x0,0,0x0\n"
                                                    "7," TIME
                                                    "free,0x7f00,0,0x0\n"
                                                    "7," TIME "free,nullptr,0,0x0\n");
  expect_events(&log, "+0:64 +1:0 +2:0 +3:0 -0 -3 -1 -2");
  allocation_log_deinit(&log);
}

//===-- What is wrong -----------------------------------------------------===//

Test(rmm_log, a_malformed_row_is_named) {
  expect_malformed(LOG_RMM, "", 1, "the first line must be Thread,Time");
  expect_malformed(LOG_RMM, "\n\nthread,time\n", 3, "the first line must be");
  expect_malformed(LOG_RMM, "Thread,Time,Action,Pointer,Size,Stream,Device\n" FIRST, 1, "first");
  expect_malformed(LOG_RMM, HEADER FIRST HEADER, 3, "Time must be");
  expect_malformed(LOG_RMM, HEADER FIRST "junk\n", 3, "6 columns are expected, not 1");
  expect_malformed(LOG_RMM, HEADER "7," TIME "allocate,0x7f", 2, "6 columns are expected, not 4");
  expect_malformed(LOG_RMM, HEADER "7," TIME "free,0x7f00,64,0x0,\n", 2, "not 7");
  expect_malformed(LOG_RMM, HEADER "x," TIME "allocate,0x7f00,64,0x0\n", 2, "Thread must be");
  expect_malformed(LOG_RMM, HEADER "-7," TIME "allocate,0x7f00,64,0x0\n", 2, "not '-7'");
  expect_malformed(LOG_RMM, HEADER "7,noon,allocate,0x7f00,64,0x0\n", 2, "Time must be");
  expect_malformed(LOG_RMM, HEADER "7,,allocate,0x7f00,64,0x0\n", 2, "Time must be");
  expect_malformed(LOG_RMM, HEADER "7," TIME "Allocate,0x7f00,64,0x0\n", 2, "Action must be");
  expect_malformed(LOG_RMM, HEADER "7," TIME "allocate,0x,64,0x0\n", 2, "Pointer must be");
  expect_malformed(LOG_RMM, HEADER "7," TIME "allocate,zz,64,0x0\n", 2, "not 'zz'");
  expect_malformed(LOG_RMM, HEADER "7," TIME "allocate,0x12345678901234567,64,0x0\n", 2, "Pointer");
  expect_malformed(LOG_RMM, HEADER "7," TIME "allocate,0x7f00,64,\n", 2, "Stream must be");
}

Test(rmm_log, sizes_are_below_2_to_the_63) {
  expect_malformed(LOG_RMM, HEADER "7," TIME "allocate,0x7f00,-64,0x0\n", 2, "Size must be");
  expect_malformed(LOG_RMM, HEADER "7," TIME "allocate,0x7f00,6.4,0x0\n", 2, "not '6.4'");
  expect_malformed(LOG_RMM, HEADER "7," TIME "allocate,0x7f00,,0x0\n", 2, "Size must be");
  expect_malformed(LOG_RMM, HEADER "7," TIME "allocate,0x1,9223372036854775808,0x0\n", 2, "Size");
  expect_malformed(LOG_RMM, HEADER "7," TIME "allocate,0x1,99999999999999999999999,0x0\n", 2,
                   "not '99999999999999999999999'");
  allocation_log log = parsed(LOG_RMM, HEADER "7," TIME "allocate,0x1,9223372036854775807,0x0\n");
  expect_events(&log, "+0:9223372036854775807");
  allocation_log_deinit(&log);
  expect_malformed(LOG_RMM,
                   HEADER "7," TIME
                          "allocate,0x1,9223372036854775807,0x0\n"
                          "7," TIME "allocate,0x2,1,0x0\n",
                   3, "more than 2^63");
}

Test(rmm_log, what_cannot_be_is_refused) {
  expect_malformed(LOG_RMM, HEADER "7," TIME "free,0x7f00,64,0x0\n", 2, "freed, but not allocated");
  expect_malformed(LOG_RMM, HEADER FIRST "7," TIME "free,0x7f00,32,0x0\n", 3,
                   "freed with 32 bytes, line 2 allocates 64");
  expect_malformed(LOG_RMM, HEADER FIRST "7," TIME "free,0x7f00,0,0x0\n", 3, "with 0 bytes");
  expect_malformed(LOG_RMM, HEADER FIRST "\n" FIRST, 4, "0x7f00 is allocated again: line 2 has it");
  expect_malformed(LOG_RMM,
                   HEADER FIRST "8," TIME
                                "free,0x7f00,64,0x0\n"
                                "7," TIME "free,0x7f00,64,0x0\n",
                   4, "freed, but not");
  expect_malformed(LOG_RMM, HEADER "7," TIME "allocate,(nil),64,0x0\n", 2, "at address 0");
}

Test(rmm_log, a_log_without_a_row_is_refused) {
  allocation_log log;
  cr_expect(eq(int, rmm_log_parse(HEADER, strlen(HEADER), "file.log", &log), TM_ERR_CORRUPT));
  cr_expect(
      eq(str, (char*)tm_last_error()->message, (char*)"file.log: there is no allocation in it"));
}

Test(rmm_log, garbage_is_shown_printable) {
  static const char text[] = HEADER "7," TIME "allo\0\x1b[2Jcate,0x1,1,0x0\n";
  allocation_log log;
  cr_expect(eq(int, rmm_log_parse(text, sizeof(text) - 1, "file.log", &log), TM_ERR_CORRUPT));
  cr_expect(strstr(tm_last_error()->message, "file.log:2: Action") != NULL);
  cr_expect(strstr(tm_last_error()->message, "'allo??[2Jcate'") != NULL, "%s",
            tm_last_error()->message);
}

static tm_status parse_two_threads(tm_allocator* upstream) {
  static const char text[] = HEADER FIRST "8," TIME "allocate,0x8f00,64,0x5\n";
  allocation_log log;
  (void)upstream;
  TM_TRY(rmm_log_parse(text, sizeof(text) - 1, "file.log", &log));
  allocation_log_deinit(&log);
  return TM_OK;
}

Test(rmm_log, survives_every_failure) { expect_survives_every_failure(parse_two_threads); }

//===-- Against a model ---------------------------------------------------===//

enum { MODEL_EVENTS = 3000, MODEL_SLOTS = 40, MODEL_LINE = 96 };

// Which block lives in each of a few slots, whose addresses are used over and over.
typedef struct model {
  bool is_live[MODEL_SLOTS];
  uint32_t block[MODEL_SLOTS];
  uint64_t bytes[MODEL_SLOTS];
  uint32_t blocks;
} model;

// Makes one event of a random slot, as a row and as what must be read.
static log_event make_event(model* m, unsigned* seed, char* row) {
  const int slot = rand_r(seed) % MODEL_SLOTS;
  const unsigned stream = (unsigned)rand_r(seed) % 3;
  if (!m->is_live[slot]) {
    m->bytes[slot] = (uint64_t)rand_r(seed) % 5000;
    m->block[slot] = m->blocks++;
  }
  m->is_live[slot] = !m->is_live[slot];
  (void)snprintf(row, MODEL_LINE, "9," TIME "%s,0x%x,%llu,0x%x\n",
                 m->is_live[slot] ? "allocate" : "free", 0x1000 + 16 * slot,
                 (unsigned long long)m->bytes[slot], 16 * stream);
  return (log_event){
      .kind = m->is_live[slot] ? LOG_ALLOCATE : LOG_FREE,
      .block = m->block[slot],
      .bytes = m->bytes[slot],
      .stream = stream,
  };
}

Test(rmm_log, what_a_model_writes_is_read_back) {
  static char text[MODEL_EVENTS * MODEL_LINE];
  static log_event wanted[MODEL_EVENTS];
  model m = {0};
  unsigned seed = (unsigned)time(NULL);
  cr_log_info("seed %u", seed);
  const unsigned printed_seed = seed;
  size_t at = (size_t)snprintf(text, sizeof(text), HEADER);
  // All streams in order first: their numbers are those of their appearance.
  for (unsigned i = 0; i < 3; i++) {
    at += (size_t)snprintf(text + at, sizeof(text) - at, "9," TIME "allocate failure,0x0,1,0x%x\n",
                           16 * i);
  }
  for (int i = 0; i < MODEL_EVENTS - 3; i++) {
    wanted[i] = make_event(&m, &seed, text + at);
    at += strlen(text + at);
  }
  allocation_log log = parsed(LOG_RMM, text);
  cr_assert(eq(sz, log.event_count, MODEL_EVENTS));
  for (int i = 0; i < MODEL_EVENTS - 3; i++) {
    const log_event* e = &log.events[i + 3];
    cr_assert(e->kind == wanted[i].kind && e->block == wanted[i].block &&
                  e->bytes == wanted[i].bytes && e->stream == wanted[i].stream,
              "event %d, seed %u", i, printed_seed);
  }
  allocation_log_deinit(&log);
}
