// Makes an allocation log of what a reader finds, and finds what cannot be: a block that is freed
// twice, an address that is handed out twice.
//
// Addresses come again and again; each allocation makes a new block. An allocation of 0 bytes may
// have the address of another block, also NULL, as in the logs of allocators that do not make it
// unique: a free whose size is not known frees what was allocated last.
#ifndef TRACE_LOG_BUILDER_H_
#define TRACE_LOG_BUILDER_H_

#include <stddef.h>
#include <stdint.h>
#include <tm/tm.h>

#include "trace/allocation_log.h"
#include "trace/handle_map.h"

typedef struct log_block log_block;

// All zero but for `file` is a builder that has seen nothing.
typedef struct log_builder {
  const char* file;  // for messages
  allocation_log log;
  handle_map addresses;  // of live blocks: the latest one's number
  handle_map threads;
  handle_map streams;
  log_block* blocks;
  size_t block_capacity;
} log_builder;

// Where an event comes from.
typedef struct log_place {
  uint64_t line;
  uint32_t thread;
  uint32_t stream;
} log_place;

// What an event is about.
typedef struct log_subject {
  log_handle address;
  uint64_t owner;  // the allocator, as the log names it; 0: it does not
  uint64_t bytes;
} log_subject;

// A free whose size the log does not say.
#define LOG_SIZE_UNKNOWN UINT64_MAX

// The number of a thread or stream.
// Errors: TM_ERR_NO_MEMORY. On failure `*out` is 0.
TM_NODISCARD tm_status log_builder_thread(log_builder* builder, log_handle handle, uint32_t* out);
TM_NODISCARD tm_status log_builder_stream(log_builder* builder, log_handle handle, uint32_t* out);

// Errors of all that follow: TM_ERR_CORRUPT ("file:line: ..."), TM_ERR_NO_MEMORY. After one the
//         builder is good for nothing but log_builder_deinit.

TM_NODISCARD tm_status log_builder_allocate(log_builder* builder, log_place place,
                                            log_subject subject);

TM_NODISCARD tm_status log_builder_free(log_builder* builder, log_place place, log_subject subject);

// A reallocation that the program's allocator did in one: `to` is allocated, then `from` is freed,
// which may have the same address.
TM_NODISCARD tm_status log_builder_move(log_builder* builder, log_place place, log_subject from,
                                        log_subject to);

// An allocation of `bytes` that failed. `*event`, unless `event` is NULL, is the number with which
// log_builder_withdraw takes it back.
TM_NODISCARD tm_status log_builder_fail(log_builder* builder, log_place place, uint64_t bytes,
                                        size_t* event);
void log_builder_withdraw(log_builder* builder, size_t event);

// Stores the line that allocated what lives at an address; 0: nothing does.
TM_NODISCARD tm_status log_builder_find(log_builder* builder, log_handle address,
                                        uint64_t* out_line);

// Moves the log to `*out`, which the caller gives back with allocation_log_deinit. A log without
// any event is TM_ERR_CORRUPT. On failure `*out` is empty.
TM_NODISCARD tm_status log_builder_finish(log_builder* builder, log_format format,
                                          allocation_log* out);

// Frees what the builder holds.
void log_builder_deinit(log_builder* builder);

#endif  // TRACE_LOG_BUILDER_H_
