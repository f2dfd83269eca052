// What the upstream gives, for a block of `size` bytes:
//
//   base             base + zone         + size      + rounded size            + zone
//    |--- red zone ---|------ block ------|-------------- red zone -------------|
//
// `zone` is the alignment, so the block is aligned as the upstream's are.

#include "tm/alloc/guard_adaptor.h"

#include <stdio.h>
#include <string.h>

#include "alloc/adaptor.h"
#include "alloc/block_table.h"
#include "alloc/counters.h"
#include "alloc/cuda_runtime.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/base/checked.h"
#include "tm/base/fatal.h"
#include "tm/base/trace.h"

enum {
  RED = 0xfb,     // what red zones are filled with
  POISON = 0xdd,  // what freed blocks are filled with
  SCOPE_SIZE = 128,
  FREED = 256,  // blocks that are remembered after their free, a power of two
  PIECE = 512,  // bytes that are fetched from a device at a time
};

typedef struct guarded_block {
  tm_block_node_ node;  // must be first
  size_t size;          // bytes, as asked
  uint64_t number;      // of the allocation
  char scope[SCOPE_SIZE];
} guarded_block;

typedef struct guard {
  tm_allocator base;  // must be first
  tm_allocator_stats counters;
  tm_guard_counts looks;  // atomic
  tm_block_table_ blocks;
  uint64_t allocations;  // so far
  const void* freed[FREED];
  size_t freed_count;
} guard;

// A zone that was written to.
typedef struct finding {
  bool found;
  ptrdiff_t offset;  // of the first byte that is wrong, from the block's address
  unsigned char byte;
} finding;

//===-- Memory --------------------------------------------------------------===//

// Where the bytes of a guard lie, and how they are reached.
typedef struct access {
  bool on_device;
  cudaStream_t handle;  // to queue on; the device is entered
  bool wait_after;      // nobody else orders what is queued
} access;

static bool is_on_device(const guard* g) { return g->base.device.type == TM_DEVICE; }

// The stream that a block's work is queued on: NULL where none is known, or where copies are the
// caller's to wait for.
static tm_stream* stream_of(const guard* g, tm_stream* stream) {
  if (g->base.stream || g->base.device.type == TM_CPU) {
    return g->base.stream;
  }
  return stream;
}

static access make_access(const guard* g, tm_stream* stream) {
  cudaStream_t handle = is_on_device(g) ? tm_stream_handle(stream) : NULL;
  return (access){.on_device = is_on_device(g),
                  .handle = handle ? handle : cudaStreamPerThread,
                  .wait_after = !handle};
}

static tm_status finish_access(const access* a) {
  if (a->on_device && a->wait_after) {
    TM_TRY_CUDA(cudaStreamSynchronize(a->handle));
  }
  return TM_OK;
}

static tm_status fill(const access* a, char* from, int value, size_t size) {
  if (!a->on_device) {
    memset(from, value, size);
    return TM_OK;
  }
  TM_TRY_CUDA(cudaMemsetAsync(from, value, size, a->handle));
  return TM_OK;
}

static void look(const unsigned char* bytes, size_t size, ptrdiff_t offset, finding* out) {
  for (size_t i = 0; i < size && !out->found; i++) {
    if (bytes[i] != RED) {
      *out = (finding){.found = true, .offset = offset + (ptrdiff_t)i, .byte = bytes[i]};
    }
  }
}

// Looks at `size` bytes from `offset` of the block on, until something is found.
static tm_status look_at(const access* a, const char* block, ptrdiff_t offset, size_t size,
                         finding* out) {
  if (!a->on_device) {
    look((const unsigned char*)block + offset, size, offset, out);
    return TM_OK;
  }
  unsigned char piece[PIECE];
  for (size_t done = 0; done < size && !out->found; done += PIECE) {
    const size_t now = size - done < PIECE ? size - done : PIECE;
    const ptrdiff_t at = offset + (ptrdiff_t)done;
    TM_TRY_CUDA(cudaMemcpyAsync(piece, block + at, now, cudaMemcpyDeviceToHost, a->handle));
    TM_TRY_CUDA(cudaStreamSynchronize(a->handle));
    look(piece, now, at, out);
  }
  return TM_OK;
}

//===-- Red zones -----------------------------------------------------------===//

static size_t zone(const guard* g) { return g->base.alignment; }

// Of the zone behind a block of `size` bytes.
static size_t zone_behind(const guard* g, size_t size) {
  return tm_adaptor_rounded_(&g->base, size) - size + zone(g);
}

static tm_status fill_zones(const guard* g, char* block, size_t size, tm_stream* stream) {
  tm_device_guard entered = {0};
  if (is_on_device(g)) {
    TM_TRY(tm_device_enter_(g->base.device.id, &entered));
  }
  const access a = make_access(g, stream_of(g, stream));
  tm_status status = fill(&a, block - zone(g), RED, zone(g));
  status = status == TM_OK ? fill(&a, block + size, RED, zone_behind(g, size)) : status;
  status = status == TM_OK ? finish_access(&a) : status;
  tm_device_leave_(&entered);
  return status;
}

static tm_status look_at_zones(const guard* g, const access* a, const char* block, size_t size,
                               finding* out) {
  TM_TRY(look_at(a, block, -(ptrdiff_t)zone(g), zone(g), out));
  return look_at(a, block, (ptrdiff_t)size, zone_behind(g, size), out);
}

// "12 bytes behind the block", "1 byte before the block"
static void describe(const finding* f, const char* block, const guarded_block* known, char* text,
                     size_t size) {
  const bool before = f->offset < 0;
  const size_t distance = before ? (size_t)-f->offset : (size_t)f->offset - known->size + 1;
  (void)snprintf(text, size,
                 "byte %zu %s the block %p of %zu bytes was written to: it is 0x%02x, not 0x%02x; "
                 "allocated in %s",
                 distance, before ? "before" : "behind", (const void*)block, known->size, f->byte,
                 RED, known->scope);
}

//===-- Allocating ----------------------------------------------------------===//

static tm_status span_of(const guard* g, size_t size, size_t* out) {
  size_t zones = 0;
  if (!tm_checked_mul(2, zone(g), &zones) ||
      !tm_checked_add(tm_adaptor_rounded_(&g->base, size), zones, out)) {
    return TM_RAISE(TM_ERR_OVERFLOW, "guard: %zu bytes and red zones of %zu each", size, zone(g));
  }
  return TM_OK;
}

static void add_block(guard* g, guarded_block* block) {
  tm_adaptor_lock_(&g->base);
  block->number = ++g->allocations;
  tm_block_table_add_(&g->blocks, &block->node);
  tm_adaptor_unlock_(&g->base);
  tm_count_alloc_(&g->counters, tm_adaptor_rounded_(&g->base, block->size));
}

static tm_status ask_and_fill(guard* g, size_t size, tm_stream* stream, char** out) {
  size_t span = 0;
  TM_TRY(span_of(g, size, &span));
  void* base = NULL;
  TM_TRY(tm_adaptor_ask_(&g->base, span, stream, &base));
  const tm_status status = fill_zones(g, (char*)base + zone(g), size, stream);
  if (status != TM_OK) {
    tm_adaptor_undo_(&g->base, base, span, stream);
    return status;
  }
  *out = (char*)base + zone(g);
  return TM_OK;
}

static void read_scope(guarded_block* block) {
  tm_trace_text(block->scope, sizeof block->scope);
  if (block->scope[0] == '\0') {
    (void)snprintf(block->scope, sizeof block->scope, "(no scope)");
  }
}

static tm_status guard_alloc(tm_allocator* self, size_t size, tm_stream* stream, void** out) {
  guard* g = (guard*)self;
  tm_count_request_(&g->counters);
  tm_count_upstream_call_(&g->counters);
  TM_TRY(tm_stream_refuse_capture_(stream_of(g, stream), "guard"));
  guarded_block* known = tm_bookkeeping_alloc(sizeof *known, "a guarded block");
  if (!known) {
    return tm_last_status();
  }
  char* block = NULL;
  const tm_status status = ask_and_fill(g, size, stream, &block);
  if (status != TM_OK) {
    tm_bookkeeping_free(known);
    return status;
  }
  read_scope(known);
  known->node.key = tm_block_key_(block);
  known->size = size;
  add_block(g, known);
  *out = block;
  return TM_OK;
}

//===-- Freeing -------------------------------------------------------------===//

// Waits until what is queued on the block's stream is done; where none is known, on the device.
static tm_status settle(const guard* g, tm_stream* stream) {
  if (is_on_device(g) && !tm_stream_handle(stream)) {
    return tm_device_sync(g->base.device.id);
  }
  return tm_stream_is_over_(stream) ? TM_OK : tm_stream_sync(stream);
}

// Where the upstream's free waits for the whole device, other streams may use the block until then.
static bool may_be_poisoned(const guard* g) {
  return !is_on_device(g) || !g->base.upstream->ignores_stream;
}

// Looks at the zones and poisons the block.
static tm_status check_and_poison(const guard* g, char* block, size_t size, tm_stream* stream,
                                  finding* out) {
  TM_TRY(settle(g, stream));
  const access a = make_access(g, stream);
  TM_TRY(look_at_zones(g, &a, block, size, out));
  if (out->found || !may_be_poisoned(g)) {
    return TM_OK;
  }
  TM_TRY(fill(&a, block, POISON, size));
  return finish_access(&a);
}

// Whether the memory can be reached: that of a device and pinned memory are gone with CUDA.
static bool enter_memory(const guard* g, tm_device_guard* entered) {
  switch (g->base.device.type) {
    case TM_DEVICE:
      return tm_device_enter_to_free_(g->base.device.id, entered);
    case TM_CPU_PINNED:
      return tm_cuda_usable_();
    default:
      return true;
  }
}

// Returns whether the zones were looked at.
static bool inspect(const guard* g, char* block, size_t size, tm_stream* stream, finding* out) {
  const tm_error kept = *tm_last_error();
  tm_device_guard entered = {0};
  const bool looked = enter_memory(g, &entered) &&
                      check_and_poison(g, block, size, stream_of(g, stream), out) == TM_OK;
  tm_device_leave_(&entered);
  tm_restore_error_(&kept);
  return looked;
}

// Under the lock: why `ptr` is not the address of a live block.
static void explain_foreign(const guard* g, const char* ptr, char* text, size_t size) {
  for (const tm_block_node_* n = NULL; (n = tm_block_table_next_(&g->blocks, n)) != NULL;) {
    const guarded_block* block = (const guarded_block*)n;
    const char* start = (const char*)(uintptr_t)n->key;
    if (ptr > start && ptr < start + block->size) {
      (void)snprintf(text, size, "lies %zu bytes inside the block %p of %zu bytes, allocated in %s",
                     (size_t)(ptr - start), (const void*)start, block->size, block->scope);
      return;
    }
  }
  for (size_t i = 0; i < FREED; i++) {
    if (g->freed[i] == ptr) {
      (void)snprintf(text, size, "was freed before");
      return;
    }
  }
  (void)snprintf(text, size, "is no block of this allocator");
}

// Takes the block out of the table; fatal where `ptr` is none, or of another size.
static guarded_block* take_block(guard* g, const void* ptr, size_t size) {
  char text[SCOPE_SIZE + 96];
  tm_adaptor_lock_(&g->base);
  guarded_block* known = (guarded_block*)tm_block_table_find_(&g->blocks, tm_block_key_(ptr));
  const size_t known_size = known ? known->size : 0;
  if (known_size == size) {
    (void)tm_block_table_take_(&g->blocks, tm_block_key_(ptr));
  } else if (!known) {
    explain_foreign(g, ptr, text, sizeof text);
  }
  tm_adaptor_unlock_(&g->base);
  if (!known) {
    TM_FATAL("guard: %p of %zu bytes is freed, but %s", ptr, size, text);
  }
  if (known_size != size) {
    TM_FATAL("guard: %p is freed with %zu bytes, and was allocated with %zu", ptr, size,
             known_size);
  }
  return known;
}

static void put_back(guard* g, guarded_block* known) {
  tm_adaptor_lock_(&g->base);
  tm_block_table_add_(&g->blocks, &known->node);
  tm_adaptor_unlock_(&g->base);
}

static void remember_freed(guard* g, const void* ptr) {
  tm_adaptor_lock_(&g->base);
  g->freed[g->freed_count++ % FREED] = ptr;
  tm_adaptor_unlock_(&g->base);
}

static void count_look(guard* g, bool looked) {
  uint64_t* count = looked ? &g->looks.checked : &g->looks.unchecked;
  (void)__atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
}

// A block that was written outside of stays live, for a fatal handler that does not end the
// process.
static void guard_free(tm_allocator* self, void* ptr, size_t size, tm_stream* stream) {
  guard* g = (guard*)self;
  guarded_block* known = take_block(g, ptr, size);
  finding found = {0};
  const bool looked = inspect(g, ptr, size, stream, &found);
  if (found.found) {
    char text[SCOPE_SIZE + 192];
    describe(&found, ptr, known, text, sizeof text);
    put_back(g, known);
    TM_FATAL("guard: %s", text);
  }
  count_look(g, looked);
  remember_freed(g, ptr);
  tm_bookkeeping_free(known);
  tm_count_free_(&g->counters, tm_adaptor_rounded_(self, size));
  tm_count_upstream_call_(&g->counters);
  size_t span = 0;
  (void)!span_of(g, size, &span);
  tm_adaptor_give_back_(self, (char*)ptr - zone(g), span, stream);
}

static tm_status guard_get_stats(tm_allocator* self, tm_allocator_stats* out) {
  tm_count_read_(&((guard*)self)->counters, out);
  tm_adaptor_add_reserved_(self, out);
  return TM_OK;
}

// Blocks that nobody has freed stay the upstream's.
static void guard_destroy(tm_allocator* self) {
  guard* g = (guard*)self;
  for (tm_block_node_* n = NULL; (n = tm_block_table_next_(&g->blocks, NULL)) != NULL;) {
    tm_bookkeeping_free(tm_block_table_take_(&g->blocks, n->key));
  }
  tm_block_table_deinit_(&g->blocks);
  tm_adaptor_destroy_(self);
}

static const tm_allocator_vtable guard_vtable = {
    .name = "guard",
    .destroy = guard_destroy,
    .alloc = guard_alloc,
    .free = guard_free,
    .trim = tm_adaptor_trim_,
    .get_stats = guard_get_stats,
};

//===-- Public functions ----------------------------------------------------===//

static tm_status refuse_dry(const tm_allocator* upstream) {
  for (const tm_allocator* below = upstream; below; below = tm_allocator_upstream(below)) {
    if (below->is_dry) {
      return TM_RAISE(TM_ERR_INVALID, "guard: %s hands out addresses that nothing may touch",
                      tm_allocator_name(below));
    }
  }
  return TM_OK;
}

tm_allocator* tm_guard_adaptor_create(tm_allocator* upstream) {
  if (refuse_dry(upstream) != TM_OK) {
    return NULL;
  }
  guard* g = tm_adaptor_create_(sizeof *g, &guard_vtable, upstream,
                                "tm_guard_adaptor_create: the upstream");
  if (!g) {
    return NULL;
  }
  // Its frees wait for the streams of their blocks, which no capture survives.
  g->base.puts_off_frees = upstream->device.type != TM_CPU || upstream->stream;
  g->base.ignores_stream = upstream->ignores_stream && !is_on_device(g);
  return &g->base;
}

// Under the lock: looks at the blocks of the first `last` allocations, whose zones are filled.
static tm_status look_at_all(const guard* g, const access* a, uint64_t last, size_t* bad,
                             char* text, size_t text_size) {
  for (const tm_block_node_* n = NULL; (n = tm_block_table_next_(&g->blocks, n)) != NULL;) {
    const guarded_block* block = (const guarded_block*)n;
    const char* start = (const char*)(uintptr_t)n->key;
    finding found = {0};
    if (block->number <= last) {
      TM_TRY(look_at_zones(g, a, start, block->size, &found));
    }
    if (found.found && (*bad)++ == 0) {
      describe(&found, start, block, text, text_size);
    }
  }
  return TM_OK;
}

// Those allocated later may still be on their way to being filled, on the device.
static tm_status check_blocks(guard* g, size_t* bad, char* text, size_t text_size) {
  tm_device_guard entered = {0};
  tm_adaptor_lock_(&g->base);
  const uint64_t last = g->allocations;
  tm_adaptor_unlock_(&g->base);
  if (is_on_device(g)) {
    TM_TRY(tm_device_sync(g->base.device.id));
    TM_TRY(tm_device_enter_(g->base.device.id, &entered));
  }
  const access a = make_access(g, NULL);
  tm_adaptor_lock_(&g->base);
  const tm_status status = look_at_all(g, &a, last, bad, text, text_size);
  tm_adaptor_unlock_(&g->base);
  tm_device_leave_(&entered);
  return status;
}

tm_status tm_guard_check(tm_allocator* adaptor) {
  TM_TRY(tm_adaptor_check_(adaptor, &guard_vtable, "tm_guard_check: the allocator"));
  guard* g = (guard*)adaptor;
  TM_TRY(tm_stream_refuse_capture_(adaptor->stream, "tm_guard_check"));
  if (adaptor->device.type == TM_CPU_PINNED && !tm_cuda_usable_()) {
    return TM_RAISE(TM_ERR_UNAVAILABLE, "tm_guard_check: pinned memory of a process without CUDA");
  }
  char text[SCOPE_SIZE + 192];
  size_t bad = 0;
  TM_TRY(check_blocks(g, &bad, text, sizeof text));
  return bad ? TM_RAISE(TM_ERR_CORRUPT, "guard: 1 of %zu found: %s", bad, text) : TM_OK;
}

tm_status tm_guard_get(tm_allocator* adaptor, tm_guard_counts* out) {
  if (!out) {
    return TM_RAISE(TM_ERR_INVALID, "tm_guard_get: out is NULL");
  }
  memset(out, 0, sizeof *out);
  TM_TRY(tm_adaptor_check_(adaptor, &guard_vtable, "tm_guard_get: the allocator"));
  const guard* g = (const guard*)adaptor;
  out->checked = __atomic_load_n(&g->looks.checked, __ATOMIC_RELAXED);
  out->unchecked = __atomic_load_n(&g->looks.unchecked, __ATOMIC_RELAXED);
  return TM_OK;
}
