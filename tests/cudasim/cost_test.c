// What the simulation costs: idle devices nothing, full queues little; and many devices and streams
// work on few cores. A program of its own, since it counts threads and memory of the process: each
// case runs in a child and says by its exit status whether it held.

#define _GNU_SOURCE  // syscall
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cudasim.h"
#include "tests/cudasim/expect.h"
#include "tests/support/sanitizers.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

#define OK(call) EXPECT((call) == cudaSuccess)

// Sanitizers have memory of their own for every byte that is touched.
#define IS_SANITIZED (UNDER_ASAN || UNDER_TSAN)

static void make_machine(const char* schedule, int devices) {
  OK(cudasim_configure(
      &(cudasim_options){.schedule = schedule, .devices = devices, .memory = "256MiB"}));
}

//===-- The process ---------------------------------------------------------------------------===//

// A number of /proc/self/status, by the name at the beginning of its line.
static size_t status_of_process(const char* name) {
  FILE* file = fopen("/proc/self/status", "r");
  char line[256];
  size_t value = 0;
  EXPECT(file);
  while (fgets(line, sizeof(line), file)) {
    if (strncmp(line, name, strlen(name)) == 0) value = strtoul(line + strlen(name), NULL, 10);
  }
  fclose(file);
  return value;
}

static size_t count_threads(void) { return status_of_process("Threads:"); }
static size_t resident_kib(void) { return status_of_process("VmRSS:"); }
static size_t peak_kib(void) { return status_of_process("VmHWM:"); }

static void* do_nothing(void* unused) { return unused; }

// With the first thread, sanitizers start one of their own.
static size_t count_threads_first(void) {
  pthread_t thread;
  EXPECT(pthread_create(&thread, NULL, do_nothing, NULL) == 0);
  pthread_join(thread, NULL);
  return count_threads();
}

static void expect_memory(const char* what, size_t before, size_t now, size_t limit) {
  size_t more = now > before ? now - before : 0;
  printf("  %s: %zu KiB\n", what, more);
  EXPECT(IS_SANITIZED || more <= limit);
}

//===-- Idle devices --------------------------------------------------------------------------===//

// Makes the device of `id` exist, or does some work on it and takes everything back.
static void touch(int id) {
  OK(cudaSetDevice(id));
  OK(cudaFree(NULL));
}

static void work(int id) {
  void* p;
  void* q;
  cudaStream_t stream;
  OK(cudaSetDevice(id));
  OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  OK(cudaMalloc(&p, 4 * MIB));
  OK(cudaMallocAsync(&q, 4 * MIB, stream));
  OK(cudaMemsetAsync(p, 1, 4 * MIB, stream));
  OK(cudaMemcpyAsync(q, p, 4 * MIB, cudaMemcpyDeviceToDevice, stream));
  OK(cudaFreeAsync(q, stream));
  OK(cudaStreamSynchronize(stream));
  OK(cudaFree(p));
  OK(cudaStreamDestroy(stream));
}

static void idle_devices_cost_nothing(const char* schedule) {
  size_t threads = count_threads_first();
  make_machine(schedule, CUDASIM_MAX_DEVICES);
  touch(0);  // what the first costs, it costs once
  size_t before = resident_kib();
  for (int id = 1; id < CUDASIM_MAX_DEVICES; ++id) touch(id);
  EXPECT(count_threads() == threads);
  expect_memory("63 idle devices", before, resident_kib(), (size_t)63 * 16);
}

// A worker ends when it has had nothing to do for a while.
static void devices_that_rest_cost_nothing(const char* schedule) {
  enum { DEVICES = 16 };
  size_t threads = count_threads_first();
  make_machine(schedule, DEVICES);
  for (int id = 0; id < DEVICES; ++id) {
    work(id);
    EXPECT(count_threads() <= threads + 2 * (size_t)DEVICES);
  }
  while (count_threads() > threads) sched_yield();
  touch(0);
  EXPECT(count_threads() == threads);
}

//===-- Full queues ---------------------------------------------------------------------------===//

enum { QUEUED = 1000000 };

// Holds up a stream until the thread that submits can do nothing but wait.
static struct {
  pthread_mutex_t lock;
  pthread_cond_t change;
  bool is_open;
} gate = {.lock = PTHREAD_MUTEX_INITIALIZER, .change = PTHREAD_COND_INITIALIZER};

static atomic_int submitter;  // the thread's id
static atomic_size_t submitted;
static atomic_bool is_joined;  // nobody asks about the thread any more

static void pass_gate(void* unused) {
  (void)unused;
  pthread_mutex_lock(&gate.lock);
  while (!gate.is_open) pthread_cond_wait(&gate.change, &gate.lock);
  pthread_mutex_unlock(&gate.lock);
}

static void open_gate(void) {
  pthread_mutex_lock(&gate.lock);
  gate.is_open = true;
  pthread_cond_broadcast(&gate.change);
  pthread_mutex_unlock(&gate.lock);
}

static bool is_asleep(int thread) {
  char path[64];
  char text[512] = "";
  snprintf(path, sizeof(path), "/proc/self/task/%d/stat", thread);
  FILE* file = fopen(path, "r");
  EXPECT(file);
  EXPECT(fread(text, 1, sizeof(text) - 1, file) > 0);
  fclose(file);
  const char* after_name = strrchr(text, ')');
  return after_name && after_name[2] == 'S';
}

// As many as a queue certainly takes before its caller has to wait.
enum { SURELY_QUEUED = 512 };

static void wait_for_full_queue(void) {
  while (submitted < SURELY_QUEUED || (submitted < QUEUED && !is_asleep(submitter))) sched_yield();
}

typedef struct queues {
  cudaStream_t held;
  cudaStream_t other;
  cudaEvent_t event;
  char* memory;
} queues;

static unsigned char pageable[4 * KIB];

static void submit(const queues* q, size_t i) {
  void* p;
  switch (i % 5) {
    case 0:
      OK(cudaMemsetAsync(q->memory, (int)(i & 255), 64, q->held));
      break;
    case 1:
      OK(cudaMemcpyAsync(q->memory, pageable, sizeof(pageable), cudaMemcpyHostToDevice, q->held));
      break;
    case 2:
      OK(cudaMallocAsync(&p, MIB, q->held));
      OK(cudaFreeAsync(p, q->held));
      break;
    case 3:
      OK(cudaEventRecord(q->event, q->held));
      OK(cudaStreamWaitEvent(q->other, q->event, 0));
      break;
    default:
      OK(cudaMemcpyAsync(q->memory + 128 * KIB, q->memory + 64 * KIB, 64, cudaMemcpyDeviceToDevice,
                         q->other));
  }
}

static void* submit_all(void* argument) {
  const queues* q = argument;
  submitter = (int)syscall(SYS_gettid);
  for (size_t i = 0; i < QUEUED; ++i) {
    submit(q, i);
    submitted = i + 1;
  }
  while (!is_joined) sched_yield();  // so that its state can be read
  return NULL;
}

static queues make_queues(void) {
  queues q;
  OK(cudaStreamCreateWithFlags(&q.held, cudaStreamNonBlocking));
  OK(cudaStreamCreateWithFlags(&q.other, cudaStreamNonBlocking));
  OK(cudaEventCreateWithFlags(&q.event, cudaEventDisableTiming));
  OK(cudaMalloc((void**)&q.memory, MIB));
  return q;
}

// With threads, all of it behind a host function that does not return before something waits behind
// it. Otherwise the thread that submits runs host functions as well; randomly, queues fill without.
static void a_million_operations_need_little_memory(const char* schedule) {
  make_machine(schedule, 1);
  queues q = make_queues();
  size_t before = resident_kib();
  pthread_t thread;
  bool is_gated = strcmp(schedule, "threads") == 0;
  if (is_gated) {
    cudaStream_t gated;
    OK(cudaStreamCreateWithFlags(&gated, cudaStreamNonBlocking));
    OK(cudaLaunchHostFunc(gated, pass_gate, NULL));
    OK(cudaEventRecord(q.event, gated));
    OK(cudaStreamWaitEvent(q.held, q.event, 0));
  }
  EXPECT(pthread_create(&thread, NULL, submit_all, &q) == 0);
  if (is_gated) wait_for_full_queue();
  is_joined = true;
  open_gate();
  pthread_join(thread, NULL);
  OK(cudaDeviceSynchronize());
  expect_memory("a million operations", before, peak_kib(), 24 * KIB);
}

//===-- Many devices and streams --------------------------------------------------------------===//

enum { DEVICES = 8, STREAMS = 32, ALL = DEVICES * STREAMS, CHAINS = 16, BYTES = 16384 };

// Every chain carries its data from stream to stream, through all of them, and through the memory
// of all devices; the chains begin at different streams.
static struct {
  cudaStream_t streams[ALL];
  cudaEvent_t events[ALL][CHAINS];
  unsigned char* memory[ALL];  // CHAINS times BYTES
  unsigned char* in;
  unsigned char* out;
} many;

static int device_at(int place) { return place / STREAMS; }

static unsigned char pattern(size_t i, int chain) {
  return (unsigned char)(i * 31 + i / 251 + (size_t)chain * 17);
}

static void make_place(int place) {
  OK(cudaSetDevice(device_at(place)));
  OK(cudaStreamCreateWithFlags(&many.streams[place], cudaStreamNonBlocking));
  OK(cudaMalloc((void**)&many.memory[place], (size_t)CHAINS * BYTES));
  OK(cudaMemset(many.memory[place], 0xff, (size_t)CHAINS * BYTES));
  for (int chain = 0; chain < CHAINS; ++chain) {
    OK(cudaEventCreateWithFlags(&many.events[place][chain], cudaEventDisableTiming));
  }
}

static void begin_chain(int place, int chain) {
  size_t at = (size_t)chain * BYTES;
  for (size_t i = 0; i < BYTES; ++i) many.in[at + i] = pattern(i, chain);
  OK(cudaMemcpyAsync(many.memory[place] + at, many.in + at, BYTES, cudaMemcpyHostToDevice,
                     many.streams[place]));
  OK(cudaEventRecord(many.events[place][chain], many.streams[place]));
}

static void carry_on(int from, int place, int chain) {
  size_t at = (size_t)chain * BYTES;
  OK(cudaStreamWaitEvent(many.streams[place], many.events[from][chain], 0));
  OK(cudaMemcpyPeerAsync(many.memory[place] + at, device_at(place), many.memory[from] + at,
                         device_at(from), BYTES, many.streams[place]));
  OK(cudaEventRecord(many.events[place][chain], many.streams[place]));
}

static void end_chain(int place, int chain) {
  size_t at = (size_t)chain * BYTES;
  OK(cudaMemcpyAsync(many.out + at, many.memory[place] + at, BYTES, cudaMemcpyDeviceToHost,
                     many.streams[place]));
}

static void run_chains(void) {
  for (int step = 0; step < ALL; ++step) {
    for (int chain = 0; chain < CHAINS; ++chain) {
      int place = (chain * ALL / CHAINS + step) % ALL;
      OK(cudaSetDevice(device_at(place)));
      if (step == 0) {
        begin_chain(place, chain);
      } else {
        carry_on((place + ALL - 1) % ALL, place, chain);
      }
      if (step == ALL - 1) end_chain(place, chain);
    }
  }
}

static void many_devices_and_streams_work_together(const char* schedule) {
  size_t threads = count_threads_first();
  make_machine(schedule, DEVICES);
  OK(cudaMallocHost((void**)&many.in, (size_t)CHAINS * BYTES));
  OK(cudaMallocHost((void**)&many.out, (size_t)CHAINS * BYTES));
  for (int place = 0; place < ALL; ++place) make_place(place);
  for (int id = 0; id < DEVICES; ++id) {
    OK(cudaSetDevice(id));
    OK(cudaDeviceSynchronize());
  }
  run_chains();
  EXPECT(count_threads() <= threads + 2 * (size_t)DEVICES);
  for (int place = 0; place < ALL; ++place) OK(cudaStreamSynchronize(many.streams[place]));
  for (int chain = 0; chain < CHAINS; ++chain) {
    for (size_t i = 0; i < BYTES; ++i) {
      EXPECT(many.out[(size_t)chain * BYTES + i] == pattern(i, chain));
    }
  }
}

//===-- Cases ---------------------------------------------------------------------------------===//

typedef struct test_case {
  const char* name;
  void (*run)(const char* schedule);
} test_case;

#define CASE(function) \
  { #function, function }

static const test_case cases[] = {
    CASE(idle_devices_cost_nothing),
    CASE(devices_that_rest_cost_nothing),
    CASE(a_million_operations_need_little_memory),
    CASE(many_devices_and_streams_work_together),
};

static bool run(const test_case* c, const char* schedule) {
  printf("%s, %s\n", c->name, schedule);
  fflush(NULL);
  pid_t child = fork();
  if (child == 0) {
    c->run(schedule);
    exit(0);
  }
  int status;
  bool passed = waitpid(child, &status, 0) == child && WIFEXITED(status) && !WEXITSTATUS(status);
  if (!passed) printf("FAILED\n");
  return passed;
}

int main(void) {
  static const char* const schedules[] = {"eager", "threads", "random:1"};
  int failed = 0;
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); ++i) {
    for (size_t k = 0; k < 3; ++k) failed += !run(&cases[i], schedules[k]);
  }
  return failed != 0;
}
