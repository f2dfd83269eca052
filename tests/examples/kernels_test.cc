// The example kernels on a device, compared with double precision on the host.

#include <cstdint>
#include <cstdio>
#include <cstring>

#include "examples/rms_norm.h"
#include "examples/rotary.h"
#include "tests/examples/narrow_floats.h"
#include "tests/examples/reference.h"
#include "tm/check.h"
#include "tm/tmcore.hpp"

// The same on the device.
static tmcore::tensor to_device(const tmcore::tensor& host) {
  tmcore::tensor device = tmcore::empty_like(host, TM_DEVICE);
  tmcore::copy(host, device);
  return device;
}

template <class T>
static tmcore::tensor random(const tmcore::dims& shape, uint32_t seed) {
  tmcore::tensor made(shape, tmcore::dtype_of<T>::value, TM_CPU_PINNED);
  fill_random<T>(made.get(), seed);
  return made;
}

template <class T>
static void rms_norm_of_a_column_slice(tmcore::stream_ref stream, int64_t rows, int64_t hidden) {
  const tmcore::tensor all = random<T>({rows, 3 * hidden}, 1);
  const tmcore::tensor weights = random<T>({hidden, 2}, 2);
  const tmcore::tensor before = random<T>({rows, 3 * hidden}, 3);
  const tmcore::tensor all_there = to_device(all);
  const tmcore::tensor weights_there = to_device(weights);
  const tmcore::tensor result_there = to_device(before);
  tmcore::check(rms_norm(middle_columns(all_there).get(), second_column(weights_there).get(), 1e-5f,
                         middle_columns(result_there).get(), stream.get()));
  const tmcore::tensor result = tmcore::empty_like(before, TM_CPU_PINNED);
  tmcore::copy(result_there, result);
  stream.sync();
  expect_rms_norm<T>(middle_columns(all).get(), second_column(weights).get(), 1e-5f,
                     middle_columns(result).get());
  expect_same<T>(result.slice({0, 0}, {-1, hidden}), before.slice({0, 0}, {-1, hidden}));
  expect_same<T>(result.slice({0, 2 * hidden}, {-1, hidden}),
                 before.slice({0, 2 * hidden}, {-1, hidden}));
}

template <class T>
static void rotary_of_transposed_heads(tmcore::stream_ref stream, const rotary_options& options) {
  const tmcore::tensor whole = random<T>({3, 7, 64}, 4);
  const tmcore::tensor positions({7}, TM_I32, TM_CPU_PINNED);
  const int32_t at[] = {0, 1, 2, 77, 1000, 4095, 131071};
  std::memcpy(positions.data(), at, sizeof at);
  const tmcore::tensor whole_there = to_device(whole);
  const tmcore::tensor positions_there = to_device(positions);
  const tmcore::tensor x_there = tokens_first(whole_there);
  const tmcore::tensor out_there = tmcore::empty_like(x_there);
  tmcore::check(
      rotary(x_there.get(), positions_there.get(), &options, out_there.get(), stream.get()));
  const tmcore::tensor out = tmcore::empty_like(out_there, TM_CPU_PINNED);
  tmcore::copy(out_there, out);
  stream.sync();
  expect_rotary<T>(tokens_first(whole).get(), positions.get(), options, out.get());
}

template <class T>
static void kernels_are_right(tmcore::stream_ref stream) {
  for (const int64_t hidden : {1, 31, 256, 1000, 8192}) {
    rms_norm_of_a_column_slice<T>(stream, 5, hidden);
  }
  rms_norm_of_a_column_slice<T>(stream, 0, 8);
  rotary_of_transposed_heads<T>(stream, {10000.f, false});
  rotary_of_transposed_heads<T>(stream, {500000.f, true});
}

static void launches_say_what_is_wrong(tmcore::stream_ref stream) {
  const tmcore::tensor x({4, 8}, TM_F32, TM_DEVICE);
  const tmcore::tensor weight({8}, TM_F32, TM_DEVICE);
  const tmcore::tensor doubles({4, 8}, TM_F64, TM_DEVICE);
  const tmcore::tensor host({4, 8}, TM_F32, TM_CPU_PINNED);
  const tmcore::tensor null;
  TM_CHECK_EQ(rms_norm(null.get(), weight.get(), 0, x.get(), stream.get()), TM_ERR_INVALID);
  TM_CHECK_EQ(rms_norm(doubles.get(), weight.get(), 0, x.get(), stream.get()), TM_ERR_INVALID);
  TM_CHECK_EQ(rms_norm(host.get(), weight.get(), 0, x.get(), stream.get()), TM_ERR_INVALID);
  TM_CHECK_EQ(rms_norm(x.get(), weight.get(), 0, x.get(), nullptr), TM_ERR_INVALID);
  TM_CHECK_EQ(rotary(x.get(), weight.get(), nullptr, x.get(), stream.get()), TM_ERR_INVALID);
}

int main() try {
  int32_t devices;
  if (tm_device_count(&devices) != TM_OK) {
    std::printf("skipped: %s\n", tm_last_error()->message);
    return 0;
  }
  const tmcore::stream stream = tmcore::stream::create(0);
  const tmcore::allocator pool = tmcore::cuda_pool_allocator(stream);
  const tmcore::context_guard guard{stream, pool, tmcore::pinned_allocator()};
  kernels_are_right<float>(stream);
  kernels_are_right<half_float>(stream);
  kernels_are_right<brain_float>(stream);
  launches_say_what_is_wrong(stream);
  std::printf("passed on device 0 of %d\n", devices);
  return 0;
} catch (const tmcore::error& e) {
  std::printf("%s\n", e.what());
  return 1;
}
