// What the example kernels should compute, in double precision and without accessors, and how far
// the results may lie from it.
#ifndef TM_TESTS_EXAMPLES_REFERENCE_H_
#define TM_TESTS_EXAMPLES_REFERENCE_H_

#include <cmath>
#include <cstdint>
#include <limits>

#include "examples/rotary.h"
#include "tests/examples/narrow_floats.h"
#include "tm/check.h"
#include "tm/tmcore.hpp"

// Half of the distance between neighbours around 1: what rounding alone costs.
template <class T>
constexpr double rounding = std::numeric_limits<float>::epsilon() / 2;
template <>
inline constexpr double rounding<half_float> = 1.0 / 2048;
template <>
inline constexpr double rounding<brain_float> = 1.0 / 256;

// Half of the distance between neighbours around 0, where f16 has run out of exponents.
template <class T>
constexpr double rounding_at_zero = 0;
template <>
inline constexpr double rounding_at_zero<half_float> = 0x1p-25;

//===-- Strided tensors -----------------------------------------------------------------------===//

// Of (rows, 3 * hidden), the middle third of the columns.
inline tmcore::tensor middle_columns(const tmcore::tensor& whole) {
  const int64_t hidden = whole.shape(1) / 3;
  return whole.slice({0, hidden}, {-1, hidden});
}

// Of (hidden, 2), the second column.
inline tmcore::tensor second_column(const tmcore::tensor& whole) {
  return whole.slice({0, 1}, {-1, 1}).squeeze(1);
}

// Of (heads, tokens, dim), (tokens, heads, dim).
inline tmcore::tensor tokens_first(const tmcore::tensor& whole) { return whole.transpose(0, 1); }

//===-- References ----------------------------------------------------------------------------===//

// The element of a host tensor at a full index.
template <class T>
T& element(const tm_tensor* t, tm_shape index) {
  int64_t offset;
  TM_CHECK_OK(tm_layout_offset(&t->layout, index, &offset));
  return static_cast<T*>(t->data)[offset];
}

// Numbers from -2 to 2 in all of a contiguous host tensor.
template <class T>
void fill_random(const tm_tensor* t, uint32_t seed) {
  TM_CHECK(tm_is_contiguous(t));
  for (int64_t i = 0; i < tm_size(t); i++) {
    seed = seed * 1664525 + 1013904223;
    static_cast<T*>(t->data)[i] = T(static_cast<float>(seed >> 8) / (1 << 22) - 2.f);
  }
}

template <class T>
void expect_near(const T& found, double expected, double tolerance) {
  const auto value = static_cast<double>(static_cast<float>(found));
  const double rounded = std::fmax(rounding<T> * std::fabs(expected), rounding_at_zero<T>);
  const double allowed = tolerance + rounded * 1.01;
  TM_CHECK_LE(std::fabs(value - expected), allowed, "%.9g, not %.9g", value, expected);
}

template <class T>
void expect_rms_norm(const tm_tensor* x, const tm_tensor* weight, float epsilon,
                     const tm_tensor* out) {
  const int64_t hidden = tm_dim(x, 1);
  for (int64_t row = 0; row < tm_dim(x, 0); row++) {
    double sum = 0;
    for (int64_t i = 0; i < hidden; i++) {
      sum += std::pow(static_cast<float>(element<T>(x, TM_INDEX(row, i))), 2.0);
    }
    const double root = std::sqrt(sum / static_cast<double>(hidden) + static_cast<double>(epsilon));
    for (int64_t i = 0; i < hidden; i++) {
      const auto value = static_cast<double>(static_cast<float>(element<T>(x, TM_INDEX(row, i))));
      const auto factor = static_cast<double>(static_cast<float>(element<T>(weight, TM_INDEX(i))));
      const double expected = value / root * factor;
      expect_near(element<T>(out, TM_INDEX(row, i)), expected, 2e-6 * std::fabs(expected));
    }
  }
}

template <class T>
void expect_rotary_pair(const tm_tensor* x, int32_t position, const rotary_options& options,
                        const tm_tensor* out, int64_t token, int64_t head, int64_t pair) {
  const int64_t dim = tm_dim(x, 2);
  const int64_t first = options.interleaved ? 2 * pair : pair;
  const int64_t second = options.interleaved ? first + 1 : pair + dim / 2;
  const auto base = static_cast<double>(options.theta);
  const double angle =
      position * std::pow(base, -2.0 * static_cast<double>(pair) / static_cast<double>(dim));
  const auto u =
      static_cast<double>(static_cast<float>(element<T>(x, TM_INDEX(token, head, first))));
  const auto v =
      static_cast<double>(static_cast<float>(element<T>(x, TM_INDEX(token, head, second))));
  // The angle is a float: its error grows with it.
  const double tolerance = 1e-6 + 1e-6 * std::fabs(angle);
  expect_near(element<T>(out, TM_INDEX(token, head, first)),
              u * std::cos(angle) - v * std::sin(angle), tolerance);
  expect_near(element<T>(out, TM_INDEX(token, head, second)),
              u * std::sin(angle) + v * std::cos(angle), tolerance);
}

template <class T>
void expect_rotary(const tm_tensor* x, const tm_tensor* positions, const rotary_options& options,
                   const tm_tensor* out) {
  for (int64_t token = 0; token < tm_dim(x, 0); token++) {
    const auto position = element<int32_t>(positions, TM_INDEX(token));
    for (int64_t head = 0; head < tm_dim(x, 1); head++) {
      for (int64_t pair = 0; pair < tm_dim(x, 2) / 2; pair++) {
        expect_rotary_pair<T>(x, position, options, out, token, head, pair);
      }
    }
  }
}

// That two host matrices hold the same numbers.
template <class T>
void expect_same(const tmcore::tensor& a, const tmcore::tensor& b) {
  for (int64_t i = 0; i < a.shape(0); i++) {
    for (int64_t j = 0; j < a.shape(1); j++) {
      TM_CHECK_EQ(static_cast<float>(element<T>(a.get(), TM_INDEX(i, j))),
                  static_cast<float>(element<T>(b.get(), TM_INDEX(i, j))));
    }
  }
}

#endif  // TM_TESTS_EXAMPLES_REFERENCE_H_
