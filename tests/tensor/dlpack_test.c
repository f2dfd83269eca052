#include "tm/tensor/dlpack.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/counting_allocator.h"
#include "tests/support/failing.h"
#include "tests/support/machine.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/alloc/cuda.h"
#include "tm/alloc/pinned.h"
#include "tm/alloc/stack.h"
#include "tm/context/context.h"
#include "tm/tensor/copy.h"
#include "tm/tensor/dlpack_abi.h"

static counting_allocator memory;  // what the tests allocate from

static void setup(void) { counting_allocator_init(&memory); }

TestSuite(dlpack, .init = setup);

static tm_tensor make(tm_shape shape, tm_dtype dtype) {
  tm_tensor tensor = tm_empty_from(&memory.base, shape, dtype);
  cr_assert(tm_ok(&tensor), "%s", tm_last_error()->message);
  return tensor;
}

static void expect_layout(const tm_tensor* tensor, const char* expected) {
  char text[TM_LAYOUT_TEXT_SIZE];
  tm_layout_text(&tensor->layout, text, sizeof text);
  cr_expect(eq(str, text, (char*)expected));
}

static void expect_null(const tm_tensor* tensor, tm_status status) {
  cr_expect(not(tm_ok(tensor)));
  cr_expect(eq(ptr, tensor->storage, NULL));
  cr_expect(eq(ptr, tensor->data, NULL));
  cr_expect(eq(int, tm_last_status(), status), "%s", tm_last_error()->message);
}

//===-- A producer ---------------------------------------------------------===//

// Another program's tensor: 24 floats that it owns, and how often it was told to drop them.
typedef struct producer {
  DLManagedTensorVersioned versioned;
  DLManagedTensor legacy;
  int64_t shape[TM_MAX_RANK + 1];
  int64_t strides[TM_MAX_RANK + 1];
  _Alignas(64) float values[24];
  int deleted;
} producer;

static void count_deletion(DLManagedTensorVersioned* self) {
  ((producer*)self->manager_ctx)->deleted++;
}

static void count_legacy_deletion(DLManagedTensor* self) {
  ((producer*)self->manager_ctx)->deleted++;
}

static const DLDataType f32 = {.code = 2, .bits = 32, .lanes = 1};

// Shape (2,3,4), row-major, on the host.
static void producer_init(producer* self) {
  memset(self, 0, sizeof *self);
  const int64_t shape[] = {2, 3, 4};
  const int64_t strides[] = {12, 4, 1};
  memcpy(self->shape, shape, sizeof shape);
  memcpy(self->strides, strides, sizeof strides);
  for (int i = 0; i < 24; i++) {
    self->values[i] = (float)i;
  }
  const DLTensor tensor = {
      .data = self->values,
      .device = {.device_type = 1},
      .ndim = 3,
      .dtype = f32,
      .shape = self->shape,
      .strides = self->strides,
  };
  self->versioned.version.major = 1;
  self->versioned.manager_ctx = self;
  self->versioned.deleter = count_deletion;
  self->versioned.dl_tensor = tensor;
  self->legacy.manager_ctx = self;
  self->legacy.deleter = count_legacy_deletion;
  self->legacy.dl_tensor = tensor;
}

//===-- Handing out --------------------------------------------------------===//

Test(dlpack, export_describes_the_tensor_and_keeps_its_memory) {
  tm_tensor tensor = make(TM_SHAPE(2, 3), TM_I16);
  int16_t* data = TM_DATA(int16_t, &tensor);
  DLManagedTensorVersioned* managed = tm_to_dlpack(&tensor, 0);
  cr_assert(managed != NULL);
  tm_release(&tensor);
  cr_expect(eq(u64, memory.frees, 0));
  cr_expect(eq(u32, managed->version.major, 1));
  cr_expect(eq(u32, managed->version.minor, 1));
  cr_expect(eq(u64, managed->flags, 0));
  const DLTensor* out = &managed->dl_tensor;
  cr_expect(eq(ptr, out->data, data));
  cr_expect(eq(u64, out->byte_offset, 0));
  cr_expect(eq(int, out->device.device_type, 1));
  cr_expect(eq(int, out->device.device_id, 0));
  cr_expect(eq(int, out->ndim, 2));
  cr_expect(eq(i64, out->shape[0], 2));
  cr_expect(eq(i64, out->shape[1], 3));
  cr_expect(eq(i64, out->strides[0], 3));
  cr_expect(eq(i64, out->strides[1], 1));
  managed->deleter(managed);
  cr_expect(eq(u64, memory.frees, 1));
  cr_expect(eq(sz, memory.live_bytes, 0));
}

Test(dlpack, legacy_export_describes_the_tensor_and_keeps_its_memory) {
  tm_tensor tensor = make(TM_SHAPE(2, 3), TM_F64);
  DLManagedTensor* managed = tm_to_dlpack_legacy(&tensor);
  cr_assert(managed != NULL);
  cr_expect(eq(ptr, managed->dl_tensor.data, tensor.data));
  cr_expect(eq(i64, managed->dl_tensor.strides[0], 3));
  tm_release(&tensor);
  cr_expect(eq(u64, memory.frees, 0));
  managed->deleter(managed);
  cr_expect(eq(u64, memory.frees, 1));
}

Test(dlpack, export_of_a_slice_begins_at_its_first_element) {
  tm_auto_tensor whole = make(TM_SHAPE(4, 6), TM_F32);
  tm_auto_tensor part = tm_slice(&whole, TM_INDEX(1, 2), TM_INDEX(2, -1));
  DLManagedTensorVersioned* managed = tm_to_dlpack(&part, 0);
  cr_assert(managed != NULL);
  const DLTensor* out = &managed->dl_tensor;
  cr_expect(eq(ptr, (char*)out->data + out->byte_offset, TM_DATA(float, &whole) + 8));
  cr_expect(eq(i64, out->shape[0], 2));
  cr_expect(eq(i64, out->shape[1], 4));
  cr_expect(eq(i64, out->strides[0], 6));
  cr_expect(eq(i64, out->strides[1], 1));
  tm_dlpack_delete(managed);
}

static const struct {
  tm_dtype dtype;
  uint8_t code;
  uint8_t bits;
} codes[] = {
    {TM_BOOL, 6, 8},  {TM_U8, 1, 8},       {TM_U16, 1, 16},  {TM_U32, 1, 32},  {TM_U64, 1, 64},
    {TM_I8, 0, 8},    {TM_I16, 0, 16},     {TM_I32, 0, 32},  {TM_I64, 0, 64},  {TM_F16, 2, 16},
    {TM_BF16, 4, 16}, {TM_F32, 2, 32},     {TM_F64, 2, 64},  {TM_E4M3, 10, 8}, {TM_E5M2, 12, 8},
    {TM_E2M1, 17, 4}, {TM_E2M3, 15, 6},    {TM_E3M2, 16, 6}, {TM_U2, 1, 2},    {TM_U4, 1, 4},
    {TM_U6, 1, 6},    {TM_POINTER, 3, 64},
};
enum { CODES = sizeof codes / sizeof *codes };
_Static_assert(CODES == TM_DTYPES - 1, "every type but the null type");

Test(dlpack, every_type_goes_out_and_comes_back) {
  for (int i = 0; i < CODES; i++) {
    tm_auto_tensor tensor = make(TM_SHAPE(3, 5), codes[i].dtype);
    DLManagedTensorVersioned* managed = tm_to_dlpack(&tensor, 0);
    cr_assert(managed != NULL);
    cr_expect(eq(u8, managed->dl_tensor.dtype.code, codes[i].code));
    cr_expect(eq(u8, managed->dl_tensor.dtype.bits, codes[i].bits));
    cr_expect(eq(u16, managed->dl_tensor.dtype.lanes, 1));
    cr_expect(eq(u64, managed->flags, 0));  // ours are packed
    tm_auto_tensor back = tm_from_dlpack(managed, NULL);
    cr_expect(eq(int, back.dtype, codes[i].dtype), "%s", tm_last_error()->message);
    cr_expect(eq(ptr, back.data, tensor.data));
    cr_expect(eq(sz, tm_byte_size(&back), tm_byte_size(&tensor)));
  }
}

Test(dlpack, legacy_struct_carries_no_elements_narrower_than_a_byte) {
  for (int i = 0; i < CODES; i++) {
    tm_auto_tensor tensor = make(TM_SHAPE(4), codes[i].dtype);
    tm_clear_error();
    DLManagedTensor* managed = tm_to_dlpack_legacy(&tensor);
    const bool is_narrow = codes[i].bits < 8;
    cr_expect(eq(int, managed == NULL, is_narrow));
    cr_expect(eq(int, tm_last_status(), is_narrow ? TM_ERR_INVALID : TM_OK));
    tm_auto_tensor back = tm_from_dlpack_legacy(managed);
    cr_expect(eq(int, back.dtype, is_narrow ? TM_DTYPE_NULL : codes[i].dtype));
  }
}

Test(dlpack, scalars_and_tensors_without_elements_go_out_and_come_back) {
  static const struct {
    const char* layout;
    int64_t elements;
  } rows[] = {{"():()", 1}, {"(0,4):(4,1)", 0}, {"(3,0):(1,1)", 0}, {"(1,1):(7,1)", 1}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    tm_layout layout;
    cr_assert(eq(int, tm_layout_parse(rows[i].layout, &layout), TM_OK));
    tm_auto_buffer buffer = tm_buffer_empty_from(&memory.base, 1, TM_F32);
    tm_auto_tensor tensor = tm_from_buffer(&buffer, &layout);
    tm_auto_tensor back = tm_from_dlpack(tm_to_dlpack(&tensor, 0), NULL);
    cr_assert(tm_ok(&back), "%s", tm_last_error()->message);
    expect_layout(&back, rows[i].layout);
    cr_expect(eq(i64, tm_size(&back), rows[i].elements));
    cr_expect(eq(ptr, back.data, tensor.data));
  }
}

Test(dlpack, flags_go_out_and_others_are_refused) {
  tm_auto_tensor tensor = make(TM_SHAPE(2), TM_F32);
  DLManagedTensorVersioned* managed = tm_to_dlpack(&tensor, TM_DLPACK_READ_ONLY | TM_DLPACK_COPIED);
  cr_expect(eq(u64, managed->flags, 3));
  tm_dlpack_delete(managed);
  const int64_t live = tm_bookkeeping_live();
  cr_expect(eq(ptr, tm_to_dlpack(&tensor, 4), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
  cr_expect(eq(ptr, tm_to_dlpack(&tensor, UINT64_C(1) << 63), NULL));
  cr_expect(eq(i64, tm_bookkeeping_live(), live));
}

Test(dlpack, export_of_null_keeps_the_first_failure) {
  tm_auto_tensor null = tm_empty_from(&memory.base, TM_SHAPE(-1), TM_F32);
  const int line = tm_last_error()->line;
  cr_expect(eq(ptr, tm_to_dlpack(&null, 0), NULL));
  cr_expect(eq(ptr, tm_to_dlpack_legacy(&null), NULL));
  tm_auto_tensor chain = tm_from_dlpack(tm_to_dlpack(&null, 0), NULL);
  expect_null(&chain, TM_ERR_INVALID);
  cr_expect(eq(int, tm_last_error()->line, line));
}

Test(dlpack, export_of_borrowed_memory_and_of_a_borrowed_handle) {
  float values[4] = {1, 2, 3, 4};
  tm_auto_tensor foreign = tm_from_borrowed(values, TM_SHAPE(4), TM_F32, tm_device_make(TM_CPU, 0));
  DLManagedTensorVersioned* of_foreign = tm_to_dlpack(&foreign, 0);
  cr_expect(eq(ptr, of_foreign->dl_tensor.data, values));
  tm_dlpack_delete(of_foreign);

  tm_tensor owner = make(TM_SHAPE(4), TM_F32);
  tm_tensor borrowed = tm_borrow(&owner);
  DLManagedTensorVersioned* managed = tm_to_dlpack(&borrowed, 0);
  tm_release(&borrowed);
  tm_release(&owner);
  cr_expect(eq(u64, memory.frees, 0));  // the export has a reference of its own
  tm_dlpack_delete(managed);
  cr_expect(eq(u64, memory.frees, 1));
}

// Storage as a dry allocator makes it.
Test(dlpack, export_of_dry_memory_is_refused) {
  tm_auto_tensor tensor = make(TM_SHAPE(4), TM_F32);
  tensor.storage->flags |= TM_STORAGE_DRY_;
  cr_expect(eq(ptr, tm_to_dlpack(&tensor, 0), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
  tensor.storage->flags &= ~(uint32_t)TM_STORAGE_DRY_;
}

Test(dlpack, export_without_memory_leaves_the_tensor_as_it_was) {
  tm_auto_tensor tensor = make(TM_SHAPE(2, 3), TM_F32);
  const int64_t live = tm_bookkeeping_live();
  for (int legacy = 0; legacy < 2; legacy++) {
    tm_bookkeeping_fail_nth(1);
    void* managed = legacy ? (void*)tm_to_dlpack_legacy(&tensor) : (void*)tm_to_dlpack(&tensor, 0);
    tm_bookkeeping_fail_nth(0);
    cr_expect(eq(ptr, managed, NULL));
    cr_expect(eq(int, tm_last_status(), TM_ERR_NO_MEMORY));
    cr_expect(eq(i64, tm_bookkeeping_live(), live));
    cr_expect(eq(int, tensor.storage->references, 1));
    expect_layout(&tensor, "(2,3):(3,1)");
  }
}

//===-- Taking in ----------------------------------------------------------===//

Test(dlpack, import_is_the_producers_memory_until_the_last_release) {
  producer p;
  producer_init(&p);
  tm_tensor tensor = tm_from_dlpack(&p.versioned, NULL);
  cr_assert(tm_ok(&tensor), "%s", tm_last_error()->message);
  expect_layout(&tensor, "(2,3,4):(12,4,1)");
  cr_expect(eq(int, tensor.dtype, TM_F32));
  cr_expect(tm_device_equal(tensor.device, tm_device_make(TM_CPU, 0)));
  cr_expect(eq(ptr, tensor.data, p.values));
  TM_DATA(float, &tensor)[5] = 500;
  cr_expect(eq(flt, p.values[5], 500));
  tm_tensor view = tm_slice_outer(&tensor, 1, 1);
  tm_release(&tensor);
  cr_expect(eq(int, p.deleted, 0));
  cr_expect(eq(flt, TM_DATA(float, &view)[0], 12));
  tm_release(&view);
  cr_expect(eq(int, p.deleted, 1));
}

Test(dlpack, legacy_import_is_the_producers_memory_until_the_last_release) {
  producer p;
  producer_init(&p);
  tm_tensor tensor = tm_from_dlpack_legacy(&p.legacy);
  expect_layout(&tensor, "(2,3,4):(12,4,1)");
  cr_expect(eq(ptr, tensor.data, p.values));
  tm_release(&tensor);
  cr_expect(eq(int, p.deleted, 1));
}

Test(dlpack, import_without_a_deleter_is_released_in_silence) {
  producer p;
  producer_init(&p);
  p.versioned.deleter = NULL;
  p.legacy.deleter = NULL;
  tm_tensor tensor = tm_from_dlpack(&p.versioned, NULL);
  tm_tensor legacy = tm_from_dlpack_legacy(&p.legacy);
  cr_expect(tm_ok(&tensor));
  cr_expect(tm_ok(&legacy));
  tm_release(&tensor);
  tm_release(&legacy);
  tm_dlpack_delete(&p.versioned);
  tm_dlpack_delete_legacy(&p.legacy);
  tm_dlpack_delete(NULL);
  tm_dlpack_delete_legacy(NULL);
  cr_expect(eq(int, p.deleted, 0));
}

Test(dlpack, strides_of_null_are_row_major) {
  producer p;
  producer_init(&p);
  p.versioned.dl_tensor.strides = NULL;
  tm_auto_tensor tensor = tm_from_dlpack(&p.versioned, NULL);
  expect_layout(&tensor, "(2,3,4):(12,4,1)");
}

Test(dlpack, strides_and_byte_offset_come_in) {
  producer p;
  producer_init(&p);
  const int64_t shape[] = {4, 3};
  const int64_t strides[] = {1, 4};
  memcpy(p.shape, shape, sizeof shape);
  memcpy(p.strides, strides, sizeof strides);
  p.versioned.dl_tensor.ndim = 2;
  p.versioned.dl_tensor.byte_offset = 12 * sizeof(float);
  tm_auto_tensor tensor = tm_from_dlpack(&p.versioned, NULL);
  expect_layout(&tensor, "(4,3):(1,4)");
  cr_expect(eq(ptr, tensor.data, p.values + 12));
  tm_auto_tensor rows = tm_empty(TM_SHAPE(4, 3), TM_F32, TM_CPU);
  cr_assert(eq(int, tm_copy(&tensor, &rows), TM_OK));
  cr_expect(eq(flt, TM_DATA(float, &rows)[1], 16));
  cr_expect(eq(flt, TM_DATA(float, &rows)[3], 13));
}

Test(dlpack, strides_that_no_index_uses_may_be_anything) {
  producer p;
  producer_init(&p);
  p.shape[1] = 1;
  p.strides[1] = -4;
  tm_auto_tensor tensor = tm_from_dlpack(&p.versioned, NULL);
  expect_layout(&tensor, "(2,1,4):(12,4,1)");
  producer empty;
  producer_init(&empty);
  empty.shape[0] = 0;
  empty.strides[1] = INT64_MIN;
  empty.versioned.dl_tensor.data = NULL;
  tm_tensor none = tm_from_dlpack(&empty.versioned, NULL);
  expect_layout(&none, "(0,3,4):(12,4,1)");
  cr_expect(eq(ptr, none.data, NULL));
  cr_expect(eq(int, empty.deleted, 0));
  tm_release(&none);
  cr_expect(eq(int, empty.deleted, 1));  // no elements, and still the producer's to drop
}

Test(dlpack, strides_of_no_elements_are_kept_where_they_mean_something) {
  producer p;
  producer_init(&p);
  p.shape[1] = 0;
  p.strides[0] = 100;
  tm_tensor kept = tm_from_dlpack(&p.versioned, NULL);
  expect_layout(&kept, "(2,0,4):(100,4,1)");
  tm_release(&kept);
  p.strides[0] = INT64_MAX;
  tm_tensor one = tm_from_dlpack(&p.versioned, NULL);
  expect_layout(&one, "(2,0,4):(4,4,1)");
  tm_release(&one);
  p.strides[0] = p.strides[2] = INT64_MAX / 3;  // each is possible, both are not
  tm_tensor both = tm_from_dlpack(&p.versioned, NULL);
  expect_layout(&both, "(2,0,4):(4,4,1)");
  tm_release(&both);
  p.shape[0] = INT64_MAX / 5;  // with the others row-major, the largest shape nearly
  p.strides[0] = -1;
  p.strides[2] = INT64_MAX / 6;
  tm_tensor large = tm_from_dlpack(&p.versioned, NULL);
  cr_expect(tm_ok(&large), "%s", tm_last_error()->message);
  tm_release(&large);
  cr_expect(eq(int, p.deleted, 4));
}

Test(dlpack, read_only_is_said_or_refused) {
  producer p;
  producer_init(&p);
  bool read_only = true;
  tm_tensor writable = tm_from_dlpack(&p.versioned, &read_only);
  cr_expect(not(read_only));
  tm_release(&writable);
  p.versioned.flags = TM_DLPACK_READ_ONLY;
  tm_auto_tensor refused = tm_from_dlpack(&p.versioned, NULL);
  expect_null(&refused, TM_ERR_INVALID);
  cr_expect(eq(int, p.deleted, 1));
  tm_tensor tensor = tm_from_dlpack(&p.versioned, &read_only);
  cr_expect(tm_ok(&tensor));
  cr_expect(read_only);
  tm_release(&tensor);
  cr_expect(eq(int, p.deleted, 2));
}

// What a producer gets wrong, or may say and tmcore does not know.
static void negative_ndim(producer* p) { p->versioned.dl_tensor.ndim = -1; }
static void nine_dimensions(producer* p) {
  p->versioned.dl_tensor.ndim = 9;
  for (int i = 0; i < 9; i++) {
    p->shape[i] = 1;
    p->strides[i] = 1;
  }
}
static void no_shape(producer* p) { p->versioned.dl_tensor.shape = NULL; }
static void negative_size(producer* p) { p->shape[1] = -3; }
static void negative_stride(producer* p) { p->strides[2] = -1; }
static void no_data(producer* p) { p->versioned.dl_tensor.data = NULL; }
static void misaligned(producer* p) { p->versioned.dl_tensor.byte_offset = 2; }
static void no_lanes(producer* p) { p->versioned.dl_tensor.dtype.lanes = 0; }
static void device_64(producer* p) {
  p->versioned.dl_tensor.device = (DLDevice){.device_type = 2, .device_id = 64};
}
static void device_minus_1(producer* p) {
  p->versioned.dl_tensor.device = (DLDevice){.device_type = 2, .device_id = -1};
}
static void version_0(producer* p) { p->versioned.version.major = 0; }
static void version_2(producer* p) {
  p->versioned.version.major = 2;
  memset(&p->versioned.dl_tensor, 0xff, sizeof p->versioned.dl_tensor);
}
static void unknown_flag(producer* p) { p->versioned.flags = 8; }
static void four_lanes(producer* p) { p->versioned.dl_tensor.dtype.lanes = 4; }
static void complex_numbers(producer* p) {
  p->versioned.dl_tensor.dtype = (DLDataType){.code = 5, .bits = 64, .lanes = 1};
}
static void three_bytes(producer* p) { p->versioned.dl_tensor.dtype.bits = 24; }
static void other_e4m3(producer* p) {
  p->versioned.dl_tensor.dtype = (DLDataType){.code = 8, .bits = 8, .lanes = 1};
}
static void padded_u4(producer* p) {
  p->versioned.dl_tensor.dtype = (DLDataType){.code = 1, .bits = 4, .lanes = 1};
  p->versioned.flags = 4;
}
static void device_of_another_make(producer* p) { p->versioned.dl_tensor.device.device_type = 10; }
static void no_device(producer* p) { p->versioned.dl_tensor.device.device_type = 0; }
static void size_overflow(producer* p) { p->shape[0] = p->shape[1] = INT64_C(1) << 32; }
static void offset_overflow(producer* p) { p->strides[0] = p->strides[1] = INT64_MAX; }
static void bytes_overflow(producer* p) { p->strides[0] = INT64_C(1) << 62; }
static void address_overflow(producer* p) { p->versioned.dl_tensor.byte_offset = UINT64_MAX - 63; }
static void end_overflow(producer* p) {
  p->versioned.dl_tensor.data = (void*)(UINTPTR_MAX - 63);  // NOLINT(performance-no-int-to-ptr)
}

static const struct {
  void (*spoil)(producer*);
  tm_status status;
  bool in_legacy;  // the legacy struct can say it too
} spoilers[] = {
    {negative_ndim, TM_ERR_INVALID, true},
    {nine_dimensions, TM_ERR_INVALID, true},
    {no_shape, TM_ERR_INVALID, true},
    {negative_size, TM_ERR_INVALID, true},
    {negative_stride, TM_ERR_INVALID, true},
    {no_data, TM_ERR_INVALID, true},
    {misaligned, TM_ERR_INVALID, true},
    {no_lanes, TM_ERR_INVALID, true},
    {device_64, TM_ERR_INVALID, true},
    {device_minus_1, TM_ERR_INVALID, true},
    {version_0, TM_ERR_INVALID, false},
    {version_2, TM_ERR_UNAVAILABLE, false},
    {unknown_flag, TM_ERR_UNAVAILABLE, false},
    {four_lanes, TM_ERR_UNAVAILABLE, true},
    {complex_numbers, TM_ERR_UNAVAILABLE, true},
    {three_bytes, TM_ERR_UNAVAILABLE, true},
    {other_e4m3, TM_ERR_UNAVAILABLE, true},
    {padded_u4, TM_ERR_UNAVAILABLE, false},
    {device_of_another_make, TM_ERR_UNAVAILABLE, true},
    {no_device, TM_ERR_UNAVAILABLE, true},
    {size_overflow, TM_ERR_OVERFLOW, true},
    {offset_overflow, TM_ERR_OVERFLOW, true},
    {bytes_overflow, TM_ERR_OVERFLOW, true},
    {address_overflow, TM_ERR_OVERFLOW, true},
    {end_overflow, TM_ERR_OVERFLOW, true},
};

// As bytes: some of what was spoiled is no number that one could compare.
static void expect_same(const void* is, const void* was) {
  cr_expect(eq(int, memcmp(is, was, sizeof(producer)), 0));
}

Test(dlpack, what_is_wrong_is_refused_and_stays_the_producers) {
  const int64_t live = tm_bookkeeping_live();
  for (size_t i = 0; i < sizeof spoilers / sizeof *spoilers; i++) {
    producer p;
    producer_init(&p);
    spoilers[i].spoil(&p);
    p.legacy.dl_tensor = p.versioned.dl_tensor;
    producer before = p;
    bool read_only = true;
    tm_clear_error();
    tm_auto_tensor tensor = tm_from_dlpack(&p.versioned, &read_only);
    cr_expect(not(tm_ok(&tensor)), "row %zu", i);
    cr_expect(eq(int, tm_last_status(), spoilers[i].status), "row %zu: %s", i,
              tm_last_error()->message);
    cr_expect(not(read_only));
    tm_clear_error();
    tm_auto_tensor legacy = spoilers[i].in_legacy ? tm_from_dlpack_legacy(&p.legacy) : tm_null();
    cr_expect(not(tm_ok(&legacy)), "row %zu", i);
    cr_expect(eq(int, tm_last_status(), spoilers[i].in_legacy ? spoilers[i].status : TM_OK),
              "row %zu: %s", i, tm_last_error()->message);
    cr_expect(eq(int, p.deleted, 0), "row %zu", i);
    expect_same(&p, &before);
  }
  cr_expect(eq(i64, tm_bookkeeping_live(), live));
}

Test(dlpack, later_minor_versions_and_a_padded_flag_on_whole_bytes_are_fine) {
  producer p;
  producer_init(&p);
  p.versioned.version.minor = 77;
  p.versioned.flags = 4;
  tm_auto_tensor tensor = tm_from_dlpack(&p.versioned, NULL);
  cr_expect(tm_ok(&tensor), "%s", tm_last_error()->message);
}

Test(dlpack, host_memory_has_no_device_id) {
  for (int type = 1; type <= 3; type += 2) {
    producer p;
    producer_init(&p);
    p.versioned.dl_tensor.device = (DLDevice){.device_type = type, .device_id = 5};
    tm_auto_tensor tensor = tm_from_dlpack(&p.versioned, NULL);
    cr_expect(eq(int, tensor.device.type, type == 1 ? TM_CPU : TM_CPU_PINNED));
    cr_expect(eq(int, tensor.device.id, 0));
  }
}

Test(dlpack, import_without_memory_leaves_the_producers_tensor) {
  producer p;
  producer_init(&p);
  const int64_t live = tm_bookkeeping_live();
  tm_bookkeeping_fail_nth(1);
  bool read_only = true;
  p.versioned.flags = TM_DLPACK_READ_ONLY;
  tm_auto_tensor tensor = tm_from_dlpack(&p.versioned, &read_only);
  tm_bookkeeping_fail_nth(0);
  expect_null(&tensor, TM_ERR_NO_MEMORY);
  cr_expect(not(read_only));
  cr_expect(eq(int, p.deleted, 0));
  cr_expect(eq(i64, tm_bookkeeping_live(), live));
}

static tm_status out_and_in(tm_allocator* upstream) {
  TM_TRY_TENSOR(tensor, tm_empty_from(upstream, TM_SHAPE(3, 4), TM_F32));
  TM_TRY_TENSOR(turned, tm_t(&tensor));
  DLManagedTensorVersioned* managed = tm_to_dlpack(&turned, 0);
  if (!managed) {
    return tm_last_status();
  }
  tm_auto_tensor back = tm_from_dlpack(managed, NULL);
  if (!tm_ok(&back)) {
    tm_dlpack_delete(managed);
    return tm_last_status();
  }
  return TM_OK;
}

Test(dlpack, round_trip_survives_every_failure) { expect_survives_every_failure(out_and_in); }

//===-- Round trips --------------------------------------------------------===//

static uint32_t next_random(uint32_t* state) {
  *state = *state * UINT32_C(1664525) + UINT32_C(1013904223);
  return *state >> 16;
}

static tm_tensor random_tensor(uint32_t* state) {
  tm_auto_tensor whole = make(TM_SHAPE(1 + next_random(state) % 4, 1 + next_random(state) % 5, 6),
                              codes[next_random(state) % CODES].dtype);
  const int32_t a = (int32_t)(next_random(state) % 3);
  const int32_t b = (int32_t)(next_random(state) % 3);
  tm_auto_tensor turned = tm_transpose(&whole, a, b);
  return next_random(state) % 2 ? tm_unsqueeze(&turned, a) : tm_move(&turned);
}

Test(dlpack, thousands_of_round_trips_change_and_leak_nothing) {
  uint32_t state = (uint32_t)getpid();
  printf("seed %u\n", state);
  const int64_t live = tm_bookkeeping_live();
  enum { TRIPS = 5000, DEPTH = 3 };
  for (int i = 0; i < TRIPS; i++) {
    tm_tensor tensor = random_tensor(&state);
    const void* data = tensor.data;
    const tm_layout layout = tensor.layout;
    for (int j = 0; j < DEPTH; j++) {  // each export holds the import before it
      const bool legacy = tm_dtype_bits(tm_dtype_of(&tensor)) >= 8 && next_random(&state) % 2;
      tm_assign(&tensor, legacy ? tm_from_dlpack_legacy(tm_to_dlpack_legacy(&tensor))
                                : tm_from_dlpack(tm_to_dlpack(&tensor, 0), NULL));
      cr_assert(tm_ok(&tensor), "%s", tm_last_error()->message);
    }
    cr_assert(eq(ptr, tensor.data, (void*)data));
    cr_assert(tm_layout_equal(&tensor.layout, &layout));
    cr_assert(eq(u64, memory.frees, (uint64_t)i));
    tm_release(&tensor);
    cr_assert(eq(u64, memory.frees, (uint64_t)i + 1));
  }
  cr_expect(eq(sz, memory.live_bytes, 0));
  // The thread keeps the headers of the storages for the next ones; nothing else is left.
  cr_expect(le(i64, tm_bookkeeping_live(), live + INT64_C(2) * DEPTH));
}

//===-- Threads and devices ------------------------------------------------===//

static void* delete_there(void* managed) {
  tm_dlpack_delete(managed);
  return NULL;
}

Test(dlpack, consumer_may_delete_on_another_thread) {
  tm_auto_allocator stack = tm_stack_allocator_create(&memory.base, NULL, NULL);
  tm_tensor tensor = tm_empty_from(stack, TM_SHAPE(100), TM_F32);
  DLManagedTensorVersioned* managed = tm_to_dlpack(&tensor, 0);
  tm_release(&tensor);
  pthread_t thread;
  cr_assert(eq(int, pthread_create(&thread, NULL, delete_there, managed), 0));
  cr_assert(eq(int, pthread_join(thread, NULL), 0));
  tm_auto_tensor next = tm_empty_from(stack, TM_SHAPE(100), TM_F32);
  cr_expect(tm_ok(&next));
  tm_allocator_stats stats;
  cr_assert(eq(int, tm_allocator_get_stats(stack, &stats), TM_OK));
  cr_expect(eq(u64, stats.live_blocks, 1));
}

static void* release_there(void* tensor) {
  tm_release(tensor);
  return NULL;
}

Test(dlpack, last_release_on_any_thread_deletes_once) {
  producer p;
  producer_init(&p);
  tm_tensor tensor = tm_from_dlpack(&p.versioned, NULL);
  enum { THREADS = 4 };
  pthread_t threads[THREADS];
  tm_tensor shares[THREADS];
  for (int i = 0; i < THREADS; i++) {
    shares[i] = tm_share(&tensor);
  }
  tm_release(&tensor);
  for (int i = 0; i < THREADS; i++) {
    cr_assert(eq(int, pthread_create(&threads[i], NULL, release_there, &shares[i]), 0));
  }
  for (int i = 0; i < THREADS; i++) {
    cr_assert(eq(int, pthread_join(threads[i], NULL), 0));
  }
  cr_expect(eq(int, p.deleted, 1));
}

Test(dlpack, device_and_pinned_memory_have_their_codes) {
  machine_configure(2, "64MiB");
  machine_require_devices(2);
  tm_auto_tensor device = tm_empty_from(tm_cuda_allocator(1), TM_SHAPE(8), TM_F16);
  DLManagedTensorVersioned* managed = tm_to_dlpack(&device, 0);
  cr_assert(managed != NULL, "%s", tm_last_error()->message);
  cr_expect(eq(int, managed->dl_tensor.device.device_type, 2));
  cr_expect(eq(int, managed->dl_tensor.device.device_id, 1));
  tm_auto_tensor back = tm_from_dlpack(managed, NULL);
  cr_expect(tm_device_equal(back.device, device.device));
  tm_auto_tensor pinned = tm_empty_from(tm_pinned_allocator(), TM_SHAPE(8), TM_F16);
  managed = tm_to_dlpack(&pinned, 0);
  cr_expect(eq(int, managed->dl_tensor.device.device_type, 3));
  cr_expect(eq(int, managed->dl_tensor.device.device_id, 0));
  tm_auto_tensor pinned_back = tm_from_dlpack(managed, NULL);
  cr_expect(eq(int, pinned_back.device.type, TM_CPU_PINNED));
}
