#include "tm/base/version.h"

const char tm_abi_2 = 1;

const char* tm_version(void) { return TM_VERSION; }
