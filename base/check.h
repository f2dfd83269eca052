// Checks of what must hold. Opt-in: include <tm/check.h>.
//
//   TM_CHECK(x != NULL);
//   TM_CHECK_LE(used, capacity);                     // prints both sides when it fails
//   TM_CHECK_EQ(rank, 2, "layer %d of %s", i, name);  // and what you add, like printf
//   TM_CHECK_STREQ(name, "relu");                    // compares contents
//   TM_CHECK_OK(tm_copy(&a, &b));                    // prints the error record when it fails
//   layer* l = TM_CHECK_NOTNULL(find_layer(name));   // gives back what it checked
//
// A check that fails is fatal (tm/base/fatal.h). Checks are always on, and evaluate what they check
// once and the message only when they fail. Each is one statement; TM_CHECK_NOTNULL is an
// expression. The message starts with a string literal. <tm/cuda_check.h> has the checks of CUDA
// calls.
#ifndef TM_CHECK_H_
#define TM_CHECK_H_

#ifdef TM_CHECK
#error "TM_CHECK is already defined: include either tmcore's <tm/check.h> or TurboMind's check.h."
#endif

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tm/base/attributes.h"
#include "tm/base/fatal.h"
#include "tm/base/status.h"

//===-- Checks ------------------------------------------------------------===//

// TM_CHECK(condition)
// TM_CHECK(condition, "format", ...)
#define TM_CHECK(condition, ...)                                                               \
  do {                                                                                         \
    if (TM_UNLIKELY(!(condition))) {                                                           \
      tm_check_failed_(__FILE__, __LINE__, #condition, TM_TRUE_, NULL, NULL, " " __VA_ARGS__); \
    }                                                                                          \
  } while (0)

// TM_CHECK_EQ(a, b)
// TM_CHECK_EQ(a, b, "format", ...)
// The sides are integers up to 64 bits, floating point numbers, bool, char, enums or pointers, and
// in C++ also strings (whatever has data() and size() of char) and smart pointers. Numbers compare
// by mathematical value: -1 is less than any unsigned. A char* is compared as the pointer that it
// is, but shown with its text; next to a C++ string it is compared as one.
#define TM_CHECK_EQ(a, b, ...) TM_CHECK_COMPARE_(TM_OPERAND_, a, TM_EQ, b, #a "\0" #b, __VA_ARGS__)
#define TM_CHECK_NE(a, b, ...) TM_CHECK_COMPARE_(TM_OPERAND_, a, TM_NE, b, #a "\0" #b, __VA_ARGS__)
#define TM_CHECK_LT(a, b, ...) TM_CHECK_COMPARE_(TM_OPERAND_, a, TM_LT, b, #a "\0" #b, __VA_ARGS__)
#define TM_CHECK_LE(a, b, ...) TM_CHECK_COMPARE_(TM_OPERAND_, a, TM_LE, b, #a "\0" #b, __VA_ARGS__)
#define TM_CHECK_GT(a, b, ...) TM_CHECK_COMPARE_(TM_OPERAND_, a, TM_GT, b, #a "\0" #b, __VA_ARGS__)
#define TM_CHECK_GE(a, b, ...) TM_CHECK_COMPARE_(TM_OPERAND_, a, TM_GE, b, #a "\0" #b, __VA_ARGS__)

// The contents of two const char*. NULL equals only NULL.
#define TM_CHECK_STREQ(a, b, ...) \
  TM_CHECK_COMPARE_(tm_operand_text_, a, TM_EQ, b, #a "\0" #b, __VA_ARGS__)
#define TM_CHECK_STRNE(a, b, ...) \
  TM_CHECK_COMPARE_(tm_operand_text_, a, TM_NE, b, #a "\0" #b, __VA_ARGS__)

// That a call which returns a tm_status succeeds.
#define TM_CHECK_OK(call, ...) TM_CHECK_OK_(call, #call, TM_UNIQUE_(tm_status_), __VA_ARGS__)

// TM_CHECK_NOTNULL(pointer)
// TM_CHECK_NOTNULL(pointer, "format", ...)
// An expression with the pointer's value and type. In C++ also for smart pointers: a temporary is
// moved on, of a variable it is a reference; a message has at most 7 values after its format there.
// Without one C++ may use it outside functions too. (Defined below, for each language.)

//===-- What the macros use -----------------------------------------------===//

TM_EXTERN_C_BEGIN

// One side of a comparison, kept so that it can be compared without sign surprises and printed.
typedef enum tm_operand_kind {
  TM_OPERAND_SIGNED,
  TM_OPERAND_UNSIGNED,
  TM_OPERAND_BOOL,         // in as_unsigned
  TM_OPERAND_CHAR,         // in as_signed
  TM_OPERAND_FLOAT,        // in as_double
  TM_OPERAND_DOUBLE,       // in as_double
  TM_OPERAND_LONG_DOUBLE,  // in as_long_double
  TM_OPERAND_POINTER,
  TM_OPERAND_CHARS,   // a pointer to what may be a string
  TM_OPERAND_TEXT,    // a C string that is meant, or NULL
  TM_OPERAND_STRING,  // a string that is there, of `size` bytes at as_pointer
} tm_operand_kind;

typedef struct tm_operand {
  tm_operand_kind kind;
  size_t size;
  union {
    int64_t as_signed;
    uint64_t as_unsigned;
    double as_double;
    unsigned char as_long_double[sizeof(long double)];  // a member of its type would draw gcc's
                                                        // notes about an ABI of long ago
    const volatile void* as_pointer;
  } value;
} tm_operand;

typedef enum tm_comparison {
  TM_TRUE_,  // one expression, nothing compared
  TM_EQ,
  TM_NE,
  TM_LT,
  TM_LE,
  TM_GT,
  TM_GE,
} tm_comparison;

#define TM_DEFINE_OPERAND_(name, type, its_kind, field) \
  static inline tm_operand name(type value) {           \
    tm_operand operand;                                 \
    operand.kind = its_kind;                            \
    operand.size = 0;                                   \
    operand.value.field = value;                        \
    return operand;                                     \
  }
TM_DEFINE_OPERAND_(tm_operand_signed_, int64_t, TM_OPERAND_SIGNED, as_signed)
TM_DEFINE_OPERAND_(tm_operand_unsigned_, uint64_t, TM_OPERAND_UNSIGNED, as_unsigned)
TM_DEFINE_OPERAND_(tm_operand_bool_, bool, TM_OPERAND_BOOL, as_unsigned)
TM_DEFINE_OPERAND_(tm_operand_char_, int, TM_OPERAND_CHAR, as_signed)
TM_DEFINE_OPERAND_(tm_operand_float_, float, TM_OPERAND_FLOAT, as_double)
TM_DEFINE_OPERAND_(tm_operand_double_, double, TM_OPERAND_DOUBLE, as_double)
TM_DEFINE_OPERAND_(tm_operand_pointer_, const volatile void*, TM_OPERAND_POINTER, as_pointer)
TM_DEFINE_OPERAND_(tm_operand_chars_, const char*, TM_OPERAND_CHARS, as_pointer)
TM_DEFINE_OPERAND_(tm_operand_text_, const char*, TM_OPERAND_TEXT, as_pointer)
#undef TM_DEFINE_OPERAND_

static inline tm_operand tm_operand_long_double_(long double value) {
  tm_operand operand;
  operand.kind = TM_OPERAND_LONG_DOUBLE;
  operand.size = 0;
  __builtin_memcpy(operand.value.as_long_double, &value, sizeof value);
  return operand;
}

// The order of what is not two integers: -1, 0 or 1, or 2 where there is none (a NaN).
TM_API int tm_operands_order_(const tm_operand* a, const tm_operand* b);

// `expression` is the text of both sides, a NUL between them; of a condition, one. `a` and `b` are
// NULL where they have nothing to show. `format` starts with a space, so that it is never empty.
TM_API TM_COLD void tm_check_failed_(const char* file, int line, const char* expression,
                                     tm_comparison comparison, const tm_operand* a,
                                     const tm_operand* b, const char* format, ...) TM_PRINTF(7, 8)
    __attribute__((noreturn));
TM_API TM_COLD void tm_check_status_failed_(const char* file, int line, const char* expression,
                                            tm_status status, const char* format, ...)
    TM_PRINTF(5, 6) __attribute__((noreturn));

static inline bool tm_operand_is_signed_(const tm_operand* operand) {
  return operand->kind == TM_OPERAND_SIGNED || operand->kind == TM_OPERAND_CHAR;
}

static inline bool tm_operand_is_integer_(const tm_operand* operand) {
  return operand->kind <= TM_OPERAND_CHAR;
}

// Compiles to a comparison where both kinds are known.
static inline int tm_integers_order_(const tm_operand* a, const tm_operand* b) {
  const bool a_negative = tm_operand_is_signed_(a) && a->value.as_signed < 0;
  const bool b_negative = tm_operand_is_signed_(b) && b->value.as_signed < 0;
  if (a_negative != b_negative) {
    return a_negative ? -1 : 1;
  }
  // Of one sign, the bits have the order of the values.
  return (a->value.as_unsigned > b->value.as_unsigned) -
         (a->value.as_unsigned < b->value.as_unsigned);
}

static inline bool tm_operands_hold_(const tm_operand* a, tm_comparison comparison,
                                     const tm_operand* b) {
  const int order = tm_operand_is_integer_(a) && tm_operand_is_integer_(b)
                        ? tm_integers_order_(a, b)
                        : tm_operands_order_(a, b);
  switch (comparison) {
    case TM_EQ:
      return order == 0;
    case TM_NE:
      return order != 0;
    case TM_LT:
      return order < 0;
    case TM_LE:
      return order <= 0;
    case TM_GT:
      return order == 1;
    case TM_GE:
      return order == 0 || order == 1;
    default:
      return false;
  }
}

#define TM_CHECK_COMPARE_(operand, a, comparison, b, text, ...)                                    \
  TM_CHECK_COMPARE2_(operand, a, comparison, b, text, TM_UNIQUE_(tm_left_), TM_UNIQUE_(tm_right_), \
                     __VA_ARGS__)
// One expression, so that temporaries in the operands live until they have been shown.
#define TM_CHECK_COMPARE2_(operand, a, comparison, b, text, left, right, ...)         \
  do {                                                                                \
    tm_operand left, right;                                                           \
    (void)(TM_LIKELY((left = operand(a), right = operand(b),                          \
                      tm_operands_hold_(&left, (comparison), &right))) ||             \
           (tm_check_failed_(__FILE__, __LINE__, (text), (comparison), &left, &right, \
                             " " __VA_ARGS__),                                        \
            0));                                                                      \
  } while (0)

#define TM_CHECK_OK_(call, text, status, ...)                                       \
  do {                                                                              \
    const tm_status status = (call);                                                \
    if (TM_UNLIKELY(status != TM_OK)) {                                             \
      tm_check_status_failed_(__FILE__, __LINE__, (text), status, " " __VA_ARGS__); \
    }                                                                               \
  } while (0)

TM_EXTERN_C_END

#ifdef __cplusplus

inline tm_operand tm_operand_of_(bool v) { return tm_operand_bool_(v); }
inline tm_operand tm_operand_of_(char v) { return tm_operand_char_(v); }
inline tm_operand tm_operand_of_(signed char v) { return tm_operand_signed_(v); }
inline tm_operand tm_operand_of_(unsigned char v) { return tm_operand_unsigned_(v); }
inline tm_operand tm_operand_of_(short v) { return tm_operand_signed_(v); }
inline tm_operand tm_operand_of_(unsigned short v) { return tm_operand_unsigned_(v); }
inline tm_operand tm_operand_of_(int v) { return tm_operand_signed_(v); }
inline tm_operand tm_operand_of_(unsigned v) { return tm_operand_unsigned_(v); }
inline tm_operand tm_operand_of_(long v) { return tm_operand_signed_(v); }
inline tm_operand tm_operand_of_(unsigned long v) { return tm_operand_unsigned_(v); }
inline tm_operand tm_operand_of_(long long v) { return tm_operand_signed_(v); }
inline tm_operand tm_operand_of_(unsigned long long v) { return tm_operand_unsigned_(v); }
inline tm_operand tm_operand_of_(float v) { return tm_operand_float_(v); }
inline tm_operand tm_operand_of_(double v) { return tm_operand_double_(v); }
inline tm_operand tm_operand_of_(long double v) { return tm_operand_long_double_(v); }
inline tm_operand tm_operand_of_(decltype(nullptr)) { return tm_operand_pointer_(nullptr); }
inline tm_operand tm_operand_of_(const char* v) { return tm_operand_chars_(v); }
inline tm_operand tm_operand_of_(char* v) { return tm_operand_chars_(v); }

// Any other pointer, functions' too. As a template it goes before the conversion to bool.
template <typename T>
inline tm_operand tm_operand_of_(T* v) {
  return tm_operand_pointer_((const volatile void*)(v));
}

// Enums.
template <typename T>
struct tm_is_enum_ {
  static constexpr bool value = __is_enum(T);
};
template <typename T, bool is_enum = tm_is_enum_<T>::value>
struct tm_enum_value_ {};
template <typename T>
struct tm_enum_value_<T, true> {
  using type = __underlying_type(T);
};
template <typename T>
inline auto tm_operand_of_(T v)
    -> decltype(tm_operand_of_(static_cast<typename tm_enum_value_<T>::type>(v))) {
  return tm_operand_of_(static_cast<typename tm_enum_value_<T>::type>(v));
}

// Strings: std::string, std::string_view and the like, without including them.
inline const char* tm_chars_only_(const char* data) { return data; }
template <typename T>
inline auto tm_operand_of_(const T& v)
    -> decltype(tm_chars_only_(v.data()), size_t(v.size()), tm_operand()) {
  tm_operand operand = tm_operand_chars_(v.data());
  operand.kind = TM_OPERAND_STRING;
  operand.size = v.size();
  return operand;
}

// Smart pointers.
template <typename T>
inline auto tm_operand_of_(const T& v) -> decltype(tm_operand_pointer_(v.get())) {
  return tm_operand_pointer_(v.get());
}
// Behind a comma, NULL does not draw g++'s warning that it is passed as a number. (Clang has no
// such warning, and its analyzer takes an lvalue behind a comma for a null one.)
#ifdef __clang__
#define TM_OPERAND_(x) tm_operand_of_((x))
#else
#define TM_OPERAND_(x) tm_operand_of_(((void)0, (x)))
#endif

// By value where it was a temporary, which must not be referred to; of a variable, a reference.
template <typename T, typename Fail>
inline T tm_not_null_(T&& pointer, Fail fail) {
  if (TM_UNLIKELY(pointer == nullptr)) fail();
  return static_cast<T&&>(pointer);
}
class tm_null_place_ {
 public:
  constexpr tm_null_place_(const char* file, int line, const char* expression)
      : file_(file), line_(line), expression_(expression) {}
  void operator()() const {
    tm_check_failed_(file_, line_, expression_, TM_NE, nullptr, nullptr, " ");
  }

 private:
  const char* file_;
  int line_;
  const char* expression_;
};

// A lambda that captures cannot stand outside a function, so there is none without a message. The
// text is taken here, before macros in the pointer are expanded.
#define TM_CHECK_NOTNULL(pointer, ...)                                                          \
  TM_NOT_NULL_PICK_(pointer, ##__VA_ARGS__, TM_NOT_NULL_SAYS_, TM_NOT_NULL_SAYS_,               \
                    TM_NOT_NULL_SAYS_, TM_NOT_NULL_SAYS_, TM_NOT_NULL_SAYS_, TM_NOT_NULL_SAYS_, \
                    TM_NOT_NULL_SAYS_, TM_NOT_NULL_SAYS_, TM_NOT_NULL_PLAIN_, )                 \
  (pointer, #pointer "\0NULL", __VA_ARGS__)
#define TM_NOT_NULL_PICK_(a, b, c, d, e, f, g, h, i, pick, ...) pick
#define TM_NOT_NULL_PLAIN_(pointer, text, ...) \
  tm_not_null_((pointer), tm_null_place_(__FILE__, __LINE__, (text)))
#define TM_NOT_NULL_SAYS_(pointer, text, ...)                                               \
  tm_not_null_((pointer), [&] {                                                             \
    tm_check_failed_(__FILE__, __LINE__, (text), TM_NE, nullptr, nullptr, " " __VA_ARGS__); \
  })

#else

// To gcc a bit-field has a type of its own: behind the conditional it is a number. A pointer stays
// one there.
// clang-format off
#define TM_OPERAND_(x)                          \
  _Generic((x),                                 \
      _Bool: tm_operand_bool_,                  \
      char: tm_operand_char_,                   \
      signed char: tm_operand_signed_,          \
      short: tm_operand_signed_,                \
      int: tm_operand_signed_,                  \
      long: tm_operand_signed_,                 \
      long long: tm_operand_signed_,            \
      unsigned char: tm_operand_unsigned_,      \
      unsigned short: tm_operand_unsigned_,     \
      unsigned int: tm_operand_unsigned_,       \
      unsigned long: tm_operand_unsigned_,      \
      unsigned long long: tm_operand_unsigned_, \
      float: tm_operand_float_,                 \
      double: tm_operand_double_,               \
      long double: tm_operand_long_double_,     \
      char*: tm_operand_chars_,                 \
      const char*: tm_operand_chars_,           \
      default: TM_OPERAND_OTHER_(x))(x)
#define TM_OPERAND_OTHER_(x)                    \
  _Generic(1 ? (x) : 0LL,                       \
      long long: tm_operand_signed_,            \
      unsigned long long: tm_operand_unsigned_, \
      default: tm_operand_pointer_)
// clang-format on

#define TM_CHECK_NOTNULL(pointer, ...) \
  TM_CHECK_NOTNULL_(pointer, #pointer "\0NULL", TM_UNIQUE_(tm_pointer_), __VA_ARGS__)
// Behind the comma arrays are pointers, and the variable's own const is gone.
#define TM_CHECK_NOTNULL_(pointer, text, value, ...)                                    \
  __extension__({                                                                       \
    const __typeof__(((void)0, (pointer))) value = (pointer);                           \
    if (TM_UNLIKELY(!value)) {                                                          \
      tm_check_failed_(__FILE__, __LINE__, (text), TM_NE, NULL, NULL, " " __VA_ARGS__); \
    }                                                                                   \
    value;                                                                              \
  })

#endif

#endif  // TM_CHECK_H_
