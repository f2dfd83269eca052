#include "tests/support/machine.h"

#include <criterion/criterion.h>
#include <stdio.h>

#include "tm/alloc/device.h"

void machine_skip(const char* reason) {
  fprintf(stderr, "skipped: %s\n", reason);
  cr_skip_test("%s", reason);
}

void machine_require_devices(int32_t count) {
  int32_t there;
  if (tm_device_count(&there) != TM_OK) {
    machine_skip(tm_last_error()->message);
  }
  if (there < count) {
    machine_skip("this test needs more devices than there are");
  }
}
