// What writing and reading archives agree on. Private.
#ifndef TM_TENSOR_ARCHIVE_FORMAT_H_
#define TM_TENSOR_ARCHIVE_FORMAT_H_

#include <stdbool.h>
#include <stdint.h>

#include "tm/tensor/dtype.h"

#define TM_ARCHIVE_MAGIC_ "TMCOREAR"

enum {
  TM_ARCHIVE_VERSION_ = 1,
  TM_ARCHIVE_FIELD_ = 8,  // bytes; runs of bytes fill a multiple
};

typedef enum tm_archive_kind {
  TM_ARCHIVE_LAYOUT_ = 1,
  TM_ARCHIVE_BUFFER_ = 2,
  TM_ARCHIVE_TENSOR_ = 3,
  TM_ARCHIVE_MAP_ = 4,
} tm_archive_kind;

// Whether elements mean something elsewhere.
static inline bool tm_archive_holds_(tm_dtype dtype) {
  return tm_dtype_bits(dtype) != 0 && dtype != TM_POINTER;
}

// The bits that `count` elements, more than 0, use of their last byte, from the lowest on; those
// behind are zero.
static inline unsigned tm_archive_last_bits_(tm_dtype dtype, int64_t count) {
  const unsigned used = (unsigned)(count % 8) * (unsigned)tm_dtype_bits(dtype) % 8;
  return used ? used : 8;
}

#endif  // TM_TENSOR_ARCHIVE_FORMAT_H_
