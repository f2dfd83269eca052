#include "tm/base/source_path.h"

#include <stdlib.h>
#include <string.h>

enum { FULL_PATH_UNKNOWN, FULL_PATH_OFF, FULL_PATH_ON };

static int full_path = FULL_PATH_UNKNOWN;  // with __atomic: whoever reads it first decides

static int full_path_from_environment(void) {
  const int found = getenv("TM_SRC_FULL_PATH") ? FULL_PATH_ON : FULL_PATH_OFF;
  __atomic_store_n(&full_path, found, __ATOMIC_RELAXED);
  return found;
}

const char* tm_source_path_(const char* file) {
  if (!file) {
    return "";
  }
  int wanted = __atomic_load_n(&full_path, __ATOMIC_RELAXED);
  if (wanted == FULL_PATH_UNKNOWN) {
    wanted = full_path_from_environment();
  }
  const char* slash = wanted == FULL_PATH_ON ? NULL : strrchr(file, '/');
  return slash ? slash + 1 : file;
}
