// Allocators that people use today: malloc, mimalloc, jemalloc, std::pmr, talloc.

#include <dlfcn.h>

#include <cstdlib>
#include <memory_resource>
#include <vector>

#include "tests/bench/allocating_peer.h"
#include "tests/bench/operations.h"

#if __has_include(<talloc.h>)
#include <talloc.h>
#define HAS_TALLOC 1
#else
#define HAS_TALLOC 0
#endif

namespace {

struct glibc {
  static void* allocate(size_t bytes) { return malloc(bytes); }
  static void release(void* block, size_t /*bytes*/) { free(block); }
  static void end_scope() {}
};

//===-- mimalloc and jemalloc ---------------------------------------------===//

// Their libraries would replace the program's malloc if they were linked; loaded late, they do not.
template <typename Function>
Function load(const char* library, const char* name) {
  void* const loaded = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  return reinterpret_cast<Function>(loaded ? dlsym(loaded, name) : nullptr);
}

struct mimalloc_functions {
  void* (*allocate)(size_t) = load<void* (*)(size_t)>("libmimalloc.so", "mi_malloc");
  void (*release)(void*) = load<void (*)(void*)>("libmimalloc.so", "mi_free");
};

struct jemalloc_functions {
  void* (*allocate)(size_t, int) = load<void* (*)(size_t, int)>("libjemalloc.so", "mallocx");
  void (*release)(void*, size_t, int) = load<void (*)(void*, size_t, int)>("libjemalloc.so",
                                                                           "sdallocx");
};

template <typename Functions>
const Functions& loaded() {
  static const Functions functions;
  return functions;
}

class mimalloc {
 public:
  void* allocate(size_t bytes) const { return functions_.allocate(bytes); }
  void release(void* block, size_t /*bytes*/) const { functions_.release(block); }
  static void end_scope() {}

 private:
  mimalloc_functions functions_ = loaded<mimalloc_functions>();
};

class jemalloc {
 public:
  void* allocate(size_t bytes) const { return functions_.allocate(bytes, 0); }
  void release(void* block, size_t bytes) const { functions_.release(block, bytes, 0); }
  static void end_scope() {}

 private:
  jemalloc_functions functions_ = loaded<jemalloc_functions>();
};

template <typename Peer, typename Functions>
bench::operation_set loaded_set(const char* name) {
  const Functions& functions = loaded<Functions>();
  if (!functions.allocate || !functions.release) return {name, nullptr, 0};
  return bench::allocating_peer<Peer>::set(name);
}

//===-- std::pmr ----------------------------------------------------------===//

enum { BLOCK_ALIGNMENT = 64 };

// Gives nothing back before the end of the scope.
class pmr_monotonic {
 public:
  void* allocate(size_t bytes) { return interface_->allocate(bytes, BLOCK_ALIGNMENT); }
  void release(void* block, size_t bytes) { interface_->deallocate(block, bytes, BLOCK_ALIGNMENT); }
  void end_scope() { resource_.release(); }

 private:
  std::vector<char> region_ = std::vector<char>(1 << 20);
  std::pmr::monotonic_buffer_resource resource_{region_.data(), region_.size()};
  std::pmr::memory_resource* interface_ = bench::opaque(&resource_);
};

// One for each thread, and kept, as whoever uses one does.
class pmr_pool {
 public:
  void* allocate(size_t bytes) { return interface_->allocate(bytes, BLOCK_ALIGNMENT); }
  void release(void* block, size_t bytes) { interface_->deallocate(block, bytes, BLOCK_ALIGNMENT); }
  static void end_scope() {}

 private:
  static std::pmr::memory_resource* mine() {
    // Blocks above largest_required_pool_block would go to its upstream.
    static thread_local std::pmr::unsynchronized_pool_resource pool{
        std::pmr::pool_options{0, size_t{1} << 16}};
    return &pool;
  }
  std::pmr::memory_resource* interface_ = bench::opaque(mine());
};

//===-- talloc ------------------------------------------------------------===//

#if HAS_TALLOC
class talloc_context {
 public:
  talloc_context() = default;
  talloc_context(const talloc_context&) = delete;
  talloc_context& operator=(const talloc_context&) = delete;
  ~talloc_context() { talloc_free(context_); }
  void* allocate(size_t bytes) { return talloc_size(context_, bytes); }
  static void release(void* block, size_t /*bytes*/) { talloc_free(block); }
  static void end_scope() {}

 private:
  void* context_ = talloc_new(nullptr);
};
#endif

}  // namespace

BENCH_OPERATION_SET(bench_glibc) { return bench::allocating_peer<glibc>::set("glibc"); }

BENCH_OPERATION_SET(bench_mimalloc) { return loaded_set<mimalloc, mimalloc_functions>("mimalloc"); }

BENCH_OPERATION_SET(bench_jemalloc) { return loaded_set<jemalloc, jemalloc_functions>("jemalloc"); }

BENCH_OPERATION_SET(bench_pmr_monotonic) {
  return bench::allocating_peer<pmr_monotonic>::set("pmr_mono");
}

BENCH_OPERATION_SET(bench_pmr_pool) { return bench::allocating_peer<pmr_pool>::set("pmr_pool"); }

BENCH_OPERATION_SET(bench_talloc) {
#if HAS_TALLOC
  return bench::allocating_peer<talloc_context>::set("talloc");
#else
  return {"talloc", nullptr, 0};
#endif
}
