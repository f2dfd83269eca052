// Checks of what must hold. Opt-in: include <tm/check.h>.
//
//   TM_CHECK(x != NULL);
//   TM_CHECK_LE(used, capacity);      // prints both sides when it fails
//   TM_CHECK_OK(tm_copy(&a, &b));     // prints the error record when it fails
//
// A check that fails is fatal (tm/base/fatal.h). Checks are always on. Each is one statement.
#ifndef TM_CHECK_H_
#define TM_CHECK_H_

#ifdef TM_CHECK
#error "TM_CHECK is already defined: include either tmcore's <tm/check.h> or TurboMind's check.h."
#endif

#include <stdbool.h>
#include <stdint.h>

#include "tm/base/attributes.h"
#include "tm/base/fatal.h"
#include "tm/base/status.h"

TM_EXTERN_C_BEGIN

// One side of a comparison, kept so that it can be compared without sign surprises and printed.
typedef enum tm_operand_kind {
  TM_OPERAND_SIGNED,
  TM_OPERAND_UNSIGNED,
  TM_OPERAND_FLOAT,
  TM_OPERAND_POINTER,
} tm_operand_kind;

typedef struct tm_operand {
  tm_operand_kind kind;
  union {
    int64_t as_signed;
    uint64_t as_unsigned;
    double as_float;
    const volatile void* as_pointer;
  } value;
} tm_operand;

static inline tm_operand tm_operand_signed_(int64_t value) {
  tm_operand operand;
  operand.kind = TM_OPERAND_SIGNED;
  operand.value.as_signed = value;
  return operand;
}

static inline tm_operand tm_operand_unsigned_(uint64_t value) {
  tm_operand operand;
  operand.kind = TM_OPERAND_UNSIGNED;
  operand.value.as_unsigned = value;
  return operand;
}

static inline tm_operand tm_operand_float_(double value) {
  tm_operand operand;
  operand.kind = TM_OPERAND_FLOAT;
  operand.value.as_float = value;
  return operand;
}

static inline tm_operand tm_operand_pointer_(const volatile void* value) {
  tm_operand operand;
  operand.kind = TM_OPERAND_POINTER;
  operand.value.as_pointer = value;
  return operand;
}

typedef enum tm_comparison { TM_EQ, TM_NE, TM_LT, TM_LE, TM_GT, TM_GE } tm_comparison;

// Compares by mathematical value (-1 is less than any unsigned); NaN compares unequal to all.
TM_API bool tm_operands_hold_(const tm_operand* a, tm_comparison comparison, const tm_operand* b);
TM_API TM_COLD void tm_check_failed_(const char* file, int line, const char* expression,
                                     const tm_operand* a, const tm_operand* b)
    __attribute__((noreturn));
TM_API TM_COLD void tm_check_status_failed_(const char* file, int line, const char* expression,
                                            tm_status status) __attribute__((noreturn));

TM_EXTERN_C_END

#ifdef __cplusplus
inline tm_operand tm_operand_of_(bool v) { return tm_operand_unsigned_(v); }
inline tm_operand tm_operand_of_(char v) { return tm_operand_signed_(v); }
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
inline tm_operand tm_operand_of_(double v) { return tm_operand_float_(v); }
inline tm_operand tm_operand_of_(const volatile void* v) { return tm_operand_pointer_(v); }
inline tm_operand tm_operand_of_(decltype(nullptr)) { return tm_operand_pointer_(NULL); }
#define TM_OPERAND_(x) tm_operand_of_(x)
#else
// clang-format off
#define TM_OPERAND_(x)                        \
  _Generic((x),                               \
      _Bool: tm_operand_unsigned_,            \
      char: tm_operand_signed_,               \
      signed char: tm_operand_signed_,        \
      short: tm_operand_signed_,              \
      int: tm_operand_signed_,                \
      long: tm_operand_signed_,               \
      long long: tm_operand_signed_,          \
      unsigned char: tm_operand_unsigned_,    \
      unsigned short: tm_operand_unsigned_,   \
      unsigned int: tm_operand_unsigned_,     \
      unsigned long: tm_operand_unsigned_,    \
      unsigned long long: tm_operand_unsigned_, \
      float: tm_operand_float_,               \
      double: tm_operand_float_,              \
      default: tm_operand_pointer_)(x)
// clang-format on
#endif

#define TM_CHECK(condition)                                         \
  do {                                                              \
    if (TM_UNLIKELY(!(condition))) {                                \
      tm_check_failed_(__FILE__, __LINE__, #condition, NULL, NULL); \
    }                                                               \
  } while (0)

#define TM_CHECK_COMPARE_(a, comparison, sign, b, left, right)                 \
  do {                                                                         \
    const tm_operand left = TM_OPERAND_(a);                                    \
    const tm_operand right = TM_OPERAND_(b);                                   \
    if (TM_UNLIKELY(!tm_operands_hold_(&left, (comparison), &right))) {        \
      tm_check_failed_(__FILE__, __LINE__, #a " " sign " " #b, &left, &right); \
    }                                                                          \
  } while (0)
#define TM_CHECK_EQ(a, b) \
  TM_CHECK_COMPARE_(a, TM_EQ, "==", b, TM_UNIQUE_(tm_left_), TM_UNIQUE_(tm_right_))
#define TM_CHECK_NE(a, b) \
  TM_CHECK_COMPARE_(a, TM_NE, "!=", b, TM_UNIQUE_(tm_left_), TM_UNIQUE_(tm_right_))
#define TM_CHECK_LT(a, b) \
  TM_CHECK_COMPARE_(a, TM_LT, "<", b, TM_UNIQUE_(tm_left_), TM_UNIQUE_(tm_right_))
#define TM_CHECK_LE(a, b) \
  TM_CHECK_COMPARE_(a, TM_LE, "<=", b, TM_UNIQUE_(tm_left_), TM_UNIQUE_(tm_right_))
#define TM_CHECK_GT(a, b) \
  TM_CHECK_COMPARE_(a, TM_GT, ">", b, TM_UNIQUE_(tm_left_), TM_UNIQUE_(tm_right_))
#define TM_CHECK_GE(a, b) \
  TM_CHECK_COMPARE_(a, TM_GE, ">=", b, TM_UNIQUE_(tm_left_), TM_UNIQUE_(tm_right_))

#define TM_CHECK_OK(call) TM_CHECK_OK_(call, TM_UNIQUE_(tm_status_))
#define TM_CHECK_OK_(call, status)                                \
  do {                                                            \
    const tm_status status = (call);                              \
    if (TM_UNLIKELY(status != TM_OK)) {                           \
      tm_check_status_failed_(__FILE__, __LINE__, #call, status); \
    }                                                             \
  } while (0)

#endif  // TM_CHECK_H_
