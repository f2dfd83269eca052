// The schedule `random`: it finds what is wrong, does what is right, and does the same again.

#include <stdio.h>
#include <string.h>

#include "support.h"
#include "tests/cudasim/wrong_programs.h"

// A new machine with two devices, for `random` with a seed.
static void make_random(unsigned seed) {
  char schedule[32];
  snprintf(schedule, sizeof(schedule), "random:%u", seed);
  make_machine((cudasim_options){.devices = 2, .memory = "64MiB", .schedule = schedule});
}

//===-- Wrong programs ------------------------------------------------------------------------===//

static bool is_computed(const wrong_program* p, bool is_right, const char* schedule) {
  make_machine((cudasim_options){.devices = 2, .memory = "64MiB", .schedule = schedule});
  bool is_good = p->run(is_right);
  cudasim_reset();
  return is_good;
}

static bool is_computed_randomly(const wrong_program* p, bool is_right, unsigned seed) {
  make_random(seed);
  bool is_good = p->run(is_right);
  cudasim_reset();
  return is_good;
}

Test(wrong_programs, pass_eagerly) {
  for (size_t i = 0; i < wrong_program_count; ++i) {
    const wrong_program* p = &wrong_programs[i];
    cr_expect(is_computed(p, false, "eager"), "%s", p->name);
    cr_expect(is_computed(p, true, "eager"), "%s", p->name);
  }
}

Test(wrong_programs, are_found_within_20_seeds) {
  for (size_t i = 0; i < wrong_program_count; ++i) {
    const wrong_program* p = &wrong_programs[i];
    unsigned first = 0;
    unsigned found = 0;
    for (unsigned seed = 1; seed <= 20; ++seed) {
      if (is_computed_randomly(p, false, seed)) continue;
      ++found;
      if (!first) first = seed;
    }
    printf("%s: found by %u of 20 seeds, first by %u\n", p->name, found, first);
    cr_expect(found > 0, "%s", p->name);
  }
}

Test(wrong_programs, compute_the_right_thing_once_they_are_corrected) {
  for (size_t i = 0; i < wrong_program_count; ++i) {
    const wrong_program* p = &wrong_programs[i];
    cr_expect(is_computed(p, true, "threads"), "%s", p->name);
    for (unsigned seed = 1; seed <= 200; ++seed) {
      cr_expect(is_computed_randomly(p, true, seed), "%s, seed %u", p->name, seed);
    }
  }
}

//===-- Seeds ---------------------------------------------------------------------------------===//

enum { STREAMS = 5, EACH = 20 };

// The order in which host functions were called.
typedef struct journal {
  char text[STREAMS * EACH + 1];
  size_t length;
} journal;

typedef struct entry {
  journal* in;
  char name;
} entry;

static void write_entry(void* argument) {
  const entry* e = argument;
  e->in->text[e->in->length++] = e->name;
}

// Streams of both devices get host functions in turn; then one is waited for, then all.
static void write_journal(unsigned seed, journal* j) {
  make_random(seed);
  cudaStream_t streams[STREAMS];
  entry entries[STREAMS];
  *j = (journal){0};
  for (int i = 0; i < STREAMS; ++i) {
    OK(cudaSetDevice(i % 2));
    streams[i] = new_stream(cudaStreamNonBlocking);
    entries[i] = (entry){j, (char)('a' + i)};
  }
  for (int i = 0; i < STREAMS * EACH; ++i) {
    OK(cudaLaunchHostFunc(streams[i % STREAMS], write_entry, &entries[i % STREAMS]));
  }
  (void)cudaStreamQuery(streams[0]);
  OK(cudaStreamSynchronize(streams[1]));
  cudasim_reset();
  cr_assert(eq(sz, j->length, (size_t)STREAMS * EACH));
}

Test(seeds, decide_everything) {
  for (unsigned seed = 0; seed < 50; ++seed) {
    journal one;
    journal other;
    write_journal(seed, &one);
    write_journal(seed, &other);
    cr_expect(eq(str, one.text, other.text), "seed %u", seed);
  }
}

// One may do what another does, if both happen to keep the order of the program.
Test(seeds, differ) {
  enum { SEEDS = 50 };
  static journal journals[SEEDS];
  int fresh = 0;
  for (unsigned seed = 0; seed < SEEDS; ++seed) {
    write_journal(seed, &journals[seed]);
    unsigned i = 0;
    while (strcmp(journals[i].text, journals[seed].text) != 0) ++i;
    fresh += i == seed;
  }
  cr_expect(fresh >= SEEDS * 9 / 10, "%d different ones of %d", fresh, SEEDS);
}

// Of two streams with 20 host functions each, some seeds finish one before the other begins, in
// both ways, and others mix them.
Test(seeds, go_to_extremes) {
  int first_all_before = 0;
  int last_all_before = 0;
  int mixed = 0;
  for (unsigned seed = 0; seed < 100; ++seed) {
    make_random(seed);
    journal j = {0};
    entry entries[] = {{&j, 'a'}, {&j, 'b'}};
    cudaStream_t streams[] = {new_stream(cudaStreamNonBlocking), new_stream(cudaStreamNonBlocking)};
    for (int i = 0; i < 2 * EACH; ++i) {
      OK(cudaLaunchHostFunc(streams[i % 2], write_entry, &entries[i % 2]));
    }
    cudasim_reset();
    bool is_sorted = strstr(j.text, "ba") == NULL;
    bool is_reversed = strstr(j.text, "ab") == NULL;
    first_all_before += is_sorted;
    last_all_before += is_reversed;
    mixed += !is_sorted && !is_reversed;
  }
  cr_expect(first_all_before > 0 && last_all_before > 0 && mixed > 0, "%d %d %d", first_all_before,
            last_all_before, mixed);
}

//===-- Questions -----------------------------------------------------------------------------===//

// Another stream gets work all the time, and still the queries come to an end.
Test(questions, come_to_an_end) {
  for (unsigned seed = 0; seed < 50; ++seed) {
    make_random(seed);
    cudaStream_t asked = new_stream(cudaStreamNonBlocking);
    cudaStream_t busy = new_stream(cudaStreamNonBlocking);
    cudaEvent_t event;
    OK(cudaEventCreate(&event));
    void* p = new_device_memory(MIB);
    for (int i = 0; i < 100; ++i) OK(cudaMemsetAsync(p, i, 64, asked));
    OK(cudaEventRecord(event, asked));
    while (cudaEventQuery(event) == cudaErrorNotReady) OK(cudaMemsetAsync(p, 1, 64, busy));
    OK(cudaMemsetAsync(p, 0, 64, asked));
    while (cudaStreamQuery(asked) == cudaErrorNotReady) OK(cudaMemsetAsync(p, 1, 64, busy));
    cudasim_reset();
  }
}

// The stream that is asked waits for another one, which nobody asks.
Test(questions, reach_what_is_waited_for) {
  for (unsigned seed = 0; seed < 50; ++seed) {
    make_random(seed);
    cudaStream_t first = new_stream(cudaStreamNonBlocking);
    OK(cudaSetDevice(1));
    cudaStream_t second = new_stream(cudaStreamNonBlocking);
    OK(cudaSetDevice(0));
    cudaEvent_t event;
    OK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    void* p = new_device_memory(64);
    for (int i = 0; i < 20; ++i) OK(cudaMemsetAsync(p, i, 64, first));
    OK(cudaEventRecord(event, first));
    OK(cudaStreamWaitEvent(second, event, 0));
    while (cudaStreamQuery(second) == cudaErrorNotReady) {
    }
    OK(cudaEventQuery(event));
    cudasim_reset();
  }
}

Test(questions, have_both_answers) {
  int answers[2] = {0};
  for (unsigned seed = 0; seed < 100; ++seed) {
    make_random(seed);
    cudaStream_t stream = new_stream(cudaStreamNonBlocking);
    void* p = new_device_memory(64);
    OK(cudaMemsetAsync(p, 0, 64, stream));
    ++answers[cudaStreamQuery(stream) == cudaSuccess];
    cudasim_reset();
  }
  cr_expect(answers[0] > 0 && answers[1] > 0, "%d and %d", answers[0], answers[1]);
}

//===-- What need not be done -----------------------------------------------------------------===//

// Waiting for one stream leaves another's work undone under some seeds, and does it under others.
Test(undone, work_that_nobody_waits_for_may_be) {
  int undone = 0;
  for (unsigned seed = 0; seed < 100; ++seed) {
    make_random(seed);
    journal j = {0};
    entry e = {&j, 'a'};
    cudaStream_t forgotten = new_stream(cudaStreamNonBlocking);
    cudaStream_t waited_for = new_stream(cudaStreamNonBlocking);
    void* p = new_device_memory(64);
    OK(cudaLaunchHostFunc(forgotten, write_entry, &e));
    OK(cudaMemsetAsync(p, 0, 64, waited_for));
    OK(cudaStreamSynchronize(waited_for));
    undone += j.length == 0;
    OK(cudaDeviceSynchronize());
    cr_expect(eq(sz, j.length, 1));
    cudasim_reset();
  }
  cr_expect(undone > 0 && undone < 100, "%d of 100", undone);
}

Test(undone, a_full_queue_makes_its_caller_work) {
  for (unsigned seed = 0; seed < 10; ++seed) {
    make_random(seed);
    cudaStream_t stream = new_stream(cudaStreamNonBlocking);
    void* p = new_device_memory(64);
    for (int i = 0; i < 5000; ++i) OK(cudaMemsetAsync(p, i, 64, stream));
    OK(cudaStreamSynchronize(stream));
    cudasim_reset();
  }
}

// What cudaFreeAsync may give to another stream depends on what is done, as on a device: some seeds
// reuse the memory, others do not.
Test(undone, frees_are_reused_under_some_seeds_only) {
  int reused = 0;
  for (unsigned seed = 0; seed < 100; ++seed) {
    make_random(seed);
    cudaStream_t first = new_stream(cudaStreamNonBlocking);
    cudaStream_t second = new_stream(cudaStreamNonBlocking);
    void* p;
    void* q;
    OK(cudaMallocAsync(&p, MIB, first));
    OK(cudaMemsetAsync(p, 1, MIB, first));
    OK(cudaFreeAsync(p, first));
    OK(cudaMallocAsync(&q, MIB, second));
    reused += p == q;
    cudasim_reset();
  }
  cr_expect(reused > 0 && reused < 100, "%d of 100", reused);
}
