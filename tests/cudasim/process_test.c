// What becomes of the runtime in a forked child and at the end of a process. A program of its own,
// since both are about processes: each case runs in a child of this one and says by its exit status
// whether it held.

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cudasim.h"
#include "tests/cudasim/expect.h"

static void nap_ms(long ms) {
  nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static void nap_300_ms(void* unused) {
  (void)unused;
  nap_ms(300);
}

//===-- Fork ----------------------------------------------------------------------------------===//

static bool ended_well(pid_t child) {
  int status;
  return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void calls_in_a_child_fail(void) {
  void* p;
  cudaStream_t stream;
  EXPECT(cudaMalloc(&p, 16) == cudaSuccess);
  EXPECT(cudaStreamCreate(&stream) == cudaSuccess);
  pid_t child = fork();
  if (child == 0) {
    void* q = &q;
    int count = 0;
    EXPECT(cudaMalloc(&q, 16) == cudaErrorInitializationError);
    EXPECT(cudaFree(p) == cudaErrorInitializationError);
    EXPECT(cudaFreeAsync(p, stream) == cudaErrorInitializationError);
    EXPECT(cudaStreamSynchronize(stream) == cudaErrorInitializationError);
    EXPECT(cudaDeviceSynchronize() == cudaErrorInitializationError);
    EXPECT(cudaSetDevice(0) == cudaErrorInitializationError);
    EXPECT(cudaGetLastError() == cudaErrorInitializationError);
    EXPECT(cudaGetDeviceCount(&count) == cudaSuccess && count == 1);
    exit(0);
  }
  EXPECT(ended_well(child));
  EXPECT(cudaFree(p) == cudaSuccess);
}

static bool stop;

static void* keep_the_lock_busy(void* unused) {
  (void)unused;
  while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
    void* p;
    EXPECT(cudaMalloc(&p, 16) == cudaSuccess);
    EXPECT(cudaFree(p) == cudaSuccess);
  }
  return NULL;
}

// Whoever holds the lock at the time of the fork does not exist in the child.
static void a_child_does_not_deadlock(void) {
  pthread_t thread;
  EXPECT(cudaFree(NULL) == cudaSuccess);
  EXPECT(pthread_create(&thread, NULL, keep_the_lock_busy, NULL) == 0);
  for (int i = 0; i < 50; ++i) {
    pid_t child = fork();
    if (child == 0) {
      EXPECT(cudaFree(NULL) == cudaErrorInitializationError);
      _exit(0);
    }
    EXPECT(ended_well(child));
  }
  __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
  pthread_join(thread, NULL);
}

static void a_child_of_a_process_without_devices_has_its_own(void) {
  pid_t child = fork();
  if (child == 0) {
    void* p;
    EXPECT(cudaMalloc(&p, 16) == cudaSuccess);
    EXPECT(cudaFree(p) == cudaSuccess);
    exit(0);
  }
  EXPECT(ended_well(child));
}

//===-- Exit ----------------------------------------------------------------------------------===//

static void* leftover;

static void free_leftover(void) {
  void* p;
  EXPECT(cudaFree(leftover) == cudaErrorCudartUnloading);
  EXPECT(cudaMalloc(&p, 16) == cudaErrorCudartUnloading);
  EXPECT(cudaGetLastError() == cudaErrorCudartUnloading);
}

// A handler from before the first call runs after the runtime has gone.
static void frees_after_the_end_fail(void) {
  atexit(free_leftover);
  EXPECT(cudaMalloc(&leftover, 16) == cudaSuccess);
  exit(0);
}

static void free_in_time(void) { EXPECT(cudaFree(leftover) == cudaSuccess); }

static void handlers_from_after_the_first_call_can_free(void) {
  EXPECT(cudaMalloc(&leftover, 16) == cudaSuccess);
  atexit(free_in_time);
  exit(0);
}

static void exit_with_copies_pending(void) {
  size_t bytes = (size_t)4 << 20;
  cudaStream_t streams[8];
  void* pinned;
  EXPECT(cudaHostAlloc(&pinned, bytes, 0) == cudaSuccess);
  for (int i = 0; i < 8; ++i) {
    void* p;
    EXPECT(cudaStreamCreate(&streams[i]) == cudaSuccess);
    EXPECT(cudaMalloc(&p, bytes) == cudaSuccess);
    for (int k = 0; k < 20; ++k) {
      EXPECT(cudaMemcpyAsync(p, pinned, bytes, cudaMemcpyHostToDevice, streams[i]) == cudaSuccess);
    }
  }
  exit(0);
}

static void exit_with_a_host_function_running(void) {
  cudaStream_t stream;
  EXPECT(cudaStreamCreate(&stream) == cudaSuccess);
  for (int i = 0; i < 10; ++i) {
    EXPECT(cudaLaunchHostFunc(stream, nap_300_ms, NULL) == cudaSuccess);
  }
  nap_ms(20);
  exit(0);
}

static void call_exit(void* unused) {
  (void)unused;
  exit(0);
}

static void exit_from_a_host_function(void) {
  EXPECT(cudasim_configure(&(cudasim_options){.schedule = "threads"}) == cudaSuccess);
  EXPECT(cudaLaunchHostFunc(cudaStreamPerThread, call_exit, NULL) == cudaSuccess);
  nap_ms(5000);
  EXPECT(!"the host function ended the process");
}

static void make_random(unsigned seed) {
  char schedule[32];
  snprintf(schedule, sizeof(schedule), "random:%u", seed);
  EXPECT(cudasim_configure(&(cudasim_options){.schedule = schedule}) == cudaSuccess);
}

// What is left of a process: the bytes that were copied, and whether a host function was called.
typedef struct estate {
  unsigned char bytes[100];
  bool is_called;
} estate;

static void note_call(void* argument) { ((estate*)argument)->is_called = true; }

static void leave_work(estate* e, unsigned seed) {
  cudaStream_t copies;
  cudaStream_t calls;
  void* p;
  make_random(seed);
  EXPECT(cudaStreamCreateWithFlags(&copies, cudaStreamNonBlocking) == cudaSuccess);
  EXPECT(cudaStreamCreateWithFlags(&calls, cudaStreamNonBlocking) == cudaSuccess);
  EXPECT(cudaHostRegister(e, sizeof(*e), 0) == cudaSuccess);
  EXPECT(cudaMalloc(&p, 1) == cudaSuccess);
  EXPECT(cudaMemset(p, 1, 1) == cudaSuccess);
  EXPECT(cudaDeviceSynchronize() == cudaSuccess);
  for (size_t i = 0; i < sizeof(e->bytes); ++i) {
    EXPECT(cudaMemcpyAsync(&e->bytes[i], p, 1, cudaMemcpyDeviceToHost, copies) == cudaSuccess);
  }
  e->is_called = false;
  EXPECT(cudaLaunchHostFunc(calls, note_call, e) == cudaSuccess);
  exit(0);
}

// Of the copies that nobody has waited for, some seeds do none, some do some.
static void a_random_end_does_what_it_likes(void) {
  size_t size = sizeof(estate);
  estate* e = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  EXPECT(e != MAP_FAILED);
  int none = 0;
  int some = 0;
  for (unsigned seed = 0; seed < 50; ++seed) {
    memset(e, 0, size);
    pid_t child = fork();
    if (child == 0) leave_work(e, seed);
    EXPECT(ended_well(child));
    if (e->bytes[0]) ++some;
    if (!e->bytes[0]) ++none;
    EXPECT(!e->bytes[sizeof(e->bytes) - 1] || e->bytes[0]);
  }
  EXPECT(none > 0 && some > 0);
}

static void exit_randomly_with_host_functions_queued(void) {
  make_random(3);
  for (int i = 0; i < 10; ++i) {
    EXPECT(cudaLaunchHostFunc(cudaStreamPerThread, nap_300_ms, NULL) == cudaSuccess);
  }
  exit(0);
}

static void exit_from_a_host_function_that_is_run_randomly(void) {
  make_random(3);
  EXPECT(cudaLaunchHostFunc(cudaStreamPerThread, call_exit, NULL) == cudaSuccess);
  (void)cudaStreamSynchronize(cudaStreamPerThread);
  EXPECT(!"the host function ended the process");
}

//===-- Seeds ---------------------------------------------------------------------------------===//

static void make_machines_without_a_seed(int output) {
  EXPECT(dup2(output, STDERR_FILENO) == STDERR_FILENO);
  setenv("CUDASIM_SCHEDULE", "random", 1);
  for (int i = 0; i < 3; ++i) {
    EXPECT(cudaFree(NULL) == cudaSuccess);
    cudasim_reset();
  }
  EXPECT(cudasim_configure(&(cudasim_options){.schedule = "random"}) == cudaSuccess);
  exit(0);
}

static void a_seed_of_the_clock_is_said_once(void) {
  int ends[2];
  EXPECT(pipe(ends) == 0);
  pid_t child = fork();
  if (child == 0) make_machines_without_a_seed(ends[1]);
  close(ends[1]);
  char text[256] = {0};
  ssize_t length = 0;
  for (ssize_t more = 1; more > 0; length += more) {
    more = read(ends[0], text + length, sizeof(text) - 1 - (size_t)length);
  }
  EXPECT(ended_well(child));
  const char* seed = strstr(text, "cudasim: CUDASIM_SCHEDULE=random:");
  EXPECT(seed == text);
  const char* digits = strrchr(text, ':') + 1;
  size_t count = strspn(digits, "0123456789");
  EXPECT(count > 0 && strcmp(digits + count, "\n") == 0);
}

//===-- Threads -------------------------------------------------------------------------------===//

static int count_threads(void) {
  FILE* file = fopen("/proc/self/status", "r");
  char line[256];
  int threads = -1;
  while (file && fgets(line, sizeof(line), file)) {
    if (strncmp(line, "Threads:", 8) == 0) threads = (int)strtol(line + 8, NULL, 10);
  }
  if (file) fclose(file);
  return threads;
}

static void* do_nothing(void* unused) { return unused; }

static void an_idle_device_has_no_thread(void) {
  pthread_t thread;  // with the first thread, sanitizers start one of their own
  EXPECT(pthread_create(&thread, NULL, do_nothing, NULL) == 0);
  pthread_join(thread, NULL);
  int before = count_threads();
  void* p;
  cudaStream_t stream;
  EXPECT(cudasim_configure(&(cudasim_options){.schedule = "threads"}) == cudaSuccess);
  EXPECT(cudaMalloc(&p, 1 << 20) == cudaSuccess);
  EXPECT(cudaStreamCreate(&stream) == cudaSuccess);
  EXPECT(count_threads() == before);
  for (int i = 0; i < 1000; ++i) EXPECT(cudaMemsetAsync(p, 0, 1 << 20, stream) == cudaSuccess);
  EXPECT(count_threads() == before + 1);
  EXPECT(cudaStreamSynchronize(stream) == cudaSuccess);
  for (int i = 0; i < 50 && count_threads() > before; ++i) nap_ms(100);
  EXPECT(count_threads() == before);
}

static void eager_has_no_thread_at_all(void) {
  int before = count_threads();
  void* p;
  cudaStream_t stream;
  EXPECT(cudasim_configure(&(cudasim_options){.schedule = "eager"}) == cudaSuccess);
  EXPECT(cudaMalloc(&p, 1 << 20) == cudaSuccess);
  EXPECT(cudaStreamCreate(&stream) == cudaSuccess);
  EXPECT(cudaMemsetAsync(p, 0, 1 << 20, stream) == cudaSuccess);
  EXPECT(cudaLaunchHostFunc(stream, nap_300_ms, NULL) == cudaSuccess);
  EXPECT(cudaStreamQuery(stream) == cudaSuccess);
  EXPECT(count_threads() == before);
}

static void random_has_no_thread_at_all(void) {
  int before = count_threads();
  void* p;
  cudaStream_t stream;
  make_random(1);
  EXPECT(cudaMalloc(&p, 1 << 20) == cudaSuccess);
  EXPECT(cudaStreamCreate(&stream) == cudaSuccess);
  for (int i = 0; i < 100; ++i) EXPECT(cudaMemsetAsync(p, 0, 1 << 20, stream) == cudaSuccess);
  EXPECT(cudaLaunchHostFunc(stream, nap_300_ms, NULL) == cudaSuccess);
  EXPECT(count_threads() == before);
  EXPECT(cudaStreamSynchronize(stream) == cudaSuccess);
  EXPECT(count_threads() == before);
}

//===-- Cases ---------------------------------------------------------------------------------===//

typedef struct test_case {
  const char* name;
  void (*run)(void);
} test_case;

#define CASE(function) \
  { #function, function }

static const test_case cases[] = {
    CASE(calls_in_a_child_fail),
    CASE(a_child_does_not_deadlock),
    CASE(a_child_of_a_process_without_devices_has_its_own),
    CASE(frees_after_the_end_fail),
    CASE(handlers_from_after_the_first_call_can_free),
    CASE(exit_with_copies_pending),
    CASE(exit_with_a_host_function_running),
    CASE(exit_from_a_host_function),
    CASE(a_random_end_does_what_it_likes),
    CASE(exit_randomly_with_host_functions_queued),
    CASE(exit_from_a_host_function_that_is_run_randomly),
    CASE(a_seed_of_the_clock_is_said_once),
    CASE(an_idle_device_has_no_thread),
    CASE(eager_has_no_thread_at_all),
    CASE(random_has_no_thread_at_all),
};

static bool run(const test_case* c) {
  fflush(NULL);
  pid_t child = fork();
  if (child == 0) {
    alarm(60);  // a deadlock ends here
    c->run();
    exit(0);
  }
  bool passed = ended_well(child);
  printf("%s %s\n", passed ? "passed" : "FAILED", c->name);
  return passed;
}

int main(void) {
  setenv("CUDASIM_MEMORY", "4GiB", 1);
  int failed = 0;
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); ++i) failed += !run(&cases[i]);
  return failed != 0;
}
