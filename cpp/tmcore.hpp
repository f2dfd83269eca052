// tmcore in C++: owners of the C API's handles, guards, typed buffers and tensors. Header-only.
//
//   #include <tm/tmcore.hpp>
//
//   tmcore::stream stream = tmcore::stream::create(0);
//   tmcore::allocator arena = tmcore::stack_allocator(tmcore::cuda_pool_allocator(stream), stream);
//   tmcore::context_guard guard{stream, arena};                         // until the block ends
//   tmcore::tensor_<__half> x{{tokens, hidden}, TM_DEVICE};             // from the arena
//   tmcore::tensor q = x.slice({0, 0}, {-1, 64}).transpose(0, 1);       // the same memory
//
// Everything here is inline over <tm/tm.h>, and C and C++ mix: every owner has get(), which lends
// the C handle; release(), which gives it away; and adopt(), which takes one over. TM_SCOPE,
// TM_WITH_* and the other macros of C work here as they are.
//
// Errors. What fails throws tmcore::error, or tmcore::out_of_memory, with the failure's record in
// it. Every function that can fail also takes std::nothrow as its last argument; then it returns
// the null handle or the tm_status instead, and the record is in tm_last_error(), as in C. Without
// exceptions (-fno-exceptions) a failure of the throwing form is fatal (tm/base/fatal.h): use
// std::nothrow there. Neither form throws for any other reason, but what user code under it throws
// (an out-of-memory handler, a fatal handler) passes through.
//
// Null handles: default-constructed and moved-from owners are null. Using one is an error, never a
// crash; with std::nothrow a null goes through a chain, whose first failure stays on record.
//
// Threads: an object is a plain value, used by one thread at a time; what several objects share (an
// allocator, a stream, memory) is counted atomically, and may be.
#ifndef TM_CPP_TMCORE_HPP_
#define TM_CPP_TMCORE_HPP_

#include <tm/tm.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <iosfwd>
#include <new>
#include <string>
#include <type_traits>
#include <utility>

// Where clang can warn of a reference that outlives its owner.
#if defined(__has_cpp_attribute)
#if __has_cpp_attribute(clang::lifetimebound)
#define TMCORE_LENDS_ [[clang::lifetimebound]]
#endif
#endif
#ifndef TMCORE_LENDS_
#define TMCORE_LENDS_
#endif

namespace tmcore {

// A file that is compiled without exceptions behaves differently: its functions must not be taken
// for those of the others, so they have other names.
#ifdef __cpp_exceptions
inline namespace throwing {
#else
inline namespace no_exceptions {
#endif

//===-- Errors ------------------------------------------------------------===//

#ifdef __cpp_exceptions

// A failure, with its record. what() is the message.
// Throwing one moves the record out of the thread: tm_last_error() reads TM_OK afterwards, so that
// a failure which was caught is not taken for the reason of a later one.
class TM_API error : public std::exception {
 public:
  explicit error(const tm_error& record) noexcept : record_(record) {}
  const char* what() const noexcept override { return record_.message; }

  tm_status code() const noexcept { return record_.code; }
  const char* file() const noexcept { return record_.file; }    // where it was raised
  int line() const noexcept { return record_.line; }            // where it was raised
  const char* trace() const noexcept { return record_.trace; }  // open scopes, innermost first
  const tm_error& record() const noexcept { return record_; }

  // Makes the record the thread's latest failure again and returns its code: how a C++ function
  // that C calls hands on what it has caught.
  virtual tm_status restore() const noexcept {
    tm_restore_error_(&record_);
    return record_.code;
  }

 private:
  tm_error record_;
};

// Memory has run out: freeing some and asking again may succeed.
// No std::bad_alloc: it would be a second std::exception beside that of `error`, and an ambiguous
// base is one that `catch (const std::exception&)` does not catch.
class TM_API out_of_memory : public error {
 public:
  explicit out_of_memory(const tm_error& record, const tm_oom_report* report = nullptr) noexcept
      : error(record), has_report_(report != nullptr) {
    if (report) report_ = *report;
  }

  // What there was, where an allocation has run out; nullptr where it was something else.
  const tm_oom_report* report() const noexcept { return has_report_ ? &report_ : nullptr; }

  tm_status restore() const noexcept override {
    const tm_status status = error::restore();
    if (has_report_) tm_restore_oom_report_(&report_);
    return status;
  }

 private:
  tm_oom_report report_{};
  bool has_report_;
};

#endif

// What a function does when it fails: throws, unless its last argument is std::nothrow.
class on_failure {
 public:
  constexpr on_failure() noexcept = default;
  constexpr on_failure(std::nothrow_t /*nothrow*/) noexcept : throws_(false) {}
  constexpr bool throws() const noexcept { return throws_; }

 private:
  bool throws_ = true;
};

namespace detail {

// Throws the failure that the thread's record tells of.
[[noreturn]] __attribute__((cold)) inline void fail(tm_status status) {
  if (tm_last_status() != status) {  // from a function that returned it without raising
    (void)TM_RAISE(status, "%s", tm_status_name(status));
  }
#ifdef __cpp_exceptions
  const tm_error record = *tm_last_error();
  const tm_oom_report* report = tm_last_oom_report();  // good until the next failure
  tm_clear_error();
  if (status == TM_ERR_NO_MEMORY) {
    throw out_of_memory(record, report);
  }
  throw error(record);
#else
  const tm_error* record = tm_last_error();
  tm_fatal_(record->file, record->line, "%s: %s", tm_status_name(status), record->message);
#endif
}

// What made a handle has failed: the record says why; where there is none, `what` was null.
inline void expect(bool ok, on_failure then, const char* what) {
  if (TM_UNLIKELY(!ok) && then.throws()) {
    fail(TM_NULL_HANDLE(what));
  }
}

// A call has returned `status`: throws where it is to.
inline void expect_ok(tm_status status, on_failure then) {
  if (TM_UNLIKELY(status != TM_OK) && then.throws()) {
    fail(status);
  }
}

}  // namespace detail

// Throws where a call of the C API has failed: tmcore::check(tm_stack_pin(arena.get())).
inline void check(tm_status status) {
  if (TM_UNLIKELY(status != TM_OK)) {
    detail::fail(status);
  }
}

//===-- Devices, shapes ---------------------------------------------------===//

inline constexpr tm_device cpu{TM_CPU, 0};
inline constexpr tm_device cpu_pinned{TM_CPU_PINNED, 0};
constexpr tm_device cuda(int32_t id) noexcept { return tm_device{TM_DEVICE, id}; }

inline std::string to_string(tm_device device) {
  const char* type = tm_device_type_name(static_cast<tm_device_type>(device.type));
  return device.type == TM_DEVICE ? std::string(type) + ":" + std::to_string(device.id) : type;
}

namespace detail {

// What may stand for a size: integers and constants of plain enums, but no dtype by mistake.
template <class T>
constexpr bool is_size = (std::is_integral<T>::value ||
                          (std::is_enum<T>::value && std::is_convertible<T, int64_t>{})) &&
                         !std::is_same<T, tm_dtype>::value &&
                         !std::is_same<T, tm_device_type>::value;

}  // namespace detail

// A list with one number per dimension: sizes, where a slice starts, the order of a permutation.
// Made of 0 to 8 integers of any type: {tokens, 3 * hidden}; {} is the scalar's. Only as many
// entries as there are dimensions are ever written or read.
class dims {
 public:
  template <class... Integer, class = std::enable_if_t<(detail::is_size<Integer> && ...)>>
  dims(Integer... dim) noexcept {
    static_assert(sizeof...(Integer) <= TM_MAX_RANK, "rank out of 0 to 8");
    c_.rank = static_cast<int32_t>(sizeof...(Integer));
    [[maybe_unused]] int64_t* next = c_.dim;
    ((*next++ = static_cast<int64_t>(dim)), ...);
  }
  dims(const tm_shape& c) noexcept : c_(c) {}

  // As many as are known at run time only; a rank out of 0 to 8 is an error of what takes them.
  static dims of(int32_t rank, const int64_t* dim) noexcept { return tm_shape_make(rank, dim); }

  const tm_shape* get() const noexcept { return &c_; }
  int32_t rank() const noexcept { return c_.rank; }
  int64_t operator[](int32_t i) const noexcept { return c_.dim[i]; }
  const int64_t* begin() const noexcept { return c_.dim; }
  const int64_t* end() const noexcept { return c_.dim + c_.rank; }

  friend bool operator==(const dims& a, const dims& b) noexcept {
    return tm_shape_equal(&a.c_, &b.c_);
  }
  friend bool operator!=(const dims& a, const dims& b) noexcept { return !(a == b); }

 private:
  tm_shape c_;
};

// "(20,50)" and "(20,50):(50,1)", as C prints them.
inline std::string to_string(const dims& shape) {
  char text[TM_SHAPE_TEXT_SIZE];
  tm_shape_text(shape.get(), text, sizeof text);
  return text;
}

inline std::string to_string(const tm_layout& layout) {
  char text[TM_LAYOUT_TEXT_SIZE];
  tm_layout_text(&layout, text, sizeof text);
  return text;
}

// "f16"; "u4 in (128,1), scales f16, zeros f16"; "[2,5)".
inline std::string to_string(tm_dtype dtype) { return tm_dtype_name(dtype); }

inline std::string to_string(const tm_data_format& format) {
  char text[TM_DATA_FORMAT_TEXT_SIZE];
  tm_data_format_text(&format, text, sizeof text);
  return text;
}

inline std::string to_string(tm_interval interval) {
  char text[TM_INTERVAL_TEXT_SIZE];
  tm_interval_text(interval, text, sizeof text);
  return text;
}

//===-- Types, formats ----------------------------------------------------===//

// The type of that name, as to_string makes it. With std::nothrow TM_DTYPE_NULL on failure.
[[nodiscard]] inline tm_dtype parse_dtype(const char* name, on_failure then = {}) {
  tm_dtype dtype;
  const tm_status status = tm_dtype_parse(name, &dtype);
  detail::expect_ok(status, then);
  return dtype;
}

// How the weights of a linear layer are stored: the rules are tm_data_format_linear's. With
// std::nothrow all zero on failure.
[[nodiscard]] inline tm_data_format linear_format(tm_dtype compute, tm_dtype weights,
                                                  int32_t block_in, int32_t block_out,
                                                  on_failure then = {}) {
  tm_data_format format;
  const tm_status status = tm_data_format_linear(compute, weights, block_in, block_out, &format);
  detail::expect_ok(status, then);
  return format;
}

// The shape of the scales, and of the zeros, of a tensor of `shape`. With std::nothrow the scalar's
// on failure.
[[nodiscard]] inline dims blocks(const tm_data_format& format, const dims& shape,
                                 on_failure then = {}) {
  tm_shape blocks;
  const tm_status status = tm_data_format_blocks(&format, *shape.get(), &blocks);
  detail::expect_ok(status, then);
  return blocks;
}

//===-- Layouts -----------------------------------------------------------===//

// Where the elements of a tensor lie: tm/tensor/layout.h. A plain value, which converts from and to
// C's; default-constructed it is null. With std::nothrow a failure gives a null one, and a null one
// goes through a chain.
//
//   layout heads = layout::row_major({tokens, 3 * hidden}).slice({0, 0}, {-1, hidden})
//                      .view({tokens, -1, 128}).transpose(0, 1);
//   tensor q = tensor::strided(heads, TM_F16, TM_DEVICE);
class layout {
 public:
  layout() noexcept { c_.ranked = 0; }
  layout(const layout& other) noexcept { tm_layout_copy(&other.c_, &c_); }
  layout& operator=(const layout& other) noexcept {
    if (this != &other) {
      tm_layout_copy(&other.c_, &c_);
    }
    return *this;
  }
  ~layout() = default;

  // A template, so that no list in braces becomes one.
  template <class C, class = std::enable_if_t<std::is_same<C, tm_layout>::value>>
  layout(const C& c) noexcept {
    tm_layout_copy(&c, &c_);
  }
  operator const tm_layout&() const noexcept TMCORE_LENDS_ { return c_; }
  const tm_layout* get() const noexcept TMCORE_LENDS_ { return &c_; }
  explicit operator bool() const noexcept { return !tm_layout_is_null(&c_); }

  // Contiguous; with strides, in elements; from what to_string makes of one.
  [[nodiscard]] static layout row_major(const dims& shape, on_failure then = {}) {
    return made(then, [&](tm_layout* out) { return tm_layout_make_(shape.get(), out); });
  }
  [[nodiscard]] static layout strided(const dims& shape, const dims& stride, on_failure then = {}) {
    return made(then, [&](tm_layout* out) {
      return tm_layout_make_strided_(shape.get(), stride.get(), out);
    });
  }
  [[nodiscard]] static layout parse(const char* text, on_failure then = {}) {
    return made(then, [&](tm_layout* out) { return tm_layout_parse(text, out); });
  }

  int32_t rank() const noexcept { return tm_layout_rank(&c_); }
  int64_t size() const noexcept { return tm_layout_size(&c_); }      // elements
  int64_t cosize() const noexcept { return tm_layout_cosize(&c_); }  // elements that it reaches
  bool is_contiguous() const noexcept { return tm_layout_is_contiguous(&c_); }
  bool is_injective() const noexcept { return tm_layout_is_injective(&c_); }
  dims shape() const noexcept { return tm_layout_shape(&c_); }

  // A size, or a stride in elements; `dim` counts from the end where it is negative. With
  // std::nothrow -1 on failure.
  int64_t shape(int32_t dim, on_failure then = {}) const {
    return number(then, [&](int64_t* out) { return tm_layout_dim(&c_, dim, out); });
  }
  int64_t stride(int32_t dim, on_failure then = {}) const {
    return number(then, [&](int64_t* out) { return tm_layout_stride(&c_, dim, out); });
  }
  // In elements, of a full index or of the first element of a part.
  int64_t offset(const dims& index, on_failure then = {}) const {
    return number(then, [&](int64_t* out) { return tm_layout_offset_(&c_, index.get(), out); });
  }

  // The fewest dimensions that visit the same offsets in the same order.
  [[nodiscard]] layout coalesce(on_failure then = {}) const {
    return made(then, [&](tm_layout* out) { return tm_layout_coalesce(&c_, out); });
  }
  // Another shape; one size may be -1.
  [[nodiscard]] layout view(const dims& shape, on_failure then = {}) const {
    return made(then, [&](tm_layout* out) { return tm_layout_view_(&c_, shape.get(), out); });
  }
  // The part that starts at `base`, of `size` elements per dimension; a size of -1 is the rest.
  // Stores where it starts, in elements, in `*offset`, which may be NULL.
  [[nodiscard]] layout slice(const dims& base, const dims& size, int64_t* offset = nullptr,
                             on_failure then = {}) const {
    int64_t start = 0;
    const layout part = made(then, [&](tm_layout* out) {
      return tm_layout_slice_(&c_, base.get(), size.get(), out, &start);
    });
    if (offset) {
      *offset = start;
    }
    return part;
  }
  // The same for the outermost dimension, with all of the others.
  [[nodiscard]] layout slice(int64_t base, int64_t size = -1, int64_t* offset = nullptr,
                             on_failure then = {}) const {
    int64_t start = 0;
    const layout part = made(
        then, [&](tm_layout* out) { return tm_layout_slice_outer(&c_, base, size, out, &start); });
    if (offset) {
      *offset = start;
    }
    return part;
  }
  // Dimension i of the result is dimension order[i].
  [[nodiscard]] layout permute(const dims& order, on_failure then = {}) const {
    return made(then, [&](tm_layout* out) { return tm_layout_permute_(&c_, order.get(), out); });
  }
  // Exchanges two dimensions.
  [[nodiscard]] layout transpose(int32_t a, int32_t b, on_failure then = {}) const {
    return made(then, [&](tm_layout* out) { return tm_layout_transpose(&c_, a, b, out); });
  }
  // Drops, inserts a dimension of size 1.
  [[nodiscard]] layout squeeze(int32_t dim, on_failure then = {}) const {
    return made(then, [&](tm_layout* out) { return tm_layout_squeeze(&c_, dim, out); });
  }
  [[nodiscard]] layout unsqueeze(int32_t dim, on_failure then = {}) const {
    return made(then, [&](tm_layout* out) { return tm_layout_unsqueeze(&c_, dim, out); });
  }

  friend bool operator==(const layout& a, const layout& b) noexcept {
    return tm_layout_equal(&a.c_, &b.c_);
  }
  friend bool operator!=(const layout& a, const layout& b) noexcept { return !(a == b); }

 private:
  template <class Make>
  static layout made(on_failure then, Make make) {
    layout result;
    const tm_status status = make(&result.c_);
    detail::expect_ok(status, then);
    return result;
  }
  template <class Ask>
  static int64_t number(on_failure then, Ask ask) {
    int64_t result = -1;
    const tm_status status = ask(&result);
    detail::expect_ok(status, then);
    return result;
  }

  tm_layout c_;
};

//===-- Counted handles ---------------------------------------------------===//

// Allocators, streams and events are counted objects. Each has an owner (allocator, stream, event)
// and a reference that owns nothing (allocator_ref, ...), which is a pointer and is what functions
// take and lookups return. Both have the same functions.
//
// Cost of an owner: a pointer. Copying shares the object, for an atomic increment and later a
// decrement; moving is free. A reference converts from its owner as std::string_view does from
// std::string: it is for arguments, and good for as long as the owner is.

namespace detail {

template <class C, C* (*Retain)(C*), void (*Release)(C*)>
class counted {
 public:
  constexpr counted() noexcept = default;
  counted(const counted& other) noexcept : c_(Retain(other.c_)) {}
  counted(counted&& other) noexcept : c_(other.release()) {}
  counted& operator=(counted other) noexcept {
    std::swap(c_, other.c_);
    return *this;
  }
  ~counted() { Release(c_); }

  C* get() const noexcept TMCORE_LENDS_ { return c_; }
  explicit operator bool() const noexcept { return c_ != nullptr; }

  // Gives the reference away: the caller pays it back, and this is null.
  [[nodiscard]] C* release() noexcept { return std::exchange(c_, nullptr); }

 protected:
  explicit counted(C* owned) noexcept : c_(owned) {}

 private:
  C* c_ = nullptr;
};

template <class C>
class reference {
 public:
  constexpr reference() noexcept = default;
  constexpr reference(std::nullptr_t /*null*/) noexcept {}
  constexpr reference(C* c) noexcept : c_(c) {}
  constexpr C* get() const noexcept { return c_; }
  constexpr explicit operator bool() const noexcept { return c_ != nullptr; }

 private:
  C* c_ = nullptr;
};

// What a function of the C API writes about `c`.
template <class C>
std::string printed(void (*write)(const C*, char*, size_t), const C* c) {
  char text[TM_STREAM_TEXT_SIZE];
  static_assert(int{TM_STREAM_TEXT_SIZE} >= int{TM_EVENT_TEXT_SIZE}, "large enough for both");
  write(c, text, sizeof text);
  return text;
}

}  // namespace detail

class allocator;
class event;
class stream;

//===-- Events ------------------------------------------------------------===//

class event_ref;
class stream_ref;

namespace detail {

// Threads: every function of events and streams is safe from any thread.
template <class Self>
class event_calls {
 public:
  cudaEvent_t handle() const noexcept { return tm_event_handle(c()); }
  tm_device device() const noexcept { return tm_event_device(c()); }
  [[nodiscard]] std::string text() const { return printed(tm_event_text, c()); }

  // Marks what is queued on `stream` so far.
  void record(stream_ref stream) const;
  [[nodiscard]] tm_status record(stream_ref stream, std::nothrow_t nothrow) const noexcept;

  // Blocks the calling thread until what was recorded is done.
  void sync() const { check(tm_event_sync(c())); }
  [[nodiscard]] tm_status sync(std::nothrow_t /*nothrow*/) const noexcept {
    return tm_event_sync(c());
  }

  // Whether what was recorded is done.
  [[nodiscard]] bool query() const {
    bool done;
    check(tm_event_query(c(), &done));
    return done;
  }
  [[nodiscard]] tm_status query(bool* out, std::nothrow_t /*nothrow*/) const noexcept {
    return tm_event_query(c(), out);
  }

 private:
  tm_event* c() const noexcept { return static_cast<const Self*>(this)->get(); }
};

}  // namespace detail

class event_ref : public detail::reference<tm_event>, public detail::event_calls<event_ref> {
 public:
  using reference::reference;
};

class event : public detail::counted<tm_event, tm_event_retain, tm_event_release>,
              public detail::event_calls<event> {
 public:
  constexpr event() noexcept = default;
  operator event_ref() const noexcept TMCORE_LENDS_ { return get(); }

  // An event of device `id`; `timing` makes it usable with elapsed, at a cost.
  [[nodiscard]] static event create(int32_t id, bool timing = false, on_failure then = {}) {
    event made = adopt(tm_event_create(id, timing));
    detail::expect(static_cast<bool>(made), then, "the event");
    return made;
  }
  // Takes a reference over; takes another one.
  [[nodiscard]] static event adopt(tm_event* owned) noexcept { return event(owned); }
  [[nodiscard]] static event share(event_ref other) noexcept {
    return event(tm_event_retain(other.get()));
  }

 private:
  explicit event(tm_event* owned) noexcept : counted(owned) {}
};

// The milliseconds between two recorded events that are done.
inline float elapsed(event_ref start, event_ref end) {
  float milliseconds;
  check(tm_event_elapsed(start.get(), end.get(), &milliseconds));
  return milliseconds;
}
[[nodiscard]] inline tm_status elapsed(event_ref start, event_ref end, float* out,
                                       std::nothrow_t /*nothrow*/) noexcept {
  return tm_event_elapsed(start.get(), end.get(), out);
}

//===-- Streams -----------------------------------------------------------===//

namespace detail {

template <class Self>
class stream_calls {
 public:
  cudaStream_t handle() const noexcept { return tm_stream_handle(c()); }
  tm_device device() const noexcept { return tm_stream_device(c()); }
  [[nodiscard]] std::string text() const { return printed(tm_stream_text, c()); }

  // Blocks the calling thread until everything queued so far is done.
  void sync() const { check(tm_stream_sync(c())); }
  [[nodiscard]] tm_status sync(std::nothrow_t /*nothrow*/) const noexcept {
    return tm_stream_sync(c());
  }

  // Whether everything queued so far is done.
  [[nodiscard]] bool query() const {
    bool done;
    check(tm_stream_query(c(), &done));
    return done;
  }
  [[nodiscard]] tm_status query(bool* out, std::nothrow_t /*nothrow*/) const noexcept {
    return tm_stream_query(c(), out);
  }

  // Work queued from here on starts after what `event` recorded, or after all that is queued on
  // `other` now. The host does not wait.
  void wait(event_ref event) const { check(tm_stream_wait(c(), event.get())); }
  [[nodiscard]] tm_status wait(event_ref event, std::nothrow_t /*nothrow*/) const noexcept {
    return tm_stream_wait(c(), event.get());
  }
  void wait(stream_ref other) const;
  [[nodiscard]] tm_status wait(stream_ref other, std::nothrow_t nothrow) const noexcept;

  [[nodiscard]] int priority() const {
    int priority;
    check(tm_stream_priority(c(), &priority));
    return priority;
  }
  [[nodiscard]] tm_status priority(int* out, std::nothrow_t /*nothrow*/) const noexcept {
    return tm_stream_priority(c(), out);
  }

  [[nodiscard]] bool is_capturing() const {
    bool capturing;
    check(tm_stream_is_capturing(c(), &capturing));
    return capturing;
  }
  [[nodiscard]] tm_status is_capturing(bool* out, std::nothrow_t /*nothrow*/) const noexcept {
    return tm_stream_is_capturing(c(), out);
  }

  // Calls `function(user)` in stream order: see tm_stream_call_host for what it may do.
  void call_host(void (*function)(void*), void* user) const {
    check(tm_stream_call_host(c(), function, user));
  }
  [[nodiscard]] tm_status call_host(void (*function)(void*), void* user,
                                    std::nothrow_t /*nothrow*/) const noexcept {
    return tm_stream_call_host(c(), function, user);
  }

  // Waits, and detaches an adopted stream from its handle: see tm_stream_disown.
  void disown() const { check(tm_stream_disown(c())); }
  [[nodiscard]] tm_status disown(std::nothrow_t /*nothrow*/) const noexcept {
    return tm_stream_disown(c());
  }

 private:
  tm_stream* c() const noexcept { return static_cast<const Self*>(this)->get(); }
};

}  // namespace detail

class stream_ref : public detail::reference<tm_stream>, public detail::stream_calls<stream_ref> {
 public:
  using reference::reference;
};

class stream : public detail::counted<tm_stream, tm_stream_retain, tm_stream_release>,
               public detail::stream_calls<stream> {
 public:
  constexpr stream() noexcept = default;
  operator stream_ref() const noexcept TMCORE_LENDS_ { return get(); }

  // A stream of device `id`; a lower `priority` runs first.
  [[nodiscard]] static stream create(int32_t id, int priority = 0, on_failure then = {}) {
    stream made = adopt(tm_stream_create(id, priority));
    detail::expect(static_cast<bool>(made), then, "the stream");
    return made;
  }
  // Takes a reference over; takes another one.
  [[nodiscard]] static stream adopt(tm_stream* owned) noexcept { return stream(owned); }
  [[nodiscard]] static stream share(stream_ref other) noexcept {
    return stream(tm_stream_retain(other.get()));
  }

  // Wraps a foreign stream, which stays its maker's: see tm_stream_adopt.
  [[nodiscard]] static stream adopt(cudaStream_t handle, int32_t id, on_failure then = {}) {
    stream made = adopt(tm_stream_adopt(handle, id));
    detail::expect(static_cast<bool>(made), then, "the stream");
    return made;
  }

 private:
  explicit stream(tm_stream* owned) noexcept : counted(owned) {}
};

// Whether the two are the same queue.
inline bool operator==(stream_ref a, stream_ref b) noexcept {
  return tm_stream_equal(a.get(), b.get());
}
inline bool operator!=(stream_ref a, stream_ref b) noexcept { return !(a == b); }

// For those who include <ostream>.
template <class Traits>
std::basic_ostream<char, Traits>& operator<<(std::basic_ostream<char, Traits>& out, stream_ref s) {
  return out << s.text();
}
template <class Traits>
std::basic_ostream<char, Traits>& operator<<(std::basic_ostream<char, Traits>& out, event_ref e) {
  return out << e.text();
}

namespace detail {

template <class Self>
void stream_calls<Self>::wait(stream_ref other) const {
  check(tm_stream_wait_stream(c(), other.get()));
}

template <class Self>
tm_status stream_calls<Self>::wait(stream_ref other, std::nothrow_t /*nothrow*/) const noexcept {
  return tm_stream_wait_stream(c(), other.get());
}

template <class Self>
void event_calls<Self>::record(stream_ref stream) const {
  check(tm_event_record(c(), stream.get()));
}

template <class Self>
tm_status event_calls<Self>::record(stream_ref stream, std::nothrow_t /*nothrow*/) const noexcept {
  return tm_event_record(c(), stream.get());
}

}  // namespace detail

//===-- Allocators --------------------------------------------------------===//

namespace detail {

// Threads: as the allocator's own C header says.
template <class Self>
class allocator_calls {
 public:
  tm_device device() const noexcept { return tm_allocator_device(c()); }
  stream_ref stream() const noexcept { return tm_allocator_stream(c()); }  // null where it has none
  size_t alignment() const noexcept { return tm_allocator_alignment(c()); }
  const char* name() const noexcept { return tm_allocator_name(c()); }
  tm_allocator* upstream() const noexcept { return tm_allocator_upstream(c()); }  // borrowed

  // `size` bytes, first and last used on `on` (null: the allocator's own stream); NULL for none.
  // The caller gives the block back with deallocate, and keeps the allocator until then. Raw: the
  // context's out-of-memory handlers are not asked.
  [[nodiscard]] void* allocate(size_t size, stream_ref on = {}, on_failure then = {}) const {
    void* block;
    const tm_status status = tm_allocator_alloc(c(), size, on.get(), &block);
    if (TM_UNLIKELY(status != TM_OK) && then.throws()) {
      fail(status);
    }
    return block;
  }
  // With the size and the stream of the allocation. Safe from any thread.
  void deallocate(void* block, size_t size, stream_ref on = {}) const noexcept {
    tm_allocator_free(c(), block, size, on.get());
  }

  // Gives back what is not in use, down to `keep` bytes.
  void trim(size_t keep = 0) const { check(tm_allocator_trim(c(), keep)); }
  [[nodiscard]] tm_status trim(size_t keep, std::nothrow_t /*nothrow*/) const noexcept {
    return tm_allocator_trim(c(), keep);
  }

  [[nodiscard]] tm_allocator_stats stats() const {
    tm_allocator_stats result;
    check(tm_allocator_get_stats(c(), &result));
    return result;
  }
  [[nodiscard]] tm_status stats(tm_allocator_stats* out,
                                std::nothrow_t /*nothrow*/) const noexcept {
    return tm_allocator_get_stats(c(), out);
  }

  // Of stacks; on any other allocator TM_ERR_INVALID. As tm/alloc/stack.h says.
  bool is_stack() const noexcept { return tm_is_stack(c()); }
  tm_allocator* stack_upstream() const noexcept { return tm_stack_upstream(c()); }  // borrowed

  void stack_reserve(size_t bytes) const { check(tm_stack_reserve(c(), bytes)); }
  [[nodiscard]] tm_status stack_reserve(size_t bytes, std::nothrow_t /*nothrow*/) const {
    return tm_stack_reserve(c(), bytes);
  }
  void stack_reset() const { check(tm_stack_reset(c())); }
  [[nodiscard]] tm_status stack_reset(std::nothrow_t /*nothrow*/) const {
    return tm_stack_reset(c());
  }
  void stack_pin() const { check(tm_stack_pin(c())); }
  [[nodiscard]] tm_status stack_pin(std::nothrow_t /*nothrow*/) const { return tm_stack_pin(c()); }
  void stack_unpin() const { check(tm_stack_unpin(c())); }
  [[nodiscard]] tm_status stack_unpin(std::nothrow_t /*nothrow*/) const {
    return tm_stack_unpin(c());
  }
  void stack_hand_over() const { check(tm_stack_hand_over(c())); }
  [[nodiscard]] tm_status stack_hand_over(std::nothrow_t /*nothrow*/) const {
    return tm_stack_hand_over(c());
  }
  [[nodiscard]] size_t stack_high_water_mark() const {
    size_t bytes;
    check(tm_stack_high_water_mark(c(), &bytes));
    return bytes;
  }
  [[nodiscard]] tm_status stack_high_water_mark(size_t* out, std::nothrow_t /*nothrow*/) const {
    return tm_stack_high_water_mark(c(), out);
  }

 private:
  tm_allocator* c() const noexcept { return static_cast<const Self*>(this)->get(); }
};

}  // namespace detail

class allocator_ref : public detail::reference<tm_allocator>,
                      public detail::allocator_calls<allocator_ref> {
 public:
  using reference::reference;
};

class allocator : public detail::counted<tm_allocator, tm_allocator_retain, tm_allocator_release>,
                  public detail::allocator_calls<allocator> {
 public:
  constexpr allocator() noexcept = default;
  operator allocator_ref() const noexcept TMCORE_LENDS_ { return get(); }

  // Takes a reference over, such as that of any creator of the C API; takes another one.
  [[nodiscard]] static allocator adopt(tm_allocator* owned) noexcept { return allocator(owned); }
  [[nodiscard]] static allocator share(allocator_ref other) noexcept {
    return allocator(tm_allocator_retain(other.get()));
  }

 private:
  explicit allocator(tm_allocator* owned) noexcept : counted(owned) {}
};

inline bool operator==(allocator_ref a, allocator_ref b) noexcept { return a.get() == b.get(); }
inline bool operator!=(allocator_ref a, allocator_ref b) noexcept { return !(a == b); }

namespace detail {

inline allocator created(tm_allocator* owned, on_failure then) {
  expect(owned != nullptr, then, "the allocator");
  return allocator::adopt(owned);
}

}  // namespace detail

// The process's own, which are never counted.
inline allocator_ref host_allocator() noexcept { return tm_host_allocator(); }
inline allocator_ref pinned_allocator() noexcept { return tm_pinned_allocator(); }
[[nodiscard]] inline allocator_ref cuda_allocator(int32_t id, on_failure then = {}) {
  const allocator_ref found = tm_cuda_allocator(id);
  detail::expect(static_cast<bool>(found), then, "the allocator");
  return found;
}

// New ones, which keep their stream and upstream alive.
[[nodiscard]] inline allocator cuda_pool_allocator(stream_ref stream,
                                                   const tm_cuda_pool_options& options = {},
                                                   on_failure then = {}) {
  return detail::created(tm_cuda_pool_allocator_create(stream.get(), &options), then);
}
[[nodiscard]] inline allocator stack_allocator(allocator_ref upstream, stream_ref stream = {},
                                               const tm_stack_options& options = {},
                                               on_failure then = {}) {
  return detail::created(tm_stack_allocator_create(upstream.get(), stream.get(), &options), then);
}
[[nodiscard]] inline allocator cached_allocator(allocator_ref upstream, stream_ref stream = {},
                                                const tm_cached_options& options = {},
                                                on_failure then = {}) {
  return detail::created(tm_cached_allocator_create(upstream.get(), stream.get(), &options), then);
}
// Addresses without memory, to plan with.
[[nodiscard]] inline allocator dry_allocator(tm_device device, const tm_dry_options& options = {},
                                             on_failure then = {}) {
  return detail::created(tm_dry_allocator_create(device, &options), then);
}
[[nodiscard]] inline allocator callback_allocator(const tm_callback_options& options,
                                                  on_failure then = {}) {
  return detail::created(tm_callback_allocator_create(&options), then);
}

// Adaptors, which go over any allocator. Their operations are those of the C API.
[[nodiscard]] inline allocator statistics_adaptor(allocator_ref upstream, on_failure then = {}) {
  return detail::created(tm_statistics_adaptor_create(upstream.get()), then);
}
[[nodiscard]] inline allocator limit_adaptor(allocator_ref upstream, size_t bytes,
                                             on_failure then = {}) {
  return detail::created(tm_limit_adaptor_create(upstream.get(), bytes), then);
}
[[nodiscard]] inline allocator tracking_adaptor(allocator_ref upstream,
                                                const tm_tracking_options& options = {},
                                                on_failure then = {}) {
  return detail::created(tm_tracking_adaptor_create(upstream.get(), &options), then);
}
[[nodiscard]] inline allocator logging_adaptor(allocator_ref upstream, const char* path,
                                               on_failure then = {}) {
  return detail::created(tm_logging_adaptor_create(upstream.get(), path), then);
}
[[nodiscard]] inline allocator guard_adaptor(allocator_ref upstream, on_failure then = {}) {
  return detail::created(tm_guard_adaptor_create(upstream.get()), then);
}
[[nodiscard]] inline allocator fault_adaptor(allocator_ref upstream,
                                             const tm_fault_options& options = {},
                                             on_failure then = {}) {
  return detail::created(tm_fault_adaptor_create(upstream.get(), &options), then);
}
[[nodiscard]] inline allocator locked_adaptor(allocator_ref upstream, on_failure then = {}) {
  return detail::created(tm_locked_adaptor_create(upstream.get()), then);
}

// A part of a limit adaptor's budget, given back at its end. Guards refer to it, so it stays where
// it is. As tm/alloc/limit_adaptor.h says.
class limit_reservation {
 public:
  // Where it fails and does not throw, it is false.
  limit_reservation(allocator_ref limit, size_t bytes, on_failure then = {}) {
    const tm_status status = tm_limit_reserve(limit.get(), bytes, &reservation_);
    if (TM_UNLIKELY(status != TM_OK) && then.throws()) {
      detail::fail(status);
    }
  }
  limit_reservation(const limit_reservation&) = delete;
  limit_reservation& operator=(const limit_reservation&) = delete;
  ~limit_reservation() { cancel(); }

  explicit operator bool() const noexcept { return reservation_.limit != nullptr; }
  size_t left() const noexcept { return reservation_.bytes; }  // bytes
  tm_limit_reservation* get() noexcept { return &reservation_; }

  // A block out of the reservation, which the limit adaptor deallocates.
  [[nodiscard]] void* commit(size_t size, stream_ref on = {}, on_failure then = {}) {
    void* block;
    const tm_status status = tm_limit_commit(&reservation_, size, on.get(), &block);
    if (TM_UNLIKELY(status != TM_OK) && then.throws()) {
      detail::fail(status);
    }
    return block;
  }
  void cancel() noexcept { tm_limit_cancel(&reservation_); }

 private:
  tm_limit_reservation reservation_;
};

// While it lives, what the thread allocates through the reservation's limit adaptor comes out of
// the reservation first.
class reservation_guard {
 public:
  explicit reservation_guard(limit_reservation& reservation) noexcept
      : before_(tm_limit_draw_on_(reservation.get())) {}
  reservation_guard(const reservation_guard&) = delete;
  reservation_guard& operator=(const reservation_guard&) = delete;
  ~reservation_guard() { (void)tm_limit_draw_on_(before_); }

 private:
  tm_limit_reservation* before_;
};

//===-- Contexts ----------------------------------------------------------===//

// A context of one's own, for fibers and tasks that carry theirs, or what was captured of one for
// other threads. Copies share it. The last one destroyed while it is current on a thread is fatal,
// unless it came from capture().
class context : public detail::counted<tm_context, tm_context_retain, tm_context_release> {
 public:
  constexpr context() noexcept = default;

  // With the host allocator in it and nothing else.
  [[nodiscard]] static context create(on_failure then = {}) {
    return made(tm_context_create(), then);
  }
  // What is current here, for any number of threads: tm_context_capture.
  [[nodiscard]] static context capture(on_failure then = {}) {
    return made(tm_context_capture(), then);
  }
  // The same with the arenas themselves, for one thread at a time: tm_context_capture_move.
  [[nodiscard]] static context capture_move(on_failure then = {}) {
    return made(tm_context_capture_move(), then);
  }
  // Takes a reference over; takes another one.
  [[nodiscard]] static context adopt(tm_context* owned) noexcept { return context(owned); }
  [[nodiscard]] static context share(tm_context* other) noexcept {
    return context(tm_context_retain(other));
  }

 private:
  explicit context(tm_context* owned) noexcept : counted(owned) {}

  static context made(tm_context* owned, on_failure then) {
    context result(owned);
    detail::expect(static_cast<bool>(result), then, "the context");
    return result;
  }
};

// What is innermost in the thread's context; null where there is nothing. The cost is C's: two
// loads. Borrowed, for as long as its scope is open.
inline stream_ref current_stream() noexcept { return tm_current_stream(); }
inline allocator_ref current_allocator(tm_device_type type) noexcept {
  return tm_current_allocator(type);
}
inline allocator_ref current_allocator(tm_device device) noexcept {
  return tm_current_allocator_on(device);
}

// The same where there must be one: TM_ERR_UNAVAILABLE, naming what is missing.
[[nodiscard]] inline stream_ref require_stream(on_failure then = {}) {
  const stream_ref found = tm_require_stream();
  detail::expect(static_cast<bool>(found), then, "the stream");
  return found;
}
[[nodiscard]] inline allocator_ref require_allocator(tm_device device, on_failure then = {}) {
  const allocator_ref found = tm_require_allocator(device);
  detail::expect(static_cast<bool>(found), then, "the allocator");
  return found;
}
[[nodiscard]] inline allocator_ref require_allocator(tm_device_type type, on_failure then = {}) {
  return require_allocator(tm_device_any_(type), then);
}

//===-- Guards ------------------------------------------------------------===//

namespace detail {

template <class Object, class = void>
struct can_be_empty : std::is_pointer<Object> {};
template <class Object>
struct can_be_empty<Object, std::void_t<decltype(std::declval<const Object&>().operator bool())>>
    : std::true_type {};

}  // namespace detail

// An out-of-memory handler for a guard: calls `function(const tm_oom_request&)`, which returns
// whether it freed anything. A function object that is named is used where it is and outlives the
// guard; a temporary one is kept in the guard. An empty std::function or function pointer is none.
template <class Function>
class oom_handler {  // NOLINT(bugprone-exception-escape): moves as its function does
 public:
  explicit oom_handler(Function&& function) : function_(std::forward<Function>(function)) {}

  bool call(const tm_oom_request& request) { return function_(request); }
  bool is_empty() const noexcept {
    if constexpr (detail::can_be_empty<std::remove_cv_t<std::remove_reference_t<Function>>>{}) {
      return !static_cast<bool>(function_);
    } else {
      return false;
    }
  }

 private:
  Function function_;
};

template <class Function>
oom_handler(Function&&) -> oom_handler<Function>;

namespace detail {

// Entries: each holds one tm_frame, which its constructor opens and its destructor closes. Closing
// throws only what a fatal handler does.

class allocator_entry {
 public:
  using argument = allocator_ref;
  allocator_entry(allocator_ref allocator, const char* file, int line) {
    (void)tm_frame_open_allocator_(&frame_, allocator.get(), nullptr, file, line);
  }
  allocator_entry(const allocator_entry&) = delete;
  allocator_entry& operator=(const allocator_entry&) = delete;
  ~allocator_entry() noexcept(false) { tm_frame_close_(&frame_); }

 private:
  tm_frame frame_;
};

class stream_entry {
 public:
  using argument = stream_ref;
  stream_entry(stream_ref stream, const char* file, int line) {
    (void)tm_frame_open_stream_(&frame_, stream.get(), nullptr, file, line);
  }
  stream_entry(const stream_entry&) = delete;
  stream_entry& operator=(const stream_entry&) = delete;
  ~stream_entry() noexcept(false) { tm_frame_close_(&frame_); }

 private:
  tm_frame frame_;
};

class context_argument {
 public:
  context_argument(tm_context* c) noexcept : c_(c) {}
  context_argument(const context& owner) noexcept : c_(owner.get()) {}
  tm_context* get() const noexcept { return c_; }

 private:
  tm_context* c_;
};

class context_entry {
 public:
  using argument = context_argument;
  context_entry(context_argument context, const char* file, int line) {
    (void)tm_frame_open_context_(&frame_, context.get(), nullptr, file, line);
  }
  context_entry(const context_entry&) = delete;
  context_entry& operator=(const context_entry&) = delete;
  ~context_entry() noexcept(false) { tm_frame_close_context_(&frame_); }

 private:
  tm_frame frame_;
};

template <class Function>
class oom_entry {
 public:
  using argument = oom_handler<Function>;
  oom_entry(argument&& handler, const char* file, int line) : handler_(std::move(handler)) {
    (void)tm_frame_open_oom_handler_(&frame_, handler_.is_empty() ? nullptr : call, this, file,
                                     line);
  }
  oom_entry(const oom_entry&) = delete;
  oom_entry& operator=(const oom_entry&) = delete;
  ~oom_entry() noexcept(false) { tm_frame_close_oom_handler_(&frame_); }

 private:
  static bool call(const tm_oom_request* request, void* self) {
    return static_cast<oom_entry*>(self)->handler_.call(*request);
  }

  argument handler_;
  tm_frame frame_;
};

// An entry that keeps what it was given.
template <class Owner, class Entry>
class owning_entry {
 public:
  using argument = Owner;
  owning_entry(Owner&& owner, const char* file, int line)
      : owner_(std::move(owner)), entry_(owner_, file, line) {}

 private:
  Owner owner_;
  Entry entry_;
};

// Entries one after another, as bases: they are opened in order and closed in the reverse order,
// also where one of them throws. The index tells those of one kind apart.
template <size_t Index, class Entry>
class indexed : public Entry {
 public:
  using Entry::Entry;
};

template <class Indices, class... Entries>
class entries;

template <size_t... Index, class... Entries>
class entries<std::index_sequence<Index...>, Entries...> : private indexed<Index, Entries>... {
 protected:
  entries(typename Entries::argument... arguments, [[maybe_unused]] const char* file,
          [[maybe_unused]] int line)
      : indexed<Index, Entries>(std::move(arguments), file, line)... {}
};

// Which entry an argument makes.
allocator_entry entry_for(allocator_ref);
allocator_entry entry_for(const allocator&);
allocator_entry entry_for(std::nullptr_t);
owning_entry<allocator, allocator_entry> entry_for(allocator&&);
stream_entry entry_for(stream_ref);
stream_entry entry_for(const stream&);
owning_entry<stream, stream_entry> entry_for(stream&&);
context_entry entry_for(tm_context*);
context_entry entry_for(const context&);
owning_entry<context, context_entry> entry_for(context&&);
template <class Function>
oom_entry<Function> entry_for(oom_handler<Function>&&);

}  // namespace detail

// Makes allocators, streams, contexts and out-of-memory handlers current, in the order given, until
// the end of the block; then pops them in the reverse order.
//
//   auto evict = [&](const tm_oom_request&) { return cache.drop_oldest(); };
//   tmcore::context_guard guard{stream, arena, tmcore::oom_handler{evict}};
//
// What is named is borrowed and outlives the guard; a temporary is kept in the guard. Null changes
// nothing and still pops as one. Where opening one throws, those before it are popped.
// It is neither copied nor moved, since its entries are linked by their addresses. Guards close in
// the reverse order of their opening and on their own thread; anything else is fatal.
// Cost: that of TM_USE_ALLOCATOR and the like, one after another, to the instruction; what is
// borrowed is not counted.
template <class... Entries>
class context_guard : private detail::entries<std::index_sequence_for<Entries...>, Entries...> {
 public:
  // One without a name would close at once: it draws a warning. (g++ looks for it here only.)
  [[nodiscard]] explicit context_guard(typename Entries::argument... arguments,
                                       const char* file = __builtin_FILE(),
                                       int line = __builtin_LINE())
      // Opening a frame sets what closing it reads.
      // NOLINTNEXTLINE(clang-analyzer-optin.cplusplus.UninitializedObject)
      : context_guard::entries(std::move(arguments)..., file, line) {}
  context_guard(const context_guard&) = delete;
  context_guard& operator=(const context_guard&) = delete;
};

template <class... Arguments>
context_guard(Arguments&&...)
    -> context_guard<decltype(detail::entry_for(std::declval<Arguments>()))...>;

//===-- Where memory comes from -------------------------------------------===//

// The context's innermost allocator of a device type, the one on exactly a device, or an allocator.
class place {
 public:
  place(tm_device_type type) noexcept : device_(tm_device_any_(type)) {}
  place(tm_device exactly) noexcept : device_(exactly) {}
  place(tm_allocator* from) noexcept : device_(tm_device_none_()), allocator_(from) {}
  place(allocator_ref from) noexcept : place(from.get()) {}
  place(const allocator& from) noexcept : place(from.get()) {}

  // As tm_empty_ takes them.
  tm_device device() const noexcept { return device_; }
  tm_allocator* from() const noexcept { return allocator_; }

 private:
  tm_device device_;
  tm_allocator* allocator_ = nullptr;
};

namespace detail {

// For constructors whose handle comes from a function: it is built in place.
struct making {};

// Raises where a handle is neither null nor of `wanted`. False then.
inline bool has_dtype(uint8_t dtype, tm_dtype wanted, const char* what) {
  if (TM_LIKELY(dtype == wanted || dtype == TM_DTYPE_NULL)) {
    return true;
  }
  (void)TM_RAISE(TM_ERR_INVALID, "a %s of %s is not one of %s", what,
                 tm_dtype_name(static_cast<tm_dtype>(dtype)), tm_dtype_name(wanted));
  return false;
}

// The dtype that stands for elements of T.
template <class T>
struct element {
  static_assert(!std::is_const<T>::value && !std::is_volatile<T>::value,
                "elements are not const: point to them as const where they are only read");
  static_assert(dtype_of<T>::value != TM_DTYPE_NULL,
                "no tm_dtype stands for this type: specialize tmcore::dtype_of for it");
  static constexpr tm_dtype dtype = dtype_of<T>::value;
};

}  // namespace detail

//===-- Buffers -----------------------------------------------------------===//

template <class T>
class buffer_;

// A run of elements of one type, without a shape: tm/tensor/buffer.h.
//
// It owns one reference to shared memory. Copying shares, as TurboMind's Buffer does: both are the
// same memory, for an atomic increment and later an atomic decrement. Moving is free. A sole
// owner's destructor is a load and a compare before the free. borrow() costs no count at all.
class buffer {
 public:
  buffer() noexcept : c_(tm_buffer_null()) {}
  buffer(const buffer& other) noexcept : c_(tm_buffer_share(&other.c_)) {}
  buffer(buffer&& other) noexcept : c_(tm_buffer_move(&other.c_)) {}
  buffer& operator=(const buffer& other) noexcept {
    if (this != &other) {
      tm_buffer_assign(&c_, tm_buffer_share(&other.c_));
    }
    return *this;
  }
  buffer& operator=(buffer&& other) noexcept {
    tm_buffer_assign(&c_, tm_buffer_move(&other.c_));
    return *this;
  }
  ~buffer() {
    if (!(c_.flags & TM_BORROWED_)) {
      tm_storage_release(c_.storage);
    }
  }

  // `size` elements, of undefined contents.
  buffer(int64_t size, tm_dtype dtype, place where, on_failure then = {})
      : c_(tm_buffer_empty_(size, dtype, where.device(), where.from())) {
    detail::expect(tm_buffer_ok(&c_), then, "the buffer");
  }

  // Memory that stays its owner's.
  buffer(void* data, int64_t size, tm_dtype dtype, tm_device device, on_failure then = {})
      : c_(tm_buffer_from_borrowed(data, size, dtype, device)) {
    detail::expect(tm_buffer_ok(&c_), then, "the buffer");
  }

  // Takes memory over: see tm_buffer_adopt.
  [[nodiscard]] static buffer adopt_memory(void* data, size_t bytes, int64_t size, tm_dtype dtype,
                                           tm_device device, tm_deleter deleter, void* user,
                                           on_failure then = {}) {
    return buffer(detail::making{}, then,
                  [&] { return tm_buffer_adopt(data, bytes, size, dtype, device, deleter, user); });
  }

  // Takes a C handle's reference over: buffer::adopt(tm_buffer_move(&b)). Null stays null.
  [[nodiscard]] static buffer adopt(tm_buffer owned) noexcept {
    buffer adopted;
    adopted.c_ = owned;
    return adopted;
  }
  // A second reference to what a C handle holds.
  [[nodiscard]] static buffer share(const tm_buffer* other) noexcept {
    return adopt(tm_buffer_share(other));
  }

  const tm_buffer* get() const noexcept TMCORE_LENDS_ { return &c_; }
  explicit operator bool() const noexcept { return tm_buffer_ok(&c_); }
  // Gives the reference away: the caller releases it, and this is null.
  [[nodiscard]] tm_buffer release() noexcept { return tm_buffer_move(&c_); }

  // The same memory without a reference: valid while this is. Copying it makes one.
  [[nodiscard]] buffer borrow() const noexcept TMCORE_LENDS_ {
    return adopt(tm_buffer_borrow(&c_));
  }

  int64_t size() const noexcept { return c_.size; }
  bool empty() const noexcept { return c_.size == 0; }
  size_t byte_size() const noexcept { return tm_buffer_byte_size(&c_); }
  tm_dtype dtype() const noexcept { return static_cast<tm_dtype>(c_.dtype); }
  tm_device device() const noexcept { return c_.device; }
  bool is_dry() const noexcept { return tm_buffer_is_dry(&c_); }

  // Element 0, as it is, or checked to be a T; NULL where there is none.
  void* data() const noexcept { return c_.data; }
  template <class T>
  T* data(on_failure then = {}) const {
    detail::expect(c_.dtype == dtype_of<T>::value || tm_buffer_data_as(&c_, dtype_of<T>::value),
                   then, "the buffer");
    return c_.dtype == dtype_of<T>::value ? static_cast<T*>(c_.data) : nullptr;
  }

  // `size` elements from `base` on; a size of -1 is the rest. The second form consumes, and counts
  // nothing.
  [[nodiscard]] buffer slice(int64_t base, int64_t size = -1, on_failure then = {}) const& {
    return buffer(detail::making{}, then, [&] { return tm_buffer_slice(&c_, base, size); });
  }
  [[nodiscard]] buffer slice(int64_t base, int64_t size = -1, on_failure then = {}) && {
    return buffer(detail::making{}, then,
                  [&] { return tm_buffer_slice_move(release(), base, size); });
  }

  // The same bytes as elements of another type.
  [[nodiscard]] buffer as(tm_dtype dtype, on_failure then = {}) const& {
    return buffer(detail::making{}, then, [&] { return tm_buffer_as(&c_, dtype); });
  }
  [[nodiscard]] buffer as(tm_dtype dtype, on_failure then = {}) && {
    return buffer(detail::making{}, then, [&] { return tm_buffer_as_move(release(), dtype); });
  }

  // Element 0, checked to be a T, or `other` where there is none.
  template <class T>
  T* data_or(T* other, on_failure then = {}) const {
    return c_.data ? data<T>(then) : other;
  }
  // Element `index`, whatever its type; the end where that is the size.
  void* data_at(int64_t index, on_failure then = {}) const {
    void* element = tm_buffer_data_at(&c_, index);
    detail::expect(element || (tm_buffer_ok(&c_) && index == 0), then, "the buffer");
    return element;
  }

  // Whether both are the same elements of the same memory, whatever it holds.
  friend bool operator==(const buffer& a, const buffer& b) noexcept {
    return tm_buffer_equal(&a.c_, &b.c_);
  }
  friend bool operator!=(const buffer& a, const buffer& b) noexcept { return !(a == b); }

  // From here on the memory is also used on `stream`.
  void record_stream(stream_ref stream) const { check(tm_buffer_record_stream(&c_, stream.get())); }
  [[nodiscard]] tm_status record_stream(stream_ref stream, std::nothrow_t /*nothrow*/) const {
    return tm_buffer_record_stream(&c_, stream.get());
  }

  template <class Make>
  buffer(detail::making /*private*/, on_failure then, Make&& make) : c_(make()) {
    detail::expect(tm_buffer_ok(&c_), then, "the buffer");
  }

 private:
  tm_buffer c_;
};

// A buffer whose elements are T. It is a buffer; a buffer converts to it, checked.
template <class T>
class buffer_ : public buffer {
 public:
  using value_type = T;

  buffer_() noexcept = default;
  buffer_(int64_t size, place where, on_failure then = {})
      : buffer(size, detail::element<T>::dtype, where, then) {}
  buffer_(T* data, int64_t size, tm_device device, on_failure then = {})
      : buffer(data, size, detail::element<T>::dtype, device, then) {}

  // Null stays null. TM_ERR_INVALID where the elements are others; then, with std::nothrow, null.
  buffer_(buffer other, on_failure then = {}) {
    const bool same = detail::has_dtype(other.get()->dtype, detail::element<T>::dtype, "buffer");
    detail::expect(same, then, "the buffer");
    if (same) {
      static_cast<buffer&>(*this) = std::move(other);
    }
  }

  // Element 0; NULL where there is none. Fails only where another type was assigned to this object
  // as a buffer&.
  T* data() const { return *this ? buffer::data<T>() : nullptr; }

  // For host memory. An index is not checked.
  T& operator[](int64_t index) const noexcept { return static_cast<T*>(buffer::data())[index]; }
  T* begin() const { return data(); }
  T* end() const { return data() + size(); }

  [[nodiscard]] buffer_ slice(int64_t base, int64_t size = -1, on_failure then = {}) const& {
    return buffer_(buffer::slice(base, size, then), then);
  }
  [[nodiscard]] buffer_ slice(int64_t base, int64_t size = -1, on_failure then = {}) && {
    return buffer_(static_cast<buffer&&>(*this).slice(base, size, then), then);
  }
};

//===-- Tensors -----------------------------------------------------------===//

namespace detail {

// New tensors on the same memory: see tm/tensor/tensor.h. Each comes twice: of a tensor that stays,
// whose memory is shared, and of one that goes (a temporary, or std::move), whose reference is
// passed on without counting and is consumed also where the view fails.
template <class Self>
class tensor_views {
 public:
  // Another shape; one size may be -1.
  [[nodiscard]] Self view(const dims& shape, on_failure then = {}) const& {
    return share(then, [&](auto t, int take) { return tm_view_(t, shape.get(), take); });
  }
  [[nodiscard]] Self view(const dims& shape, on_failure then = {}) && {
    return take(then, [&](auto t, int take) { return tm_view_(t, shape.get(), take); });
  }

  // The part that starts at `base`, of `size` elements per dimension; a size of -1 is the rest.
  [[nodiscard]] Self slice(const dims& base, const dims& size, on_failure then = {}) const& {
    return share(then,
                 [&](auto t, int take) { return tm_slice_(t, base.get(), size.get(), take); });
  }
  [[nodiscard]] Self slice(const dims& base, const dims& size, on_failure then = {}) && {
    return take(then, [&](auto t, int take) { return tm_slice_(t, base.get(), size.get(), take); });
  }

  // The same for the outermost dimension, all of the others.
  [[nodiscard]] Self slice(int64_t base, int64_t size = -1, on_failure then = {}) const& {
    return share(then, [&](auto t, int take) { return tm_slice_outer_(t, base, size, take); });
  }
  [[nodiscard]] Self slice(int64_t base, int64_t size = -1, on_failure then = {}) && {
    return take(then, [&](auto t, int take) { return tm_slice_outer_(t, base, size, take); });
  }

  // Dimension i of the result is dimension order[i].
  [[nodiscard]] Self permute(const dims& order, on_failure then = {}) const& {
    return share(then, [&](auto t, int take) { return tm_permute_(t, order.get(), take); });
  }
  [[nodiscard]] Self permute(const dims& order, on_failure then = {}) && {
    return take(then, [&](auto t, int take) { return tm_permute_(t, order.get(), take); });
  }

  // Exchanges two dimensions.
  [[nodiscard]] Self transpose(int32_t a, int32_t b, on_failure then = {}) const& {
    return share(then, [&](auto t, int take) { return tm_transpose_(t, a, b, take); });
  }
  [[nodiscard]] Self transpose(int32_t a, int32_t b, on_failure then = {}) && {
    return take(then, [&](auto t, int take) { return tm_transpose_(t, a, b, take); });
  }

  // Exchanges the two dimensions of a matrix.
  [[nodiscard]] Self t(on_failure then = {}) const& {
    return share(then, [](auto t, int take) { return tm_t_(t, take); });
  }
  [[nodiscard]] Self t(on_failure then = {}) && {
    return take(then, [](auto t, int take) { return tm_t_(t, take); });
  }

  // Drops, inserts a dimension of size 1.
  [[nodiscard]] Self squeeze(int32_t dim, on_failure then = {}) const& {
    return share(then, [&](auto t, int take) { return tm_squeeze_(t, dim, take); });
  }
  [[nodiscard]] Self squeeze(int32_t dim, on_failure then = {}) && {
    return take(then, [&](auto t, int take) { return tm_squeeze_(t, dim, take); });
  }
  [[nodiscard]] Self unsqueeze(int32_t dim, on_failure then = {}) const& {
    return share(then, [&](auto t, int take) { return tm_unsqueeze_(t, dim, take); });
  }
  [[nodiscard]] Self unsqueeze(int32_t dim, on_failure then = {}) && {
    return take(then, [&](auto t, int take) { return tm_unsqueeze_(t, dim, take); });
  }

 private:
  template <class View>
  Self share(on_failure then, View view) const {
    return Self(making{}, then,
                [&] { return view(static_cast<const Self*>(this)->get(), TM_TAKE_SHARE_); });
  }
  template <class View>
  Self take(on_failure then, View view) {
    return Self(making{}, then, [&] {
      const tm_tensor taken = static_cast<Self*>(this)->release();
      return view(&taken, TM_TAKE_MOVE_);
    });
  }
};

}  // namespace detail

// Memory with an element type and a layout: tm/tensor/tensor.h.
//
// It owns one reference to shared memory. Copying shares, as TurboMind's Tensor does: both are the
// same memory, for an atomic increment and later an atomic decrement. Moving is free of them. A
// sole owner's destructor is a load and a compare before the free. borrow() costs no count at all.
class tensor : public detail::tensor_views<tensor> {
 public:
  tensor() noexcept : c_(tm_null()) {}
  tensor(const tensor& other) noexcept : c_(tm_share(&other.c_)) {}
  tensor(tensor&& other) noexcept : c_(tm_move(&other.c_)) {}
  tensor& operator=(const tensor& other) noexcept {
    if (this != &other) {
      tm_assign(&c_, tm_share(&other.c_));
    }
    return *this;
  }
  tensor& operator=(tensor&& other) noexcept {
    tm_assign(&c_, tm_move(&other.c_));
    return *this;
  }
  ~tensor() {
    if (!(c_.flags & TM_BORROWED_)) {
      tm_storage_release(c_.storage);
    }
  }

  // A contiguous tensor, of undefined contents.
  __attribute__((always_inline))
  tensor(const dims& shape, tm_dtype dtype, place where, on_failure then = {})
      : c_(tm_empty_by_rank_(*shape.get(), dtype, where.device(), where.from())) {
    detail::expect(tm_ok(&c_), then, "the tensor");
  }

  // Contiguous memory that stays its owner's.
  tensor(void* data, const dims& shape, tm_dtype dtype, tm_device device, on_failure then = {})
      : c_(tm_from_borrowed_(data, shape.get(), dtype, device)) {
    detail::expect(tm_ok(&c_), then, "the tensor");
  }

  // A buffer's memory under a layout.
  tensor(const buffer& memory, const tm_layout& layout, on_failure then = {})
      : c_(tm_from_buffer(memory.get(), &layout)) {
    detail::expect(tm_ok(&c_), then, "the tensor");
  }

  // A tensor with a layout, with memory for all that it reaches.
  [[nodiscard]] static tensor strided(const tm_layout& layout, tm_dtype dtype, place where,
                                      on_failure then = {}) {
    return tensor(detail::making{}, then, [&] {
      return where.from() ? tm_empty_strided_from(where.from(), &layout, dtype)
                          : tm_empty_strided_on(&layout, dtype, where.device());
    });
  }

  // All of a buffer, as one dimension.
  [[nodiscard]] static tensor of(const buffer& memory, on_failure then = {}) {
    return tensor(detail::making{}, then, [&] { return tm_from_whole_buffer(memory.get()); });
  }

  // Takes memory over: see tm_adopt.
  [[nodiscard]] static tensor adopt_memory(void* data, size_t bytes, const dims& shape,
                                           tm_dtype dtype, tm_device device, tm_deleter deleter,
                                           void* user, on_failure then = {}) {
    return tensor(detail::making{}, then, [&] {
      return tm_adopt_(data, bytes, shape.get(), dtype, device, deleter, user);
    });
  }

  // Takes a C handle's reference over: tensor::adopt(tm_move(&t)). Null stays null.
  [[nodiscard]] static tensor adopt(tm_tensor owned) noexcept {
    return tensor(detail::making{}, [&] { return tm_move(&owned); });
  }
  // A second reference to what a C handle holds.
  [[nodiscard]] static tensor share(const tm_tensor* other) noexcept {
    return tensor(detail::making{}, [&] { return tm_share(other); });
  }

  const tm_tensor* get() const noexcept TMCORE_LENDS_ { return &c_; }
  explicit operator bool() const noexcept { return tm_ok(&c_); }
  // Gives the reference away: the caller releases it, and this is null.
  [[nodiscard]] tm_tensor release() noexcept { return tm_move(&c_); }

  // The same memory without a reference: valid while this is. Copying it makes one.
  [[nodiscard]] tensor borrow() const noexcept TMCORE_LENDS_ {
    return tensor(detail::making{}, [&] { return tm_borrow(&c_); });
  }

  int32_t rank() const noexcept { return tm_rank(&c_); }
  int64_t size() const noexcept { return tm_size(&c_); }  // elements
  size_t byte_size() const noexcept { return tm_byte_size(&c_); }
  tm_dtype dtype() const noexcept { return tm_dtype_of(&c_); }
  tm_device device() const noexcept { return c_.device; }
  dims shape() const noexcept { return tm_shape_of(&c_); }
  const tm_layout& layout() const noexcept TMCORE_LENDS_ { return c_.layout; }
  bool is_contiguous() const noexcept { return tm_is_contiguous(&c_); }
  bool is_dry() const noexcept { return tm_is_dry(&c_); }

  // A size, or a stride in elements; `dim` counts from the end where it is negative. With
  // std::nothrow -1 on failure.
  int64_t shape(int32_t dim, on_failure then = {}) const {
    const int64_t size = tm_dim(&c_, dim);
    detail::expect(size >= 0, then, "the tensor");
    return size;
  }
  int64_t stride(int32_t dim, on_failure then = {}) const {
    const int64_t stride = tm_stride(&c_, dim);
    detail::expect(stride >= 0, then, "the tensor");
    return stride;
  }

  // Element 0, as it is, or checked to be a T; NULL where there is none.
  void* data() const noexcept { return c_.data; }
  template <class T>
  T* data(on_failure then = {}) const {
    detail::expect(c_.dtype == dtype_of<T>::value || tm_data_as(&c_, dtype_of<T>::value), then,
                   "the tensor");
    return c_.dtype == dtype_of<T>::value ? static_cast<T*>(c_.data) : nullptr;
  }

  // What a kernel takes, with type and rank checked, and that 32-bit offsets (an Index of int32_t)
  // fit. With std::nothrow it has no data on failure.
  template <class T, int Rank, class Index = int64_t>
  [[nodiscard]] accessor<T, Rank, Index> access(on_failure then = {}) const {
    accessor<T, Rank, Index> result;
    const tm_status status = make_accessor(&c_, &result);
    detail::expect_ok(status, then);
    return result;
  }

  // The memory the tensor reaches, from its first element to its last.
  [[nodiscard]] buffer memory(on_failure then = {}) const {
    return buffer(detail::making{}, then, [&] { return tm_buffer_of(&c_); });
  }

  // The same to the end of the storage: what the tensor can grow into.
  [[nodiscard]] buffer capacity(on_failure then = {}) const {
    return buffer(detail::making{}, then, [&] { return tm_buffer_of_capacity(&c_); });
  }

  // From here on the memory is also used on `stream`.
  void record_stream(stream_ref stream) const { check(tm_record_stream(&c_, stream.get())); }
  [[nodiscard]] tm_status record_stream(stream_ref stream, std::nothrow_t /*nothrow*/) const {
    return tm_record_stream(&c_, stream.get());
  }

  template <class Make>
  tensor(detail::making /*private*/, on_failure then, Make&& make) : c_(make()) {
    detail::expect(tm_ok(&c_), then, "the tensor");
  }

 private:
  template <class Make>
  tensor(detail::making /*unchecked*/, Make make) noexcept : c_(make()) {}

  tm_tensor c_;
};

// A tensor whose elements are T. It is a tensor; a tensor converts to it, checked.
template <class T>
class tensor_ : public tensor, public detail::tensor_views<tensor_<T>> {
  using typed = detail::tensor_views<tensor_>;

 public:
  using value_type = T;

  tensor_() noexcept = default;
  tensor_(const dims& shape, place where, on_failure then = {})
      : tensor(shape, detail::element<T>::dtype, where, then) {}
  tensor_(T* data, const dims& shape, tm_device device, on_failure then = {})
      : tensor(data, shape, detail::element<T>::dtype, device, then) {}

  // Null stays null. TM_ERR_INVALID where the elements are others; then, with std::nothrow, null.
  tensor_(tensor other, on_failure then = {}) {
    const bool same = detail::has_dtype(other.get()->dtype, detail::element<T>::dtype, "tensor");
    detail::expect(same, then, "the tensor");
    if (same) {
      static_cast<tensor&>(*this) = std::move(other);
    }
  }

  // Element 0; NULL where there is none. Fails only where another type was assigned to this object
  // as a tensor&.
  T* data() const { return *this ? tensor::data<T>() : nullptr; }
  template <int Rank, class Index = int64_t>
  [[nodiscard]] accessor<T, Rank, Index> access(on_failure then = {}) const {
    return tensor::access<T, Rank, Index>(then);
  }

  // Views of a typed tensor are typed.
  using typed::permute;
  using typed::slice;
  using typed::squeeze;
  using typed::t;
  using typed::transpose;
  using typed::unsqueeze;
  using typed::view;

  template <class Make>
  tensor_(detail::making /*private*/, on_failure then, Make&& make)
      : tensor(detail::making{}, then, std::forward<Make>(make)) {}
};

// A contiguous tensor of the same shape, from the context: on the same device; on another device
// type; of another dtype.
[[nodiscard]] inline tensor empty_like(const tensor& like, on_failure then = {}) {
  return tensor(detail::making{}, then, [&] { return tm_empty_like(like.get()); });
}
[[nodiscard]] inline tensor empty_like(const tensor& like, tm_device_type type,
                                       on_failure then = {}) {
  return tensor(detail::making{}, then, [&] { return tm_empty_like_on(like.get(), type); });
}
[[nodiscard]] inline tensor empty_like(const tensor& like, tm_dtype dtype, on_failure then = {}) {
  return tensor(detail::making{}, then, [&] { return tm_empty_like_as(like.get(), dtype); });
}

[[nodiscard]] inline buffer empty_like(const buffer& like, on_failure then = {}) {
  return buffer(detail::making{}, then, [&] { return tm_buffer_empty_like(like.get()); });
}
[[nodiscard]] inline buffer empty_like(const buffer& like, tm_device_type type,
                                       on_failure then = {}) {
  return buffer(detail::making{}, then, [&] { return tm_buffer_empty_like_on(like.get(), type); });
}
[[nodiscard]] inline buffer empty_like(const buffer& like, tm_dtype dtype, on_failure then = {}) {
  return buffer(detail::making{}, then, [&] { return tm_buffer_empty_like_as(like.get(), dtype); });
}
[[nodiscard]] inline buffer empty_like(const buffer& like, tm_dtype dtype, tm_device_type type,
                                       on_failure then = {}) {
  return buffer(detail::making{}, then,
                [&] { return tm_buffer_empty_like_as_on(like.get(), dtype, type); });
}

// "f16 device:0 (20,50):(50,1)" and "i32[4]@0x7f0c5a000000+12", as C prints them; "null".
inline std::string to_string(const tensor& t) {
  char text[TM_TENSOR_TEXT_SIZE];
  tm_tensor_text(t.get(), text, sizeof text);
  return text;
}
inline std::string to_string(const buffer& b) {
  char text[TM_BUFFER_TEXT_SIZE];
  tm_buffer_text(b.get(), text, sizeof text);
  return text;
}

// A tensor's values for people: see tm/tensor/print.h.
inline void print(const tensor& t, FILE* file = stdout) { check(tm_print(t.get(), file)); }
[[nodiscard]] inline tm_status print(const tensor& t, FILE* file, std::nothrow_t /*nothrow*/) {
  return tm_print(t.get(), file);
}

//===-- Tensors by name ---------------------------------------------------===//

namespace detail {

// A handle that one object owns: it moves, and is not copied.
template <class C, void (*Release)(C*)>
class sole {
 public:
  constexpr sole() noexcept = default;
  sole(sole&& other) noexcept : c_(other.release()) {}
  sole& operator=(sole&& other) noexcept {
    if (this != &other) {
      Release(c_);
      c_ = other.release();
    }
    return *this;
  }
  sole(const sole&) = delete;
  sole& operator=(const sole&) = delete;
  ~sole() { Release(c_); }

  C* get() const noexcept TMCORE_LENDS_ { return c_; }
  explicit operator bool() const noexcept { return c_ != nullptr; }
  // Gives the handle away: the caller releases it, and this is null.
  [[nodiscard]] C* release() noexcept { return std::exchange(c_, nullptr); }

 protected:
  explicit sole(C* owned) noexcept : c_(owned) {}

 private:
  C* c_ = nullptr;
};

// What range-for needs of a map: entries, in the order in which they were put in.
class map_iterator {
 public:
  explicit map_iterator(const tm_tensor_map_entry* at) noexcept : at_(at) {}
  const tm_tensor_map_entry& operator*() const noexcept { return *at_; }
  const tm_tensor_map_entry* operator->() const noexcept { return at_; }
  map_iterator& operator++() noexcept {
    at_ = tm_tensor_map_next(at_);
    return *this;
  }
  friend bool operator==(map_iterator a, map_iterator b) noexcept { return a.at_ == b.at_; }
  friend bool operator!=(map_iterator a, map_iterator b) noexcept { return a.at_ != b.at_; }

 private:
  const tm_tensor_map_entry* at_;
};

class map_range {
 public:
  explicit map_range(const tm_tensor_map_entry* first) noexcept : first_(first) {}
  map_iterator begin() const noexcept { return map_iterator(first_); }
  static map_iterator end() noexcept { return map_iterator(nullptr); }

 private:
  const tm_tensor_map_entry* first_;
};

}  // namespace detail

// Tensors by name, in the order in which they were put in: tm/tensor/map.h.
//
//   tensor_map env = tensor_map::create();
//   env.produce("logits", std::move(logits));
//   for (const tm_tensor_map_entry& entry : env) { ... entry.key, entry.tensor ... }
//   tensor logits = env.consume("logits");
//
// An object owns its map: it moves, and is not copied. A null one is empty.
class tensor_map : public detail::sole<tm_tensor_map, tm_tensor_map_release> {
 public:
  constexpr tensor_map() noexcept = default;

  [[nodiscard]] static tensor_map create(on_failure then = {}) {
    return made(tm_tensor_map_create(), then);
  }
  // Takes a C handle over. Null stays null.
  [[nodiscard]] static tensor_map adopt(tm_tensor_map* owned) noexcept { return tensor_map(owned); }

  int64_t size() const noexcept { return tm_tensor_map_size(get()); }
  bool contains(const char* key) const noexcept { return tm_tensor_map_contains(get(), key); }
  detail::map_iterator begin() const noexcept {
    return detail::map_iterator(tm_tensor_map_first(get()));
  }
  static detail::map_iterator end() noexcept { return detail::map_iterator(nullptr); }

  // A second reference to the tensor of that name. TM_ERR_NOT_FOUND, with the keys that are there.
  [[nodiscard]] tensor at(const char* key, on_failure then = {}) const {
    return tensor(detail::making{}, then, [&] { return tm_share(tm_tensor_map_at(get(), key)); });
  }
  // The same; null without raising where there is none.
  [[nodiscard]] tensor find(const char* key) const noexcept {
    const tm_tensor* found = tm_tensor_map_try(get(), key);
    return found ? tensor::share(found) : tensor();
  }

  // Puts a tensor in under a new key: TM_ERR_EXISTS where it is there. On failure a tensor that was
  // to be moved in stays where it is.
  void produce(const char* key, tensor&& value) const {
    check(produce(key, std::move(value), std::nothrow));
  }
  [[nodiscard]] tm_status produce(const char* key, tensor&& value,
                                  std::nothrow_t /*nothrow*/) const noexcept {
    tm_tensor c = value.release();
    const tm_status status = tm_tensor_map_produce(get(), key, &c);
    value = tensor::adopt(tm_move(&c));
    return status;
  }
  void produce(const char* key, const tensor& value) const { produce(key, tensor(value)); }
  [[nodiscard]] tm_status produce(const char* key, const tensor& value,
                                  std::nothrow_t nothrow) const noexcept {
    return produce(key, tensor(value), nothrow);
  }

  // Takes the tensor of that name out. One without elements is TM_ERR_INVALID, and still there.
  [[nodiscard]] tensor consume(const char* key, on_failure then = {}) const {
    return tensor(detail::making{}, then, [&] { return tm_tensor_map_consume(get(), key); });
  }
  // The same for any tensor; null without raising where there is none.
  [[nodiscard]] tensor try_consume(const char* key) const noexcept {
    return tensor::adopt(tm_tensor_map_try_consume(get(), key));
  }

  // Texts by name, beside the tensors; NULL where there is none of that name.
  void add_metadata(const char* key, const char* text) const {
    check(tm_tensor_map_add_metadata(get(), key, text));
  }
  [[nodiscard]] tm_status add_metadata(const char* key, const char* text,
                                       std::nothrow_t /*nothrow*/) const noexcept {
    return tm_tensor_map_add_metadata(get(), key, text);
  }
  const char* metadata(const char* key) const noexcept {
    return tm_tensor_map_metadata(get(), key);
  }
  detail::map_range metadata() const noexcept {
    return detail::map_range(tm_tensor_map_first_metadata(get()));
  }

 private:
  friend class archive_reader;
  friend class safetensors;
  explicit tensor_map(tm_tensor_map* owned) noexcept : sole(owned) {}
  static tensor_map made(tm_tensor_map* owned, on_failure then) {
    tensor_map result(owned);
    detail::expect(static_cast<bool>(result), then, "the map");
    return result;
  }
};

//===-- Files -------------------------------------------------------------===//

namespace detail {

// The allocator of a place that is more than a device type; null for what is one, or where there is
// none, which is on record.
inline tm_allocator* exact_allocator(const place& where) {
  return where.from() ? where.from() : tm_require_allocator(where.device());
}
inline bool is_any(const place& where) { return !where.from() && where.device().id < 0; }

}  // namespace detail

// Layouts, buffers, tensors and maps as bytes: tm/tensor/archive.h.
class archive : public detail::sole<tm_archive, tm_archive_release> {
 public:
  constexpr archive() noexcept = default;

  [[nodiscard]] static archive create(on_failure then = {}) {
    archive made(tm_archive_create());
    detail::expect(static_cast<bool>(made), then, "the archive");
    return made;
  }
  // Takes a C handle over. Null stays null.
  [[nodiscard]] static archive adopt(tm_archive* owned) noexcept { return archive(owned); }

  // Puts a copy behind what is there. On failure the archive is unchanged.
  template <class Thing>
  void put(const Thing& thing) const {
    check(put(thing, std::nothrow));
  }
  [[nodiscard]] tm_status put(const tm_layout& what, std::nothrow_t /*nothrow*/) const {
    return tm_archive_put_layout(get(), &what);
  }
  [[nodiscard]] tm_status put(const buffer& what, std::nothrow_t /*nothrow*/) const {
    return tm_archive_put_buffer(get(), what.get());
  }
  [[nodiscard]] tm_status put(const tensor& what, std::nothrow_t /*nothrow*/) const {
    return tm_archive_put_tensor(get(), what.get());
  }
  [[nodiscard]] tm_status put(const tensor_map& what, std::nothrow_t /*nothrow*/) const {
    return tm_archive_put_map(get(), what.get());
  }

  // The bytes, valid until something is put in.
  const void* data() const noexcept TMCORE_LENDS_ { return tm_archive_data(get()); }
  size_t size() const noexcept { return tm_archive_size(get()); }

 private:
  explicit archive(tm_archive* owned) noexcept : sole(owned) {}
};

// Reads somebody's bytes, thing by thing, in the order in which they were put in. The bytes, and
// the allocator, outlive it. A thing that fails to be read is still the next one.
class archive_reader {
 public:
  archive_reader(const void* data, size_t size, place where, on_failure then = {}) {
    const tm_status status = open(data, size, where);
    detail::expect_ok(status, then);
  }

  bool at_end() const noexcept { return tm_archive_at_end(&c_); }
  tm_archive_reader* get() noexcept TMCORE_LENDS_ { return &c_; }

  [[nodiscard]] tmcore::layout layout(on_failure then = {}) {
    tm_layout read;
    const tm_status status = tm_archive_get_layout(&c_, &read);
    detail::expect_ok(status, then);
    return read;
  }
  [[nodiscard]] tmcore::buffer buffer(on_failure then = {}) {
    return tmcore::buffer(detail::making{}, then, [&] { return tm_archive_get_buffer(&c_); });
  }
  [[nodiscard]] tmcore::tensor tensor(on_failure then = {}) {
    return tmcore::tensor(detail::making{}, then, [&] { return tm_archive_get_tensor(&c_); });
  }
  [[nodiscard]] tensor_map map(on_failure then = {}) {
    return tensor_map::made(tm_archive_get_map(&c_), then);
  }

 private:
  tm_status open(const void* data, size_t size, const place& where) {
    if (detail::is_any(where)) {
      return tm_archive_open(data, size, static_cast<tm_device_type>(where.device().type), &c_);
    }
    tm_allocator* from = detail::exact_allocator(where);
    c_.left = 0;
    return from ? tm_archive_open_from(from, data, size, &c_) : tm_last_status();
  }

  tm_archive_reader c_{};
};

// Maps in safetensors files: tm/tensor/safetensors.h.
class safetensors {
 public:
  [[nodiscard]] static tensor_map load(const char* path, place where, on_failure then = {}) {
    if (detail::is_any(where)) {
      const auto type = static_cast<tm_device_type>(where.device().type);
      return tensor_map::made(tm_safetensors_load(path, type), then);
    }
    tm_allocator* from = detail::exact_allocator(where);
    return tensor_map::made(from ? tm_safetensors_load_from(from, path) : nullptr, then);
  }
  // A file that is in memory.
  [[nodiscard]] static tensor_map decode(const void* data, size_t size, place where,
                                         on_failure then = {}) {
    if (detail::is_any(where)) {
      const auto type = static_cast<tm_device_type>(where.device().type);
      return tensor_map::made(tm_safetensors_decode(data, size, type), then);
    }
    tm_allocator* from = detail::exact_allocator(where);
    return tensor_map::made(from ? tm_safetensors_decode_from(from, data, size) : nullptr, then);
  }

  static void save(const tensor_map& map, const char* path) {
    check(tm_safetensors_save(map.get(), path));
  }
  [[nodiscard]] static tm_status save(const tensor_map& map, const char* path,
                                      std::nothrow_t /*nothrow*/) {
    return tm_safetensors_save(map.get(), path);
  }
  // Into host memory of the context: bytes.
  [[nodiscard]] static buffer encode(const tensor_map& map, on_failure then = {}) {
    return buffer(detail::making{}, then, [&] { return tm_safetensors_encode(map.get()); });
  }
};

//===-- DLPack ------------------------------------------------------------===//

// The tensor for NumPy, PyTorch and others, without a copy: tm/tensor/dlpack.h. The caller passes
// the result to one consumer, or to tm_dlpack_delete. NULL on failure, with std::nothrow.
[[nodiscard]] inline DLManagedTensorVersioned* to_dlpack(const tensor& t, uint64_t flags = 0,
                                                         on_failure then = {}) {
  DLManagedTensorVersioned* managed = tm_to_dlpack(t.get(), flags);
  detail::expect(managed != nullptr, then, "the tensor");
  return managed;
}
[[nodiscard]] inline DLManagedTensor* to_dlpack_legacy(const tensor& t, on_failure then = {}) {
  DLManagedTensor* managed = tm_to_dlpack_legacy(t.get());
  detail::expect(managed != nullptr, then, "the tensor");
  return managed;
}

// A tensor on a producer's memory, whose deleter its last reference calls. On failure `managed`
// stays the caller's. Where `read_only` is NULL, what must not be written is refused.
[[nodiscard]] inline tensor from_dlpack(DLManagedTensorVersioned* managed,
                                        bool* read_only = nullptr, on_failure then = {}) {
  return tensor(detail::making{}, then, [&] { return tm_from_dlpack(managed, read_only); });
}
[[nodiscard]] inline tensor from_dlpack(DLManagedTensor* managed, on_failure then = {}) {
  return tensor(detail::making{}, then, [&] { return tm_from_dlpack_legacy(managed); });
}

//===-- Copies ------------------------------------------------------------===//

// From `source` to `destination`, of one shape or size and one dtype; setting every byte. On the
// context's stream where a device is involved. See tm/tensor/copy.h.
inline void copy(const tensor& source, const tensor& destination) {
  check(tm_copy(source.get(), destination.get()));
}
[[nodiscard]] inline tm_status copy(const tensor& source, const tensor& destination,
                                    std::nothrow_t /*nothrow*/) {
  return tm_copy(source.get(), destination.get());
}
inline void copy(const buffer& source, const buffer& destination) {
  check(tm_buffer_copy(source.get(), destination.get()));
}
[[nodiscard]] inline tm_status copy(const buffer& source, const buffer& destination,
                                    std::nothrow_t /*nothrow*/) {
  return tm_buffer_copy(source.get(), destination.get());
}

inline void copy(const buffer& source, int64_t count, const buffer& destination) {
  check(tm_buffer_copy_n(source.get(), count, destination.get()));
}
[[nodiscard]] inline tm_status copy(const buffer& source, int64_t count, const buffer& destination,
                                    std::nothrow_t /*nothrow*/) {
  return tm_buffer_copy_n(source.get(), count, destination.get());
}

// Between pointers, wherever they lie; returns the end of the copy. With std::nothrow NULL on
// failure. See TM_COPY_N.
template <class T>
T* copy(const T* source, int64_t count, T* destination, on_failure then = {}) {
  static_assert(std::is_trivially_copyable<T>::value, "copied as bytes");
  T* end = static_cast<T*>(tm_copy_n_(source, count, sizeof(T), destination));
  detail::expect(end || count == 0, then, "the pointer");
  return end;
}

inline void clear(const tensor& destination) { check(tm_clear(destination.get())); }
[[nodiscard]] inline tm_status clear(const tensor& destination, std::nothrow_t /*nothrow*/) {
  return tm_clear(destination.get());
}
inline void clear(const buffer& destination) { check(tm_buffer_clear(destination.get())); }
[[nodiscard]] inline tm_status clear(const buffer& destination, std::nothrow_t /*nothrow*/) {
  return tm_buffer_clear(destination.get());
}

inline void fill_bytes(const buffer& destination, uint8_t value) {
  check(tm_buffer_fill_bytes(destination.get(), value));
}
[[nodiscard]] inline tm_status fill_bytes(const buffer& destination, uint8_t value,
                                          std::nothrow_t /*nothrow*/) {
  return tm_buffer_fill_bytes(destination.get(), value);
}
inline void fill_bytes(const tensor& destination, uint8_t value) {
  check(tm_fill_bytes(destination.get(), value));
}
[[nodiscard]] inline tm_status fill_bytes(const tensor& destination, uint8_t value,
                                          std::nothrow_t /*nothrow*/) {
  return tm_fill_bytes(destination.get(), value);
}

//===-- Batches of copies, state, warps -----------------------------------===//

// Many copies in one call: tm/tensor/batch_copy.h. An owner that moves and is not copied.
class batch_copy : public detail::sole<tm_batch_copy, tm_batch_copy_release> {
 public:
  constexpr batch_copy() noexcept = default;

  [[nodiscard]] static batch_copy create(on_failure then = {}) {
    batch_copy made = adopt(tm_batch_copy_create());
    detail::expect(static_cast<bool>(made), then, "the batch of copies");
    return made;
  }
  // Takes a C handle over. Null stays null.
  [[nodiscard]] static batch_copy adopt(tm_batch_copy* owned) noexcept { return batch_copy(owned); }

  // As the copies of the same arguments, when the batch is run.
  void add(const tensor& source, const tensor& destination) const {
    check(add(source, destination, std::nothrow));
  }
  [[nodiscard]] tm_status add(const tensor& source, const tensor& destination,
                              std::nothrow_t /*nothrow*/) const noexcept {
    return tm_batch_copy_add(get(), source.get(), destination.get());
  }
  void add(const buffer& source, const buffer& destination) const {
    check(add(source, destination, std::nothrow));
  }
  [[nodiscard]] tm_status add(const buffer& source, const buffer& destination,
                              std::nothrow_t /*nothrow*/) const noexcept {
    return tm_batch_copy_add_buffer(get(), source.get(), destination.get());
  }
  void add(const buffer& source, int64_t count, const buffer& destination) const {
    check(add(source, count, destination, std::nothrow));
  }
  [[nodiscard]] tm_status add(const buffer& source, int64_t count, const buffer& destination,
                              std::nothrow_t /*nothrow*/) const noexcept {
    return tm_batch_copy_add_buffer_n(get(), source.get(), count, destination.get());
  }
  // Between pointers; returns the end of the copy. With std::nothrow NULL on failure.
  template <class T>
  T* add(const T* source, int64_t count, T* destination, on_failure then = {}) const {
    static_assert(std::is_trivially_copyable<T>::value, "copied as bytes");
    void* end = tm_batch_copy_add_n_(get(), source, count, sizeof(T), destination);
    detail::expect(end || count == 0, then, "the pointer");
    return static_cast<T*>(end);
  }

  // Does what was added; then the batch can be used again.
  void run() const { check(tm_batch_copy_run(get())); }
  [[nodiscard]] tm_status run(std::nothrow_t /*nothrow*/) const { return tm_batch_copy_run(get()); }

  void clear() const noexcept { tm_batch_copy_clear(get()); }
  size_t size() const noexcept { return tm_batch_copy_size(get()); }  // pieces that wait
  tm_batch_copy_counts counted() const noexcept { return tm_batch_copy_counted(get()); }

 private:
  explicit batch_copy(tm_batch_copy* owned) noexcept : sole(owned) {}
};

// Neighbours that are added until the block ends become one piece. One inside another throws.
// The batch outlives it.
class copy_group {
 public:
  [[nodiscard]] explicit copy_group(const batch_copy& batch) : batch_(batch.get()) {
    check(tm_batch_copy_begin_group(batch_));
  }
  copy_group(const copy_group&) = delete;
  copy_group& operator=(const copy_group&) = delete;
  ~copy_group() { tm_batch_copy_leave_group_(&batch_); }

 private:
  tm_batch_copy* batch_;
};

// A pair of tensors, of which a step reads the front and makes the back: tm/tensor/state.h.
class state {
 public:
  state() noexcept = default;

  // Of undefined contents. With std::nothrow both are null on failure.
  state(const dims& shape, tm_dtype dtype, place where, on_failure then = {}) {
    tm_state made;
    const tm_status status =
        tm_state_init_(shape.get(), dtype, where.device(), where.from(), &made);
    detail::expect_ok(status, then);
    front_ = tensor::adopt(tm_move(&made.front));
    back_ = tensor::adopt(tm_move(&made.back));
  }

  const tensor& front() const noexcept TMCORE_LENDS_ { return front_; }
  const tensor& back() const noexcept TMCORE_LENDS_ { return back_; }
  explicit operator bool() const noexcept { return static_cast<bool>(front_); }
  void swap() noexcept { std::swap(front_, back_); }

 private:
  tensor front_;
  tensor back_;
};

// Rows of differing lengths, one behind the other or in rows of one length. They refer to their
// arguments, for the call that they are made for: warp(b, {x, x_offsets}, n, perm, ...).
struct packed_rows {
  const tensor& values;
  const buffer& offsets;
};
struct padded_rows {
  const tensor& values;
  const buffer& sizes;
};

// The permuted gathers of continuous batching, added to a batch: tm/tensor/warp.h.
[[nodiscard]] inline tm_status warp(const batch_copy& batch, const tensor& old, int64_t old_rows,
                                    const buffer& perm, const tensor& destination,
                                    std::nothrow_t /*nothrow*/) noexcept {
  return tm_warp(batch.get(), old.get(), old_rows, perm.get(), destination.get());
}
inline void warp(const batch_copy& batch, const tensor& old, int64_t old_rows, const buffer& perm,
                 const tensor& destination) {
  check(warp(batch, old, old_rows, perm, destination, std::nothrow));
}

// Rows that join come from `added`.
[[nodiscard]] inline tm_status warp(const batch_copy& batch, const tensor& old, int64_t old_rows,
                                    const buffer& perm, const tensor& added,
                                    const tensor& destination,
                                    std::nothrow_t /*nothrow*/) noexcept {
  return tm_warp_or(batch.get(), old.get(), old_rows, perm.get(), added.get(), destination.get());
}
inline void warp(const batch_copy& batch, const tensor& old, int64_t old_rows, const buffer& perm,
                 const tensor& added, const tensor& destination) {
  check(warp(batch, old, old_rows, perm, added, destination, std::nothrow));
}

// Packed rows; the destination's offsets are written.
[[nodiscard]] inline tm_status warp(const batch_copy& batch, const packed_rows& old,
                                    int64_t old_rows, const buffer& perm, const packed_rows& added,
                                    const packed_rows& destination,
                                    std::nothrow_t /*nothrow*/) noexcept {
  const tm_packed_rows from{old.values.get(), old.offsets.get()};
  const tm_packed_rows joining{added.values.get(), added.offsets.get()};
  const tm_packed_rows to{destination.values.get(), destination.offsets.get()};
  return tm_warp_packed(batch.get(), &from, old_rows, perm.get(), &joining, &to);
}
inline void warp(const batch_copy& batch, const packed_rows& old, int64_t old_rows,
                 const buffer& perm, const packed_rows& added, const packed_rows& destination) {
  check(warp(batch, old, old_rows, perm, added, destination, std::nothrow));
}

// Rows that stay grow by `last`; the destination's sizes are written.
[[nodiscard]] inline tm_status append(const batch_copy& batch, const padded_rows& old,
                                      const tensor& last, int64_t old_rows, const buffer& perm,
                                      const packed_rows& added, const padded_rows& destination,
                                      std::nothrow_t /*nothrow*/) noexcept {
  const tm_padded_rows from{old.values.get(), old.sizes.get()};
  const tm_packed_rows joining{added.values.get(), added.offsets.get()};
  const tm_padded_rows to{destination.values.get(), destination.sizes.get()};
  return tm_append(batch.get(), &from, last.get(), old_rows, perm.get(), &joining, &to);
}
inline void append(const batch_copy& batch, const padded_rows& old, const tensor& last,
                   int64_t old_rows, const buffer& perm, const packed_rows& added,
                   const padded_rows& destination) {
  check(append(batch, old, last, old_rows, perm, added, destination, std::nothrow));
}

}  // namespace throwing, or no_exceptions

}  // namespace tmcore

#undef TMCORE_LENDS_

#endif  // TM_CPP_TMCORE_HPP_
