// What the host does with page-locked memory that copies still use.
//
// A copy or fill of page-locked memory is a use of it from when it is queued until the host has
// waited for it, also when it has long been done by then: what the program may rely on does not
// depend on the schedule. As long, the program may not write what the copy reads, and neither read
// nor write what it writes: its pages are forbidden, and the simulation works on their alias. An
// access ends in a signal handler (fault_handler), which asks here what it means.
//
//   copy queued                     host waits             host reads, writes
//   |-- a use: pages forbidden ---->|-- none ------------->|
//
// Host functions are ordered by their stream. Since they may tell the program that they have run,
// the host has waited for all that is before one when it begins.
//
// Guarded by the runtime's lock and, where handlers read, by that of pinned.h.
#ifndef CUDASIM_HOST_CHECK_H_
#define CUDASIM_HOST_CHECK_H_

#include <stdbool.h>
#include <stdint.h>

#include "cudasim/history.h"
#include "cudasim/pinned.h"
#include "cudasim/report.h"

struct device;
struct op;
struct stream;

// Begins with the machine, and ends with it, at exit, or in a forked child, where nothing is
// forbidden any more.
void sim_host_check_begin(void);
void sim_host_check_end(void);
void sim_host_check_in_child(void);

// Frees what is left. Needs the runtime's lock.
void sim_host_check_drop(void);

//===-- What happens; only while the checker is on, with the runtime's lock -------------------===//

// `o` has been queued, as the last in its stream.
void sim_host_check_queued(const struct op* o);

// The calling thread is about to run `o`, or has run it.
void sim_host_check_run(const struct op* o);
void sim_host_check_ran(const struct op* o);

// The host has waited for `position` of `s`, and so for `known`.
void sim_host_check_learn(const struct stream* s, uint64_t position, const history* known);

// It has waited for all that is done on `d`.
void sim_host_check_learn_device(const struct device* d);

// `s`, which has nothing left to do, is about to be gone.
void sim_host_check_close(const struct stream* s);

// `p` is about to be freed.
void sim_host_check_forget(pinned* p);

//===-- Waiting -------------------------------------------------------------------------------===//

// Waits for `position` of `s` on behalf of the program: sim_scheduler_wait, and the host knows.
void sim_host_check_wait(struct stream* s, uint64_t position);

// The program asks whether `position` of `s`, which is behind `known`, is over; and the answer,
// after which the host knows, if so. Good also while the checker is off.
typedef struct host_knowledge {
  const struct stream* stream;  // NULL: none
  uint64_t position;
  history* known;
} host_knowledge;

host_knowledge sim_host_check_ask(const struct stream* s, uint64_t position, history* known);
void sim_host_check_answer(const host_knowledge* k);

//===-- Signal handlers -----------------------------------------------------------------------===//

// Whether accesses mean anything: not at exit, and not in a forked child.
bool sim_host_check_is_active(void);

typedef enum access_kind {
  ACCESS_READ,
  ACCESS_WRITE,
  ACCESS_UNKNOWN,  // one of the two
} access_kind;

typedef struct host_access {
  uint64_t address;
  access_kind kind;
  const void* pc;
} host_access;

// What is to be said about an access; `message` is empty where there is nothing to say.
typedef struct finding {
  rule_id rule;
  const char* relation;
  site there;  // a copy; without frames where there is none
  bool has_there;
  char message[192];
} finding;

// Whether the access, which has failed, is to be tried again: the page is not forbidden any more.
// Needs no lock, and only little stack.
bool sim_host_check_admit(const host_access* a, finding* out);

#endif  // CUDASIM_HOST_CHECK_H_
