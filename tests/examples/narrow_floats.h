// The narrow floats as plain C++: their bits, and what they round to.
#ifndef TM_TESTS_EXAMPLES_NARROW_FLOATS_H_
#define TM_TESTS_EXAMPLES_NARROW_FLOATS_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "tm/tensor/dtype.h"

// IEEE half.
struct half_float {
  half_float() = default;
  explicit half_float(float value) : bits_(rounded(value)) {}
  static half_float of_bits(uint16_t bits) {
    half_float result;
    result.bits_ = bits;
    return result;
  }
  uint16_t bits() const { return bits_; }
  explicit operator float() const {
    const int exponent = bits_ >> 10 & 31;
    const int mantissa = bits_ & 1023;
    const float sign = bits_ & 0x8000 ? -1.f : 1.f;
    if (exponent == 31) {
      return mantissa ? NAN : sign * INFINITY;
    }
    return sign * (exponent ? std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25)
                            : std::ldexp(static_cast<float>(mantissa), -24));
  }

 private:
  // To nearest, ties to even: what nearbyint does in the unit of the result's last place.
  static uint16_t rounded(float value) {
    const int sign = std::signbit(value) ? 0x8000 : 0;
    if (std::isnan(value) || value == 0) {
      return static_cast<uint16_t>(value == 0 ? sign : 0x7e00);
    }
    int exponent;
    (void)std::frexp(value, &exponent);  // value = [0.5, 1) * 2^exponent
    const int place = std::max(exponent - 11, -24);
    const float units =
        std::isinf(value) ? INFINITY : std::nearbyint(std::ldexp(std::fabs(value), -place));
    if (std::ldexp(units, place) > 65504.f) {
      return static_cast<uint16_t>(sign | 0x7c00);
    }
    // 1024 units at the lowest place are the first normal number; each place is 1024 further.
    return static_cast<uint16_t>(sign + static_cast<int>(units) + (place + 24) * 1024);
  }

  uint16_t bits_ = 0;
};

// bfloat16: the upper half of a float.
struct brain_float {
  brain_float() = default;
  explicit brain_float(float value) {
    uint32_t wide;
    std::memcpy(&wide, &value, sizeof wide);
    const uint32_t half_of_last_place = 0x7fff + (wide >> 16 & 1);
    bits_ = static_cast<uint16_t>(std::isnan(value) ? 0x7fc0 : (wide + half_of_last_place) >> 16);
  }
  explicit operator float() const {
    const uint32_t wide = uint32_t{bits_} << 16;
    float value;
    std::memcpy(&value, &wide, sizeof value);
    return value;
  }
  static brain_float of_bits(uint16_t bits) {
    brain_float result;
    result.bits_ = bits;
    return result;
  }
  uint16_t bits() const { return bits_; }

 private:
  uint16_t bits_ = 0;
};

template <>
struct tmcore::dtype_of<half_float> {
  static constexpr tm_dtype value = TM_F16;
};
template <>
struct tmcore::dtype_of<brain_float> {
  static constexpr tm_dtype value = TM_BF16;
};

#endif  // TM_TESTS_EXAMPLES_NARROW_FLOATS_H_
