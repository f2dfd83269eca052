#include "tm/check.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

enum { OPERAND_TEXT_SIZE = 64 };  // bytes

static bool is_integer(const tm_operand* operand) {
  return operand->kind == TM_OPERAND_SIGNED || operand->kind == TM_OPERAND_UNSIGNED;
}

static bool is_negative(const tm_operand* operand) {
  return operand->kind == TM_OPERAND_SIGNED && operand->value.as_signed < 0;
}

static int compare_unsigned(uint64_t a, uint64_t b) { return (a > b) - (a < b); }

static int compare_integers(const tm_operand* a, const tm_operand* b) {
  if (is_negative(a) != is_negative(b)) {
    return is_negative(a) ? -1 : 1;
  }
  if (is_negative(a)) {
    return (a->value.as_signed > b->value.as_signed) - (a->value.as_signed < b->value.as_signed);
  }
  return compare_unsigned(a->value.as_unsigned, b->value.as_unsigned);  // same bits when positive
}

static long double as_float(const tm_operand* operand) {
  switch (operand->kind) {
    case TM_OPERAND_SIGNED:
      return (long double)operand->value.as_signed;
    case TM_OPERAND_UNSIGNED:
      return (long double)operand->value.as_unsigned;
    case TM_OPERAND_FLOAT:
      return (long double)operand->value.as_float;
    case TM_OPERAND_POINTER:
      break;
  }
  return (long double)(uintptr_t)operand->value.as_pointer;
}

static uint64_t as_address(const tm_operand* operand) {
  return operand->kind == TM_OPERAND_POINTER ? (uint64_t)(uintptr_t)operand->value.as_pointer
                                             : operand->value.as_unsigned;
}

// False where the two have no order (a NaN); otherwise stores -1, 0 or 1.
static bool compare(const tm_operand* a, const tm_operand* b, int* order) {
  if (is_integer(a) && is_integer(b)) {
    *order = compare_integers(a, b);
    return true;
  }
  if (a->kind == TM_OPERAND_FLOAT || b->kind == TM_OPERAND_FLOAT) {
    const long double x = as_float(a);
    const long double y = as_float(b);
    *order = (x > y) - (x < y);
    return !isnan(x) && !isnan(y);
  }
  *order = compare_unsigned(as_address(a), as_address(b));
  return true;
}

bool tm_operands_hold_(const tm_operand* a, tm_comparison comparison, const tm_operand* b) {
  int order = 0;
  if (!compare(a, b, &order)) {
    return comparison == TM_NE;
  }
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
      return order > 0;
    case TM_GE:
      return order >= 0;
  }
  return false;
}

static void print_operand(const tm_operand* operand, char* text, size_t size) {
  switch (operand->kind) {
    case TM_OPERAND_SIGNED:
      snprintf(text, size, "%" PRId64, operand->value.as_signed);
      return;
    case TM_OPERAND_UNSIGNED:
      snprintf(text, size, "%" PRIu64, operand->value.as_unsigned);
      return;
    case TM_OPERAND_FLOAT:
      snprintf(text, size, "%.17g", operand->value.as_float);
      return;
    case TM_OPERAND_POINTER:
      snprintf(text, size, "%p", (const void*)operand->value.as_pointer);
      return;
  }
}

void tm_check_failed_(const char* file, int line, const char* expression, const tm_operand* a,
                      const tm_operand* b) {
  if (!a) {
    tm_fatal_(file, line, "check failed: %s", expression);
  }
  char left[OPERAND_TEXT_SIZE];
  char right[OPERAND_TEXT_SIZE];
  print_operand(a, left, sizeof left);
  print_operand(b, right, sizeof right);
  tm_fatal_(file, line, "check failed: %s (%s vs %s)", expression, left, right);
}

void tm_check_status_failed_(const char* file, int line, const char* expression, tm_status status) {
  const tm_error* error = tm_last_error();
  tm_fatal_(file, line, "check failed: %s is %s: %s", expression, tm_status_name(status),
            error->code == status ? error->message : "(no message on this thread)");
}
