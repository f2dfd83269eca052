// Blocks of one scope path share it:
//
//   blocks, by address            holders, by the path's hash
//   [block] ----------+
//   [block] ----------+--------> [holder: path, live bytes, live blocks]
//
// A holder goes with its last block, since names made at run time may never come again.

#include "tm/alloc/tracking_adaptor.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>
#include <unistd.h>

#include "alloc/adaptor.h"
#include "alloc/block_table.h"
#include "base/stderr_line.h"
#include "base/text.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/alloc/oom_report.h"
#include "tm/base/fatal.h"
#include "tm/base/trace.h"
#include "tm/log.h"

enum { LINE_SIZE = TM_TRACKING_SCOPE_SIZE + 128 };  // bytes of a line of a report

typedef struct holder {
  tm_block_node_ node;  // must be first
  size_t blocks;        // live ones, and those that are being allocated
  size_t bytes;
  uint64_t oldest_ns;  // when the oldest was allocated; only while a report is made
  size_t reported;     // the number of the report that has it already
  char path[TM_TRACKING_SCOPE_SIZE];
} holder;

typedef struct tracked_block {
  tm_block_node_ node;  // must be first
  size_t size;          // as asked
  uint64_t since_ns;
  holder* holder;
} tracked_block;

typedef struct tracking {
  tm_allocator base;  // must be first
  tm_tracking_options options;
  tm_block_table_ blocks;
  tm_block_table_ holders;
  size_t bytes;
  size_t reports;  // so far
  pid_t process;   // that made it
  LIST_ENTRY(tracking) in_list;
} tracking;

static uint64_t now_ns(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

//===-- Holders -------------------------------------------------------------===//

static void read_path(char* path) {
  tm_trace_text(path, TM_TRACKING_SCOPE_SIZE);
  if (path[0] == '\0') {
    (void)snprintf(path, TM_TRACKING_SCOPE_SIZE, "(no scope)");
  }
}

static uint64_t hash_path(const char* path) {  // FNV-1a
  uint64_t hash = 0xcbf29ce484222325u;
  for (; *path; path++) {
    hash = (hash ^ (unsigned char)*path) * 0x100000001b3u;
  }
  return hash;
}

// The holder of `path`; NULL where there is none, and then `*key` is one that is free for it.
static holder* find_holder(const tracking* t, const char* path, uint64_t* key) {
  *key = hash_path(path);
  holder* found = (holder*)tm_block_table_find_(&t->holders, *key);
  while (found && strcmp(found->path, path) != 0) {
    found = (holder*)tm_block_table_find_(&t->holders, ++*key);
  }
  return found;
}

// The holder of `path`, with one block more. NULL where it has to be `made` first.
static holder* join_holder(tracking* t, const char* path, holder* made) {
  uint64_t key = 0;
  holder* found = find_holder(t, path, &key);
  if (!found && made) {
    found = made;
    found->node.key = key;
    memcpy(found->path, path, strlen(path) + 1);
    tm_block_table_add_(&t->holders, &found->node);
  }
  if (found) {
    found->blocks++;
  }
  return found;
}

static holder* obtain_holder(tracking* t, const char* path) {
  tm_adaptor_lock_(&t->base);
  holder* found = join_holder(t, path, NULL);
  tm_adaptor_unlock_(&t->base);
  if (found) {
    return found;
  }
  holder* made = tm_bookkeeping_alloc(sizeof *made, "a scope that holds blocks");
  if (!made) {
    return NULL;
  }
  tm_adaptor_lock_(&t->base);
  found = join_holder(t, path, made);
  tm_adaptor_unlock_(&t->base);
  if (found != made) {
    tm_bookkeeping_free(made);  // another thread was faster
  }
  return found;
}

// A block less. Returns the holder where it is to be freed, after the lock is. Another path may
// have got a later key because of this one's, so the holders behind are put in anew.
static holder* leave_holder(tracking* t, holder* h) {
  if (--h->blocks) {
    return NULL;
  }
  (void)tm_block_table_take_(&t->holders, h->node.key);
  for (uint64_t key = h->node.key + 1;; key++) {
    holder* moved = (holder*)tm_block_table_take_(&t->holders, key);
    if (!moved) {
      return h;
    }
    (void)find_holder(t, moved->path, &moved->node.key);
    tm_block_table_add_(&t->holders, &moved->node);
  }
}

static void drop_holder(tracking* t, holder* h) {
  tm_adaptor_lock_(&t->base);
  h = leave_holder(t, h);
  tm_adaptor_unlock_(&t->base);
  tm_bookkeeping_free(h);
}

//===-- Reports -------------------------------------------------------------===//

// Under the lock: says of each holder how old it is, and that no line of this report has it.
static void begin_report(tracking* t) {
  t->reports++;
  for (tm_block_node_* n = NULL; (n = tm_block_table_next_(&t->holders, n)) != NULL;) {
    ((holder*)n)->oldest_ns = UINT64_MAX;
  }
  for (tm_block_node_* n = NULL; (n = tm_block_table_next_(&t->blocks, n)) != NULL;) {
    const tracked_block* block = (const tracked_block*)n;
    if (block->since_ns < block->holder->oldest_ns) {
      block->holder->oldest_ns = block->since_ns;
    }
  }
}

// Under the lock: the largest holder that the report does not have yet; NULL after the last.
static holder* next_largest(tracking* t) {
  holder* best = NULL;
  for (tm_block_node_* n = NULL; (n = tm_block_table_next_(&t->holders, n)) != NULL;) {
    holder* h = (holder*)n;
    if (h->reported != t->reports && h->bytes && (!best || h->bytes > best->bytes)) {
      best = h;
    }
  }
  if (best) {
    best->reported = t->reports;
  }
  return best;
}

static void write_head(const tracking* t, char* line) {
  (void)snprintf(line, LINE_SIZE, "tracking: %zu block%s of %zu bytes in all %s outstanding",
                 t->blocks.count, t->blocks.count == 1 ? "" : "s", t->bytes,
                 t->blocks.count == 1 ? "is" : "are");
}

static void write_holder(const holder* h, uint64_t now, char* line) {
  const double age = h->oldest_ns < now ? (double)(now - h->oldest_ns) / 1e9 : 0;
  (void)snprintf(line, LINE_SIZE, "  %zu bytes in %zu block%s, the oldest for %.1f s: %s", h->bytes,
                 h->blocks, h->blocks == 1 ? "" : "s", age, h->path);
}

static void write_report(tracking* t, tm_text* out) {
  char line[LINE_SIZE];
  const uint64_t now = now_ns();
  begin_report(t);
  write_head(t, line);
  tm_text_add_string_(out, line);
  for (const holder* h; !out->cut && (h = next_largest(t)) != NULL;) {
    write_holder(h, now, line);
    tm_text_add_string_(out, "\n");
    tm_text_add_string_(out, line);
  }
}

static void describe_holder(const holder* h, tm_oom_holder* out) {
  out->bytes = h->bytes;
  out->blocks = h->blocks;
  tm_text path = tm_text_of_(out->scope, sizeof out->scope);
  tm_text_add_string_(&path, h->path);
  tm_text_finish_(&path);
}

static uint32_t tracking_top_holders(tm_allocator* self, tm_oom_holder* out, uint32_t capacity) {
  tracking* t = (tracking*)self;
  uint32_t count = 0;
  tm_adaptor_lock_(self);
  t->reports++;
  for (const holder* h; count < capacity && (h = next_largest(t)) != NULL; count++) {
    describe_holder(h, &out[count]);
  }
  tm_adaptor_unlock_(self);
  return count;
}

//===-- Slots ---------------------------------------------------------------===//

static void add_block(tracking* t, tracked_block* block) {
  block->since_ns = now_ns();
  tm_adaptor_lock_(&t->base);
  tm_block_table_add_(&t->blocks, &block->node);
  block->holder->bytes += block->size;
  t->bytes += block->size;
  tm_adaptor_unlock_(&t->base);
}

static tm_status ask_and_note(tracking* t, tracked_block* block, tm_stream* stream, void** out) {
  const tm_status status = tm_adaptor_ask_(&t->base, block->size, stream, out);
  if (status == TM_OK) {
    block->node.key = tm_block_key_(*out);
    add_block(t, block);
    return TM_OK;
  }
  drop_holder(t, block->holder);
  tm_bookkeeping_free(block);
  return status;
}

static tm_status tracking_alloc(tm_allocator* self, size_t size, tm_stream* stream, void** out) {
  tracking* t = (tracking*)self;
  char path[TM_TRACKING_SCOPE_SIZE];
  read_path(path);
  tracked_block* block = tm_bookkeeping_alloc(sizeof *block, "a tracked block");
  if (!block) {
    return tm_last_status();
  }
  block->size = size;
  block->holder = obtain_holder(t, path);
  if (!block->holder) {
    tm_bookkeeping_free(block);
    return tm_last_status();
  }
  return ask_and_note(t, block, stream, out);
}

// Under the lock: takes the block out of the tables; NULL, with nothing changed, where it is none
// or of another size, which is then in `*known`.
static tracked_block* take_block(tracking* t, const void* ptr, size_t size, size_t* known,
                                 holder** emptied) {
  tracked_block* block = (tracked_block*)tm_block_table_find_(&t->blocks, tm_block_key_(ptr));
  *known = block ? block->size : 0;
  if (!block || block->size != size) {
    return NULL;
  }
  (void)tm_block_table_take_(&t->blocks, tm_block_key_(ptr));
  t->bytes -= size;
  block->holder->bytes -= size;
  *emptied = leave_holder(t, block->holder);
  return block;
}

static void tracking_free(tm_allocator* self, void* ptr, size_t size, tm_stream* stream) {
  tracking* t = (tracking*)self;
  size_t known = 0;
  holder* emptied = NULL;
  tm_adaptor_lock_(self);
  tracked_block* block = take_block(t, ptr, size, &known, &emptied);
  tm_adaptor_unlock_(self);
  if (!block && known) {
    TM_FATAL("tracking: %p is freed with %zu bytes, and was allocated with %zu", ptr, size, known);
  }
  if (!block) {
    TM_FATAL("tracking: %p of %zu bytes is freed, but is no live block of this allocator", ptr,
             size);
  }
  tm_bookkeeping_free(emptied);
  tm_bookkeeping_free(block);
  tm_adaptor_give_back_(self, ptr, size, stream);
}

//===-- Leaks ---------------------------------------------------------------===//

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static LIST_HEAD(, tracking) all = LIST_HEAD_INITIALIZER(all);
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void lock_list(void) { (void)pthread_mutex_lock(&list_lock); }
static void unlock_list(void) { (void)pthread_mutex_unlock(&list_lock); }
static void watch_forks(void) { (void)pthread_atfork(lock_list, unlock_list, unlock_list); }

static void log_leaks(tracking* t) {
  char line[LINE_SIZE];
  begin_report(t);
  write_head(t, line);
  TM_LOG_WARNING("%s", line);
  for (const holder* h; (h = next_largest(t)) != NULL;) {
    write_holder(h, now_ns(), line);
    TM_LOG_WARNING("%s", line);
  }
}

// A destructor of the library runs after the program's exit handlers and after the destructors of
// its globals, which may free what they hold.
__attribute__((destructor)) static void report_at_exit(void) {
  lock_list();
  tracking* t;
  LIST_FOREACH(t, &all, in_list) {
    char text[4096];
    tm_adaptor_lock_(&t->base);
    tm_text out = tm_text_of_(text, sizeof text - 1);
    if (t->blocks.count && !t->options.quiet && t->process == getpid()) {
      tm_text_add_string_(&out, "tmcore: at exit: ");
      write_report(t, &out);
    }
    tm_adaptor_unlock_(&t->base);
    if (out.used) {
      tm_text_finish_(&out);
      text[out.used] = '\n';
      tm_write_stderr_(text, out.used + 1);
    }
  }
  unlock_list();
}

static void free_nodes(tm_block_table_* table) {
  for (tm_block_node_* n = NULL; (n = tm_block_table_next_(table, NULL)) != NULL;) {
    tm_bookkeeping_free(tm_block_table_take_(table, n->key));
  }
  tm_block_table_deinit_(table);
}

static void tracking_destroy(tm_allocator* self) {
  tracking* t = (tracking*)self;
  lock_list();
  LIST_REMOVE(t, in_list);
  unlock_list();
  if (t->blocks.count && !t->options.quiet) {
    log_leaks(t);
  }
  free_nodes(&t->blocks);
  free_nodes(&t->holders);
  tm_adaptor_destroy_(self);
}

static const tm_allocator_vtable tracking_vtable = {
    .name = "tracking",
    .destroy = tracking_destroy,
    .alloc = tracking_alloc,
    .free = tracking_free,
    .trim = tm_adaptor_trim_,
    .get_stats = tm_adaptor_get_stats_,
    .top_holders = tracking_top_holders,
};

//===-- Public functions ----------------------------------------------------===//

tm_allocator* tm_tracking_adaptor_create(tm_allocator* upstream,
                                         const tm_tracking_options* options) {
  tracking* t = tm_adaptor_create_(sizeof *t, &tracking_vtable, upstream,
                                   "tm_tracking_adaptor_create: the upstream");
  if (!t) {
    return NULL;
  }
  t->options = options ? *options : (tm_tracking_options){0};
  t->process = getpid();
  (void)pthread_once(&fork_once, watch_forks);
  lock_list();
  LIST_INSERT_HEAD(&all, t, in_list);
  unlock_list();
  return &t->base;
}

static tm_status check(const tm_allocator* adaptor, const char* what) {
  return tm_adaptor_check_(adaptor, &tracking_vtable, what);
}

tm_status tm_tracking_totals(tm_allocator* adaptor, size_t* blocks, size_t* bytes) {
  if (!blocks || !bytes) {
    return TM_RAISE(TM_ERR_INVALID, "tm_tracking_totals: blocks or bytes is NULL");
  }
  *blocks = 0;
  *bytes = 0;
  TM_TRY(check(adaptor, "tm_tracking_totals: the allocator"));
  const tracking* t = (const tracking*)adaptor;
  tm_adaptor_lock_(adaptor);
  *blocks = t->blocks.count;
  *bytes = t->bytes;
  tm_adaptor_unlock_(adaptor);
  return TM_OK;
}

static void describe_block(const tracked_block* block, uint64_t now, tm_tracking_block* out) {
  out->ptr = (const void*)(uintptr_t)block->node.key;
  out->size = block->size;
  out->age_ns = now > block->since_ns ? now - block->since_ns : 0;
  memcpy(out->scope, block->holder->path, sizeof out->scope);
}

tm_status tm_tracking_get_blocks(tm_allocator* adaptor, tm_tracking_block* out, size_t capacity,
                                 size_t* count) {
  if (!count || (!out && capacity)) {
    return TM_RAISE(TM_ERR_INVALID, "tm_tracking_get_blocks: out or count is NULL");
  }
  *count = 0;
  TM_TRY(check(adaptor, "tm_tracking_get_blocks: the allocator"));
  const tracking* t = (const tracking*)adaptor;
  const uint64_t now = now_ns();
  tm_adaptor_lock_(adaptor);
  const tm_block_node_* n = tm_block_table_next_(&t->blocks, NULL);
  for (; n && *count < capacity; n = tm_block_table_next_(&t->blocks, n)) {
    describe_block((const tracked_block*)n, now, &out[(*count)++]);
  }
  tm_adaptor_unlock_(adaptor);
  return TM_OK;
}

tm_status tm_tracking_report(tm_allocator* adaptor, char* text, size_t size) {
  if (!text || size == 0) {
    return TM_RAISE(TM_ERR_INVALID, "tm_tracking_report: text is NULL, or of 0 bytes");
  }
  text[0] = '\0';
  TM_TRY(check(adaptor, "tm_tracking_report: the allocator"));
  tm_text out = tm_text_of_(text, size);
  tm_adaptor_lock_(adaptor);
  write_report((tracking*)adaptor, &out);
  tm_adaptor_unlock_(adaptor);
  tm_text_finish_(&out);
  return TM_OK;
}
