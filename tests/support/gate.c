#include "tests/support/gate.h"

#include <criterion/criterion.h>
#include <errno.h>

#include "tests/support/machine.h"

static void wait_until_open(void* user) {
  gate* self = user;
  while (sem_wait(&self->opened) != 0 && errno == EINTR) {
  }
}

void gate_close(gate* self, tm_stream* stream) {
  machine_require_threads();
  cr_assert(sem_init(&self->opened, 0, 0) == 0);
  cr_assert(tm_stream_call_host(stream, wait_until_open, self) == TM_OK, "%s",
            tm_last_error()->message);
}

void gate_open(gate* self) { cr_assert(sem_post(&self->opened) == 0); }
