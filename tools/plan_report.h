// What `tm plan` prints.
#ifndef TOOLS_PLAN_REPORT_H_
#define TOOLS_PLAN_REPORT_H_

#include <stdbool.h>
#include <stdint.h>

#include "engine/config.h"
#include "engine/plan.h"

typedef struct plan_report {
  const char* model;
  const model_config* config;
  plan_limits limits;
  uint64_t device_memory;  // bytes
  engine_plan plan;
  int64_t largest_batch;     // at limits.sequence; 0: none fits
  int64_t longest_sequence;  // at limits.batch; 0: none fits
} plan_report;

// Whether the plan fits the device, with an arena for the activations.
static inline bool plan_report_fits(const plan_report* r) {
  return r->plan.stack.reserved <= r->device_memory;
}

// For people.
void plan_report_table(const plan_report* r);

// For machines: one JSON object. False where it could not be written.
bool plan_report_json(const plan_report* r);

#endif  // TOOLS_PLAN_REPORT_H_
