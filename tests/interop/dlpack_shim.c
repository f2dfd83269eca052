// What dlpack_test.py calls through ctypes: one tensor, made here or taken from Python.
#include <stdint.h>
#include <stdlib.h>

#include "tm/alloc/bookkeeping.h"
#include "tm/alloc/host.h"
#include "tm/base/attributes.h"
#include "tm/tensor/dlpack.h"
#include "tm/tensor/tensor.h"

TM_API tm_status shim_make(const char* dtype, int64_t rows, int64_t columns);
TM_API tm_status shim_slice(int64_t row, int64_t column);
TM_API tm_status shim_transpose(void);
TM_API void* shim_export(void);
TM_API tm_status shim_import(void* managed);
TM_API void shim_delete(void* managed);
TM_API void shim_release(void);
TM_API void* shim_data(void);
TM_API const char* shim_dtype(void);
TM_API const char* shim_layout(void);
TM_API const char* shim_error(void);
TM_API int64_t shim_live(void);

static tm_tensor tensor;

static tm_status keep(tm_tensor made) {
  tm_assign(&tensor, made);
  return tm_ok(&tensor) ? TM_OK : tm_last_status();
}

tm_status shim_make(const char* dtype, int64_t rows, int64_t columns) {
  tm_dtype parsed;
  TM_TRY(tm_dtype_parse(dtype, &parsed));
  return keep(tm_empty_from(tm_host_allocator(), TM_SHAPE(rows, columns), parsed));
}

tm_status shim_slice(int64_t row, int64_t column) {
  return keep(tm_slice(&tensor, TM_INDEX(row, column), TM_INDEX(-1, -1)));
}

tm_status shim_transpose(void) { return keep(tm_t(&tensor)); }

void* shim_export(void) { return tm_to_dlpack_legacy(&tensor); }

tm_status shim_import(void* managed) { return keep(tm_from_dlpack_legacy(managed)); }

void shim_delete(void* managed) { tm_dlpack_delete_legacy(managed); }

void shim_release(void) { tm_release(&tensor); }

void* shim_data(void) { return tm_data(&tensor); }

const char* shim_dtype(void) { return tm_dtype_name(tm_dtype_of(&tensor)); }

const char* shim_layout(void) {
  static char text[TM_LAYOUT_TEXT_SIZE];
  tm_layout_text(&tensor.layout, text, sizeof text);
  return text;
}

const char* shim_error(void) { return tm_last_error()->message; }

int64_t shim_live(void) { return tm_bookkeeping_live(); }
