// The engine in its steady state: once it is warm, a step asks the heap for nothing and no
// allocator for memory of its upstream. Sequences join and leave all the time.
//
// What counts is what the engine's thread does between the beginning and the end of engine_step, in
// the simulated runtime included. Threads of the simulated device are not counted; with the eager
// schedule there are none.

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <tm/tm.h>
#include <unistd.h>

#include "engine/builtin_models.h"
#include "engine/counting.h"
#include "engine/engine.h"
#include "engine/generator.h"
#include "engine/trace.h"
#include "tests/engine/heap_calls.h"
#include "tests/support/machine.h"

enum {
  REQUESTS = 600,  // of which 256 run at once
  REPORTED_STEPS = 5,
};

//===-- An engine whose allocators are all counted ------------------------===//

typedef enum memory_kind {
  ACTIVATIONS,  // what the stack stands on
  PERSISTENT,   // weights and batches
  KV_CACHE,
  PINNED,
  MEMORY_KINDS,
} memory_kind;

typedef struct serving {
  tm_stream* stream;
  tm_allocator* counted[MEMORY_KINDS];
  tm_allocator* stack;
  engine* engine;
} serving;

static tm_status make_counted(serving* s) {
  tm_auto_allocator pool = tm_cuda_pool_allocator_create(s->stream, NULL);
  tm_allocator* upstreams[MEMORY_KINDS] = {
      [ACTIVATIONS] = pool,
      [PERSISTENT] = tm_cuda_allocator(0),
      [KV_CACHE] = tm_cuda_allocator(0),
      [PINNED] = tm_pinned_allocator(),
  };
  for (int i = 0; i < MEMORY_KINDS; i++) {
    s->counted[i] = counting_allocator_create(upstreams[i], NULL);
    if (!s->counted[i]) return tm_last_status();
  }
  return TM_OK;
}

static tm_status make_engine(serving* s, uint64_t (*clock)(void)) {
  model_config config;
  cr_assert(builtin_model_find("llama-3-8b", &config));
  const engine_options options = {
      .stream = s->stream,
      .memory = s->counted[PERSISTENT],
      .cache_memory = s->counted[KV_CACHE],
      .host_memory = s->counted[PINNED],
      .kv_fraction = 0.9,
      .max_batch = 256,
      .max_tokens = 8192,
      .runtime_clock = clock,
  };
  s->engine = engine_create(&config, &options);
  return s->engine ? TM_OK : tm_last_status();
}

// `clock`: the engine's runtime_clock; may be NULL.
static tm_status serving_init(serving* s, uint64_t (*clock)(void)) {
  *s = (serving){.stream = tm_stream_create(0, 0)};
  if (!s->stream) return tm_last_status();
  TM_TRY(make_counted(s));
  TM_TRY(make_engine(s, clock));
  const tm_stack_options options = {.initial_bytes = engine_get_memory(s->engine).activation_bytes};
  s->stack = tm_stack_allocator_create(s->counted[ACTIVATIONS], s->stream, &options);
  return s->stack ? TM_OK : tm_last_status();
}

static void serving_deinit(serving* s) {
  engine_destroy(s->engine);
  tm_allocator_release(s->stack);
  for (int i = 0; i < MEMORY_KINDS; i++) tm_allocator_release(s->counted[i]);
  tm_stream_release(s->stream);
}

// Allocations and frees so far.
static uint64_t calls_of(tm_allocator* allocator) {
  tm_allocator_stats stats;
  cr_assert(eq(int, tm_allocator_get_stats(allocator, &stats), TM_OK));
  return 2 * stats.alloc_calls - stats.live_blocks;
}

// Those of all allocators that the engine was given, and of the process's, which the library could
// ask as well.
static uint64_t upstream_calls(const serving* s) {
  uint64_t calls = calls_of(tm_cuda_allocator(0)) + calls_of(tm_pinned_allocator());
  for (int i = 0; i < MEMORY_KINDS; i++) calls += calls_of(s->counted[i]);
  return calls;
}

//===-- Serving, watched --------------------------------------------------===//

typedef struct observation {
  uint64_t steps;
  uint64_t heap_steps;      // those with heap calls
  uint64_t upstream_steps;  // those with upstream calls
  uint64_t last_bad_step;   // from 0
} observation;

static void report(const observation* o, uint64_t heap, uint64_t upstream) {
  if (o->heap_steps + o->upstream_steps > REPORTED_STEPS) return;
  (void)fprintf(stderr, "  step %llu: %llu heap calls, %llu upstream calls\n",
                (unsigned long long)o->steps, (unsigned long long)heap,
                (unsigned long long)upstream);
  heap_calls_print(stderr);
}

static tm_status watched_step(const serving* s, observation* o) {
  const uint64_t upstream_before = upstream_calls(s);
  heap_calls_begin();
  const tm_status status = engine_step(s->engine);
  const uint64_t heap = heap_calls_end();
  const uint64_t upstream = upstream_calls(s) - upstream_before;
  if (heap + upstream > 0) {
    o->heap_steps += heap > 0;
    o->upstream_steps += upstream > 0;
    o->last_bad_step = o->steps;
    report(o, heap, upstream);
  }
  o->steps++;
  return status;
}

static observation serve(const serving* s) {
  observation o = {0};
  while (!engine_is_idle(s->engine)) {
    cr_assert(watched_step(s, &o) == TM_OK, "%s", tm_last_error()->message);
  }
  cr_assert(engine_drain(s->engine) == TM_OK, "%s", tm_last_error()->message);
  return o;
}

//===-- The machine and the requests --------------------------------------===//

static void start_machine(const char* schedule, const char* memory) {
  if (!heap_calls_are_counted()) machine_skip("the sanitizer has the heap's functions");
  if (!machine_is_simulated()) machine_skip("what a real driver asks of the heap is not ours");
  cr_assert(setenv("CUDASIM_SCHEDULE", schedule, 1) == 0);
  machine_configure(1, memory);
}

// $TM_TEST_DATA, or ../shared/data beside the workspace; skips the test where the trace is not
// there.
static const char* azure_trace(void) {
  static const char* const self = "tests/engine/steady_state_test.c";
  static char path[PATH_MAX + 64];
  char source[PATH_MAX];
  const char* folder = getenv("TM_TEST_DATA");
  if (folder) {
    (void)snprintf(path, sizeof(path), "%s/azure_llm_2023_conv.csv", folder);
  } else if (realpath(self, source)) {
    (void)snprintf(path, sizeof(path), "%.*s../shared/data/azure_llm_2023_conv.csv",
                   (int)(strlen(source) - strlen(self)), source);
  }
  if (access(path, R_OK) != 0) machine_skip("the Azure trace is not there: set TM_TEST_DATA");
  return path;
}

static request_trace real_requests(void) {
  request_trace trace;
  cr_assert(request_trace_read(azure_trace(), &trace) == TM_OK, "%s", tm_last_error()->message);
  return trace;
}

static request_trace made_up_requests(size_t count) {
  request_trace trace;
  cr_assert(eq(int, request_trace_generate(count, 20231116, &trace), TM_OK));
  return trace;
}

// Serves the trace, which it frees, and expects every step to be steady.
static engine_counts expect_steady(request_trace trace) {
  serving s;
  cr_assert(serving_init(&s, NULL) == TM_OK, "%s", tm_last_error()->message);
  cr_assert(engine_start(s.engine, s.stack, &trace) == TM_OK, "%s", tm_last_error()->message);
  const observation o = serve(&s);
  const engine_counts counts = engine_get_counts(s.engine);
  (void)fprintf(stderr,
                "%llu requests, %llu steps: %llu with heap calls, %llu with upstream calls\n",
                (unsigned long long)trace.count, (unsigned long long)o.steps,
                (unsigned long long)o.heap_steps, (unsigned long long)o.upstream_steps);
  cr_expect(eq(u64, o.heap_steps, 0));
  cr_expect(eq(u64, o.upstream_steps, 0));
  // One of the real ones is longer than the model takes.
  cr_expect(
      eq(u64, counts.requests.finished + counts.requests.refused[REFUSED_POSITIONS], trace.count));
  cr_expect(counts.requests.finished >= trace.count - 1);
  serving_deinit(&s);
  request_trace_deinit(&trace);
  return counts;
}

//===-- The engine --------------------------------------------------------===//

Test(steady_state, of_the_real_trace) {
  start_machine("threads", "80GiB");
  (void)expect_steady(real_requests());
}

Test(steady_state, of_the_real_trace_on_an_eager_device) {
  start_machine("eager", "80GiB");
  (void)expect_steady(real_requests());
}

Test(steady_state, of_requests_made_up) {
  start_machine("threads", "80GiB");
  (void)expect_steady(made_up_requests(REQUESTS));
}

Test(steady_state, of_requests_made_up_on_an_eager_device) {
  start_machine("eager", "80GiB");
  (void)expect_steady(made_up_requests(REQUESTS));
}

Test(steady_state, where_sequences_have_to_make_room) {
  start_machine("eager", "17GiB");
  const engine_counts counts = expect_steady(made_up_requests(40));
  cr_expect(counts.requests.preempted_for_kv > 0);
}

//===-- That these tests can fail -----------------------------------------===//

// The clock that the engine asks twice in every forward pass can be made to ask the heap and the
// pool for memory once.
static struct {
  tm_allocator* pool;
  uint64_t reads;
  uint64_t spoilt;  // the one that asks, from 1; 0: none
} clock_state;

static void ask_for_memory(void) {
  void* block = NULL;
  void* volatile memory = malloc(100);
  free(memory);
  cr_assert(tm_allocator_alloc(clock_state.pool, 100, NULL, &block) == TM_OK);
  tm_allocator_free(clock_state.pool, block, 100, NULL);
}

static uint64_t spoiling_clock(void) {
  if (++clock_state.reads == clock_state.spoilt) ask_for_memory();
  return 0;
}

static observation serve_spoilt(uint64_t spoilt_step) {
  serving s;
  cr_assert(serving_init(&s, spoiling_clock) == TM_OK, "%s", tm_last_error()->message);
  request_trace trace = made_up_requests(20);
  cr_assert(engine_start(s.engine, s.stack, &trace) == TM_OK, "%s", tm_last_error()->message);
  clock_state.pool = s.counted[ACTIVATIONS];
  clock_state.spoilt = clock_state.reads + 2 * spoilt_step + 1;
  const observation o = serve(&s);
  request_trace_deinit(&trace);
  serving_deinit(&s);
  return o;
}

Test(steady_state, is_not_what_a_step_is_in_that_asks_for_memory) {
  start_machine("eager", "80GiB");
  const observation o = serve_spoilt(50);
  cr_expect(eq(u64, o.heap_steps, 1));
  cr_expect(eq(u64, o.upstream_steps, 1));
  cr_expect(eq(u64, o.last_bad_step, 50));
}

//===-- The counter -------------------------------------------------------===//

static __attribute__((noinline)) void* use_heap(void* unused) {
  (void)unused;
  void* volatile memory = malloc(1);
  free(memory);
  return NULL;
}

static uint64_t calls_of_every_function(void) {
  void* aligned = NULL;
  heap_calls_begin();
  void* volatile first = malloc(1);
  void* volatile second = calloc(1, 1);
  first = realloc(first, 1000);
  void* volatile third = aligned_alloc(64, 64);
  const int failed = posix_memalign(&aligned, 64, 64);
  void* volatile copied = strdup("called by a shared library");
  free(first);
  free(second);
  free(third);
  free(aligned);
  free(copied);
  cr_assert(failed == 0);
  return heap_calls_end();
}

Test(heap_calls, of_every_function_are_counted) {
  if (!heap_calls_are_counted()) machine_skip("the sanitizer has the heap's functions");
  cr_expect(eq(u64, calls_of_every_function(), 11));
}

Test(heap_calls, of_other_threads_are_not_counted) {
  if (!heap_calls_are_counted()) machine_skip("the sanitizer has the heap's functions");
  pthread_t thread;
  cr_assert(pthread_create(&thread, NULL, use_heap, NULL) == 0);
  heap_calls_begin();
  cr_assert(pthread_join(thread, NULL) == 0);
  cr_expect(eq(u64, heap_calls_end(), 0));
}

// The caller frees it.
static char* places_of_one_use(void) {
  char* text = NULL;
  size_t size = 0;
  heap_calls_begin();
  (void)use_heap(NULL);
  (void)heap_calls_end();
  FILE* to = open_memstream(&text, &size);
  cr_assert(to != NULL);
  heap_calls_print(to);
  (void)fclose(to);
  return text;
}

// Whether addr2line is there and this program was not stripped of the name it is to find.
static bool names_can_be_found(void) {
  char command[128];
  (void)snprintf(
      command, sizeof command,
      "addr2line --version > /dev/null 2>&1 && nm /proc/%d/exe 2> /dev/null | grep -qw use_heap",
      (int)getpid());
  return system(command) == 0;  // NOLINT(cert-env33-c): what heap_calls_print runs
}

Test(heap_calls, are_printed_with_their_place) {
  if (!heap_calls_are_counted()) machine_skip("the sanitizer has the heap's functions");
  char* text = places_of_one_use();
  cr_expect(strstr(text, "malloc, 1 times, called by") != NULL, "%s", text);
  cr_expect(strstr(text, "free, 1 times, called by") != NULL, "%s", text);
  if (names_can_be_found()) {
    cr_expect(strstr(text, "called by\n      use_heap\n") != NULL, "%s", text);
  }
  free(text);
}
