// Rows that follow their sequences from step to step: the permuted gathers of continuous batching.
//
// After a step some sequences are done, others join, and those that stay move up. A permutation
// says where each row of the new step comes from: perm[i] < old_rows is the row of the old step;
// any larger number means that row i belongs to a sequence that joins.
//
//   old rows   a b c d        perm = {3, 0, 4}     old_rows = 4
//   added      x y z          new rows   d a z     row 2 joins: it is row 2 of `added`
//
// Rows are those of the outermost dimension. What is to be copied is added to a batch, and done
// when the batch is run; rows that stay side by side are one piece of it, whether or not a group is
// open.
//
// `perm`, offsets and sizes are buffers of TM_I32 in host memory, which are read, and written,
// before the call returns. Values may be anywhere. Everything is checked before anything is added,
// and on error the batch and all outputs are unchanged.
//
// Errors of all: TM_ERR_INVALID (null; dtypes or the shapes of rows differ; the destination may
//         overlap a source or itself; an index below 0; a buffer that is not TM_I32 on the host, or
//         that is an output and may overlap another or values; rows that do not begin at a whole
//         byte),
//         TM_ERR_OUT_OF_RANGE (an index, an offset or a row beyond what is there; the message names
//         i and the value), TM_ERR_OVERFLOW (an offset beyond int32_t), TM_ERR_NO_MEMORY.
#ifndef TM_TENSOR_WARP_H_
#define TM_TENSOR_WARP_H_

#include <stdint.h>

#include "tm/base/attributes.h"
#include "tm/base/status.h"
#include "tm/tensor/batch_copy.h"
#include "tm/tensor/buffer.h"
#include "tm/tensor/tensor.h"

TM_EXTERN_C_BEGIN

// Rows of differing lengths one behind the other: row i is values[offsets[i]] to
// values[offsets[i + 1]], that one excluded.
typedef struct tm_packed_rows {
  const tm_tensor* values;   // [elements, ...]
  const tm_buffer* offsets;  // [rows + 1]
} tm_packed_rows;

// Rows of differing lengths in rows of one length: row i is values[i][0] to values[i][sizes[i]],
// that one excluded.
typedef struct tm_padded_rows {
  const tm_tensor* values;  // [rows, longest, ...]
  const tm_buffer* sizes;   // [rows]
} tm_padded_rows;

// For each i below the size of `perm`, which has at most as many elements as `destination` rows:
//
//   destination[i] = old[perm[i]]   where perm[i] < old_rows; other rows are left as they are
TM_API TM_NODISCARD tm_status tm_warp(tm_batch_copy* batch, const tm_tensor* old, int64_t old_rows,
                                      const tm_buffer* perm, const tm_tensor* destination);

//   destination[i] = perm[i] < old_rows ? old[perm[i]] : added[i]
TM_API TM_NODISCARD tm_status tm_warp_or(tm_batch_copy* batch, const tm_tensor* old,
                                         int64_t old_rows, const tm_buffer* perm,
                                         const tm_tensor* added, const tm_tensor* destination);

// The same for packed rows, which are packed again:
//
//   destination.row(i) = perm[i] < old_rows ? old.row(perm[i]) : added.row(i)
//   destination.offsets[0] = 0
//   destination.offsets[i + 1] = destination.offsets[i] + the length of row i
//
// The destination's offsets are written before this returns.
TM_API TM_NODISCARD tm_status tm_warp_packed(tm_batch_copy* batch, const tm_packed_rows* old,
                                             int64_t old_rows, const tm_buffer* perm,
                                             const tm_packed_rows* added,
                                             const tm_packed_rows* destination);

// Sequences that stay grow by one element each; those that join bring theirs:
//
//   destination.row(i)   = old.row(perm[i]) and then last[perm[i]]   where perm[i] < old_rows
//   destination.sizes[i] = old.sizes[perm[i]] + 1
//
//   destination.row(i)   = added.row(i)                              where it is not
//   destination.sizes[i] = its length
//
// `last` is [rows, ...]: an element for each old row. The destination's sizes are written before
// this returns.
TM_API TM_NODISCARD tm_status tm_append(tm_batch_copy* batch, const tm_padded_rows* old,
                                        const tm_tensor* last, int64_t old_rows,
                                        const tm_buffer* perm, const tm_packed_rows* added,
                                        const tm_padded_rows* destination);

TM_EXTERN_C_END

#endif  // TM_TENSOR_WARP_H_
