// Where TurboMind goes wrong with maps and serialized data: one test for each row of the table.
// tests/mutations.sh shows that each of them fails without what it tests.

#include "tm/tensor/map.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "tm/context/context.h"
#include "tm/tensor/archive.h"
#include "tm/tensor/safetensors.h"

#define ASSERT_OK(call) cr_assert(eq(int, (call), TM_OK), "%s", tm_last_error()->message)

Test(turbomind, map_consume_of_a_tensor_that_is_empty_is_an_error_and_it_is_still_there) {
  tm_auto_tensor_map map = tm_tensor_map_create();
  tm_auto_tensor empty = tm_empty(TM_SHAPE(0, 8), TM_F16, TM_CPU);
  ASSERT_OK(tm_tensor_map_produce(map, "x", &empty));
  tm_auto_tensor x = tm_tensor_map_consume(map, "x");
  cr_expect(not(tm_ok(&x)));
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID), "%s", tm_last_error()->message);
  cr_expect(eq(int, (int)tm_tensor_map_size(map), 1));
  const tm_tensor* kept = tm_tensor_map_at(map, "x");
  cr_expect(eq(int, (int)tm_dim(kept, 1), 8));
  cr_expect(eq(int, tm_dtype_of(kept), TM_F16));
}

// A size is read as 8 bytes, the lowest first.
static void put_size(uint64_t size, char* to) {
  for (int i = 0; i < 8; i++) to[i] = (char)(size >> (8 * i));
}

Test(turbomind, serialized_size_field_of_2_to_the_60_is_corrupt) {
  // A buffer in an archive: magic, version, kind, type, elements, bytes.
  tm_auto_archive archive = tm_archive_create();
  tm_auto_buffer buffer = tm_buffer_empty(5, TM_U8, TM_CPU);
  ASSERT_OK(tm_archive_put_buffer(archive, &buffer));
  char bytes[56] = {0};
  cr_assert(eq(sz, tm_archive_size(archive), sizeof bytes));
  memcpy(bytes, tm_archive_data(archive), sizeof bytes);
  put_size(1ull << 60, bytes + 32);
  put_size(1ull << 60, bytes + 40);
  tm_archive_reader reader;
  ASSERT_OK(tm_archive_open(bytes, sizeof bytes, TM_CPU, &reader));
  tm_auto_buffer huge = tm_archive_get_buffer(&reader);
  cr_expect(not(tm_buffer_ok(&huge)));
  cr_expect(eq(int, tm_last_status(), TM_ERR_CORRUPT), "%s", tm_last_error()->message);

  // The header of a file.
  char file[10] = {0};
  put_size(1ull << 60, file);
  tm_clear_error();
  cr_expect(eq(ptr, tm_safetensors_decode(file, sizeof file, TM_CPU), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_CORRUPT), "%s", tm_last_error()->message);
}
