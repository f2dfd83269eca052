#include "tm/base/thread.h"

__thread tm_thread tm_thread_ __attribute__((tls_model("initial-exec")));
