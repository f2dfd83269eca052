// What the threads of a block do about a token of rotary. Compiled for kernels, and as plain C++,
// where a loop over the threads does the same.
#ifndef TM_EXAMPLES_ROTARY_TOKEN_H_
#define TM_EXAMPLES_ROTARY_TOKEN_H_

#include <tm/tm.h>

#include <cmath>

#include "examples/launch.h"
#include "examples/rotary.h"

// What the kernel takes by value.
template <class T, class Index>
struct rotary_arguments {
  tmcore::accessor<const T, 3, Index> x;                // (tokens, heads, dim)
  tmcore::accessor<const int32_t, 1, Index> positions;  // (tokens)
  tmcore::accessor<T, 3, Index> out;                    // (tokens, heads, dim)
  rotary_options options;
};

inline tm_status rotary_check(const tm_tensor* x, const tm_tensor* positions,
                              const rotary_options* options, const tm_tensor* out) {
  TM_TRY(check_same_shape("rotary", x, out));
  TM_TRY(check_written("rotary", out));
  if (tm_dim(positions, 0) != tm_dim(x, 0)) {
    return TM_RAISE(TM_ERR_INVALID, "rotary: %lld positions for %lld tokens",
                    static_cast<long long>(tm_dim(positions, 0)),
                    static_cast<long long>(tm_dim(x, 0)));
  }
  if (tm_dim(x, 2) % 2 != 0) {
    return TM_RAISE(TM_ERR_INVALID, "rotary: heads of %lld elements, which are no pairs",
                    static_cast<long long>(tm_dim(x, 2)));
  }
  if (!(options->theta > 0) || std::isinf(options->theta)) {
    return TM_RAISE(TM_ERR_INVALID, "rotary: a theta of %g", static_cast<double>(options->theta));
  }
  return TM_OK;
}

// Errors: as rotary, but for where the tensors lie.
template <class T, class Index>
tm_status rotary_prepare(const tm_tensor* x, const tm_tensor* positions,
                         const rotary_options* options, const tm_tensor* out,
                         rotary_arguments<T, Index>* arguments) {
  TM_TRY(tmcore::make_accessor(x, &arguments->x));
  TM_TRY(tmcore::make_accessor(positions, &arguments->positions));
  TM_TRY(tmcore::make_accessor(out, &arguments->out));
  TM_TRY(rotary_check(x, positions, options, out));
  arguments->options = *options;
  return TM_OK;
}

template <class T, class Index>
HOST_DEVICE void rotary_pair(const rotary_arguments<T, Index>& a, Index token, Index head,
                             Index pair) {
  const Index dim = a.x.size(2);
  const Index first = a.options.interleaved ? 2 * pair : pair;
  const Index second = a.options.interleaved ? 2 * pair + 1 : pair + dim / 2;
  const float exponent = -2.f * static_cast<float>(pair) / static_cast<float>(dim);
  const float angle = static_cast<float>(a.positions(token)) * powf(a.options.theta, exponent);
  const float c = cosf(angle);
  const float s = sinf(angle);
  const auto u = static_cast<float>(a.x(token, head, first));
  const auto v = static_cast<float>(a.x(token, head, second));
  a.out(token, head, first) = T(u * c - v * s);
  a.out(token, head, second) = T(u * s + v * c);
}

// The pairs that fall to one thread of `threads`.
template <class T, class Index>
HOST_DEVICE void rotary_token(const rotary_arguments<T, Index>& a, Index token, Index thread,
                              Index threads) {
  const Index pairs = a.x.size(2) / 2;
  for (Index i = thread; i < a.x.size(1) * pairs; i += threads) {
    rotary_pair(a, token, i / pairs, i % pairs);
  }
}

#endif  // TM_EXAMPLES_ROTARY_TOKEN_H_
