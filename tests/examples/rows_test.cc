// The code that the example kernels run in their threads, run on the host, a loop in the place of a
// block, and compared with double precision. And what their launches refuse.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "examples/rms_norm_row.h"
#include "examples/rotary_token.h"
#include "tests/examples/narrow_floats.h"
#include "tests/examples/reference.h"
#include "tm/check.h"
#include "tm/tmcore.hpp"

//===-- Narrow floats -------------------------------------------------------------------------===//

template <class T>
static void every_value_survives_the_way_to_float_and_back() {
  for (int bits = 0; bits < 1 << 16; bits++) {
    const auto wide = static_cast<float>(T::of_bits(static_cast<uint16_t>(bits)));
    if (!std::isnan(wide)) {
      TM_CHECK_EQ(T(wide).bits(), bits);
    }
  }
}

static void floats_round_to_the_nearest() {
  TM_CHECK_EQ(half_float(1.f).bits(), 0x3c00);
  TM_CHECK_EQ(half_float(-2.f).bits(), 0xc000);
  TM_CHECK_EQ(half_float(1.f + 1.f / 2048).bits(), 0x3c00);  // ties to even
  TM_CHECK_EQ(half_float(1.f + 3.f / 2048).bits(), 0x3c02);
  TM_CHECK_EQ(half_float(65519.f).bits(), 0x7bff);
  TM_CHECK_EQ(half_float(65520.f).bits(), 0x7c00);  // infinity
  TM_CHECK_EQ(half_float(5.9604645e-8f).bits(), 0x0001);
  TM_CHECK_EQ(half_float(2.9e-8f).bits(), 0x0000);
  TM_CHECK_EQ(brain_float(1.f).bits(), 0x3f80);
  TM_CHECK_EQ(brain_float(1.f + 1.f / 256).bits(), 0x3f80);  // ties to even
  TM_CHECK_EQ(brain_float(1.f + 3.f / 256).bits(), 0x3f82);
}

//===-- Blocks of threads on the host ---------------------------------------------------------===//

template <class T, class Index>
static void rms_norm_on_host(const tmcore::tensor& x, const tmcore::tensor& weight, float epsilon,
                             const tmcore::tensor& out, Index threads) {
  rms_norm_arguments<T, Index> a;
  TM_CHECK_OK(rms_norm_prepare(x.get(), weight.get(), epsilon, out.get(), &a));
  for (Index row = 0; row < a.x.size(0); row++) {
    float sum = 0;
    for (Index thread = 0; thread < threads; thread++) {
      sum += rms_norm_sum(a, row, thread, threads);
    }
    for (Index thread = threads; thread-- > 0;) {  // in any order
      rms_norm_write(a, row, rms_norm_scale(a, sum), thread, threads);
    }
  }
}

template <class T, class Index>
static void rotary_on_host(const tmcore::tensor& x, const tmcore::tensor& positions,
                           const rotary_options& options, const tmcore::tensor& out,
                           Index threads) {
  rotary_arguments<T, Index> a;
  TM_CHECK_OK(rotary_prepare(x.get(), positions.get(), &options, out.get(), &a));
  for (Index token = 0; token < a.x.size(0); token++) {
    for (Index thread = threads; thread-- > 0;) {
      rotary_token(a, token, thread, threads);
    }
  }
}

//===-- RMS normalization ---------------------------------------------------------------------===//

template <class T, class Index>
static void rms_norm_of_a_column_slice(int64_t rows, int64_t hidden) {
  const tm_dtype dtype = tmcore::dtype_of<T>::value;
  const tmcore::tensor all({rows, 3 * hidden}, dtype, TM_CPU);
  const tmcore::tensor weights({hidden, 2}, dtype, TM_CPU);
  const tmcore::tensor result({rows, 3 * hidden}, dtype, TM_CPU);
  const tmcore::tensor before({rows, 3 * hidden}, dtype, TM_CPU);
  fill_random<T>(all.get(), 1);
  fill_random<T>(weights.get(), 2);
  fill_random<T>(result.get(), 3);
  tmcore::copy(result, before);
  const tmcore::tensor x = middle_columns(all);
  const tmcore::tensor out = middle_columns(result);
  rms_norm_on_host<T, Index>(x, second_column(weights), 1e-5f, out, Index{256});
  expect_rms_norm<T>(x.get(), second_column(weights).get(), 1e-5f, out.get());
  expect_same<T>(result.slice({0, 0}, {-1, hidden}), before.slice({0, 0}, {-1, hidden}));
  expect_same<T>(result.slice({0, 2 * hidden}, {-1, hidden}),
                 before.slice({0, 2 * hidden}, {-1, hidden}));
  // In place, on what is turned.
  const tmcore::tensor kept = tmcore::empty_like(x);
  tmcore::copy(x, kept);
  rms_norm_on_host<T, Index>(x, second_column(weights), 0.5f, x, Index{32});
  expect_rms_norm<T>(kept.get(), second_column(weights).get(), 0.5f, x.get());
}

template <class T>
static void rms_norm_is_right() {
  for (const int64_t hidden : {1, 31, 256, 1000}) {
    rms_norm_of_a_column_slice<T, int32_t>(5, hidden);
    rms_norm_of_a_column_slice<T, int64_t>(2, hidden);
  }
  rms_norm_of_a_column_slice<T, int32_t>(0, 8);
}

static void rms_norm_refuses_what_does_not_fit() {
  const tmcore::tensor x({4, 8}, TM_F32, TM_CPU);
  const tmcore::tensor weight({8}, TM_F32, TM_CPU);
  const tmcore::tensor half({4, 8}, TM_F16, TM_CPU);
  const tmcore::tensor other({4, 9}, TM_F32, TM_CPU);
  const tmcore::tensor nine({9}, TM_F32, TM_CPU);
  tm_layout overlap;
  TM_CHECK_OK(tm_layout_make_strided(TM_SHAPE(4, 8), TM_SHAPE(0, 1), &overlap));
  const tmcore::tensor shared = tmcore::tensor::strided(overlap, TM_F32, TM_CPU);
  const tmcore::tensor null;
  const struct {
    const tmcore::tensor& x;
    const tmcore::tensor& weight;
    float epsilon;
    const tmcore::tensor& out;
    const char* words;
  } rows[] = {
      {half, weight, 0, x, "accessor of f32 asked, the tensor is of f16"},
      {x, x, 0, x, "accessor of rank 1 asked, the tensor has rank 2"},
      {x, weight, 0, other, "rms_norm: shapes differ: (4,8) and (4,9)"},
      {x, nine, 0, x, "rms_norm: 9 weights for rows of 8"},
      {x, weight, 0, shared, "elements of the output (4,8):(0,1) share memory"},
      {x, weight, -1, x, "an epsilon of -1"},
      {x, weight, NAN, x, "an epsilon of"},
      {null, weight, 0, x, ""},
  };
  for (const auto& row : rows) {
    rms_norm_arguments<float, int64_t> a;
    TM_CHECK_EQ(rms_norm_prepare(row.x.get(), row.weight.get(), row.epsilon, row.out.get(), &a),
                TM_ERR_INVALID);
    TM_CHECK(std::strstr(tm_last_error()->message, row.words) != nullptr, "%s",
             tm_last_error()->message);
  }
}

//===-- Rotary position embedding -------------------------------------------------------------===//

template <class T, class Index>
static void rotary_of_transposed_heads(const rotary_options& options) {
  const tm_dtype dtype = tmcore::dtype_of<T>::value;
  const tmcore::tensor whole({3, 7, 64}, dtype, TM_CPU);
  const tmcore::tensor out({7, 3, 64}, dtype, TM_CPU);
  const tmcore::tensor positions({7}, TM_I32, TM_CPU);
  fill_random<T>(whole.get(), 4);
  const int32_t at[] = {0, 1, 2, 77, 1000, 4095, 131071};
  std::memcpy(positions.data(), at, sizeof at);
  const tmcore::tensor x = tokens_first(whole);
  rotary_on_host<T, Index>(x, positions, options, out, Index{128});
  expect_rotary<T>(x.get(), positions.get(), options, out.get());
  rotary_on_host<T, Index>(x, positions, options, x, Index{1});  // in place
  for (int64_t token = 0; token < 7; token++) {
    expect_same<T>(x.slice(token, 1).squeeze(0), out.slice(token, 1).squeeze(0));
  }
}

template <class T>
static void rotary_is_right() {
  for (const bool interleaved : {false, true}) {
    rotary_of_transposed_heads<T, int32_t>({10000.f, interleaved});
    rotary_of_transposed_heads<T, int64_t>({500000.f, interleaved});
  }
}

static void rotary_refuses_what_does_not_fit() {
  const tmcore::tensor x({4, 2, 8}, TM_F32, TM_CPU);
  const tmcore::tensor odd({4, 2, 7}, TM_F32, TM_CPU);
  const tmcore::tensor positions({4}, TM_I32, TM_CPU);
  const tmcore::tensor five({5}, TM_I32, TM_CPU);
  const tmcore::tensor wide({4}, TM_I64, TM_CPU);
  const struct {
    const tmcore::tensor& x;
    const tmcore::tensor& positions;
    float theta;
    const tmcore::tensor& out;
    const char* words;
  } rows[] = {
      {x, five, 1e4f, x, "rotary: 5 positions for 4 tokens"},
      {x, wide, 1e4f, x, "accessor of i32 asked, the tensor is of i64"},
      {odd, positions, 1e4f, odd, "heads of 7 elements, which are no pairs"},
      {odd, positions, 1e4f, x, "shapes differ: (4,2,7) and (4,2,8)"},
      {x, positions, 0, x, "a theta of 0"},
      {x, positions, INFINITY, x, "a theta of inf"},
  };
  for (const auto& row : rows) {
    rotary_arguments<float, int64_t> a;
    const rotary_options options = {row.theta, false};
    TM_CHECK_EQ(rotary_prepare(row.x.get(), row.positions.get(), &options, row.out.get(), &a),
                TM_ERR_INVALID);
    TM_CHECK(std::strstr(tm_last_error()->message, row.words) != nullptr, "%s",
             tm_last_error()->message);
  }
}

//===-- Where launches may be -----------------------------------------------------------------===//

static void launches_are_refused_away_from_their_device() {
  const tmcore::tensor host({4}, TM_F32, TM_CPU);
  TM_CHECK_EQ(check_device("kernel", {host.get()}, nullptr), TM_ERR_INVALID);
  TM_CHECK_STREQ(tm_last_error()->message, "kernel: no stream to launch on");
  const tmcore::stream stream = tmcore::stream::create(0, 0, std::nothrow);
  if (!stream) {
    std::printf("skipped where launches may be: %s\n", tm_last_error()->message);
    return;
  }
  TM_CHECK_EQ(check_device("kernel", {host.get()}, stream.get()), TM_ERR_INVALID);
  TM_CHECK_STREQ(tm_last_error()->message, "kernel: a tensor on cpu, the stream is on device:0");
  const tmcore::allocator pool = tmcore::cuda_pool_allocator(stream);
  const tmcore::tensor there({4}, TM_F32, pool);
  TM_CHECK_OK(check_device("kernel", {there.get()}, stream.get()));
  TM_CHECK(fit_int32({there.get(), host.get()}));
  const tmcore::stream foreign = tmcore::stream::adopt(tm_stream_handle(stream.get()), 0);
  TM_CHECK_OK(check_device("kernel", {there.get()}, foreign.get()));
  foreign.disown();
  TM_CHECK_EQ(check_device("kernel", {there.get()}, foreign.get()), TM_ERR_INVALID);
  TM_CHECK_STREQ(tm_last_error()->message, "kernel: no stream to launch on: it was disowned");
}

static void dry_memory_on_any_side_is_seen() {
  const tmcore::tensor x({4}, TM_F32, TM_CPU);
  const tmcore::tensor y({4}, TM_F32, TM_CPU);
  TM_CHECK(!any_is_dry({x.get(), y.get()}));
  y.get()->storage->flags |= TM_STORAGE_DRY_;
  TM_CHECK(any_is_dry({x.get(), y.get()}));
  TM_CHECK(any_is_dry({y.get(), x.get()}));
  y.get()->storage->flags &= ~static_cast<uint32_t>(TM_STORAGE_DRY_);
}

int main() try {
  every_value_survives_the_way_to_float_and_back<half_float>();
  every_value_survives_the_way_to_float_and_back<brain_float>();
  floats_round_to_the_nearest();
  rms_norm_is_right<float>();
  rms_norm_is_right<half_float>();
  rms_norm_is_right<brain_float>();
  rms_norm_refuses_what_does_not_fit();
  rotary_is_right<float>();
  rotary_is_right<half_float>();
  rotary_is_right<brain_float>();
  rotary_refuses_what_does_not_fit();
  launches_are_refused_away_from_their_device();
  dry_memory_on_any_side_is_seen();
  return 0;
} catch (const tmcore::error& e) {
  std::printf("%s\n", e.what());
  return 1;
}
