// Copies and fills between layouts in host memory, done when they return. Private.
#ifndef TM_TENSOR_HOST_COPY_H_
#define TM_TENSOR_HOST_COPY_H_

#include <stdint.h>

#include "tensor/copy_plan.h"

// Copies all runs of `plan`. The two sides do not overlap.
void tm_host_copy_(const tm_copy_plan_* plan, const void* source, void* destination);

// Sets every byte of the plan's destination to `value`; its source does not matter.
void tm_host_fill_(const tm_copy_plan_* plan, uint8_t value, void* destination);

#endif  // TM_TENSOR_HOST_COPY_H_
