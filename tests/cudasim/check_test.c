// The checker: planted bugs are found under every schedule, with both places, and their correct
// twins are clean.

#include <stdio.h>
#include <string.h>

#include "tests/cudasim/planted_bugs.h"
#include "tests/cudasim/support.h"
#include "tests/support/sanitizers.h"

static const char* const schedules[] = {"eager", "threads", "random:1", "random:2", "random:3"};

static void run(const planted_bug* b, bool is_right, const char* schedule) {
  make_machine((cudasim_options){
      .devices = 2, .schedule = schedule, .check = "report", .check_leaks = CUDASIM_OFF});
  b->run(is_right);
}

// The call in the line of a site that begins with `relation` and a space.
static bool names_call(const char* report, const char* relation, const char* call) {
  char line[256];
  snprintf(line, sizeof(line), "%s%s", relation, call);
  const char* found = strstr(report, line);
  return found && strchr("\n,", found[strlen(line)]);
}

static void expect_found(const planted_bug* b, const char* schedule) {
  if (UNDER_TSAN && strcmp(schedule, "threads") == 0) return;  // which ends at the race itself
  char text[8192];
  run(b, false, schedule);
  cr_expect(cudasim_report_count(b->rule) > 0, "%s under %s is not found", b->name, schedule);
  cr_expect(eq(u64, cudasim_report_count(NULL), cudasim_report_count(b->rule)), "%s under %s",
            b->name, schedule);
  cudasim_last_report(text, sizeof(text));
  cr_expect(names_call(text, "\n  ", b->here), "%s under %s: %s", b->name, schedule, text);
  cr_expect(names_call(text, "", b->there), "%s under %s: %s", b->name, schedule, text);
  cudasim_reset();
}

static void expect_clean(const planted_bug* b, const char* schedule) {
  run(b, true, schedule);
  char text[8192];
  cudasim_last_report(text, sizeof(text));
  cr_expect(eq(u64, cudasim_report_count(NULL), 0), "%s, done right, under %s: %s", b->name,
            schedule, text);
  cudasim_reset();
}

#define FOR_EACH_BUG(check)                                                 \
  for (size_t i = 0; i < planted_bug_count; ++i) {                          \
    for (size_t k = 0; k < sizeof(schedules) / sizeof(schedules[0]); ++k) { \
      check(&planted_bugs[i], schedules[k]);                                \
    }                                                                       \
  }

Test(check, planted_bugs_are_found){FOR_EACH_BUG(expect_found)}

Test(check, their_twins_are_clean) {
  FOR_EACH_BUG(expect_clean)
}
