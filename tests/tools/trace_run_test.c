// One run of tm trace, with its own memory running out at every place.

#include "tools/trace_run.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>
#include <tm/tm.h>

#include "trace/read_log.h"

static const char log_text[] =
    "Thread,Time,Action,Pointer,Size,Stream\n"
    "1,0,allocate,0x1,1000,0x0\n"
    "2,0,allocate,0x2,2000,0x10\n"
    "1,0,free,0x2,2000,0x10\n"
    "2,0,allocate,0x2,500,0x0\n";

static allocation_log read_log(void) {
  allocation_log log;
  cr_assert(allocation_log_parse(log_text, strlen(log_text), "log", LOG_ANY, &log) == TM_OK, "%s",
            tm_last_error()->message);
  return log;
}

static trace_run run(const allocation_log* log, const char* text, trace_options options) {
  allocator_expression expression;
  trace_run out;
  options.repeat = 2;
  cr_assert(allocator_expression_parse(text, &expression) == TM_OK, "%s", tm_last_error()->message);
  trace_run_expression(&options, log, NULL, &expression, &out);
  return out;
}

Test(trace_run, a_run_counts_what_it_did) {
  allocation_log log = read_log();
  const trace_run host = run(&log, "host", (trace_options){0});
  cr_assert(not(host.failed), "%s", host.message);
  cr_expect(eq(u64, host.operations, 8));
  cr_expect(eq(u64, host.upstream_calls, 6));
  cr_expect(eq(u64, host.upstream_calls_later, 6));
  cr_expect(eq(u64, host.peak_live_bytes, 3000));
  cr_expect(eq(u64, host.live_at_peak_bytes, 3000));
  cr_expect(eq(u64, host.peak_reserved_bytes, 1024 + 2048));
  const trace_run stack = run(&log, "stack(host)", (trace_options){0});
  cr_expect(eq(u64, stack.peak_reserved_bytes, 4 << 20), "two arenas of 2 MiB");
  cr_expect(eq(u64, stack.high_water_bytes, 1024 + 2048));
  cr_expect(eq(u64, stack.upstream_calls_later, 0));
  const trace_run one = run(&log, "stack(host)", (trace_options){.one_thread = true});
  cr_expect(eq(u64, one.peak_reserved_bytes, 2 << 20));
  allocation_log_deinit(&log);
}

// A run says that it failed, or that something was not served, and gives everything back. An arena
// tries a second time, with success.
static bool survives(const allocation_log* log, const char* text, int64_t nth) {
  const int64_t live = tm_bookkeeping_live();
  const uint64_t calls = tm_bookkeeping_calls();
  tm_bookkeeping_fail_nth(nth);
  const trace_run out = run(log, text, (trace_options){0});
  tm_bookkeeping_fail_nth(0);
  cr_expect(eq(i64, tm_bookkeeping_live(), live), "%s, allocation %lld", text, (long long)nth);
  if (tm_bookkeeping_calls() - calls < (uint64_t)nth) {
    cr_expect(out.failed == false && out.result.unserved == 0);
    return false;
  }
  cr_expect(out.failed || out.result.unserved || strcmp(text, "host") != 0, "%s, allocation %lld",
            text, (long long)nth);
  cr_expect(out.failed == false || strstr(out.message, "bytes") != NULL, "%s", out.message);
  cr_expect(not(out.is_misnamed));
  return true;
}

Test(trace_run, every_allocation_may_fail) {
  static const char* const texts[] = {"host", "stack(host)", "stack(stack(host))"};
  allocation_log log = read_log();
  for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
    int64_t nth = 1;
    while (survives(&log, texts[i], nth)) nth++;
    cr_expect(nth > 8, "%s: %lld allocations", texts[i], (long long)nth - 1);
  }
  allocation_log_deinit(&log);
}
