// One run of `tm replay`: an engine that serves a trace with one allocator for its activations.
#ifndef TOOLS_REPLAY_RUN_H_
#define TOOLS_REPLAY_RUN_H_

#include "engine/config.h"
#include "engine/trace.h"
#include "tools/backend.h"
#include "tools/replay_options.h"
#include "tools/report.h"

extern const double replay_kv_fraction;

// Serves the trace and fills `*out`. What goes wrong is said there: `failed` and `message`.
void replay_run_allocator(const replay_options* options, const model_config* config,
                          const request_trace* trace, const backend_device* device,
                          replay_allocator allocator, replay_run* out);

#endif  // TOOLS_REPLAY_RUN_H_
