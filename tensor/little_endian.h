// Numbers in files, whose bytes come lowest first, at any address. Private.
#ifndef TM_TENSOR_LITTLE_ENDIAN_H_
#define TM_TENSOR_LITTLE_ENDIAN_H_

#include <stdint.h>

static inline uint64_t tm_get_u64_(const void* from) {
  const uint8_t* const bytes = (const uint8_t*)from;
  uint64_t value = 0;
  for (int i = 7; i >= 0; i--) {
    value = value << 8 | bytes[i];
  }
  return value;
}

static inline void tm_put_u64_(uint64_t value, void* to) {
  uint8_t* const bytes = (uint8_t*)to;
  for (int i = 0; i < 8; i++) {
    bytes[i] = (uint8_t)(value >> (8 * i));
  }
}

#endif  // TM_TENSOR_LITTLE_ENDIAN_H_
