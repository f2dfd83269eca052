#include "tm/tensor/shape.h"

#include <inttypes.h>
#include <stdio.h>

static int32_t entries(int32_t rank) {
  return rank < 0 ? 0 : rank > TM_MAX_RANK ? (int32_t)TM_MAX_RANK : rank;
}

tm_shape tm_shape_make(int32_t rank, const int64_t* dim) {
  tm_shape shape;
  shape.rank = rank;
  for (int32_t i = 0; i < entries(rank); i++) {
    shape.dim[i] = dim[i];
  }
  return shape;
}

bool tm_shape_equal(const tm_shape* a, const tm_shape* b) {
  bool equal = a->rank == b->rank;
  for (int32_t i = 0; equal && i < entries(a->rank); i++) {
    equal = a->dim[i] == b->dim[i];
  }
  return equal;
}

void tm_shape_text(const tm_shape* shape, char* text, size_t size) {
  char whole[TM_SHAPE_TEXT_SIZE] = "(";
  size_t length = 1;
  for (int32_t i = 0; i < entries(shape->rank); i++) {
    length += (size_t)snprintf(whole + length, sizeof whole - length, i ? ",%" PRId64 : "%" PRId64,
                               shape->dim[i]);
  }
  snprintf(text, size, "%s)", whole);
}
