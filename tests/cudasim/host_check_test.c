// What the checker says about the host and memory that is not the host's at that moment. A program
// of its own, since much of it is about signals: each case runs in a child of this one, under
// several schedules, and says by its exit status whether it held.

#define _GNU_SOURCE  // sigaltstack
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cudasim.h"
#include "tests/cudasim/expect.h"
#include "tests/support/sanitizers.h"

#define BYTES ((size_t)4096)

#define OK(call) EXPECT((call) == cudaSuccess)

static const char* schedule;

//===-- What programs are made of -------------------------------------------------------------===//

static cudaStream_t new_stream(void) {
  cudaStream_t stream;
  OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}

static cudaEvent_t new_event(void) {
  cudaEvent_t event;
  OK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  return event;
}

static void* new_buffer(void) {
  void* p;
  OK(cudaMalloc(&p, BYTES * 4));
  OK(cudaMemset(p, 1, BYTES * 4));
  OK(cudaDeviceSynchronize());
  return p;
}

static volatile unsigned char* new_pinned(size_t bytes) {
  void* p;
  OK(cudaMallocHost(&p, bytes));
  return memset(p, 0, bytes);
}

static void copy(volatile void* to, volatile const void* from, size_t bytes, cudaStream_t stream) {
  OK(cudaMemcpyAsync((void*)(uintptr_t)to, (const void*)(uintptr_t)from, bytes, cudaMemcpyDefault,
                     stream));
}

static uint64_t count(const char* rule) { return cudasim_report_count(rule); }

// The reports are one of `rule`, or none where it is NULL.
static void expect_reports(const char* rule) {
  EXPECT(count(NULL) == (rule ? 1 : 0));
  if (rule) EXPECT(count(rule) == 1);
}

static bool said(const char* text) {
  static char report[8192];
  cudasim_last_report(report, sizeof(report));
  return strstr(report, text);
}

//===-- Results and sources -------------------------------------------------------------------===//

static void reads_a_result_too_early(bool is_right) {
  cudaStream_t stream = new_stream();
  volatile unsigned char* result = new_pinned(BYTES);
  copy(result, new_buffer(), BYTES, stream);
  if (is_right) OK(cudaStreamSynchronize(stream));
  unsigned char seen = result[100];
  if (is_right) EXPECT(seen == 1);
  expect_reports(is_right ? NULL : "read-before-sync");
  if (!is_right) EXPECT(said("byte 100 of 4096") && said("written by cudaMemcpyAsync"));
}

static void writes_a_result_too_early(bool is_right) {
  cudaStream_t stream = new_stream();
  volatile unsigned char* result = new_pinned(BYTES);
  copy(result, new_buffer(), BYTES, stream);
  if (is_right) OK(cudaDeviceSynchronize());
  result[0] = 7;
  expect_reports(is_right ? NULL : "write-before-sync");
}

static void overwrites_a_source_too_early(bool is_right) {
  cudaStream_t stream = new_stream();
  volatile unsigned char* source = new_pinned(BYTES);
  copy(new_buffer(), source, BYTES, stream);
  if (is_right) {
    while (cudaStreamQuery(stream) == cudaErrorNotReady) {
    }
  }
  source[4095] = 7;
  expect_reports(is_right ? NULL : "write-before-sync");
  if (!is_right) EXPECT(said("read by cudaMemcpyAsync"));
}

// Twelve bytes in the middle of a page, of which the rest is free for use.
static void reads_a_small_result_too_early(bool is_right) {
  cudaStream_t stream = new_stream();
  volatile unsigned char* results = new_pinned(BYTES);
  copy(results + 100, new_buffer(), 12, stream);
  EXPECT(results[is_right ? 112 : 111] == (is_right ? 0 : results[111]));
  expect_reports(is_right ? NULL : "read-before-sync");
}

// One copy takes the place of another, and the host waits for it.
static void repeats_a_copy(bool is_right) {
  cudaStream_t stream = new_stream();
  volatile unsigned char* result = new_pinned(BYTES);
  void* data = new_buffer();
  for (int i = 0; i < 3; ++i) copy(result, data, BYTES, stream);
  if (is_right) OK(cudaStreamSynchronize(stream));
  EXPECT(result[0] <= 1);
  expect_reports(is_right ? NULL : "read-before-sync");
  OK(cudaDeviceSynchronize());
}

static void waits_for_the_wrong_event(bool is_right) {
  cudaStream_t stream = new_stream();
  cudaEvent_t before = new_event();
  cudaEvent_t after = new_event();
  volatile unsigned char* result = new_pinned(BYTES);
  void* data = new_buffer();
  OK(cudaEventRecord(before, stream));
  copy(result, data, BYTES, stream);
  OK(cudaEventRecord(after, stream));
  OK(cudaEventSynchronize(is_right ? after : before));
  EXPECT(result[0] <= 1);
  expect_reports(is_right ? NULL : "read-before-sync");
}

static void waits_for_a_stream_that_is_not_behind(bool is_right) {
  cudaStream_t first = new_stream();
  cudaStream_t second = new_stream();
  cudaEvent_t copied = new_event();
  volatile unsigned char* result = new_pinned(BYTES);
  copy(result, new_buffer(), BYTES, first);
  OK(cudaEventRecord(copied, first));
  if (is_right) OK(cudaStreamWaitEvent(second, copied, 0));
  OK(cudaStreamSynchronize(second));
  EXPECT(result[0] <= 1);
  expect_reports(is_right ? NULL : "read-before-sync");
}

static void reads_what_a_graph_copies(bool is_right) {
  cudaStream_t stream = new_stream();
  cudaGraph_t graph;
  cudaGraphExec_t step;
  volatile unsigned char* result = new_pinned(BYTES);
  void* data = new_buffer();
  OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  copy(result, data, BYTES, stream);
  OK(cudaStreamEndCapture(stream, &graph));
  OK(cudaGraphInstantiate(&step, graph, 0));
  EXPECT(result[1] == 0);
  OK(cudaGraphLaunch(step, stream));
  if (is_right) OK(cudaStreamSynchronize(stream));
  EXPECT(result[0] <= 1);
  expect_reports(is_right ? NULL : "read-before-sync");
  if (!is_right) EXPECT(said("written by cudaGraphLaunch"));
}

// Rows of 16 bytes, 64 apart: what is between them is nobody's.
static void reads_a_row_too_early(bool is_right) {
  cudaStream_t stream = new_stream();
  volatile unsigned char* result = new_pinned(BYTES);
  OK(cudaMemcpy2DAsync((void*)(uintptr_t)result, 64, new_buffer(), 16, 16, 10,
                       cudaMemcpyDeviceToHost, stream));
  EXPECT(result[is_right ? 3 * 64 + 16 : 3 * 64 + 15] <= 1);
  expect_reports(is_right ? NULL : "read-before-sync");
}

static void fills_behind_the_hosts_back(bool is_right) {
  cudaStream_t stream = new_stream();
  volatile unsigned char* pinned = new_pinned(BYTES);
  OK(cudaMemsetAsync((void*)(uintptr_t)pinned, 3, BYTES, stream));
  if (is_right) OK(cudaFree(new_buffer()));  // waits for the device
  EXPECT(pinned[9] == 0 || pinned[9] == 3);
  expect_reports(is_right ? NULL : "read-before-sync");
}

//===-- What is allowed -----------------------------------------------------------------------===//

static void reads_a_source_that_is_copied(bool is_right) {
  volatile unsigned char* source = new_pinned(BYTES);
  copy(new_buffer(), source, BYTES, new_stream());
  EXPECT(source[5] == 0);
  if (!is_right) source[5] = 1;
  expect_reports(is_right ? NULL : "write-before-sync");
}

static void blocking_copies_need_no_wait(bool is_right) {
  volatile unsigned char* result = new_pinned(BYTES);
  void* data = new_buffer();
  OK(cudaMemcpy((void*)(uintptr_t)result, data, BYTES, cudaMemcpyDeviceToHost));
  EXPECT(result[0] == 1);
  result[0] = 2;
  if (!is_right) {
    copy(result, data, 1, cudaStreamLegacy);
    EXPECT(result[0] <= 2);
  }
  expect_reports(is_right ? NULL : "read-before-sync");
}

typedef struct shared {
  pthread_mutex_t lock;
  pthread_cond_t change;
  bool is_called;
  volatile unsigned char* memory;
  unsigned char seen;
} shared;

static void tell(void* argument) {
  shared* s = argument;
  pthread_mutex_lock(&s->lock);
  s->is_called = true;
  pthread_cond_broadcast(&s->change);
  pthread_mutex_unlock(&s->lock);
}

static void read_memory(void* argument) {
  shared* s = argument;
  s->seen = s->memory[0];
  s->memory[1] = 5;
}

// Without the host function that tells, the program has nothing to wait for but luck.
static void a_host_function_tells_the_host(bool is_right) {
  static shared s = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, NULL, 0};
  cudaStream_t stream = new_stream();
  volatile unsigned char* result = new_pinned(BYTES);
  copy(result, new_buffer(), BYTES, stream);
  if (is_right) {
    OK(cudaLaunchHostFunc(stream, tell, &s));
    if (strncmp(schedule, "random", 6) == 0) OK(cudaStreamSynchronize(stream));
    pthread_mutex_lock(&s.lock);
    while (!s.is_called) pthread_cond_wait(&s.change, &s.lock);
    pthread_mutex_unlock(&s.lock);
  }
  EXPECT(result[0] <= 1);
  expect_reports(is_right ? NULL : "read-before-sync");
}

// A host function reads what a copy before it has written, and writes what one after it reads.
static void a_host_function_is_ordered_by_its_stream(bool is_right) {
  static shared s;
  cudaStream_t stream = new_stream();
  volatile unsigned char* memory = new_pinned(2 * BYTES);
  void* data = new_buffer();
  s.memory = memory;
  copy(memory, data, 2 * BYTES, stream);
  OK(cudaLaunchHostFunc(stream, read_memory, &s));
  copy(data, memory, 2 * BYTES, stream);
  if (is_right) OK(cudaStreamSynchronize(stream));
  memory[BYTES] = 1;
  OK(cudaStreamSynchronize(stream));
  EXPECT(s.seen == 1);
  expect_reports(is_right ? NULL : "write-before-sync");
}

static void a_host_function_in_another_stream(bool is_right) {
  static shared s;
  cudaStream_t stream = new_stream();
  cudaStream_t other = new_stream();
  cudaEvent_t copied = new_event();
  s.memory = new_pinned(BYTES);
  copy(s.memory, new_buffer(), BYTES, stream);
  OK(cudaEventRecord(copied, stream));
  if (is_right) OK(cudaStreamWaitEvent(other, copied, 0));
  OK(cudaLaunchHostFunc(other, read_memory, &s));
  OK(cudaStreamSynchronize(other));
  expect_reports(is_right ? NULL : "read-before-sync");
  if (!is_right) EXPECT(said("a host function reads"));
}

static void another_thread_may_read_after_the_wait(bool is_right) {
  cudaStream_t stream = new_stream();
  volatile unsigned char* result = new_pinned(8 * BYTES);
  OK(cudaMemcpyAsync((void*)(uintptr_t)result, new_buffer(), 4 * BYTES, cudaMemcpyDeviceToHost,
                     stream));
  EXPECT(result[4 * BYTES] == 0 && result[8 * BYTES - 1] == 0);
  if (is_right) OK(cudaStreamSynchronize(stream));
  int pipe_ends[2];
  EXPECT(pipe(pipe_ends) == 0);
  // A system call on forbidden memory fails without a report.
  EXPECT((write(pipe_ends[1], (const void*)(uintptr_t)result, 100) == 100) == is_right);
  expect_reports(NULL);
}

//===-- Freed memory --------------------------------------------------------------------------===//

static void reads_what_is_freed(bool is_right) {
  volatile unsigned char* memory = new_pinned(3 * BYTES);
  memory[5000] = 3;
  if (!is_right) OK(cudaFreeHost((void*)(uintptr_t)memory));
  EXPECT(memory[5000] == (is_right ? 3 : 0));
  expect_reports(is_right ? NULL : "use-after-free");
  if (!is_right) EXPECT(said("byte 5000 of 12288") && said("freed by cudaFreeHost"));
}

static void writes_over_the_end(bool is_right) {
  volatile unsigned char* memory = new_pinned(BYTES);
  memory[is_right ? BYTES - 1 : BYTES + 7] = 3;
  expect_reports(is_right ? NULL : "out-of-bounds");
  if (!is_right) EXPECT(said("8 bytes behind the last of 4096"));
}

static void reads_before_the_beginning(bool is_right) {
  volatile unsigned char* memory = new_pinned(BYTES);
  EXPECT((is_right ? memory[0] : memory[-20]) == 0);
  expect_reports(is_right ? NULL : "out-of-bounds");
  if (!is_right) EXPECT(said("20 bytes before the first of 4096"));
}

static void memory_is_used_again(bool is_right) {
  volatile unsigned char* memory = new_pinned(BYTES);
  for (int i = 0; i < 3000; ++i) {
    OK(cudaFreeHost((void*)(uintptr_t)memory));
    memory = new_pinned(BYTES);
    EXPECT(memory[17] == 0);
    memory[17] = 1;
  }
  if (!is_right) EXPECT(memory[BYTES] == 0);
  expect_reports(is_right ? NULL : "out-of-bounds");
}

//===-- Signals -------------------------------------------------------------------------------===//

static sigjmp_buf back;
static volatile int faults;

static void leave(int signal) {
  (void)signal;
  ++faults;
  siglongjmp(back, 1);
}

static struct sigaction previous;

static void call_previous(int signal, siginfo_t* info, void* context) {
  ++faults;
  if (faults > 100) _exit(1);
  if (previous.sa_flags & SA_SIGINFO && previous.sa_sigaction) {
    previous.sa_sigaction(signal, info, context);
  } else {
    siglongjmp(back, 1);
  }
}

static void install(void (*handler)(int), int flags) {
  struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
  EXPECT(sigaction(SIGSEGV, &action, &previous) == 0);
}

// Device memory, at which the program's handler has the last word.
static void a_handler_from_before_is_called(bool is_right) {
  install(leave, 0);
  volatile unsigned char* data = new_buffer();
  for (int i = 0; i < 3; ++i) {
    if (is_right || sigsetjmp(back, 1)) continue;
    data[i] = 1;
  }
  EXPECT(faults == (is_right ? 0 : 3));
  EXPECT(count("device-access") == (is_right ? 0 : 3));
  if (!is_right) EXPECT(said("allocated by cudaMalloc"));
  if (!is_right) EXPECT(said("the host writes") && said("of an allocation of 16384 on device 0"));
}

static void a_handler_from_after_is_called(bool is_right) {
  cudaStream_t stream = new_stream();
  volatile unsigned char* result = new_pinned(BYTES);
  volatile unsigned char* data = new_buffer();
  install(leave, 0);
  copy(result, data, 8, stream);
  if (!is_right) EXPECT(result[7] <= 1);
  EXPECT(result[8] == 0);  // not for its handler
  EXPECT(faults == 0);
  if (!sigsetjmp(back, 1)) EXPECT(data[0] == 1);
  EXPECT(faults == 1 && count("device-access") == 1);
  EXPECT(count(NULL) == (is_right ? 1 : 2));
}

// Theirs calls ours, and ours theirs: once around, then the process ends as it would have.
static void handlers_that_call_each_other_end(bool is_right) {
  cudaStream_t stream = new_stream();
  volatile unsigned char* result = new_pinned(BYTES);
  struct sigaction action = {.sa_sigaction = call_previous, .sa_flags = SA_SIGINFO};
  EXPECT(sigaction(SIGSEGV, &action, &previous) == 0);
  copy(result, new_buffer(), 8, stream);
  fflush(NULL);
  pid_t child = fork();
  if (child == 0) {
    volatile int* volatile nowhere = NULL;
    if (!is_right) *nowhere = 1;  // NOLINT(clang-analyzer-core.NullDereference): on purpose
    _exit(0);
  }
  int status;
  EXPECT(waitpid(child, &status, 0) == child);
  EXPECT(is_right ? WIFEXITED(status) && !WEXITSTATUS(status)
                  : !WIFEXITED(status) || WEXITSTATUS(status));
}

static void* read_on_a_small_stack(void* memory) {
  static char stack[8192];
  EXPECT(sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof(stack)}, NULL) == 0);
  EXPECT(*(volatile unsigned char*)memory <= 1);
  EXPECT(sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL) == 0);
  return NULL;
}

static void a_signal_stack_may_be_small(bool is_right) {
  volatile unsigned char* result = new_pinned(BYTES);
  copy(result, new_buffer(), BYTES - 1, new_stream());
  pthread_t thread;
  void* at = (void*)(uintptr_t)(is_right ? result + BYTES - 1 : result);
  EXPECT(pthread_create(&thread, NULL, read_on_a_small_stack, at) == 0);
  pthread_join(thread, NULL);
  expect_reports(is_right ? NULL : "read-before-sync");
}

static void* read_deaf(void* memory) {
  EXPECT(*(volatile unsigned char*)memory <= 1);
  return NULL;
}

// A thread that blocks SIGSEGV could not say that it meant another part of the page.
static void a_thread_that_blocks_the_signal_lives(bool is_right) {
  sigset_t all;
  sigset_t before;
  pthread_t thread;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  volatile unsigned char* result = new_pinned(2 * BYTES);
  copy(result, new_buffer(), BYTES + 8, new_stream());
  EXPECT(pthread_create(&thread, NULL, read_deaf, (void*)(uintptr_t)(result + BYTES + 8)) == 0);
  pthread_join(thread, NULL);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (!is_right) EXPECT(result[0] <= 1);  // a whole page
  expect_reports(is_right ? NULL : "read-before-sync");
}

//===-- Processes -----------------------------------------------------------------------------===//

static void a_forked_child_has_its_own(bool is_right) {
  volatile unsigned char* memory = new_pinned(BYTES);
  memory[0] = 1;
  copy(new_buffer(), memory, BYTES, new_stream());
  pid_t child = fork();
  if (child == 0) {
    EXPECT(memory[0] == 1);
    memory[0] = 2;
    _exit(memory[0] == 2 ? 0 : 1);
  }
  int status;
  EXPECT(waitpid(child, &status, 0) == child && WIFEXITED(status) && !WEXITSTATUS(status));
  EXPECT(memory[0] == 1);
  if (!is_right) memory[0] = 3;
  expect_reports(is_right ? NULL : "write-before-sync");
}

static volatile unsigned char* leftover;

static void use_leftover(void) {
  EXPECT(leftover[0] <= 1);
  leftover[0] = 1;
}

static void destructors_run_unchecked(bool is_right) {
  atexit(use_leftover);
  leftover = new_pinned(BYTES);
  copy(leftover, new_buffer(), BYTES, new_stream());
  if (!is_right) EXPECT(leftover[0] <= 1);
  expect_reports(is_right ? NULL : "read-before-sync");
  exit(0);
}

static void many_blocks_are_too_many_to_check(bool is_right) {
  enum { COUNT = 33000 };
  cudaStream_t stream = new_stream();
  volatile unsigned char* first = new_pinned(1);
  volatile unsigned char* last = first;
  void* data = new_buffer();
  for (int i = 0; i < COUNT; ++i) last = new_pinned(1);
  copy(first, data, 1, stream);
  copy(last, data, 1, stream);
  if (!UNDER_TSAN) EXPECT(last[0] <= 1);  // not checked, and a race
  if (!is_right) EXPECT(first[0] <= 1);
  expect_reports(is_right ? NULL : "read-before-sync");
}

static void many_copies_need_little(bool is_right) {
  cudaStream_t stream = new_stream();
  volatile unsigned char* memory = new_pinned(64 * BYTES);
  void* data = new_buffer();
  for (size_t i = 0; i < 20000; ++i) copy(memory + i * 12 % (63 * BYTES), data, 8, stream);
  if (is_right) OK(cudaStreamSynchronize(stream));
  EXPECT(memory[(size_t)19999 * 12 % (63 * BYTES)] <= 1);
  expect_reports(is_right ? NULL : "read-before-sync");
}

//===-- Endings -------------------------------------------------------------------------------===//

// Cases whose wrong half ends the process: how.
static void dereferences_device_memory(bool is_right) {
  volatile unsigned char* data = new_buffer();
  if (!is_right) data[3] = 1;
}

static void frees_with_the_wrong_function(bool is_right) {
  volatile unsigned char* memory = new_pinned(BYTES);
  if (is_right) {
    OK(cudaFreeHost((void*)(uintptr_t)memory));
  } else {
    void (*volatile wrong)(void*) = free;
    wrong((void*)(uintptr_t)memory);
  }
}

static void aborts_after_the_first_report(bool is_right) {
  volatile unsigned char* result = new_pinned(BYTES);
  copy(result, new_buffer(), BYTES, new_stream());
  if (!is_right) EXPECT(result[0] <= 1);
}

//===-- Cases ---------------------------------------------------------------------------------===//

// What a sanitizer keeps from being seen.
typedef enum hindrance {
  NOTHING,
  TSAN,       // has a thread that blocks SIGSEGV: parts of pages are not guarded; and sees races
  SANITIZER,  // has a free() of its own
} hindrance;

typedef struct test_case {
  const char* name;
  void (*run)(bool is_right);
  int signal;  // that ends the wrong half; 0: it ends well
  hindrance hindrance;
  const char* mode;
  const char* text;  // that its stderr has
} test_case;

#define CASE(function) \
  { .name = #function, .run = function, .mode = "report" }
#define PART_CASE(function) \
  { .name = #function, .run = function, .mode = "report", .hindrance = TSAN }
#define ENDING(function, how, said, end) \
  { .name = #function, .run = function, .mode = how, .text = said, .signal = end }

static const test_case cases[] = {
    CASE(reads_a_result_too_early),
    CASE(writes_a_result_too_early),
    CASE(overwrites_a_source_too_early),
    PART_CASE(reads_a_small_result_too_early),
    CASE(repeats_a_copy),
    CASE(waits_for_the_wrong_event),
    CASE(waits_for_a_stream_that_is_not_behind),
    CASE(reads_what_a_graph_copies),
    PART_CASE(reads_a_row_too_early),
    CASE(fills_behind_the_hosts_back),
    CASE(reads_a_source_that_is_copied),
    PART_CASE(blocking_copies_need_no_wait),
    CASE(a_host_function_tells_the_host),
    CASE(a_host_function_is_ordered_by_its_stream),
    CASE(a_host_function_in_another_stream),
    CASE(another_thread_may_read_after_the_wait),
    CASE(reads_what_is_freed),
    CASE(writes_over_the_end),
    CASE(reads_before_the_beginning),
    CASE(memory_is_used_again),
    CASE(a_handler_from_before_is_called),
    PART_CASE(a_handler_from_after_is_called),
    CASE(handlers_that_call_each_other_end),
    PART_CASE(a_signal_stack_may_be_small),
    CASE(a_thread_that_blocks_the_signal_lives),
    CASE(a_forked_child_has_its_own),
    CASE(destructors_run_unchecked),
    PART_CASE(many_blocks_are_too_many_to_check),
    PART_CASE(many_copies_need_little),
    ENDING(dereferences_device_memory, "report", "device-access: the host writes 0x", SIGSEGV),
    ENDING(dereferences_device_memory, "abort", "device-access: the host writes 0x", SIGSEGV),
    {.name = "frees_with_the_wrong_function",
     .run = frees_with_the_wrong_function,
     .mode = "abort",
     .text = "wrong-free: free() of page-locked memory, 4096 bytes",
     .signal = SIGABRT,
     .hindrance = SANITIZER},
    ENDING(aborts_after_the_first_report, "abort", "read-before-sync: the host reads byte 0",
           SIGABRT),
};

static void run_child(const test_case* c, bool is_right, int output) {
  if (c->text && !is_right) EXPECT(dup2(output, STDERR_FILENO) == STDERR_FILENO);
  setrlimit(RLIMIT_CORE, &(struct rlimit){0});
  OK(cudasim_configure(&(cudasim_options){
      .schedule = schedule, .memory = "64MiB", .check = c->mode, .check_leaks = CUDASIM_OFF}));
  c->run(is_right);
  exit(0);
}

static bool ended_as_it_should(const test_case* c, bool is_right, int status) {
  bool is_well = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  if (is_right || !c->signal) return is_well;
  if (UNDER_ASAN || UNDER_TSAN) return !is_well;  // their handlers choose the end
  return WIFSIGNALED(status) ? WTERMSIG(status) == c->signal : WEXITSTATUS(status) != 0;
}

static bool is_hindered(const test_case* c) {
  return (c->hindrance == TSAN && UNDER_TSAN) ||
         (c->hindrance == SANITIZER && (UNDER_TSAN || UNDER_ASAN));
}

static bool run(const test_case* c, bool is_right) {
  int ends[2];
  EXPECT(pipe(ends) == 0);
  fflush(NULL);
  pid_t child = fork();
  if (child == 0) run_child(c, is_right, ends[1]);
  close(ends[1]);
  char text[16384] = {0};
  ssize_t length = 0;
  for (ssize_t more = 1; more > 0; length += more > 0 ? more : 0) {
    more = read(ends[0], text + length, sizeof(text) - 1 - (size_t)length);
  }
  close(ends[0]);
  int status;
  bool passed = waitpid(child, &status, 0) == child && ended_as_it_should(c, is_right, status);
  if (c->text && !is_right) passed = passed && strstr(text, c->text);
  if (!passed)
    printf("FAILED %s, %s, %s: %x\n%s", c->name, is_right ? "right" : "wrong", schedule, status,
           text);
  return passed;
}

int main(int argument_count, char** arguments) {
  static const char* const schedules[] = {"eager", "random:1", "random:2", "threads"};
  int failed = 0;
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); ++i) {
    if (argument_count > 1 && strcmp(arguments[1], cases[i].name) != 0) continue;
    for (size_t k = 0; k < sizeof(schedules) / sizeof(schedules[0]); ++k) {
      schedule = schedules[k];
      failed += !run(&cases[i], true);
      if (!is_hindered(&cases[i])) failed += !run(&cases[i], false);
    }
  }
  return failed != 0;
}
