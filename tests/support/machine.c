#include "tests/support/machine.h"

#include <criterion/criterion.h>

#include "tm/alloc/device.h"

void machine_require_devices(int32_t count) {
  int32_t there;
  if (tm_device_count(&there) != TM_OK) {
    cr_skip_test("%s", tm_last_error()->message);
  }
  if (there < count) {
    cr_skip_test("this needs %d devices and there are %d", (int)count, (int)there);
  }
}
