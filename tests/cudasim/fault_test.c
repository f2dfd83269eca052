// Calls that fail by a spec: what its rules mean, and what is said of those that are wrong.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cudasim/support.h"

static void set_faults(const char* spec) {
  char why[256];
  cr_assert(eq(int, cudasim_faults(spec, why, sizeof(why)), cudaSuccess), "%s: %s", spec, why);
}

static cudaError_t try_malloc(void) {
  void* p;
  return cudaMalloc(&p, 16);
}

// Which of the next 8 calls of cudaMalloc fail: a letter each.
static char* next_mallocs(void) {
  static char text[9];
  for (int i = 0; i < 8; ++i) text[i] = try_malloc() ? 'x' : '.';
  return text;
}

//===-- Which calls ---------------------------------------------------------------------------===//

typedef struct counting {
  const char* spec;
  const char* mallocs;
} counting;

Test(faults, hit_the_calls_that_are_counted) {
  static const counting cases[] = {
      {"cudaMalloc", "xxxxxxxx"},
      {"cudaMalloc:nth=3", "..x....."},
      {"cudaMalloc:nth=5:count=2", "....xx.."},
      {"cudaMalloc:nth=7,count=all", "......xx"},
      {"cudaMalloc:after=2", "..xxxxxx"},
      {"cudaMalloc:after=0:count=1", "x......."},
      {"cudaMalloc:count=3", "xxx....."},
      {"cudaMalloc:fraction=1", "xxxxxxxx"},
      {"cudaMalloc:fraction=1.0,nth=3,count=2", "..xx...."},
      {"cudaMalloc:fraction=0.000000001", "........"},
      {"cudaHostAlloc", "........"},
      {"cudaHostAlloc,cudaMalloc:nth=2", ".x......"},
      {"cudaMall?c:nth=2", ".x......"},
      {"cudaM*lloc:nth=2", ".x......"},
      {"*Async", "........"},
      {"*:nth=4", "...x...."},
      {"nth=4", "...x...."},
      {"count=2;", "xx......"},
      {" cudaMalloc : nth = 1 ;\n cudaMalloc : nth = 3 ", "x..x...."},  // of those that are left
      {"cudaMalloc:nth=1;cudaMalloc:nth=1", "xx......"},
      {"device=0:nth=2", ".x......"},
      {"device=1:nth=2", "........"},
      {";;", "........"},
      {"", "........"},
  };
  make_machine((cudasim_options){.devices = 2, .schedule = "eager"});
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); ++i) {
    set_faults(cases[i].spec);
    cr_expect(eq(str, next_mallocs(), (char*)cases[i].mallocs), "%s", cases[i].spec);
  }
}

Test(faults, count_the_calls_on_their_device) {
  make_machine((cudasim_options){.devices = 2, .schedule = "eager"});
  set_faults("cudaMalloc:device=1:nth=2");
  for (int device = 0; device < 2; ++device) {
    OK(cudaSetDevice(device));
    cr_expect(eq(str, next_mallocs(), (char*)(device ? ".x......" : "........")));
  }
}

static void* mallocs_of_a_thread(void* text) { return memcpy(text, next_mallocs(), 9); }

SIM_TEST(faults, count_the_calls_of_all_threads) {
  set_faults("cudaMalloc:nth=10");
  char there[9];
  pthread_t thread;
  cr_assert(eq(int, pthread_create(&thread, NULL, mallocs_of_a_thread, there), 0));
  pthread_join(thread, NULL);
  cr_expect(eq(str, there, (char*)"........"));
  cr_expect(eq(str, next_mallocs(), (char*)".x......"));
}

//===-- Fractions -----------------------------------------------------------------------------===//

enum { DRAWS = 2000 };

// Which of DRAWS calls of cudaMallocHost fail, with `others` calls of something else between them.
static int draw(const char* spec, int others, char* hits) {
  int count = 0;
  set_faults(spec);
  for (int i = 0; i < DRAWS; ++i) {
    void* p;
    hits[i] = cudaMallocHost(&p, 0) ? 'x' : '.';
    count += hits[i] == 'x';
    for (int k = 0; k < others; ++k) (void)cudaFreeHost(NULL);
  }
  return count;
}

Test(faults, of_a_fraction_are_that_many_and_the_same_every_time) {
  char first[DRAWS];
  char again[DRAWS];
  make_machine((cudasim_options){.schedule = "eager"});
  int count = draw("cudaMallocHost:fraction=0.1,seed=7", 0, first);
  cr_expect(count > DRAWS / 20 && count < DRAWS / 5, "%d of %d", count, DRAWS);
  cr_expect(eq(int, draw("*:fraction=.1:seed=7", 3, again), count));
  cr_expect(eq(int, memcmp(first, again, DRAWS), 0));
  draw("*:fraction=0.1:seed=8", 0, again);
  cr_expect(ne(int, memcmp(first, again, DRAWS), 0));
  cr_expect(eq(int, draw("*:fraction=0.1:seed=7:count=5", 0, again), 5));
}

Test(faults, of_a_fraction_differ_by_function) {
  char first[DRAWS];
  make_machine((cudasim_options){.schedule = "eager"});
  draw("*:fraction=0.5", 0, first);
  int same = 0;
  set_faults("*:fraction=0.5");
  for (int i = 0; i < DRAWS; ++i) same += first[i] == (cudaFreeHost(NULL) ? 'x' : '.');
  cr_expect(same > DRAWS / 3 && same < DRAWS * 2 / 3, "%d of %d", same, DRAWS);
}

//===-- Errors --------------------------------------------------------------------------------===//

SIM_TEST(faults, are_natural_errors_unless_the_spec_says_which) {
  cudaStream_t stream;
  void* p = new_device_memory(16);
  set_faults("*");
  REFUSED(cudaMalloc(&p, 16), cudaErrorMemoryAllocation);
  REFUSED(cudaHostAlloc(&p, 16, 0), cudaErrorMemoryAllocation);
  REFUSED(cudaHostRegister(&p, 16, 0), cudaErrorMemoryAllocation);
  REFUSED(cudaHostUnregister(&p), cudaErrorUnknown);
  REFUSED(cudaStreamCreate(&stream), cudaErrorMemoryAllocation);
  REFUSED(cudaMemset(p, 0, 16), cudaErrorUnknown);
  cr_expect(eq(int, cudaGetLastError(), cudaErrorUnknown));
  set_faults("cudaMalloc:error=cudaErrorTimeout;*:error=719");
  REFUSED(cudaMalloc(&p, 16), cudaErrorTimeout);
  REFUSED(cudaMemset(p, 0, 16), cudaErrorLaunchFailure);
  set_faults(NULL);
  OK(cudaMalloc(&p, 16));
}

SIM_TEST(faults, come_after_the_orders_of_fail) {
  void* p;
  set_faults("cudaMalloc:nth=2");
  OK(cudasim_fail("cudaMalloc", 1, 1, cudaErrorTimeout));
  REFUSED(cudaMalloc(&p, 1), cudaErrorTimeout);
  OK(cudaMalloc(&p, 1));
  REFUSED(cudaMalloc(&p, 1), cudaErrorMemoryAllocation);
  set_faults("cudaMalloc");
  cudasim_fail_nothing();
  OK(cudaMalloc(&p, 1));
}

//===-- Devices that break --------------------------------------------------------------------===//

Test(faults, that_stick_break_the_device) {
  make_machine((cudasim_options){.devices = 2, .schedule = "threads"});
  set_faults("device=1:cudaMalloc:nth=2:sticky");
  cr_expect(eq(str, next_mallocs(), (char*)"........"));
  OK(cudaSetDevice(1));
  cr_expect(eq(str, next_mallocs(), (char*)".xxxxxxx"));
  REFUSED(cudaFree(NULL), cudaErrorIllegalAddress);
  REFUSED(cudaDeviceSynchronize(), cudaErrorIllegalAddress);
  OK(cudaDeviceReset());
  REFUSED(cudaFree(NULL), cudaErrorDevicesUnavailable);
  OK(cudaSetDevice(0));
  OK(cudaFree(NULL));
}

SIM_TEST(faults, that_stick_have_the_error_of_the_spec) {
  set_faults("after=3:error=cudaErrorECCUncorrectable:sticky");
  cr_expect(eq(str, next_mallocs(), (char*)"...xxxxx"));
  set_faults(NULL);
  REFUSED(try_malloc(), cudaErrorECCUncorrectable);
}

SIM_TEST(faults, that_lose_the_device_lose_it_for_good) {
  set_faults("cudaMemset:lost");
  void* p = new_device_memory(16);
  REFUSED(cudaMemset(p, 0, 16), cudaErrorDevicesUnavailable);
  REFUSED(cudaFree(p), cudaErrorDevicesUnavailable);
  REFUSED(cudaDeviceReset(), cudaErrorDevicesUnavailable);
  REFUSED(cudaFree(p), cudaErrorDevicesUnavailable);
  cudasim_reset();
  OK(cudaMalloc(&p, 16));
}

Test(faults, do_not_reach_past_a_device_that_is_lost) {
  make_machine((cudasim_options){.devices = 2, .schedule = "threads"});
  set_faults("device=1:lost:error=cudaErrorExternalDevice");
  OK(cudaSetDevice(1));
  REFUSED(try_malloc(), cudaErrorExternalDevice);
  int device;
  OK(cudaGetDevice(&device));  // as on any broken device
  OK(cudaSetDevice(0));
  OK(try_malloc());
}

//===-- Specs ---------------------------------------------------------------------------------===//

typedef struct mistake {
  const char* spec;
  const char* why;
} mistake;

#define PARTS \
  "a function or pattern, nth=, after=, count=, fraction=, seed=, error=, device=, sticky, lost"

Test(faults, that_are_wrong_are_explained) {
  static const mistake mistakes[] = {
      {"cudaMaloc:nth=3",
       "in \"cudaMaloc:nth=3\": \"cudaMaloc\" is no function of cudasim; the closest is "
       "cudaMalloc"},
      {"cudaMalloc;lots", "in \"lots\": \"lots\" is no function of cudasim; the closest is lost"},
      {"cudaArray*", "in \"cudaArray*\": no function matches \"cudaArray*\""},
      {"cudaMalloc:nht=3", "in \"cudaMalloc:nht=3\": \"nht\" is unknown; allowed: " PARTS},
      {"cudaMalloc:nth=0",
       "in \"cudaMalloc:nth=0\": nth is \"0\"; allowed: a number from 1 to 2^64 - 1"},
      {"after=-1", "in \"after=-1\": after is \"-1\"; allowed: a number from 0 to 2^64 - 1"},
      {"seed=18446744073709551616:fraction=1",
       "in \"seed=18446744073709551616:fraction=1\": seed is \"18446744073709551616\"; allowed: a "
       "number from 0 to 2^64 - 1"},
      {"count=0", "in \"count=0\": count is \"0\"; allowed: a number from 1 to 2^64 - 1, all"},
      {"fraction=1.01",
       "in \"fraction=1.01\": fraction is \"1.01\"; allowed: a decimal above 0 and up to 1, such "
       "as "
       "0.01"},
      {"fraction=0",
       "in \"fraction=0\": fraction is \"0\"; allowed: a decimal above 0 and up to 1, such as "
       "0.01"},
      {"fraction=.",
       "in \"fraction=.\": fraction is \".\"; allowed: a decimal above 0 and up to 1, such as "
       "0.01"},
      {"fraction=0.1.1",
       "in \"fraction=0.1.1\": fraction is \"0.1.1\"; allowed: a decimal above 0 and up to 1, such "
       "as 0.01"},
      {"seed=1", "in \"seed=1\": seed needs a fraction"},
      {"device=2", "in \"device=2\": device is \"2\"; allowed: a device, from 0 to 1"},
      {"error=cudaErrorMemoryAlocation",
       "in \"error=cudaErrorMemoryAlocation\": error is \"cudaErrorMemoryAlocation\"; allowed: the "
       "name or the number of an error of the CUDA runtime; the closest is "
       "cudaErrorMemoryAllocation"},
      {"error=0",
       "in \"error=0\": error is \"0\"; allowed: the name or the number of an error of the CUDA "
       "runtime"},
      {"error=5000",
       "in \"error=5000\": error is \"5000\"; allowed: the name or the number of an error of the "
       "CUDA runtime"},
      {"nth=1:nth=2", "in \"nth=1:nth=2\": nth is given twice"},
      {"nth=1:after=2", "in \"nth=1:after=2\": nth and after do not go together"},
      {"sticky:lost", "in \"sticky:lost\": sticky and lost do not go together"},
      {"lost:count=2", "in \"lost:count=2\": count and lost do not go together"},
      {"sticky=1", "in \"sticky=1\": sticky has no value"},
      {"nth", "in \"nth\": nth has no value"},
      {"cudaMalloc:", "in \"cudaMalloc:\": a part is empty; allowed: " PARTS},
      {"cudaMalloc,,nth=1", "in \"cudaMalloc,,nth=1\": a part is empty; allowed: " PARTS},
  };
  make_machine((cudasim_options){.devices = 2, .schedule = "eager"});
  set_faults("cudaMalloc:nth=2");
  for (size_t i = 0; i < sizeof(mistakes) / sizeof(mistakes[0]); ++i) {
    char why[256] = "";
    REFUSED(cudasim_faults(mistakes[i].spec, why, sizeof(why)), cudaErrorInvalidValue);
    cr_expect(eq(str, why, (char*)mistakes[i].why));
  }
  cr_expect(eq(str, next_mallocs(), (char*)".x......"));  // the rules stayed
}

Test(faults, explain_themselves_in_little_space) {
  char why[8] = "";
  make_machine((cudasim_options){.schedule = "eager"});
  REFUSED(cudasim_faults("nth=0", why, sizeof(why)), cudaErrorInvalidValue);
  cr_expect(eq(str, why, (char*)"in \"nth"));
  REFUSED(cudasim_faults("nth=0", NULL, 0), cudaErrorInvalidValue);
}

//===-- Settings ------------------------------------------------------------------------------===//

Test(faults, are_set_by_the_environment) {
  setenv("CUDASIM_FAULTS", "cudaMalloc:nth=2", 1);
  cr_expect(eq(str, next_mallocs(), (char*)".x......"));
  cudasim_reset();  // a new machine fails like the first
  cr_expect(eq(str, next_mallocs(), (char*)".x......"));
  set_faults("cudaMalloc:nth=3");
  cr_expect(eq(str, next_mallocs(), (char*)"..x....."));
}

Test(faults, are_set_by_options) {
  setenv("CUDASIM_FAULTS", "cudaMalloc:nth=2", 1);
  make_machine((cudasim_options){.faults = "cudaMalloc:nth=3"});
  make_machine((cudasim_options){.faults = "cudaMalloc:nth=4"});
  REFUSED(cudasim_configure(&(cudasim_options){.faults = "nth=0"}), cudaErrorInvalidValue);
  REFUSED(cudasim_configure(&(cudasim_options){.faults = "lost", .devices = 99}),
          cudaErrorInvalidValue);
  cr_expect(eq(str, next_mallocs(), (char*)"...x...."));
  REFUSED(cudasim_configure(&(cudasim_options){.faults = "lost"}), cudaErrorSetOnActiveProcess);
  cudasim_reset();
  make_machine((cudasim_options){.faults = "cudaMalloc:nth=5"});
  cudasim_reset();
  cr_expect(eq(str, next_mallocs(), (char*)".x......"));
}

Test(faults, that_are_wrong_allow_no_machine) {
  setenv("CUDASIM_FAULTS", "cudaMaloc", 1);
  int count;
  REFUSED(try_malloc(), cudaErrorInitializationError);
  REFUSED(cudaGetDeviceCount(&count), cudaErrorInitializationError);
  REFUSED(cudasim_faults("", NULL, 0), cudaErrorInitializationError);
}

//===-- Limits --------------------------------------------------------------------------------===//

SIM_TEST(host_memory, has_no_limit) { OK(cudaFreeHost(new_pinned_memory(64 * MIB))); }

Test(host_memory, above_its_limit_is_refused) {
  static _Alignas(4096) char mine[MIB];
  void* p = &p;
  make_machine((cudasim_options){.host_memory = "4MiB", .schedule = "threads"});
  void* first = new_pinned_memory(3 * MIB - 1);
  REFUSED(cudaHostAlloc(&p, MIB + 1, 0), cudaErrorMemoryAllocation);
  cr_expect(eq(ptr, p, NULL));
  REFUSED(cudaMallocHost(&p, SIZE_MAX), cudaErrorMemoryAllocation);
  OK(cudaHostRegister(mine, MIB, 0));
  REFUSED(cudaMallocHost(&p, 1), cudaErrorMemoryAllocation);
  OK(cudaHostUnregister(mine));
  OK(cudaMallocHost(&p, MIB));
  REFUSED(cudaHostRegister(mine, 1, 0), cudaErrorMemoryAllocation);
  OK(cudaFreeHost(first));
  OK(cudaHostRegister(mine, MIB, 0));
  cudasim_reset();
  make_machine((cudasim_options){.host_memory = "4MiB", .schedule = "threads"});
  OK(cudaMallocHost(&p, 4 * MIB));
}

Test(host_memory, limit_is_checked) {
  REFUSED(cudasim_configure(&(cudasim_options){.host_memory = "4MB"}), cudaErrorInvalidValue);
  REFUSED(cudasim_configure(&(cudasim_options){.host_memory = "4MiB,4MiB"}), cudaErrorInvalidValue);
  setenv("CUDASIM_HOST_MEMORY", "2MiB", 1);
  void* p;
  REFUSED(cudaMallocHost(&p, 2 * MIB + 1), cudaErrorMemoryAllocation);
  OK(cudaMallocHost(&p, 2 * MIB));
}

SIM_TEST(occupied_memory, is_not_free) {
  size_t before = free_memory();
  OK(cudasim_occupy_memory(0, 1000 * MIB - 1));
  cr_expect(eq(sz, free_memory(), before - 1000 * MIB));
  void* p;
  REFUSED(cudaMalloc(&p, 25 * MIB), cudaErrorMemoryAllocation);
  REFUSED(cudaMallocAsync(&p, 25 * MIB, 0), cudaErrorMemoryAllocation);
  OK(cudaMalloc(&p, 24 * MIB));
  REFUSED(cudasim_occupy_memory(0, 1001 * MIB), cudaErrorMemoryAllocation);
  cr_expect(eq(sz, free_memory(), 0));
  OK(cudasim_occupy_memory(0, 0));
  cr_expect(eq(sz, free_memory(), before - 24 * MIB));
  OK(cudaFree(p));
  OK(cudasim_occupy_memory(0, before));
  REFUSED(cudasim_occupy_memory(0, UINT64_MAX), cudaErrorMemoryAllocation);
  REFUSED(cudasim_occupy_memory(1, 0), cudaErrorInvalidDevice);
  cudasim_statistics statistics;
  OK(cudasim_stats(0, &statistics));
  cr_expect(eq(u64, statistics.reserved_bytes, 0));
}
