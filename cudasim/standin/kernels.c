#define _GNU_SOURCE  // dlopen's RTLD_ flags
#include "cudasim/standin/kernels.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cudasim/include/cudasim.h"
#include "cudasim/kernel.h"
#include "cudasim/standin/symbol.h"

static const cudasim_kernel* by_name;  // of the library, up to one without a name; or NULL
static bool is_skipping;

//===-- Kernels that do nothing ---------------------------------------------------------------===//

#pragma GCC diagnostic ignored "-Wunused-parameter"

static size_t reach_nothing(const cudasim_launch* launch, cudasim_range* ranges) { return 0; }

static void run_nothing(const cudasim_launch* launch, dim3 index) {}

//===-- Finding them --------------------------------------------------------------------------===//

static const cudasim_kernel* of_name(const char* name) {
  const cudasim_kernel* k = by_name;
  while (k && k->name && strcmp(k->name, name) != 0) ++k;
  return k && k->name ? k : NULL;
}

static void tell(symbol* s) {
  if (s->is_told) return;
  s->is_told = true;
  fprintf(
      stderr, "cudasim: nothing stands in for kernel %s: %s\n", s->name,
      is_skipping ? "its launches are skipped" : "launching it is cudaErrorInvalidDeviceFunction");
}

static bool find_kernel(const void* function, cudasim_kernel* out) {
  symbol* s = sim_symbol_find(function);
  if (!s || s->bytes) return false;
  const cudasim_kernel* k = of_name(s->name);
  *out = k ? *k : (cudasim_kernel){s->name, NULL, 0, reach_nothing, run_nothing};
  if (!k) tell(s);
  return k || is_skipping;
}

//===-- Settings ------------------------------------------------------------------------------===//

static void load_library(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  by_name = library ? dlsym(library, "cudasim_kernels") : NULL;
  if (!by_name) fprintf(stderr, "cudasim: CUDASIM_KERNELS: %s\n", dlerror());
}

static void read_settings(void) {
  const char* unknown = getenv("CUDASIM_UNKNOWN_KERNELS");
  is_skipping = unknown && strcmp(unknown, "skip") == 0;
  if (unknown && *unknown && !is_skipping && strcmp(unknown, "error") != 0) {
    fprintf(stderr, "cudasim: CUDASIM_UNKNOWN_KERNELS is \"%s\"; allowed: error, skip\n", unknown);
  }
  const char* path = getenv("CUDASIM_KERNELS");
  if (path && *path) load_library(path);
  sim_kernel_set_source(find_kernel);
}

void sim_kernels_load(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, read_settings);
}
