// Who a thread is, for objects that one thread at a time may use. Private to tmcore.
//
// An identity outlives its thread for as long as something refers to it, so that an object whose
// owner has ended can be told from one whose owner is alive.
#ifndef TM_ALLOC_THREAD_IDENTITY_H_
#define TM_ALLOC_THREAD_IDENTITY_H_

#include <stdbool.h>
#include <stdint.h>

#include "tm/base/attributes.h"

typedef struct tm_thread_identity tm_thread_identity;

// The calling thread's identity, where it has one already; otherwise NULL.
extern __thread tm_thread_identity* tm_this_thread_ __attribute__((tls_model("initial-exec")));

// The calling thread's identity, made on first use. NULL after raising TM_ERR_NO_MEMORY.
// Ownership: borrowed.
TM_NODISCARD tm_thread_identity* tm_thread_identity_get(void);

// An identity that is no thread's, for what is kept from all of them. NULL after raising
// TM_ERR_NO_MEMORY. Ownership: the caller owns one reference.
TM_NODISCARD tm_thread_identity* tm_thread_identity_make(void);

tm_thread_identity* tm_thread_identity_retain(tm_thread_identity* identity);
void tm_thread_identity_release(tm_thread_identity* identity);  // NULL is a no-op

// Whether the thread has ended, or stayed behind in the parent of this process. What it did before
// happens before a true answer. The caller holds a reference.
bool tm_thread_identity_ended(const tm_thread_identity* identity);

#endif  // TM_ALLOC_THREAD_IDENTITY_H_
