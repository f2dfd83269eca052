// What every adaptor begins with: an allocator that hands its calls on to another, its upstream,
// and does something of its own besides. Private to the adaptors.
//
// An adaptor is what its upstream is: of the same device, alignment and stream. Its slots get sizes
// as they were asked, and pass them on; the upstream rounds them. On the stream that blocks are
// ordered with, the upstream is asked with that of its own, since tm_allocator_alloc has ordered
// the caller's with it on the adaptor already.
#ifndef TM_ALLOC_ADAPTOR_H_
#define TM_ALLOC_ADAPTOR_H_

#include <stddef.h>

#include "tm/alloc/allocator.h"
#include "tm/base/status.h"

// Makes an adaptor of `size` zeroed bytes, which begin with a tm_allocator, over `upstream`, which
// it retains. `what` names the upstream for the error where that is NULL. Returns NULL on failure.
void* tm_adaptor_create_(size_t size, const tm_allocator_vtable* vtable, tm_allocator* upstream,
                         const char* what);

// Raises unless `adaptor` is one of `vtable`. `what` is the operation, for the message.
tm_status tm_adaptor_check_(const tm_allocator* adaptor, const tm_allocator_vtable* vtable,
                            const char* what);

// Asks the upstream, and gives back to it.
tm_status tm_adaptor_ask_(tm_allocator* self, size_t size, tm_stream* stream, void** out);
void tm_adaptor_give_back_(tm_allocator* self, void* ptr, size_t size, tm_stream* stream);
// The latter for a block just got, because what it was for failed after all.
void tm_adaptor_undo_(tm_allocator* self, void* ptr, size_t size, tm_stream* stream);

// The bytes that a request of `size` counts as.
size_t tm_adaptor_rounded_(const tm_allocator* self, size_t size);

// Slots, for adaptors that have nothing to add there.
tm_status tm_adaptor_trim_(tm_allocator* self, size_t keep);
tm_status tm_adaptor_get_stats_(tm_allocator* self, tm_allocator_stats* out);
// Adds to what an adaptor counts itself what only its upstream knows: the bytes that are held, and
// the calls for them. Where the upstream counts nothing, what is live is what is held.
void tm_adaptor_add_reserved_(const tm_allocator* self, tm_allocator_stats* out);
void tm_adaptor_destroy_(tm_allocator* self);

// Guard what an adaptor keeps. Several adaptors share a lock, so a thread holds one at a time, and
// calls no allocator, no handler and no log meanwhile. A forked child finds all of them free.
void tm_adaptor_lock_(const tm_allocator* self);
void tm_adaptor_unlock_(const tm_allocator* self);

#endif  // TM_ALLOC_ADAPTOR_H_
