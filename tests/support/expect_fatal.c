#include "tests/support/expect_fatal.h"

#include <stdio.h>

#include "tm/base/fatal.h"

__thread jmp_buf expect_fatal_back;
__thread char expect_fatal_message[2048];

static void catch_fatal(const char* text, void* user) {
  (void)user;
  snprintf(expect_fatal_message, sizeof expect_fatal_message, "%s", text);
  longjmp(expect_fatal_back, 1);
}

void expect_fatal_begin(void) {
  expect_fatal_message[0] = '\0';
  tm_set_fatal_handler(catch_fatal, NULL);
}

void expect_fatal_end(void) { tm_set_fatal_handler(NULL, NULL); }
