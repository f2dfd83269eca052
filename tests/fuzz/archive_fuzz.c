// Any bytes as an archive: what is refused says why and leaves nothing behind; what is read and put
// into another archive is the same bytes.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tm/alloc/bookkeeping.h"
#include "tm/tensor/archive.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

static void check(bool holds) {
  if (!holds) abort();
}

// Each reads the next thing and puts it in again; false where it is refused.

static bool pass_layout(tm_archive_reader* reader, tm_archive* again) {
  tm_layout layout;
  if (tm_archive_get_layout(reader, &layout) != TM_OK) return false;
  check(tm_archive_put_layout(again, &layout) == TM_OK);
  return true;
}

static bool pass_buffer(tm_archive_reader* reader, tm_archive* again) {
  tm_auto_buffer buffer = tm_archive_get_buffer(reader);
  if (!tm_buffer_ok(&buffer)) return false;
  check(tm_archive_put_buffer(again, &buffer) == TM_OK);
  return true;
}

static bool pass_tensor(tm_archive_reader* reader, tm_archive* again) {
  tm_auto_tensor tensor = tm_archive_get_tensor(reader);
  if (!tm_ok(&tensor)) return false;
  check(tm_archive_put_tensor(again, &tensor) == TM_OK);
  return true;
}

static bool pass_map(tm_archive_reader* reader, tm_archive* again) {
  tm_auto_tensor_map map = tm_archive_get_map(reader);
  if (!map) return false;
  check(tm_archive_put_map(again, map) == TM_OK);
  return true;
}

static bool pass(tm_archive_reader* reader, tm_archive* again) {
  // At most one of them fits.
  return pass_layout(reader, again) || pass_buffer(reader, again) || pass_tensor(reader, again) ||
         pass_map(reader, again);
}

static void try_archive(const uint8_t* data, size_t size) {
  tm_archive_reader reader;
  if (tm_archive_open(data, size, TM_CPU, &reader) != TM_OK) return;
  tm_auto_archive again = tm_archive_create();
  check(again != NULL);
  while (pass(&reader, again)) {
  }
  const size_t read = size - reader.left;
  check(tm_archive_size(again) == read);
  check(memcmp(tm_archive_data(again), data, read) == 0);
  check(reader.left == 0 || tm_last_status() == TM_ERR_CORRUPT);
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const uint8_t nothing;
  const int64_t live = tm_bookkeeping_live();
  try_archive(size ? data : &nothing, size);
  check(tm_bookkeeping_live() == live);
  return 0;
}
