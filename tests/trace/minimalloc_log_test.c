// Planning problems: lifetimes become events in order of time, frees first.

#include "trace/minimalloc_log.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/support/failing.h"
#include "tests/trace/parse.h"

#define HEADER "id,lower,upper,size\n"

Test(minimalloc_log, lifetimes_are_half_open) {
  allocation_log log = parsed(LOG_MINIMALLOC, HEADER "b1,0,3,4\nb2,3,9,5\nb3,0,9,6\n");
  expect_events(&log, "+0:4 +1:6 -0 +2:5 -2 -1");
  cr_expect(eq(u64, log.peak_live_bytes, 11));
  cr_expect(eq(u64, log.last_live_blocks, 0));
  cr_expect(eq(u64, log.events[1].line, 4), "an event's line is its buffer's");
  cr_expect(eq(u64, log.events[2].line, 2));
  allocation_log_deinit(&log);
}

Test(minimalloc_log, columns_may_be_in_any_order_and_a_solution_is_not_used) {
  allocation_log log = parsed(
      LOG_MINIMALLOC, "size,offset,upper,buffer,lower,hint\r\n4,0,2,a,1,-1\r\n5,,1,b,0,\r\n");
  expect_events(&log, "+0:5 -0 +1:4 -1");
  allocation_log_deinit(&log);
}

Test(minimalloc_log, a_header_without_a_column_is_refused) {
  expect_malformed(LOG_MINIMALLOC, "", 1, "there is no header");
  expect_malformed(LOG_MINIMALLOC, "id,lower,size\na,0,4\n", 1, "a column is missing");
  expect_malformed(LOG_MINIMALLOC, "id,lower,upper,size,gaps\na,0,1,4,\n", 1, "not known");
  expect_malformed(LOG_MINIMALLOC, "id,buffer,lower,upper,size\na,b,0,1,4\n", 1, "there twice");
  expect_malformed(LOG_MINIMALLOC, "id,lower,upper,size,,,,,,,,,,,,,,,,\n", 1, "too many");
}

Test(minimalloc_log, a_malformed_buffer_is_named) {
  expect_malformed(LOG_MINIMALLOC, HEADER "a,0,1\n", 2, "4 columns are expected, not 3");
  expect_malformed(LOG_MINIMALLOC, HEADER "a,0,1,4,5\n", 2, "not 5");
  expect_malformed(LOG_MINIMALLOC, HEADER ",0,1,4\n", 2, "id must be a name");
  expect_malformed(LOG_MINIMALLOC, HEADER "a,-1,1,4\n", 2, "lower must be");
  expect_malformed(LOG_MINIMALLOC, HEADER "a,0,0,4\n", 2, "upper must be");
  expect_malformed(LOG_MINIMALLOC, HEADER "a,5,4,4\n", 2, "upper must be");
  expect_malformed(LOG_MINIMALLOC, HEADER "a,0,99999999999999999999,4\n", 2, "upper must be");
  expect_malformed(LOG_MINIMALLOC, HEADER "a,0,1,-4\n", 2, "size must be");
  expect_malformed(LOG_MINIMALLOC, HEADER "a,0,1,4x\n", 2, "not '4x'");
  expect_malformed(LOG_MINIMALLOC, HEADER "a,0,1,4\nb,0,1,4\n\na,7,8,4\n", 5,
                   "buffer 'a' is there already, in line 2");
  expect_malformed(LOG_MINIMALLOC, HEADER "a,0,9,9223372036854775807\nb,1,2,1\n", 3, "2^63");
}

Test(minimalloc_log, a_problem_without_a_buffer_is_refused) {
  allocation_log log;
  cr_expect(
      eq(int, minimalloc_log_parse(HEADER, strlen(HEADER), "file.log", &log), TM_ERR_CORRUPT));
  cr_expect(strstr(tm_last_error()->message, "no allocation") != NULL);
}

Test(minimalloc_log, a_published_name_has_a_capacity) {
  cr_expect(eq(u64, minimalloc_capacity_of_name("folder.7/A.1048576.csv"), 1048576));
  cr_expect(eq(u64, minimalloc_capacity_of_name("input.12.csv"), 12));
  cr_expect(eq(u64, minimalloc_capacity_of_name("input.csv"), 0));
  cr_expect(eq(u64, minimalloc_capacity_of_name("12.csv"), 0));
  cr_expect(eq(u64, minimalloc_capacity_of_name("a.12.b/input.csv"), 0));
  cr_expect(eq(u64, minimalloc_capacity_of_name("a.-12.csv"), 0));
  cr_expect(eq(u64, minimalloc_capacity_of_name("a..csv"), 0));
  cr_expect(eq(u64, minimalloc_capacity_of_name(""), 0));
}

static tm_status parse_three(tm_allocator* upstream) {
  static const char text[] = HEADER "b1,0,3,4\nb2,3,9,5\nb3,0,9,6\n";
  allocation_log log;
  (void)upstream;
  TM_TRY(minimalloc_log_parse(text, sizeof(text) - 1, "file.log", &log));
  allocation_log_deinit(&log);
  return TM_OK;
}

Test(minimalloc_log, survives_every_failure) { expect_survives_every_failure(parse_three); }

//===-- Against a model ---------------------------------------------------===//

enum { MODEL_BUFFERS = 300, MODEL_TIMES = 50 };

// The most that lives at any time, by looking at every buffer at every time.
static uint64_t peak_of(const uint64_t (*buffers)[3]) {
  uint64_t peak = 0;
  for (uint64_t now = 0; now < MODEL_TIMES + 1; now++) {
    uint64_t live = 0;
    for (int i = 0; i < MODEL_BUFFERS; i++) {
      if (buffers[i][0] <= now && now < buffers[i][1]) live += buffers[i][2];
    }
    if (live > peak) peak = live;
  }
  return peak;
}

Test(minimalloc_log, the_peak_is_that_of_a_model) {
  static char text[MODEL_BUFFERS * 64];
  uint64_t buffers[MODEL_BUFFERS][3];
  unsigned seed = (unsigned)time(NULL);
  const unsigned printed_seed = seed;
  cr_log_info("seed %u", seed);
  size_t at = (size_t)snprintf(text, sizeof(text), HEADER);
  for (int i = 0; i < MODEL_BUFFERS; i++) {
    buffers[i][0] = (uint64_t)rand_r(&seed) % MODEL_TIMES;
    buffers[i][1] = buffers[i][0] + 1 + (uint64_t)rand_r(&seed) % (MODEL_TIMES - buffers[i][0]);
    buffers[i][2] = (uint64_t)rand_r(&seed) % 100;
    at += (size_t)snprintf(text + at, sizeof(text) - at, "%d,%llu,%llu,%llu\n", i,
                           (unsigned long long)buffers[i][0], (unsigned long long)buffers[i][1],
                           (unsigned long long)buffers[i][2]);
  }
  allocation_log log = parsed(LOG_MINIMALLOC, text);
  cr_expect(eq(u64, log.peak_live_bytes, peak_of(buffers)), "seed %u", printed_seed);
  cr_expect(eq(u64, log.frees, MODEL_BUFFERS));
  allocation_log_deinit(&log);
}
