#include "engine/generator.h"

// What share of the requests (in 1/10000) is at most how long, in tokens.
typedef struct quantile {
  uint32_t share;
  uint32_t prompt;
  uint32_t generated;
} quantile;

enum { WHOLE = 10000 };

static const quantile quantiles[] = {
    {0, 2, 7},         {100, 29, 16},     {250, 120, 28},     {500, 181, 41},
    {1000, 207, 54},   {1500, 372, 67},   {2000, 387, 77},    {2500, 396, 85},
    {3000, 403, 91},   {3500, 414, 96},   {4000, 703, 103},   {4500, 984, 113},
    {5000, 1020, 129}, {5500, 1045, 151}, {6000, 1071, 177},  {6500, 1097, 217},
    {7000, 1130, 384}, {7500, 1189, 395}, {8000, 1315, 400},  {8500, 1876, 411},
    {9000, 2734, 424}, {9250, 4075, 430}, {9500, 4083, 451},  {9750, 4092, 522},
    {9900, 4142, 601}, {9990, 6212, 954}, {9999, 7650, 1000}, {WHOLE, 14050, 1000},
};

// The next of a sequence of well-mixed 64-bit numbers: splitmix64 (Steele, Lea, Flood 2014).
static uint64_t next_random(uint64_t* state) {
  uint64_t z = (*state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// Uniform in [0, WHOLE).
static double next_share(uint64_t* state) {
  return (double)(next_random(state) >> 11) * 0x1p-53 * WHOLE;
}

// The interval of two neighbouring quantiles that `share` lies in.
static const quantile* interval_of(double share) {
  const quantile* low = quantiles;
  while (share >= low[1].share) low++;
  return low;
}

static uint32_t interpolate(double share, const quantile* low, uint32_t from, uint32_t to) {
  const double position = (share - low[0].share) / (low[1].share - low[0].share);
  return from + (uint32_t)(position * (to - from) + 0.5);
}

static trace_request next_request(uint64_t* state) {
  const double prompt_share = next_share(state);
  const double generated_share = next_share(state);
  const quantile* p = interval_of(prompt_share);
  const quantile* g = interval_of(generated_share);
  return (trace_request){
      .prompt_tokens = interpolate(prompt_share, p, p[0].prompt, p[1].prompt),
      .generated_tokens = interpolate(generated_share, g, g[0].generated, g[1].generated),
  };
}

tm_status request_trace_generate(size_t count, uint64_t seed, request_trace* out) {
  *out = (request_trace){0};
  uint64_t state = seed;
  for (size_t i = 0; i < count; i++) {
    const tm_status status = request_trace_append(out, next_request(&state));
    if (status != TM_OK) {
      request_trace_deinit(out);
      return status;
    }
  }
  return TM_OK;
}
