#include "trace/log_builder.h"

#include <stdbool.h>

#include "trace/array.h"

static const uint32_t no_block = UINT32_MAX;

struct log_block {
  uint64_t bytes;
  uint64_t line;
  uint64_t owner;
  uint32_t below;  // of 0 bytes: the one at the same address that was allocated before
};

typedef unsigned long long ull;  // what printf takes

//===-- Threads and streams -----------------------------------------------===//

static tm_status number_of(handle_map* map, log_handle handle, uint32_t* count, uint32_t* out) {
  uint32_t* number;
  *out = 0;
  TM_TRY(handle_map_get(map, handle, *count, &number));
  if (*number == *count) (*count)++;
  *out = *number;
  return TM_OK;
}

tm_status log_builder_thread(log_builder* builder, log_handle handle, uint32_t* out) {
  return number_of(&builder->threads, handle, &builder->log.thread_count, out);
}

tm_status log_builder_stream(log_builder* builder, log_handle handle, uint32_t* out) {
  return number_of(&builder->streams, handle, &builder->log.stream_count, out);
}

//===-- Events ------------------------------------------------------------===//

static tm_status append(log_builder* b, log_event_kind kind, log_place place, uint32_t block,
                        uint64_t bytes) {
  allocation_log* log = &b->log;
  TM_TRY(array_make_room((void**)&log->events, &log->event_capacity, log->event_count,
                         sizeof(log_event), "an allocation log"));
  log->events[log->event_count++] = (log_event){
      .kind = kind,
      .bytes = bytes,
      .line = place.line,
      .block = block,
      .thread = place.thread,
      .stream = place.stream,
  };
  return TM_OK;
}

// Blocks with bytes and blocks without are looked up apart: of the first kind an address has one.
static tm_status head_of(log_builder* b, log_handle address, bool is_empty, uint32_t** out) {
  address.space = 2 * address.space + is_empty;
  return handle_map_get(&b->addresses, address, no_block, out);
}

//===-- Allocating --------------------------------------------------------===//

static tm_status check_new(const log_builder* b, log_place place, log_subject s, uint32_t head) {
  if (s.bytes && !s.address.value) {
    return TM_RAISE(TM_ERR_CORRUPT, "%s:%llu: %llu bytes are allocated at address 0", b->file,
                    (ull)place.line, (ull)s.bytes);
  }
  if (s.bytes && head != no_block) {
    return TM_RAISE(TM_ERR_CORRUPT,
                    "%s:%llu: 0x%llx is allocated again: line %llu has it, and no free is between",
                    b->file, (ull)place.line, (ull)s.address.value, (ull)b->blocks[head].line);
  }
  if (s.bytes > (uint64_t)INT64_MAX - b->log.last_live_bytes) {
    return TM_RAISE(TM_ERR_CORRUPT, "%s:%llu: %llu bytes make more than 2^63 that are live",
                    b->file, (ull)place.line, (ull)s.bytes);
  }
  if (b->log.block_count == no_block) {
    return TM_RAISE(TM_ERR_CORRUPT, "%s:%llu: more than %u allocations", b->file, (ull)place.line,
                    no_block);
  }
  return TM_OK;
}

static void count_new(allocation_log* log, uint64_t bytes) {
  log->block_count++;
  log->allocations++;
  log->last_live_blocks++;
  log->last_live_bytes += bytes;
  if (log->last_live_bytes > log->peak_live_bytes) log->peak_live_bytes = log->last_live_bytes;
}

tm_status log_builder_allocate(log_builder* b, log_place place, log_subject s) {
  uint32_t* head;
  TM_TRY(head_of(b, s.address, s.bytes == 0, &head));
  TM_TRY(check_new(b, place, s, *head));
  const uint32_t block = b->log.block_count;
  TM_TRY(array_make_room((void**)&b->blocks, &b->block_capacity, block, sizeof(log_block),
                         "the blocks of a log"));
  TM_TRY(append(b, LOG_ALLOCATE, place, block, s.bytes));
  b->blocks[block] = (log_block){
      .bytes = s.bytes,
      .line = place.line,
      .owner = s.owner,
      .below = *head,
  };
  *head = block;
  count_new(&b->log, s.bytes);
  return TM_OK;
}

//===-- Freeing -----------------------------------------------------------===//

// Points `*out` to where the number of the block is that a free means, which is `no_block` where
// nothing lives at the address.
static tm_status find_head(log_builder* b, log_handle address, uint64_t bytes, uint32_t** out) {
  uint32_t* head;
  TM_TRY(head_of(b, address, true, &head));
  const uint32_t empty = *head;
  TM_TRY(head_of(b, address, false, &head));
  const uint32_t sized = *head;
  const bool wants_empty =
      bytes == 0 || (bytes == LOG_SIZE_UNKNOWN && sized != no_block && empty > sized);
  // Where only the other kind lives, it is that which is meant, and its size is wrong.
  const bool takes_empty = empty != no_block && (sized == no_block || wants_empty);
  return head_of(b, address, takes_empty, out);
}

static tm_status check_old(const log_builder* b, log_place place, log_subject s, uint32_t block) {
  if (block == no_block) {
    return TM_RAISE(TM_ERR_CORRUPT, "%s:%llu: 0x%llx is freed, but not allocated", b->file,
                    (ull)place.line, (ull)s.address.value);
  }
  const log_block* old = &b->blocks[block];
  if (s.bytes != LOG_SIZE_UNKNOWN && s.bytes != old->bytes) {
    return TM_RAISE(TM_ERR_CORRUPT,
                    "%s:%llu: 0x%llx is freed with %llu bytes, line %llu allocates %llu", b->file,
                    (ull)place.line, (ull)s.address.value, (ull)s.bytes, (ull)old->line,
                    (ull)old->bytes);
  }
  if (s.owner != old->owner) {
    return TM_RAISE(TM_ERR_CORRUPT,
                    "%s:%llu: 0x%llx is freed by allocator 0x%llx, but line %llu allocates it from "
                    "0x%llx",
                    b->file, (ull)place.line, (ull)s.address.value, (ull)s.owner, (ull)old->line,
                    (ull)old->owner);
  }
  return TM_OK;
}

// Takes a block off its address: the event comes later.
static tm_status take(log_builder* b, log_place place, log_subject s, uint32_t* block) {
  uint32_t* head;
  *block = no_block;
  TM_TRY(find_head(b, s.address, s.bytes, &head));
  TM_TRY(check_old(b, place, s, *head));
  *block = *head;
  *head = b->blocks[*block].below;
  return TM_OK;
}

static tm_status append_free(log_builder* b, log_place place, uint32_t block) {
  const uint64_t bytes = b->blocks[block].bytes;
  TM_TRY(append(b, LOG_FREE, place, block, bytes));
  b->log.frees++;
  b->log.last_live_blocks--;
  b->log.last_live_bytes -= bytes;
  return TM_OK;
}

tm_status log_builder_free(log_builder* b, log_place place, log_subject subject) {
  uint32_t block;
  TM_TRY(take(b, place, subject, &block));
  return append_free(b, place, block);
}

tm_status log_builder_move(log_builder* b, log_place place, log_subject from, log_subject to) {
  uint32_t block;
  TM_TRY(take(b, place, from, &block));
  TM_TRY(log_builder_allocate(b, place, to));
  return append_free(b, place, block);
}

tm_status log_builder_find(log_builder* b, log_handle address, uint64_t* out_line) {
  uint32_t* head;
  *out_line = 0;
  TM_TRY(find_head(b, address, LOG_SIZE_UNKNOWN, &head));
  if (*head != no_block) *out_line = b->blocks[*head].line;
  return TM_OK;
}

//===-- Failures ----------------------------------------------------------===//

tm_status log_builder_fail(log_builder* b, log_place place, uint64_t bytes, size_t* event) {
  if (event) *event = b->log.event_count;
  TM_TRY(append(b, LOG_FAILURE, place, 0, bytes));
  b->log.failures++;
  return TM_OK;
}

void log_builder_withdraw(log_builder* b, size_t event) {
  b->log.events[event].kind = LOG_WITHDRAWN;
  b->log.failures--;
}

//===-- The end -----------------------------------------------------------===//

static void drop_withdrawn(allocation_log* log) {
  size_t kept = 0;
  for (size_t i = 0; i < log->event_count; i++) {
    if (log->events[i].kind != LOG_WITHDRAWN) log->events[kept++] = log->events[i];
  }
  log->event_count = kept;
}

tm_status log_builder_finish(log_builder* b, log_format format, allocation_log* out) {
  *out = (allocation_log){0};
  drop_withdrawn(&b->log);
  if (b->log.event_count == 0) {
    return TM_RAISE(TM_ERR_CORRUPT, "%s: there is no allocation in it", b->file);
  }
  b->log.format = format;
  *out = b->log;
  b->log = (allocation_log){0};
  return TM_OK;
}

void log_builder_deinit(log_builder* b) {
  allocation_log_deinit(&b->log);
  handle_map_deinit(&b->addresses);
  handle_map_deinit(&b->threads);
  handle_map_deinit(&b->streams);
  tm_bookkeeping_free(b->blocks);
  *b = (log_builder){0};
}
