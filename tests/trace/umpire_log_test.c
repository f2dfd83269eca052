// Umpire's logs, in both forms: announced and confirmed allocations, reallocations, processes.

#include "trace/umpire_log.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "tests/support/failing.h"
#include "tests/trace/parse.h"

#define OLD(event, payload, result)                                        \
  "{ \"kind\":\"replay\", \"uid\":7, \"timestamp\":1, \"event\": \"" event \
  "\", \"payload\": { " payload " }" result " }\n"
#define MEMORY(pointer) ", \"result\": { \"memory_ptr\": \"" pointer "\" }"
#define FROM(size) "\"allocator_ref\": \"0xa0\", \"size\": " size
#define ANNOUNCED(size) OLD("allocate", FROM(size), "")
#define ALLOCATED(pointer, size) OLD("allocate", FROM(size), MEMORY(pointer))
#define DEALLOCATED(pointer) \
  OLD("deallocate", "\"allocator_ref\": \"0xa0\", \"memory_ptr\": \"" pointer "\"", "")

#define NEW(name, numbers, strings)                                              \
  "{\"category\":\"operation\",\"name\":\"" name "\",\"numeric_args\":{" numbers \
  "},\"string_args\":{" strings "},\"tags\":{\"replay\":\"true\"},\"timestamp\":1}\n"
#define OF(key, pointer) "\"allocator_ref\":\"0xa0\",\"" key "\":\"" pointer "\""
#define NEW_ALLOCATED(pointer, size) NEW("allocate", "\"size\":" size, OF("pointer", pointer))
#define NEW_DEALLOCATED(pointer) NEW("deallocate", "", OF("pointer", pointer))
#define REALLOCATING(pointer, size) NEW("reallocate", "\"size\":" size, OF("current_ptr", pointer))
#define REALLOCATED(pointer) NEW("reallocate", "", OF("new_ptr", pointer))

static void expect_log(const char* text, const char* events) {
  allocation_log log = parsed(LOG_UMPIRE, text);
  expect_events(&log, events);
  allocation_log_deinit(&log);
}

//===-- The old form ------------------------------------------------------===//

Test(umpire_log, an_announced_allocation_is_one) {
  expect_log("# a comment\n" ANNOUNCED("64") ALLOCATED("0x20", "64") DEALLOCATED("0x20"),
             "+0:64 -0");
}

Test(umpire_log, what_is_announced_only_has_failed) {
  expect_log(ANNOUNCED("64") ANNOUNCED("32") ALLOCATED("0x20", "32"), "!64 +0:32");
  // Tried again with success: it is the first that failed.
  expect_log(ANNOUNCED("64") ANNOUNCED("64") ALLOCATED("0x20", "64") DEALLOCATED("0x20"),
             "!64 +0:64 -0");
}

Test(umpire_log, other_events_are_none) {
  expect_log(
      OLD("version", "\"major\":0", "") OLD("makeMemoryResource", "\"name\": \"HOST\"",
                                            ", \"result\": \"0xa0\"")
          OLD("copy", "\"src\": \"0x1\"", "") ALLOCATED(
              "0x20", "64") "{\"kind\":\"other\"}\n{\"category\":\"statistic\",\"name\":\"x\"}\n",
      "+0:64");
}

Test(umpire_log, nothing_may_share_an_address) {
  // Freed by address only: what was allocated last goes first.
  expect_log(ALLOCATED("0x20", "0") ALLOCATED("0x20", "64") DEALLOCATED("0x20") DEALLOCATED("0x20"),
             "+0:0 +1:64 -1 -0");
  expect_log(ALLOCATED("0x20", "64") ALLOCATED("0x20", "0") DEALLOCATED("0x20") DEALLOCATED("0x20"),
             "+0:64 +1:0 -1 -0");
}

Test(umpire_log, each_process_has_addresses_of_its_own) {
  expect_log(ALLOCATED("0x20", "64")
             "{\"kind\":\"replay\",\"uid\":8,\"event\":\"allocate\",\"payload\":{"
             "\"allocator_ref\":\"0xa0\",\"size\":32},\"result\":{\"memory_ptr\":\"0x20\"}}\n"
             DEALLOCATED("0x20"),
             "+0:64 @1 #1 +1:32 @0 #0 -0");
}

Test(umpire_log, old_reallocations_are_understood) {
  expect_log(ALLOCATED("0x20", "64") OLD("reallocate", FROM("96") ", \"ptr\": \"0x20\"", "")
                 OLD("reallocate", FROM("96") ", \"ptr\": \"0x20\"", MEMORY("0x30"))
                     DEALLOCATED("0x30"),
             "+0:64 +1:96 -0 -1");
}

//===-- The new form ------------------------------------------------------===//

Test(umpire_log, the_new_form_is_read) {
  expect_log("{\"category\":\"metadata\",\"name\":\"version\"}\r\n" NEW_ALLOCATED("0x20", "64")
                 NEW("coalesce", "", "") NEW_DEALLOCATED("0x20"),
             "+0:64 -0");
}

Test(umpire_log, a_reallocation_in_one_is_an_allocation_and_a_free) {
  expect_log(NEW_ALLOCATED("0x20", "64") REALLOCATING("0x20", "96") REALLOCATED("0x30")
                 NEW_DEALLOCATED("0x30"),
             "+0:64 +1:96 -0 -1");
  expect_log(NEW_ALLOCATED("0x20", "64") REALLOCATING("0x20", "96") REALLOCATED("0x20")
                 NEW_DEALLOCATED("0x20"),
             "+0:64 +1:96 -0 -1");
  expect_log(REALLOCATING("0", "96") REALLOCATED("0x20") NEW_DEALLOCATED("0x20"), "+0:96 -0");
}

Test(umpire_log, what_a_reallocation_does_itself_counts_once) {
  expect_log(NEW_ALLOCATED("0x20", "64") REALLOCATING("0x20", "96") NEW_ALLOCATED("0x30", "96")
                 NEW_DEALLOCATED("0x20") REALLOCATED("0x30") NEW_DEALLOCATED("0x30"),
             "+0:64 +1:96 -0 -1");
  expect_log(NEW_ALLOCATED("0x20", "64") REALLOCATING("0x20", "0") NEW_DEALLOCATED("0x20")
                 NEW_ALLOCATED("0x20", "0") REALLOCATED("0x20") NEW_DEALLOCATED("0x20"),
             "+0:64 -0 +1:0 -1");
}

//===-- What is wrong -----------------------------------------------------===//

static void refuse(const char* text, int line, const char* what) {
  expect_malformed(LOG_UMPIRE, text, line, what);
}

Test(umpire_log, a_malformed_line_is_named) {
  refuse("{\"kind\":\"replay\",", 1, "column 17");
  refuse(ALLOCATED("0x20", "64") "[1]\n", 2, "no JSON object");
  refuse("{\"kind\":\"replay\",\"kind\":\"replay\"}\n", 1, "duplicate");
  refuse("{}\n", 1, "\"category\" must be a string");
  refuse("{\"event\":3}\n", 1, "\"kind\" must be a string");
  refuse("{\"event\":3,\"kind\":\"replay\"}\n", 1, "\"event\" must be a string");
  refuse("{\"event\":\"allocate\",\"kind\":\"replay\"}\n", 1, "\"payload\" must be an object");
  refuse("{\"category\":\"operation\"}\n", 1, "\"name\" must be a string");
  refuse("{\"category\":\"operation\",\"name\":\"allocate\",\"string_args\":3}\n", 1,
         "\"string_args\" must be an object");
  refuse("{\"category\":\"operation\",\"name\":\"allocate\"}\n", 1, "\"allocator_ref\" must be");
  refuse("{\"uid\":\"7\",\"kind\":\"replay\",\"event\":\"x\",\"payload\":{}}\n", 1, "\"uid\"");
}

Test(umpire_log, bad_numbers_are_refused) {
  refuse(ALLOCATED("0x20", "-64"), 1, "\"size\" must be a number of bytes");
  refuse(ALLOCATED("0x20", "6.4"), 1, "\"size\" must be");
  refuse(ALLOCATED("0x20", "\"64\""), 1, "\"size\" must be");
  refuse(ANNOUNCED("-1"), 1, "\"size\" must be");
  refuse(ALLOCATED("0x20", "99999999999999999999"), 1, "too big");
  refuse(ALLOCATED("20 bytes", "64"), 1, "\"memory_ptr\" must be an address");
  refuse(ALLOCATED("0x12345678901234567", "64"), 1, "\"memory_ptr\" must be an address");
  refuse(OLD("allocate", FROM("64"), ", \"result\": 3"), 1, "\"memory_ptr\" must be");
  refuse(NEW("allocate", "", OF("pointer", "0x20")), 1, "\"size\" must be");
  refuse(NEW("deallocate", "", "\"pointer\":\"0x20\""), 1, "\"allocator_ref\" must be");
}

Test(umpire_log, what_cannot_be_is_refused) {
  refuse(DEALLOCATED("0x20"), 1, "0x20 is freed, but not allocated");
  refuse(ALLOCATED("0x20", "64") "\n" ALLOCATED("0x20", "32"), 3, "allocated again: line 1 has it");
  refuse(ALLOCATED("0x20", "64")
             OLD("deallocate", "\"allocator_ref\": \"0xb0\", \"memory_ptr\": \"0x20\"", ""),
         2, "freed by allocator 0xb0, but line 1 allocates it from 0xa0");
  refuse(REALLOCATED("0x20"), 1, "a reallocation ends, but none began");
  refuse(REALLOCATING("0x20", "96") REALLOCATED("0x30"), 2, "0x20 is freed, but not allocated");
}

static tm_status parse_old_form(tm_allocator* upstream) {
  static const char text[] = ANNOUNCED("64") ALLOCATED("0x20", "64")
      OLD("reallocate", FROM("96") ", \"ptr\": \"0x20\"", "")
          OLD("reallocate", FROM("96") ", \"ptr\": \"0x20\"", MEMORY("0x30"));
  allocation_log log;
  (void)upstream;
  TM_TRY(umpire_log_parse(text, sizeof(text) - 1, "file.log", &log));
  allocation_log_deinit(&log);
  return TM_OK;
}

Test(umpire_log, survives_every_failure) { expect_survives_every_failure(parse_old_form); }
