// 10,000 random programs, each compared with the model after every call: 4,000 on `eager`, as many
// on `random`, where the seed of the program is the machine's too, and 2,000 on `threads`.
//
//   MODEL_SEED=N MODEL_SCHEDULE=eager|random|threads   runs one alone
//   MODEL_COUNT=N                                      so many in all, in the same proportions
//   MODEL_LOG=1                                        prints the calls also where nothing fails
//
// Under sanitizers a tenth of them is run.

#include <stdio.h>
#include <stdlib.h>

#include "tests/cudasim/program.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define COUNT 1000
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define COUNT 1000
#endif
#endif
#ifndef COUNT
#define COUNT 10000
#endif

static unsigned number(const char* name, unsigned otherwise) {
  const char* text = getenv(name);
  return text ? (unsigned)strtoul(text, NULL, 10) : otherwise;
}

// The seeds are dealt to the shards in turn. How many programs failed; a few are enough to see.
static unsigned run(const char* schedule, unsigned first, unsigned count) {
  unsigned shards = number("TEST_TOTAL_SHARDS", 1);
  unsigned shard = number("TEST_SHARD_INDEX", 0);
  unsigned failed = 0;
  unsigned done = 0;
  for (unsigned i = shard; i < count && failed < 3; i += shards, ++done) {
    failed += !program_run(first + i, schedule);
  }
  printf("%s, %u of the seeds %u to %u: %u failed\n", schedule, done, first, first + count - 1,
         failed);
  return failed;
}

int main(void) {
  const char* schedule = getenv("MODEL_SCHEDULE");
  if (getenv("MODEL_SEED")) {
    return !program_run(number("MODEL_SEED", 0), schedule ? schedule : "eager");
  }
  unsigned tenth = number("MODEL_COUNT", COUNT) / 10;
  unsigned failed = run("eager", 1, 4 * tenth);
  failed += run("random", 100001, 4 * tenth);
  failed += run("threads", 200001, 2 * tenth);
  return failed != 0;
}
