// jemalloc, in a library of its own that shows nothing but the set of operations: its malloc must not
// become the program's, and its thread-locals are too large for a library that is loaded late.

#include "tests/bench/allocating_peer.h"
#include "tests/bench/operations.h"

#if __has_include(<jemalloc/jemalloc.h>)

#include <jemalloc/jemalloc.h>

namespace {

struct jemalloc {
  static void* allocate(size_t bytes) { return mallocx(bytes, 0); }
  static void release(void* block, size_t bytes) { sdallocx(block, bytes, 0); }
  static void end_scope() {}
};

}  // namespace

BENCH_OPERATION_SET(bench_jemalloc) { return bench::allocating_peer<jemalloc>::set("jemalloc"); }

#else

BENCH_OPERATION_SET(bench_jemalloc) { return {"jemalloc", nullptr, 0}; }

#endif
