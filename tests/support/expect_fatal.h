// Runs code that must end in the fatal handler, and goes on after it.
//
//   EXPECT_FATAL(tm_pop(&outer), "the innermost of the 2 open ones is that of");
//
// The handler jumps back, over scopes that the code has opened: what is left of them is the test's
// to drop.
#ifndef TM_TESTS_SUPPORT_EXPECT_FATAL_H_
#define TM_TESTS_SUPPORT_EXPECT_FATAL_H_

#include <criterion/criterion.h>
#include <setjmp.h>
#include <string.h>

// Of the calling thread.
extern __thread jmp_buf expect_fatal_back;
extern __thread char expect_fatal_message[2048];  // the last one; "" where there was none

void expect_fatal_begin(void);
void expect_fatal_end(void);

// The message must contain `words`.
#define EXPECT_FATAL(statement, words)                                                       \
  do {                                                                                       \
    expect_fatal_begin();                                                                    \
    if (!setjmp(expect_fatal_back)) {                                                        \
      statement;                                                                             \
    }                                                                                        \
    expect_fatal_end();                                                                      \
    cr_expect(strstr(expect_fatal_message, words) != NULL, "\"%s\" is not in \"%s\"", words, \
              expect_fatal_message);                                                         \
  } while (0)

#endif  // TM_TESTS_SUPPORT_EXPECT_FATAL_H_
