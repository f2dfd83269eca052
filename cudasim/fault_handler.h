// The handler of SIGSEGV while the checker is on: it says what the host did with page-locked or
// device memory, and passes on what it cannot mend to the handler that was there before it, or to
// the one that the program has installed since.
#ifndef CUDASIM_FAULT_HANDLER_H_
#define CUDASIM_FAULT_HANDLER_H_

#include <stdbool.h>
#include <stdint.h>

// Installs it, and takes it away if nobody has installed another one over it.
void sim_fault_handler_install(void);
void sim_fault_handler_remove(void);

// Sees to it that it is the first one: the program may have installed its own over it.
void sim_fault_handler_keep(void);

// Looks for threads that block SIGSEGV. The process ends where one of them meets a forbidden page,
// so that from then on no page is forbidden that a correct program may use.
void sim_fault_handler_look_around(void);
bool sim_fault_handler_is_careful(void);

// Whether the code at `pc` is libc's free() or realloc().
bool sim_fault_handler_is_in_free(const void* pc);

#endif  // CUDASIM_FAULT_HANDLER_H_
