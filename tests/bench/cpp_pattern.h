// The C++ pattern that tmcore stands in for, as its engines write it: handles are shared pointers,
// the context keeps them in std::stacks of a thread-local, a buffer's deleter owns the allocator,
// shapes and strides are vectors. Written for comparison only, from a description of the pattern.
#ifndef TESTS_BENCH_CPP_PATTERN_H_
#define TESTS_BENCH_CPP_PATTERN_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace cpp_pattern {

enum class device_type { host, pinned, device };

struct device {
  device_type type;
  int id;
};

enum class dtype : int { f16 = 16, f32 = 32 };  // bits

//===-- Allocators --------------------------------------------------------===//

class allocator_base {
 public:
  allocator_base() = default;
  allocator_base(const allocator_base&) = delete;
  allocator_base& operator=(const allocator_base&) = delete;
  virtual ~allocator_base();
  virtual void* allocate(int64_t bytes) = 0;
  virtual void deallocate(void* pointer, int64_t bytes) = 0;
  [[nodiscard]] virtual device where() const = 0;
};

using allocator = std::shared_ptr<allocator_base>;

allocator make_host_allocator();

// Bumps through one region of its upstream. Blocks come back in reverse order.
allocator make_stack_allocator(allocator upstream, int64_t bytes);

//===-- The context -------------------------------------------------------===//

void push(const allocator& value);
void pop();
const allocator& current(device_type type);

class context_guard {
 public:
  template <typename... Values>
  explicit context_guard(const Values&... values) : count_(sizeof...(values)) {
    (push(values), ...);
  }
  context_guard(const context_guard&) = delete;
  context_guard& operator=(const context_guard&) = delete;
  ~context_guard() {
    for (size_t i = 0; i < count_; i++) {
      pop();
    }
  }

 private:
  size_t count_;
};

//===-- Scope traces ------------------------------------------------------===//

class named_scope {
 public:
  named_scope(const char* name, const char* file, int line);
  named_scope(const named_scope&) = delete;
  named_scope& operator=(const named_scope&) = delete;
  ~named_scope();

 private:
  friend std::string trace_text();

  const char* name_;
  const char* file_;
  int line_;
  const named_scope* below_;
};

std::string trace_text();

//===-- Layouts, buffers, tensors -----------------------------------------===//

class layout {
 public:
  layout() = default;
  explicit layout(std::vector<int64_t> shape);
  layout(std::vector<int64_t> shape, std::vector<int64_t> stride);

  [[nodiscard]] const std::vector<int64_t>& shape() const { return shape_; }
  [[nodiscard]] int64_t size() const { return size_; }
  [[nodiscard]] layout coalesce() const;
  [[nodiscard]] layout view(std::vector<int64_t> shape) const;
  [[nodiscard]] std::pair<layout, int64_t> slice(const std::vector<int64_t>& base,
                                                 std::vector<int64_t> size) const;
  [[nodiscard]] layout permute(const std::vector<int>& order) const;
  [[nodiscard]] layout transpose(int a, int b) const;
  [[nodiscard]] layout squeeze(int dim) const;

 private:
  std::vector<int64_t> shape_;
  std::vector<int64_t> stride_;
  int64_t size_ = 0;
  int64_t reach_ = 0;
};

class buffer {
 public:
  buffer() = default;
  buffer(int64_t size, dtype type, const allocator& from);
  buffer(int64_t size, dtype type, device_type where) : buffer{size, type, current(where)} {}

  [[nodiscard]] dtype type() const { return dtype_; }
  [[nodiscard]] device where() const { return device_; }
  [[nodiscard]] buffer slice(int64_t base, int64_t size) const;

 private:
  std::shared_ptr<void> data_;
  int64_t base_ = 0;  // elements
  int64_t size_ = 0;
  device device_{};
  dtype dtype_{};
};

class tensor {
 public:
  tensor() = default;
  tensor(layout shape, dtype type, device_type where);
  tensor(buffer data, layout shape) : layout_{std::move(shape)}, buffer_{std::move(data)} {}

  [[nodiscard]] const layout& get_layout() const { return layout_; }
  [[nodiscard]] tensor slice(const std::vector<int64_t>& base, std::vector<int64_t> size) const;
  [[nodiscard]] tensor view(std::vector<int64_t> shape) const;
  [[nodiscard]] tensor transpose(int a, int b) const;
  [[nodiscard]] tensor squeeze(int dim) const;

 private:
  layout layout_;
  buffer buffer_;
};

//===-- Maps and batches of copies ----------------------------------------===//

class tensor_map {
 public:
  [[nodiscard]] const tensor& at(const std::string& key) const;
  void produce(const std::string& key, tensor value);
  tensor consume(const std::string& key);

 private:
  std::unordered_map<std::string, tensor> tensors_;
};

class batch_copy {
 public:
  // In a group, a piece that continues the last one at both ends is merged into it.
  void set_group(bool is_open) { in_group_ = is_open; }
  void add(const void* source, int64_t bytes, void* destination);
  void clear();

 private:
  std::vector<const char*> sources_;
  std::vector<char*> destinations_;
  std::vector<int64_t> sizes_;
  bool in_group_ = false;
};

}  // namespace cpp_pattern

#endif  // TESTS_BENCH_CPP_PATTERN_H_
