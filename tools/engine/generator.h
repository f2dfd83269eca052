// Requests like those of a production conversation service, made up from a seed.
//
// Prompt and generated lengths are drawn independently (in the trace their rank correlation is
// 0.07) by linear interpolation between these quantiles of the Azure LLM inference trace 2023,
// conversation, of 19,366 requests (Patel et al., "Splitwise", ISCA 2024):
//
//   quantile    0   .01  .025   .05    .1   .15    .2   .25    .3   .35    .4   .45    .5   .55
//   prompt      2    29   120   181   207   372   387   396   403   414   703   984  1020  1045
//   generated   7    16    28    41    54    67    77    85    91    96   103   113   129   151
//
//   quantile   .6   .65    .7   .75    .8   .85    .9  .925   .95  .975   .99  .999 .9999     1
//   prompt   1071  1097  1130  1189  1315  1876  2734  4075  4083  4092  4142  6212  7650 14050
//   generated 177   217   384   395   400   411   424   430   451   522   601   954  1000  1000
//
// Their means are 1,164 and 211 tokens; the trace's are 1,155 and 211.
#ifndef ENGINE_GENERATOR_H_
#define ENGINE_GENERATOR_H_

#include <stddef.h>
#include <stdint.h>
#include <tm/tm.h>

#include "engine/trace.h"

// Makes `count` requests. The same seed makes the same requests, on every machine; a longer run
// begins with the shorter one's.
// Ownership: the caller gives `*out` back with request_trace_deinit.
// Errors: TM_ERR_NO_MEMORY. On error `*out` is empty.
tm_status request_trace_generate(size_t count, uint64_t seed, request_trace* out);

#endif  // ENGINE_GENERATOR_H_
