// One run of `tm trace`: a log through the allocators of one expression.
#ifndef TOOLS_TRACE_RUN_H_
#define TOOLS_TRACE_RUN_H_

#include "tools/allocator_expression.h"
#include "tools/backend.h"
#include "tools/trace_options.h"
#include "tools/trace_report.h"
#include "trace/allocation_log.h"

// Replays the log through new allocators, once to watch memory and then, through others, as often
// as `options` says to take the time. What goes wrong is said in `*out`. `device` may be NULL where
// the expression uses none.
void trace_run_expression(const trace_options* options, const allocation_log* log,
                          const backend_device* device, const allocator_expression* expression,
                          trace_run* out);

#endif  // TOOLS_TRACE_RUN_H_
