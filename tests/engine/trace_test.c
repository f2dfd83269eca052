// Request traces: the Azure columns, with the line of whatever is wrong.

#include "engine/trace.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tm/tm.h>
#include <unistd.h>

#include "engine/generator.h"

#define HEADER "TIMESTAMP,ContextTokens,GeneratedTokens\n"
#define FIRST "2023-11-16 18:15:46.6805900,374,44\n"

static char path[64];

static tm_status read_bytes(const char* text, size_t size, request_trace* out) {
  (void)snprintf(path, sizeof(path), "/tmp/trace_test_XXXXXX");
  const int file = mkstemp(path);
  cr_assert(file >= 0);
  cr_assert(write(file, text, size) == (ssize_t)size);
  close(file);
  const tm_status status = request_trace_read(path, out);
  unlink(path);
  return status;
}

static tm_status read_text(const char* text, request_trace* out) {
  return read_bytes(text, strlen(text), out);
}

// `line` is the file's line that the message must name.
static void expect_error(const char* text, int line, const char* what) {
  request_trace trace;
  char place[96];
  cr_expect(eq(int, read_text(text, &trace), TM_ERR_CORRUPT), "accepted: %s", text);
  (void)snprintf(place, sizeof(place), "%s:%d: ", path, line);
  cr_expect(strstr(tm_last_error()->message, place) != NULL, "%s in: %s", place,
            tm_last_error()->message);
  cr_expect(strstr(tm_last_error()->message, what) != NULL, "%s in: %s", what,
            tm_last_error()->message);
  cr_expect(eq(sz, trace.count, 0));
  cr_expect(eq(ptr, trace.requests, NULL));
}

Test(trace, reads_requests_in_order) {
  request_trace trace;
  cr_assert(eq(int, read_text(HEADER FIRST "2023-11-16 18:15:50.9951690,396,0\n", &trace), TM_OK));
  cr_assert(eq(sz, trace.count, 2));
  cr_expect(eq(u32, trace.requests[0].prompt_tokens, 374));
  cr_expect(eq(u32, trace.requests[0].generated_tokens, 44));
  cr_expect(eq(u32, trace.requests[1].prompt_tokens, 396));
  cr_expect(eq(u32, trace.requests[1].generated_tokens, 0));
  request_trace_deinit(&trace);
  cr_expect(eq(sz, trace.count, 0));
}

Test(trace, line_ends_fractions_and_zones_may_differ) {
  request_trace trace;
  const char text[] =
      "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
      "2024-02-29 00:00:00,1,2\r\n"
      "2024-02-29 00:00:00.5+00:00,3,4\n"
      "2024-02-29 00:00:00.5Z,5,6";
  cr_assert(eq(int, read_text(text, &trace), TM_OK), "%s", tm_last_error()->message);
  cr_assert(eq(sz, trace.count, 3));
  cr_expect(eq(u32, trace.requests[2].generated_tokens, 6));
  request_trace_deinit(&trace);
}

Test(trace, grows_beyond_its_first_capacity) {
  static char text[200000];
  size_t at = (size_t)snprintf(text, sizeof(text), HEADER);
  for (unsigned i = 1; i <= 5000; i++) {
    at += (size_t)snprintf(text + at, sizeof(text) - at, "2023-11-16 18:15:46,%u,1\n", i);
  }
  request_trace trace;
  cr_assert(eq(int, read_text(text, &trace), TM_OK), "%s", tm_last_error()->message);
  cr_assert(eq(sz, trace.count, 5000));
  cr_expect(eq(u32, trace.requests[4999].prompt_tokens, 5000));
  request_trace_deinit(&trace);
}

Test(trace, a_malformed_line_is_named) {
  expect_error("", 1, "the first line must be TIMESTAMP,");
  expect_error("timestamp,prompt,output\n" FIRST, 1, "the first line must be");
  expect_error(HEADER, 2, "no request");
  expect_error(HEADER FIRST "\n" FIRST, 3, "timestamp");
  expect_error(HEADER FIRST "junk\n", 3, "timestamp");
  expect_error(HEADER "2023-11-16 18:15:46.6805900,374\n", 2, "three columns");
  expect_error(HEADER "2023-11-16 18:15:46.6805900,374,44,5\n", 2, "three columns");
  expect_error(HEADER "2023-11-16 18:15:46.6805900,-374,44\n", 2, "ContextTokens");
  expect_error(HEADER "2023-11-16 18:15:46.6805900,0,44\n", 2, "ContextTokens");
  expect_error(HEADER "2023-11-16 18:15:46.6805900,3 74,44\n", 2, "ContextTokens");
  expect_error(HEADER "2023-11-16 18:15:46.6805900,374,4.4\n", 2, "GeneratedTokens");
  expect_error(HEADER "2023-11-16 18:15:46.6805900,374,\n", 2, "GeneratedTokens");
  expect_error(HEADER "2023-11-16 18:15:46.6805900,99999999999,44\n", 2, "ContextTokens");
}

Test(trace, timestamps_must_exist_and_be_in_order) {
  expect_error(HEADER "2023-02-29 18:15:46,1,1\n", 2, "timestamp");
  expect_error(HEADER "2023-13-01 18:15:46,1,1\n", 2, "timestamp");
  expect_error(HEADER "2023-11-00 18:15:46,1,1\n", 2, "timestamp");
  expect_error(HEADER "2023-11-16 24:15:46,1,1\n", 2, "timestamp");
  expect_error(HEADER "2023-11-16 18:60:46,1,1\n", 2, "timestamp");
  expect_error(HEADER "2023-11-16 18:15:46.,1,1\n", 2, "timestamp");
  expect_error(HEADER "2023-11-16T18:15:46,1,1\n", 2, "timestamp");
  expect_error(HEADER "23-11-16 18:15:46,1,1\n", 2, "timestamp");
  expect_error(HEADER FIRST "2023-11-16 18:15:46.6805899,1,1\n", 3, "before");
}

Test(trace, an_endless_line_or_a_nul_is_malformed) {
  static char text[4096];
  (void)snprintf(text, sizeof(text), "%s%0*d", HEADER, (int)(sizeof(text) - sizeof(HEADER)), 7);
  expect_error(text, 2, "too long");
  static const char with_nul[] = HEADER "2023-11-16 18:15:46\0,1,1\n" FIRST;
  request_trace trace;
  cr_expect(eq(int, read_bytes(with_nul, sizeof(with_nul) - 1, &trace), TM_ERR_CORRUPT));
}

Test(trace, files_that_cannot_be_read_say_why) {
  request_trace trace;
  cr_expect(eq(int, request_trace_read("/nowhere/trace.csv", &trace), TM_ERR_NOT_FOUND));
  cr_expect(strstr(tm_last_error()->message, "/nowhere/trace.csv: No such file") != NULL);
  cr_expect(eq(int, request_trace_read("/", &trace), TM_ERR_IO));
}

//===-- The generator -----------------------------------------------------===//

Test(generator, the_same_seed_makes_the_same_requests) {
  request_trace a, b, other;
  cr_assert(eq(int, request_trace_generate(1000, 42, &a), TM_OK));
  cr_assert(eq(int, request_trace_generate(2000, 42, &b), TM_OK));
  cr_assert(eq(int, request_trace_generate(1000, 43, &other), TM_OK));
  cr_expect(eq(int, memcmp(a.requests, b.requests, 1000 * sizeof(*a.requests)), 0));
  cr_expect(ne(int, memcmp(a.requests, other.requests, 1000 * sizeof(*a.requests)), 0));
  request_trace_deinit(&a);
  request_trace_deinit(&b);
  request_trace_deinit(&other);
}

static int by_value(const void* a, const void* b) {
  const uint32_t x = *(const uint32_t*)a;
  const uint32_t y = *(const uint32_t*)b;
  return (x > y) - (x < y);
}

static void expect_near(double value, double wanted, double tolerance, const char* what) {
  cr_expect(value > wanted * (1 - tolerance) && value < wanted * (1 + tolerance), "%s: %g, not %g",
            what, value, wanted);
}

static const size_t percentiles[] = {10, 50, 90, 99};

// What the trace's own numbers are: mean, and the 10th, 50th, 90th and 99th percentile.
static void expect_like(uint32_t* values, size_t count, const double wanted[5], const char* what) {
  double sum = 0;
  for (size_t i = 0; i < count; i++) sum += values[i];
  qsort(values, count, sizeof(*values), by_value);
  expect_near(sum / (double)count, wanted[0], 0.02, what);
  for (int i = 0; i < 4; i++) {
    const size_t rank = count * percentiles[i] / 100;
    expect_near(values[rank], wanted[i + 1], percentiles[i] == 99 ? 0.05 : 0.02, what);
  }
}

Test(generator, lengths_are_distributed_like_the_real_trace) {
  enum { COUNT = 200000 };
  static uint32_t prompts[COUNT], generated[COUNT];
  request_trace trace;
  cr_assert(eq(int, request_trace_generate(COUNT, 7, &trace), TM_OK));
  for (size_t i = 0; i < COUNT; i++) {
    prompts[i] = trace.requests[i].prompt_tokens;
    generated[i] = trace.requests[i].generated_tokens;
    cr_assert(prompts[i] >= 2 && prompts[i] <= 14050 && generated[i] >= 7 && generated[i] <= 1000);
  }
  expect_like(prompts, COUNT, (const double[]){1154.7, 207, 1020, 2735, 4142}, "prompt");
  expect_like(generated, COUNT, (const double[]){211.1, 54, 129, 424, 601}, "generated");
  request_trace_deinit(&trace);
}
