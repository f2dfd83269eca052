// Scopes in C++: functions by their names, calls with their values, and what closes them.

#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tm/base/status.h"
#include "tm/base/trace.h"
#include "tm/check.h"

namespace {

std::string trace() {
  char text[1024];
  tm_trace_text(text, sizeof text);
  return text;
}

// The name of the innermost scope.
std::string innermost() {
  const std::string text = trace();
  return text.substr(0, text.find(" (scopes_cpp_test.cc:"));
}

std::string seen;  // by the function called last

#define SEE()          \
  TM_FUNCTION_SCOPE(); \
  seen = innermost()

void unnamed_function(int) { SEE(); }

}  // namespace

namespace engine {

void step(const std::vector<std::pair<int, int>>&, int (*)(int)) { SEE(); }

template <typename T, int N>
T scaled(T value) {
  SEE();
  return value * N;
}

struct Layer {
  Layer() { SEE(); }
  explicit Layer(int) { SEE(); }
  Layer(const Layer&) = delete;
  ~Layer() { SEE(); }
  void forward(int) const { SEE(); }
  static void load(const char*) { SEE(); }
  virtual void run() noexcept { SEE(); }
  template <typename T>
  void apply(T) {
    SEE();
  }
  int operator()(int x) {
    SEE();
    return x;
  }
  Layer& operator<<(int) {
    SEE();
    return *this;
  }
  bool operator<(const Layer&) const {
    SEE();
    return false;
  }
  Layer* operator->() {
    SEE();
    return this;
  }
  explicit operator bool() const {
    SEE();
    return true;
  }
  operator std::vector<int>*() {
    SEE();
    return nullptr;
  }
  static void* operator new(size_t size) {
    SEE();
    return ::operator new(size);
  }
  static void operator delete(void* p) { ::operator delete(p); }
  auto trailing() -> std::vector<int> {
    SEE();
    return {};
  }
  Layer& fluent() { return *this; }
};

template <typename T>
struct Container {
  void process() { SEE(); }
};

}  // namespace engine

static void (*function_pointer(int))(char) {
  SEE();
  return nullptr;
}

static int (&array())[4] {
  SEE();
  static int values[4];
  return values;
}

static decltype(auto) deduced() {
  SEE();
  return 1;
}

extern "C" {
static void c_linkage(int) { SEE(); }
}

static void functions_show_their_names() {
  unnamed_function(1);
  TM_CHECK_EQ(seen, "(anonymous)::unnamed_function()");
  engine::step({}, nullptr);
  TM_CHECK_EQ(seen, "engine::step()");
  (void)engine::scaled<int, 2>(1);
  TM_CHECK_EQ(seen, "engine::scaled()");
  (void)function_pointer(1);
  TM_CHECK_EQ(seen, "function_pointer()");
  (void)array();
  TM_CHECK_EQ(seen, "array()");
  (void)deduced();
  TM_CHECK_EQ(seen, "deduced()");
  c_linkage(1);
  TM_CHECK_EQ(seen, "c_linkage()");
}

static void members_show_their_classes() {
  {
    engine::Layer layer;
    TM_CHECK_EQ(seen, "engine::Layer::Layer()");
    layer.forward(1);
    TM_CHECK_EQ(seen, "engine::Layer::forward()");
    engine::Layer::load("x");
    TM_CHECK_EQ(seen, "engine::Layer::load()");
    layer.run();
    TM_CHECK_EQ(seen, "engine::Layer::run()");
    layer.apply(std::string("x"));
    TM_CHECK_EQ(seen, "engine::Layer::apply()");
    (void)layer.trailing();
    TM_CHECK_EQ(seen, "engine::Layer::trailing()");
  }
  TM_CHECK_EQ(seen, "engine::Layer::~Layer()");
  engine::Container<int>().process();
  // gcc names the parameter, clang its value.
  TM_CHECK(seen == "engine::Container<T>::process()" || seen == "engine::Container<int>::process()",
           "%s", seen.c_str());
}

static void operators_show_their_symbols() {
  engine::Layer layer(1);
  (void)layer(1);
  TM_CHECK_EQ(seen, "engine::Layer::operator()()");
  layer << 1;
  TM_CHECK_EQ(seen, "engine::Layer::operator<<()");
  (void)layer.operator<(layer);
  TM_CHECK_EQ(seen, "engine::Layer::operator<()");
  (void)layer.operator->();
  TM_CHECK_EQ(seen, "engine::Layer::operator->()");
  (void)layer.operator bool();
  TM_CHECK_EQ(seen, "engine::Layer::operator bool()");
  (void)static_cast<std::vector<int>*>(layer);
  TM_CHECK_EQ(seen, "engine::Layer::operator std::vector<int>*()");
  void* memory = engine::Layer::operator new(1);
  TM_CHECK_EQ(seen, "engine::Layer::operator new()");
  engine::Layer::operator delete(memory);
}

static void lambdas_show_where_they_are() {
  [] { SEE(); }();
  TM_CHECK_EQ(seen, "lambdas_show_where_they_are()::<lambda>()");
  [](auto x) {
    SEE();
    return x;
  }(1);
  TM_CHECK_EQ(seen, "lambdas_show_where_they_are()::<lambda>()");
  const std::function<void(int)> stored = [](int) { [&]() mutable { SEE(); }(); };
  stored(1);
  TM_CHECK_EQ(seen, "lambdas_show_where_they_are()::<lambda>()::<lambda>()");
  struct Local {
    static void run() { SEE(); }
  };
  Local::run();
  TM_CHECK_EQ(seen, "lambdas_show_where_they_are()::Local::run()");
}

//===-- Calls -------------------------------------------------------------===//

static int calls;

static int count(int value) {
  calls++;
  seen = trace();
  return value;
}
static void count_nothing() { count(0); }
static std::unique_ptr<int> make(int value) { return std::make_unique<int>(count(value)); }
template <typename T, typename U>
static T convert(U value) {
  return static_cast<T>(count(value));
}
static size_t depth_inside(int) { return tm_trace_depth(); }
static int throws(int) { throw std::runtime_error(trace()); }

static void a_call_shows_its_name_and_gives_its_value() {
  char expected[64];
  std::snprintf(expected, sizeof expected, "count() (scopes_cpp_test.cc:%d)", __LINE__ + 1);
  const int value = TM_SCOPE_CALL(count(7));
  TM_CHECK_EQ(value, 7);
  TM_CHECK_EQ(calls, 1);
  TM_CHECK_EQ(seen, expected);
  TM_CHECK_EQ(tm_trace_depth(), 0u);
  TM_SCOPE_CALL(count_nothing());
  TM_CHECK_EQ(seen.substr(0, 16), "count_nothing() ");
  const std::unique_ptr<int> made = TM_SCOPE_CALL(make(8));
  TM_CHECK_EQ(*made, 8);
  TM_CHECK_EQ((TM_SCOPE_CALL(convert<long, int>(9))), 9);
  TM_CHECK_EQ(seen.substr(0, 10), "convert() ");
}

static void a_reference_stays_one() {
  engine::Layer layer;
  engine::Layer* pointer = &layer;
  engine::Layer& same = TM_SCOPE_CALL(pointer->fluent());
  TM_CHECK_EQ(&same, &layer);
  TM_SCOPE_CALL(layer.fluent()).forward(1);
  TM_CHECK_EQ(tm_trace_depth(), 0u);
}

static void a_call_is_over_before_the_one_around_it() {
  TM_CHECK_EQ(depth_inside(TM_SCOPE_CALL(count(1))), 0u);
  TM_CHECK_EQ(TM_SCOPE_CALL(depth_inside(TM_SCOPE_CALL(count(1)))), 1u);
  TM_CHECK_NE(seen.find(" < depth_inside() ("), std::string::npos);  // arguments are inside
  if (calls == 0)
    TM_SCOPE_CALL(count_nothing());
  else
    TM_SCOPE_CALL(count(1));
  TM_CHECK_EQ(tm_trace_depth(), 0u);
}

static tm_status fails() { return TM_RAISE(TM_ERR_IO, "x"); }
static tm_status tries() {
  TM_FUNCTION_SCOPE();
  TM_TRY(TM_SCOPE_CALL(fails()));
  return TM_OK;
}

static void an_exception_closes_scopes() {
  try {
    TM_FUNCTION_SCOPE();
    (void)TM_SCOPE_CALL(throws(1));
    TM_FATAL("nothing was thrown");
  } catch (const std::runtime_error& error) {
    TM_CHECK_EQ(std::string(error.what()).find("throws() ("), 0u);
  }
  TM_CHECK_EQ(tm_trace_depth(), 0u);
}

static void the_trace_is_in_errors_and_fatal_messages() {
  TM_CHECK_EQ(tries(), TM_ERR_IO);
  const std::string in_error = tm_last_error()->trace;
  TM_CHECK_EQ(in_error.find("fails() (scopes_cpp_test.cc:"), 0u);
  TM_CHECK_NE(in_error.find(" < tries() (scopes_cpp_test.cc:"), std::string::npos);
  tm_set_fatal_handler([](const char* message, void*) { throw std::runtime_error(message); },
                       nullptr);
  std::string message;
  try {
    TM_FUNCTION_SCOPE();
    TM_CHECK_EQ(1, 2);
  } catch (const std::runtime_error& error) {
    message = error.what();
  }
  tm_set_fatal_handler(nullptr, nullptr);
  TM_CHECK_NE(message.find("\n  in the_trace_is_in_errors_and_fatal_messages() ("),
              std::string::npos, "%s", message.c_str());
}

int main() {
  functions_show_their_names();
  members_show_their_classes();
  operators_show_their_symbols();
  lambdas_show_where_they_are();
  a_call_shows_its_name_and_gives_its_value();
  a_reference_stays_one();
  a_call_is_over_before_the_one_around_it();
  an_exception_closes_scopes();
  the_trace_is_in_errors_and_fatal_messages();
  std::puts("scopes_cpp_test: done");
  return 0;
}
