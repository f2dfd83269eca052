// Which pieces of a batch can go into one call of the driver, which orders none of them. Private.
#ifndef TM_TENSOR_BATCH_WAVES_H_
#define TM_TENSOR_BATCH_WAVES_H_

#include <stddef.h>
#include <stdint.h>

#include "tensor/batch_pieces.h"
#include "tm/base/attributes.h"
#include "tm/base/status.h"

// Sets every piece's `wave`: 0 for the host's, and for a stream's the smallest number from 1 on
// that is larger than those of all earlier pieces it depends on. Stores the largest in `*out`. O(n
// log n) for n pieces. Errors: TM_ERR_INVALID (what the host does depends on what a stream does),
// TM_ERR_NO_MEMORY. On
//         error `*out` is 0.
TM_NODISCARD tm_status tm_batch_waves_assign_(tm_batch_copy* batch, uint32_t* out);

#endif  // TM_TENSOR_BATCH_WAVES_H_
