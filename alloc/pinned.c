// The life of a block:
//
//             alloc                  free on a stream              the event is seen done
//   (new) -------------> LIVE -----------------------> GUARDED -------------------------> IDLE
//                         ^  \---- free on no stream ---------------------------------->  |  |
//                         |                                                               |  |
//                         +------------------------ taken by an alloc of its class -------+  |
//                                                            trim, or over the limit: gone --+
//
// The guard (reuse_guard.h) sees to it that a free never fails and never waits; nor does a free
// give memory back to CUDA, since cudaFreeHost waits for the devices. Every state but LIVE is
// parked: on the list of its class and on the list of all.

#include "tm/alloc/pinned.h"

#include <pthread.h>
#include <stdbool.h>
#include <sys/queue.h>

#include "alloc/counters.h"
#include "alloc/cuda_runtime.h"
#include "alloc/pinned_class.h"
#include "alloc/reuse_guard.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/base/fatal.h"

enum {
  BUCKETS_LOG2 = 10,
  BUCKETS = 1 << BUCKETS_LOG2,  // of the table of live blocks
  CHECKS = 8,                   // parked blocks an operation looks at before it goes on without one
};

typedef struct pinned_block {
  LIST_ENTRY(pinned_block) in_bucket;  // while live
  TAILQ_ENTRY(pinned_block) in_class;  // while parked
  TAILQ_ENTRY(pinned_block) in_age;    // while parked
  void* ptr;
  size_t bytes;  // of the class
  int class_index;
  int32_t device_id;  // under which it was made
  reuse_guard guard;  // open while live
} pinned_block;

LIST_HEAD(block_list, pinned_block);
TAILQ_HEAD(block_queue, pinned_block);

typedef struct pinned_allocator {
  tm_allocator base_allocator;  // must be first
  tm_allocator_stats counters;
  size_t limit;          // bytes parked at most; read and written with __atomic
  pthread_mutex_t lock;  // guards what follows, and every block
  size_t parked_bytes;
  struct block_list live[BUCKETS];
  struct block_queue by_age;                    // the longest parked first
  struct block_queue by_class[PINNED_CLASSES];  // the likeliest to be idle first
} pinned_allocator;

static pinned_allocator pinned;

//===-- Live blocks ---------------------------------------------------------===//

static struct block_list* bucket_of(const void* ptr) {
  const uint64_t hash = ((uint64_t)(uintptr_t)ptr >> PINNED_STEP_LOG2) * 0x9e3779b97f4a7c15u;
  return &pinned.live[hash >> (64 - BUCKETS_LOG2)];
}

static void add_live(pinned_block* block) {
  block->guard.state = REUSE_OPEN;
  LIST_INSERT_HEAD(bucket_of(block->ptr), block, in_bucket);
}

// Takes the block at `ptr` off the table.
static pinned_block* remove_live(const void* ptr) {
  pinned_block* block;
  LIST_FOREACH(block, bucket_of(ptr), in_bucket) {
    if (block->ptr == ptr) {
      LIST_REMOVE(block, in_bucket);
      return block;
    }
  }
  return NULL;
}

//===-- Parked blocks -------------------------------------------------------===//

static void park(pinned_block* block) {
  struct block_queue* queue = &pinned.by_class[block->class_index];
  if (block->guard.state == REUSE_OVER) {
    TAILQ_INSERT_HEAD(queue, block, in_class);
  } else {
    TAILQ_INSERT_TAIL(queue, block, in_class);
  }
  TAILQ_INSERT_TAIL(&pinned.by_age, block, in_age);
  pinned.parked_bytes += block->bytes;
}

static void unpark(pinned_block* block) {
  TAILQ_REMOVE(&pinned.by_class[block->class_index], block, in_class);
  TAILQ_REMOVE(&pinned.by_age, block, in_age);
  pinned.parked_bytes -= block->bytes;
}

// Takes an idle block of the class off the lists; NULL where none of the first few is.
static pinned_block* take_idle(int class_index) {
  int checks = CHECKS;
  pinned_block* block;
  TAILQ_FOREACH(block, &pinned.by_class[class_index], in_class) {
    if (reuse_guard_is_over(&block->guard)) {
      unpark(block);
      return block;
    }
    if (--checks == 0) {
      return NULL;
    }
  }
  return NULL;
}

//===-- CUDA ----------------------------------------------------------------===//

static tm_status ask_cuda(pinned_block* block) {
  TM_ON_DEVICE(block->device_id);
  tm_count_upstream_call_(&pinned.counters);
  const cudaError_t code = cudaHostAlloc(&block->ptr, block->bytes, cudaHostAllocPortable);
  if (code == cudaErrorMemoryAllocation) {
    tm_cuda_ignore_(code);
    return TM_RAISE(
        TM_ERR_NO_MEMORY,
        "pinned: %zu bytes asked of the host, which cannot lock them; %llu bytes are "
        "held already (cudaHostAlloc: %s)",
        block->bytes,
        (unsigned long long)__atomic_load_n(&pinned.counters.reserved_bytes, __ATOMIC_RELAXED),
        cudaGetErrorName(code));
  }
  return tm_cuda_status_(code, "cudaHostAlloc(&ptr, bytes, portable)", __FILE__, __LINE__);
}

static void destroy_block(pinned_block* block) {
  tm_device_guard guard = {0};
  if (tm_device_enter_to_free_(block->device_id, &guard)) {
    tm_count_upstream_call_(&pinned.counters);
    tm_cuda_ignore_(cudaFreeHost(block->ptr));
    tm_device_leave_(&guard);
  }
  tm_count_unreserve_(&pinned.counters, block->bytes);
  reuse_guard_deinit(&block->guard);
  tm_bookkeeping_free(block);
}

// Takes one of the longest parked blocks off the lists, where more is parked than may be.
static pinned_block* take_surplus(void) {
  if (pinned.parked_bytes <= __atomic_load_n(&pinned.limit, __ATOMIC_RELAXED)) {
    return NULL;
  }
  int checks = CHECKS;
  pinned_block* block;
  TAILQ_FOREACH(block, &pinned.by_age, in_age) {
    if (reuse_guard_is_over(&block->guard)) {
      unpark(block);
      return block;
    }
    if (--checks == 0) {
      return NULL;
    }
  }
  return NULL;
}

static void give_surplus_back(void) {
  pinned_block* surplus;
  do {
    pthread_mutex_lock(&pinned.lock);
    surplus = take_surplus();
    pthread_mutex_unlock(&pinned.lock);
    if (surplus) {
      destroy_block(surplus);
    }
  } while (surplus);
}

// New memory comes under the stream's device, or under the thread's current one, so that no context
// is made on a device that the program does not use.
static tm_status make_block(int class_index, size_t bytes, const tm_stream* stream,
                            pinned_block** out) {
  TM_TRY(tm_stream_refuse_capture_(stream, "pinned"));
  int32_t device_id = tm_stream_device(stream).id;
  if (!stream) {
    TM_TRY(tm_current_device_(&device_id));
  }
  pinned_block* block = tm_bookkeeping_alloc(sizeof *block, "a pinned block");
  if (!block) {
    return tm_last_status();
  }
  give_surplus_back();
  block->bytes = bytes;
  block->class_index = class_index;
  block->device_id = device_id;
  const tm_status status = ask_cuda(block);
  if (status != TM_OK) {
    tm_bookkeeping_free(block);
    return status;
  }
  tm_count_reserve_(&pinned.counters, bytes);
  *out = block;
  return TM_OK;
}

//===-- Slots ---------------------------------------------------------------===//

static tm_status find_block(size_t size, const tm_stream* stream, pinned_block** out) {
  size_t bytes;
  const int class_index = pinned_class_of(size, &bytes);
  pthread_mutex_lock(&pinned.lock);
  *out = take_idle(class_index);
  pthread_mutex_unlock(&pinned.lock);
  return *out ? TM_OK : make_block(class_index, bytes, stream, out);
}

static void put_back(pinned_block* block) {
  pthread_mutex_lock(&pinned.lock);
  block->guard.state = REUSE_OVER;
  park(block);
  pthread_mutex_unlock(&pinned.lock);
}

static tm_status pinned_alloc(tm_allocator* self, size_t size, tm_stream* stream, void** out) {
  (void)self;
  tm_count_request_(&pinned.counters);
  if (!tm_cuda_usable_()) {
    int32_t unused;
    TM_TRY(tm_current_device_(&unused));  // says why, or is the first use
  }
  pinned_block* block = NULL;
  TM_TRY(find_block(size, stream, &block));
  const tm_status status = stream ? reuse_guard_prepare(&block->guard, stream) : TM_OK;
  if (status != TM_OK) {
    put_back(block);
    return status;
  }
  pthread_mutex_lock(&pinned.lock);
  add_live(block);
  pthread_mutex_unlock(&pinned.lock);
  tm_count_alloc_(&pinned.counters, size);
  *out = block->ptr;
  return TM_OK;
}

static void pinned_free(tm_allocator* self, void* ptr, size_t size, tm_stream* stream) {
  (void)self;
  if (!tm_cuda_usable_()) {
    return;  // in a forked child the lock may be held for ever
  }
  pthread_mutex_lock(&pinned.lock);
  pinned_block* block = remove_live(ptr);
  if (block) {
    reuse_guard_close(&block->guard, stream);
    park(block);
  }
  pthread_mutex_unlock(&pinned.lock);
  if (!block) {
    TM_FATAL("pinned: %p of %zu bytes is freed, but is no live block", ptr, size);
  }
  tm_count_free_(&pinned.counters, size);
}

// Moves idle blocks to `gone` until what is held is at most `keep` bytes.
static void collect_idle(size_t keep, struct block_queue* gone) {
  uint64_t held = __atomic_load_n(&pinned.counters.reserved_bytes, __ATOMIC_RELAXED);
  pinned_block* next;
  for (pinned_block* block = TAILQ_FIRST(&pinned.by_age); block && held > keep; block = next) {
    next = TAILQ_NEXT(block, in_age);
    if (reuse_guard_is_over(&block->guard)) {
      unpark(block);
      held -= block->bytes;
      TAILQ_INSERT_TAIL(gone, block, in_age);
    }
  }
}

static tm_status pinned_trim(tm_allocator* self, size_t keep) {
  (void)self;
  if (!tm_cuda_usable_()) {
    return TM_OK;
  }
  struct block_queue gone = TAILQ_HEAD_INITIALIZER(gone);
  pthread_mutex_lock(&pinned.lock);
  collect_idle(keep, &gone);
  pthread_mutex_unlock(&pinned.lock);
  pinned_block* block;
  while ((block = TAILQ_FIRST(&gone)) != NULL) {
    TAILQ_REMOVE(&gone, block, in_age);
    destroy_block(block);
  }
  return TM_OK;
}

static tm_status pinned_get_stats(tm_allocator* self, tm_allocator_stats* out) {
  (void)self;
  tm_count_read_(&pinned.counters, out);
  return TM_OK;
}

static void pinned_destroy(tm_allocator* self) { (void)self; }  // immortal: never called

static const tm_allocator_vtable pinned_vtable = {
    .name = "pinned",
    .destroy = pinned_destroy,
    .alloc = pinned_alloc,
    .free = pinned_free,
    .trim = pinned_trim,
    .get_stats = pinned_get_stats,
};

//===-- The process's allocator ---------------------------------------------===//

static void make_pinned(void) {
  tm_allocator_init_(&pinned.base_allocator, &pinned_vtable, tm_device_make(TM_CPU_PINNED, 0),
                     NULL);
  pinned.base_allocator.references = TM_IMMORTAL_;
  __atomic_store_n(&pinned.limit, (size_t)1 << 30, __ATOMIC_RELAXED);
  pthread_mutex_init(&pinned.lock, NULL);
  TAILQ_INIT(&pinned.by_age);
  for (int i = 0; i < PINNED_CLASSES; i++) {
    TAILQ_INIT(&pinned.by_class[i]);
  }
}

tm_allocator* tm_pinned_allocator(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  (void)pthread_once(&once, make_pinned);
  return &pinned.base_allocator;
}

void tm_pinned_set_cache_limit(size_t bytes) {
  (void)tm_pinned_allocator();
  __atomic_store_n(&pinned.limit, bytes, __ATOMIC_RELAXED);
}
