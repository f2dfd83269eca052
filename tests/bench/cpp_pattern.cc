#include "tests/bench/cpp_pattern.h"

#include <algorithm>
#include <cstdlib>
#include <sstream>
#include <stack>
#include <stdexcept>

namespace cpp_pattern {

//===-- Allocators --------------------------------------------------------===//

allocator_base::~allocator_base() = default;

namespace {

class host_allocator final : public allocator_base {
 public:
  void* allocate(int64_t bytes) override { return std::malloc(static_cast<size_t>(bytes)); }
  void deallocate(void* pointer, int64_t /*bytes*/) override { std::free(pointer); }
  [[nodiscard]] device where() const override { return {device_type::host, 0}; }
};

class stack_allocator final : public allocator_base {
 public:
  stack_allocator(allocator upstream, int64_t bytes)
      : upstream_{std::move(upstream)},
        bytes_{bytes},
        region_{static_cast<char*>(upstream_->allocate(bytes))} {}
  ~stack_allocator() override { upstream_->deallocate(region_, bytes_); }

  void* allocate(int64_t bytes) override {
    bytes = (bytes + 255) / 256 * 256;
    if (bytes > bytes_ - used_) throw std::runtime_error("stack allocator: out of memory");
    char* const block = region_ + used_;
    used_ += bytes;
    live_++;
    largest_ = std::max(largest_, used_);
    return block;
  }

  void deallocate(void* pointer, int64_t bytes) override {
    bytes = (bytes + 255) / 256 * 256;
    if (static_cast<char*>(pointer) + bytes != region_ + used_) {
      throw std::runtime_error("stack allocator: released out of order");
    }
    used_ -= bytes;
    live_--;
  }

  [[nodiscard]] device where() const override { return upstream_->where(); }

 private:
  allocator upstream_;
  int64_t bytes_;
  char* region_;
  int64_t used_ = 0;
  int64_t live_ = 0;
  int64_t largest_ = 0;
};

}  // namespace

allocator make_host_allocator() { return std::make_shared<host_allocator>(); }

allocator make_stack_allocator(allocator upstream, int64_t bytes) {
  return std::make_shared<stack_allocator>(std::move(upstream), bytes);
}

//===-- The context -------------------------------------------------------===//

namespace {

class context {
 public:
  context() { push(make_host_allocator()); }

  void push(const allocator& value) {
    const device_type type = value->where().type;
    of(type).push(value);
    mask_.push(type);
  }

  void pop() {
    of(mask_.top()).pop();
    mask_.pop();
  }

  const allocator& top(device_type type) {
    if (of(type).empty()) throw std::runtime_error("context: no allocator");
    return of(type).top();
  }

 private:
  std::stack<allocator>& of(device_type type) {
    switch (type) {
      case device_type::host:
        return host_;
      case device_type::pinned:
        return pinned_;
      case device_type::device:
        return device_;
    }
    throw std::runtime_error("context: no such device");
  }

  std::stack<allocator> host_;
  std::stack<allocator> pinned_;
  std::stack<allocator> device_;
  std::stack<device_type> mask_;
};

context& mine() {
  static thread_local context value;
  return value;
}

thread_local const named_scope* innermost;

}  // namespace

void push(const allocator& value) { mine().push(value); }

void pop() { mine().pop(); }

const allocator& current(device_type type) { return mine().top(type); }

//===-- Scope traces ------------------------------------------------------===//

named_scope::named_scope(const char* name, const char* file, int line)
    : name_{name}, file_{file}, line_{line}, below_{innermost} {
  innermost = this;
}

named_scope::~named_scope() { innermost = below_; }

std::string trace_text() {
  std::ostringstream text;
  for (const named_scope* scope = innermost; scope; scope = scope->below_) {
    const std::string file{scope->file_};
    if (scope != innermost) text << " < ";
    text << scope->name_ << " (" << file.substr(file.find_last_of('/') + 1) << ":" << scope->line_
         << ")";
  }
  return text.str();
}

//===-- Layouts -----------------------------------------------------------===//

layout::layout(std::vector<int64_t> shape) : shape_{std::move(shape)}, stride_(shape_.size()) {
  size_ = 1;
  for (size_t i = shape_.size(); i-- > 0;) {
    stride_[i] = size_;
    size_ *= shape_[i];
  }
  reach_ = size_;
}

layout::layout(std::vector<int64_t> shape, std::vector<int64_t> stride)
    : shape_{std::move(shape)}, stride_{std::move(stride)}, size_{1}, reach_{1} {
  for (size_t i = 0; i < shape_.size(); i++) {
    size_ *= shape_[i];
    reach_ += (shape_[i] - 1) * stride_[i];
  }
}

layout layout::coalesce() const {
  std::vector<int64_t> shape;
  std::vector<int64_t> stride;
  for (size_t i = 0; i < shape_.size(); i++) {
    if (shape_[i] == 1) continue;
    if (!shape.empty() && stride.back() == shape_[i] * stride_[i]) {
      shape.back() *= shape_[i];
      stride.back() = stride_[i];
    } else {
      shape.push_back(shape_[i]);
      stride.push_back(stride_[i]);
    }
  }
  if (shape.empty()) return layout{{1}};
  return {std::move(shape), std::move(stride)};
}

// Splits the dimensions of the coalesced layout, from the innermost outwards.
layout layout::view(std::vector<int64_t> shape) const {
  int64_t known = 1;
  size_t wildcard = shape.size();
  for (size_t i = 0; i < shape.size(); i++) {
    if (shape[i] == -1) {
      wildcard = i;
    } else {
      known *= shape[i];
    }
  }
  if (wildcard < shape.size()) {
    shape[wildcard] = size_ / known;
    known *= shape[wildcard];
  }
  if (known != size_) throw std::runtime_error("layout: sizes differ");
  const layout merged = coalesce();
  std::vector<int64_t> stride(shape.size());
  size_t from = merged.shape_.size() - 1;
  int64_t left = merged.shape_[from];
  int64_t step = merged.stride_[from];
  for (size_t i = shape.size(); i-- > 0;) {
    if (left == 1 && from > 0) {
      from--;
      left = merged.shape_[from];
      step = merged.stride_[from];
    }
    if (left % shape[i] != 0) throw std::runtime_error("layout: not expressible");
    stride[i] = step;
    step *= shape[i];
    left /= shape[i];
  }
  return {std::move(shape), std::move(stride)};
}

std::pair<layout, int64_t> layout::slice(const std::vector<int64_t>& base,
                                         std::vector<int64_t> size) const {
  int64_t offset = 0;
  for (size_t i = 0; i < shape_.size(); i++) {
    if (size[i] == -1) size[i] = shape_[i] - base[i];
    if (base[i] < 0 || size[i] > shape_[i] - base[i]) throw std::runtime_error("layout: range");
    offset += base[i] * stride_[i];
  }
  return {layout{std::move(size), stride_}, offset};
}

layout layout::permute(const std::vector<int>& order) const {
  std::vector<int64_t> shape(order.size());
  std::vector<int64_t> stride(order.size());
  for (size_t i = 0; i < order.size(); i++) {
    shape[i] = shape_[static_cast<size_t>(order[i])];
    stride[i] = stride_[static_cast<size_t>(order[i])];
  }
  return {std::move(shape), std::move(stride)};
}

layout layout::transpose(int a, int b) const {
  layout result = *this;
  std::swap(result.shape_[static_cast<size_t>(a)], result.shape_[static_cast<size_t>(b)]);
  std::swap(result.stride_[static_cast<size_t>(a)], result.stride_[static_cast<size_t>(b)]);
  return result;
}

layout layout::squeeze(int dim) const {
  if (shape_[static_cast<size_t>(dim)] != 1) throw std::runtime_error("layout: not of size 1");
  layout result = *this;
  result.shape_.erase(result.shape_.begin() + dim);
  result.stride_.erase(result.stride_.begin() + dim);
  return result;
}

//===-- Buffers and tensors -----------------------------------------------===//

buffer::buffer(int64_t size, dtype type, const allocator& from)
    : size_{size}, device_{from->where()}, dtype_{type} {
  const int64_t bytes = size * static_cast<int>(type) / 8;
  data_ = std::shared_ptr<void>(from->allocate(bytes),
                                [from, bytes](void* pointer) { from->deallocate(pointer, bytes); });
}

buffer buffer::slice(int64_t base, int64_t size) const {
  if (base < 0 || size > size_ - base) throw std::runtime_error("buffer: range");
  buffer part = *this;
  part.base_ += base;
  part.size_ = size;
  return part;
}

tensor::tensor(layout shape, dtype type, device_type where)
    : layout_{std::move(shape)}, buffer_{layout_.size(), type, where} {}

tensor tensor::slice(const std::vector<int64_t>& base, std::vector<int64_t> size) const {
  auto [part, offset] = layout_.slice(base, std::move(size));
  const int64_t elements = part.size();
  return {buffer_.slice(offset, elements), std::move(part)};
}

tensor tensor::view(std::vector<int64_t> shape) const {
  return {buffer_, layout_.view(std::move(shape))};
}

tensor tensor::transpose(int a, int b) const { return {buffer_, layout_.transpose(a, b)}; }

tensor tensor::squeeze(int dim) const { return {buffer_, layout_.squeeze(dim)}; }

//===-- Maps and batches of copies ----------------------------------------===//

const tensor& tensor_map::at(const std::string& key) const {
  const auto found = tensors_.find(key);
  if (found == tensors_.end()) throw std::runtime_error("map: no " + key);
  return found->second;
}

void tensor_map::produce(const std::string& key, tensor value) {
  if (!tensors_.emplace(key, std::move(value)).second) throw std::runtime_error("map: " + key);
}

tensor tensor_map::consume(const std::string& key) {
  const auto found = tensors_.find(key);
  if (found == tensors_.end()) throw std::runtime_error("map: no " + key);
  tensor value = std::move(found->second);
  tensors_.erase(found);
  return value;
}

void batch_copy::add(const void* source, int64_t bytes, void* destination) {
  const auto* const from = static_cast<const char*>(source);
  auto* const to = static_cast<char*>(destination);
  if (in_group_ && !sizes_.empty() && from == sources_.back() + sizes_.back() &&
      to == destinations_.back() + sizes_.back()) {
    sizes_.back() += bytes;
    return;
  }
  sources_.push_back(from);
  destinations_.push_back(to);
  sizes_.push_back(bytes);
}

void batch_copy::clear() {
  sources_.clear();
  destinations_.clear();
  sizes_.clear();
}

}  // namespace cpp_pattern
