// Allocators that people use today: malloc, mimalloc, std::pmr, talloc.

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

//===-- mimalloc ----------------------------------------------------------===//

// Its library would replace the program's malloc if it were linked; loaded late, it does not.
struct mimalloc_functions {
  mimalloc_functions() {
    void* const library = dlopen("libmimalloc.so.2", RTLD_NOW | RTLD_LOCAL);
    if (!library) return;
    allocate = reinterpret_cast<void* (*)(size_t)>(dlsym(library, "mi_malloc"));
    release = reinterpret_cast<void (*)(void*)>(dlsym(library, "mi_free"));
  }

  void* (*allocate)(size_t) = nullptr;
  void (*release)(void*) = nullptr;
};

const mimalloc_functions& its_functions() {
  static const mimalloc_functions functions;
  return functions;
}

class mimalloc {
 public:
  void* allocate(size_t bytes) { return functions_.allocate(bytes); }
  void release(void* block, size_t /*bytes*/) { functions_.release(block); }
  void end_scope() {}

 private:
  mimalloc_functions functions_ = its_functions();
};

//===-- std::pmr ----------------------------------------------------------===//

enum { BLOCK_ALIGNMENT = 64 };

// Gives nothing back before the end of the scope.
class pmr_monotonic {
 public:
  void* allocate(size_t bytes) { return interface_->allocate(bytes, BLOCK_ALIGNMENT); }
  void release(void* block, size_t bytes) {
    interface_->deallocate(block, bytes, BLOCK_ALIGNMENT);
  }
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
  void release(void* block, size_t bytes) {
    interface_->deallocate(block, bytes, BLOCK_ALIGNMENT);
  }
  void end_scope() {}

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
  void release(void* block, size_t /*bytes*/) { talloc_free(block); }
  void end_scope() {}

 private:
  void* context_ = talloc_new(nullptr);
};
#endif

}  // namespace

BENCH_OPERATION_SET(bench_glibc) { return bench::allocating_peer<glibc>::set("glibc"); }

BENCH_OPERATION_SET(bench_mimalloc) {
  const mimalloc_functions& functions = its_functions();
  if (!functions.allocate || !functions.release) return {"mimalloc", nullptr, 0};
  return bench::allocating_peer<mimalloc>::set("mimalloc");
}

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
