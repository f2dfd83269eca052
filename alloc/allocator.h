// The allocator interface: what every tmcore allocator promises. Read this first.
//
// Sizes are bytes. An allocator has one device, an alignment, a name and, where its memory is
// stream-ordered, a stream of its own. Every pointer handed out is aligned to
// tm_allocator_alignment(): at least 64 on the host, 256 on a device.
//
//   tm_auto_allocator stack = tm_stack_allocator_create(upstream, stream, NULL);
//   void* block;
//   TM_TRY(tm_allocator_alloc(stack, size, NULL, &block));
//   ...
//   tm_allocator_free(stack, block, size, NULL);
#ifndef TM_ALLOC_ALLOCATOR_H_
#define TM_ALLOC_ALLOCATOR_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tm/alloc/device.h"
#include "tm/alloc/oom_report.h"
#include "tm/alloc/stream.h"
#include "tm/base/attributes.h"
#include "tm/base/status.h"

TM_EXTERN_C_BEGIN

typedef struct tm_allocator tm_allocator;
typedef struct tm_storage tm_storage;

// What an allocator knows about itself. All byte counts are rounded to its alignment.
typedef struct tm_allocator_stats {
  uint64_t live_bytes;           // handed out and not returned
  uint64_t live_blocks;          // the same in blocks
  uint64_t peak_live_bytes;      // the largest live_bytes so far: the high-water mark
  uint64_t reserved_bytes;       // held from the upstream, in use or not
  uint64_t peak_reserved_bytes;  // the largest reserved_bytes so far
  uint64_t alloc_calls;          // allocations asked for, failures included
  uint64_t upstream_calls;       // allocations and frees asked of the upstream
  uint64_t largest_free_bytes;   // held and in no use, in one piece: what it can hand out by itself
  uint64_t limit_bytes;          // that it may hold or hand out at most; 0: no limit of its own
  bool knows_largest_free;       // whether largest_free_bytes is known; else it is 0
} tm_allocator_stats;

// How much of what is held and not in use lies outside the largest free block: 0 where it is in one
// piece, towards 1 where it is scattered. Only for allocators that know their largest free block.
static inline double tm_allocator_stats_fragmentation(const tm_allocator_stats* stats) {
  const uint64_t idle =
      stats->reserved_bytes > stats->live_bytes ? stats->reserved_bytes - stats->live_bytes : 0;
  return idle ? 1.0 - (double)stats->largest_free_bytes / (double)idle : 0.0;
}

//===-- Lifetime ----------------------------------------------------------===//

// Takes another reference and returns `allocator`. NULL passes through.
// Threads: safe from any thread.
TM_API tm_allocator* tm_allocator_retain(tm_allocator* allocator);

// Drops a reference; the last one destroys the allocator, or has it destroyed by the last of its
// buffers. NULL is a no-op, and so is an allocator of the process (tm_host_allocator() and its
// like), which is never counted.
// Threads: safe from any thread.
TM_API void tm_allocator_release(tm_allocator* allocator);

//===-- Memory ------------------------------------------------------------===//

// Allocates `size` bytes and stores the block in `*out`. A `size` of 0 succeeds and stores NULL.
// `stream` is the one the block is first and last used on; NULL: the allocator's own. Where it is
// not the allocator's own, it is made to wait (on the device) until the block is ready.
// An allocator that is out of memory trims itself and tries once more before it fails; then
// tm_last_oom_report() says what there is.
// Ownership: the caller owns the block, gives it back with tm_allocator_free, and keeps the
//            allocator alive until then.
// Errors: TM_ERR_INVALID (NULL, a size over PTRDIFF_MAX), TM_ERR_OVERFLOW (rounding up to the
//         alignment), TM_ERR_NO_MEMORY, TM_ERR_BUSY (a stack in use by another thread),
//         TM_ERR_CAPTURING, TM_ERR_UNAVAILABLE, TM_ERR_DEVICE_LOST, TM_ERR_CUDA.
//         On error `*out` is NULL and the allocator is unchanged.
// Threads: as the allocator's own header says.
TM_API TM_NODISCARD tm_status tm_allocator_alloc(tm_allocator* allocator, size_t size,
                                                 tm_stream* stream, void** out);

// Gives a block back, with the size and the stream it was allocated with. It must not be used
// after what is queued on `stream` now; nobody waits for that on the host. NULL is a no-op.
// While `stream` is being captured and is not the allocator's own, the block is kept back: a later
// call on any allocator gives it back once the capture is over.
// Threads: safe from any thread.
TM_API void tm_allocator_free(tm_allocator* allocator, void* ptr, size_t size, tm_stream* stream);

// Gives back to the upstream or the device what is not in use, down to `keep` bytes held. May wait
// for the allocator's stream, and makes up for frees that a capture put off. Allocators that hold
// nothing have nothing to do: TM_OK.
// Errors: TM_ERR_INVALID (NULL), TM_ERR_BUSY, TM_ERR_CAPTURING, TM_ERR_DEVICE_LOST, TM_ERR_CUDA.
// Threads: as allocation.
TM_API TM_NODISCARD tm_status tm_allocator_trim(tm_allocator* allocator, size_t keep);

// Errors: TM_ERR_INVALID (NULL), TM_ERR_UNAVAILABLE (this allocator counts nothing), TM_ERR_BUSY (a
//         stack that another thread owns). On error `*out` is all zero.
// Threads: safe.
TM_API TM_NODISCARD tm_status tm_allocator_get_stats(tm_allocator* allocator,
                                                     tm_allocator_stats* out);

//===-- What it is --------------------------------------------------------===//

TM_API tm_device tm_allocator_device(const tm_allocator* allocator);   // {TM_CPU, 0} for NULL
TM_API tm_stream* tm_allocator_stream(const tm_allocator* allocator);  // borrowed; may be NULL
TM_API size_t tm_allocator_alignment(const tm_allocator* allocator);   // bytes, a power of two
TM_API const char* tm_allocator_name(const tm_allocator* allocator);   // e.g. "stack"

// The allocator that `allocator` asks for memory: that below a stack or an adaptor. Borrowed; NULL
// where there is none, and for NULL.
TM_API tm_allocator* tm_allocator_upstream(const tm_allocator* allocator);

//===-- Scoped references (tm_auto_allocator) ------------------------------===//

static inline void tm_allocator_release_at_(tm_allocator** allocator) {
  tm_allocator_release(*allocator);
}

// A tm_allocator* variable that is released at the end of its block.
#define tm_auto_allocator __attribute__((cleanup(tm_allocator_release_at_))) tm_allocator*

//===-- For implementers --------------------------------------------------===//

// An allocator's behaviour. The public functions above have checked their arguments and rounded
// sizes to the alignment before a slot is called, unless the allocator wants them exact; `size` is
// never 0 and `ptr` never NULL.
typedef struct tm_allocator_vtable {
  const char* name;  // for messages, e.g. "stack"
  // The last reference is gone: frees everything, `self` included.
  void (*destroy)(tm_allocator* self);
  // On failure raises, and leaves `*out` alone.
  tm_status (*alloc)(tm_allocator* self, size_t size, tm_stream* stream, void** out);
  void (*free)(tm_allocator* self, void* ptr, size_t size, tm_stream* stream);
  tm_status (*trim)(tm_allocator* self, size_t keep);                   // optional
  tm_status (*get_stats)(tm_allocator* self, tm_allocator_stats* out);  // optional
  // Optional, both or neither: allocate and free with a storage kept in the allocator's own
  // bookkeeping, which also keeps the allocator alive while the storage is. `size` is as asked,
  // not rounded, and at most PTRDIFF_MAX. alloc_storage fills the whole storage.
  tm_status (*alloc_storage)(tm_allocator* self, size_t size, tm_storage** out);
  void (*free_storage)(tm_allocator* self, tm_storage* storage);
  // Optional, for what tracks its blocks: writes those who hold most, at most `capacity`, in
  // falling order, and returns how many. Called after a failure for want of memory: allocates
  // nothing.
  uint32_t (*top_holders)(tm_allocator* self, tm_oom_holder* out, uint32_t capacity);
} tm_allocator_vtable;

// The slots of a context that a pushed allocator fills: that of its device type in the lower half,
// that of its device itself in the upper.
typedef uint32_t tm_slots_;

static inline tm_slots_ tm_slots_make_(uint32_t type, uint32_t device) {
  return type | device << 16;
}

static inline uint32_t tm_slots_type_(tm_slots_ slots) { return slots & 0xffff; }
static inline uint32_t tm_slots_device_(tm_slots_ slots) { return slots >> 16; }
static inline bool tm_slots_are_two_(tm_slots_ slots) {
  return tm_slots_type_(slots) != tm_slots_device_(slots);
}

// The first member of every allocator. Read-only after tm_allocator_init_, but for `references`.
struct tm_allocator {
  const tm_allocator_vtable* vtable;
  tm_slots_ slots;
  int32_t references;  // read and written with __atomic; TM_IMMORTAL_: not counted
  tm_device device;
  tm_stream* stream;       // retained; NULL where the memory is not stream-ordered
  tm_allocator* upstream;  // what it asks for memory and keeps alive; NULL where there is none
  size_t alignment;        // bytes, a power of two
  bool ignores_stream;     // a free is safe whatever streams did: storages need not note theirs
  bool puts_off_frees;  // tm_allocator_free keeps blocks back while their stream is being captured
  bool is_dry;          // its blocks are addresses only: nothing may touch the memory
  bool exact_sizes;     // its slots get sizes as they were asked, not rounded to the alignment
};

enum {
  TM_IMMORTAL_ = INT32_MIN,
  TM_SLOT_ON_DEVICE_ = 8,     // slots 0 to 2: a device type; from here on: a TM_DEVICE by its id
  TM_HOST_ALIGNMENT = 64,     // bytes
  TM_DEVICE_ALIGNMENT = 256,  // bytes
};

// Fills the common part with one reference, retaining `stream` (which may be NULL). The alignment
// is the device type's minimum. An allocator that is never destroyed sets `references` to
// TM_IMMORTAL_ afterwards.
TM_API void tm_allocator_init_(tm_allocator* allocator, const tm_allocator_vtable* vtable,
                               tm_device device, tm_stream* stream);

// Releases what tm_allocator_init_ retained. For use in the destroy slot.
TM_API void tm_allocator_deinit_(tm_allocator* allocator);

// tm_allocator_alloc without the trim and second try: for allocators that ask their upstream,
// because only the allocator that the caller named retries.
TM_API TM_NODISCARD tm_status tm_allocator_alloc_nested_(tm_allocator* allocator, size_t size,
                                                         tm_stream* stream, void** out);

// Frees a block that this thread has just got, because what it was for failed after all: whoever
// counts allocations may count this one as never made.
TM_API void tm_allocator_undo_(tm_allocator* allocator, void* ptr, size_t size, tm_stream* stream);
bool tm_is_undoing_(void);

// After a failure for want of memory: trims the allocator, so that the caller can try once more,
// and then reports by tm_raise_oom_. The error record stays. False where the allocator cannot be
// trimmed.
TM_API bool tm_allocator_trim_to_retry_(tm_allocator* allocator);

// Makes `stream` wait for an allocator's `own` one, unless one of the two is being captured.
// Errors: TM_ERR_CAPTURING, and those of tm_stream_wait_stream.
TM_API TM_NODISCARD tm_status tm_stream_follow_(tm_stream* stream, tm_stream* own);

// Whether nothing is queued on the stream, and nothing can be: it is NULL or disowned, or its
// device is gone.
TM_API bool tm_stream_is_over_(const tm_stream* stream);

// tm_stream_wait, but false where it fails or `stream` is being captured, which it would end.
TM_API bool tm_stream_wait_unless_capturing_(tm_stream* stream, tm_event* event);

TM_EXTERN_C_END

#endif  // TM_ALLOC_ALLOCATOR_H_
