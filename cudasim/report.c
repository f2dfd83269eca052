// A report is put together in one buffer of fixed size, by one thread at a time, and written by one
// write(2), so that lines of several processes do not mix.

#define _GNU_SOURCE  // dladdr
#include "cudasim/report.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <unwind.h>

#include "cudasim/fault.h"
#include "cudasim/runtime.h"
#include "cudasim/slab.h"

#define TEXT_BYTES 8192
#define PLACES 1024  // pairs of places that are told apart

// tmcore's, where the program has it.
extern void tm_trace_text(char* text, size_t size) __attribute__((weak));

typedef void (*scope_source)(char* text, size_t size);

check_mode sim_check_mode = CHECK_OFF;

static const char* const rule_names[] = {
#define RULE_NAME_(name, text) text,
    CUDASIM_RULES(RULE_NAME_)
#undef RULE_NAME_
};

static struct {
  atomic_flag busy;  // guards what follows; a signal handler may take it
  char text[TEXT_BYTES];
  char last[TEXT_BYTES];
  size_t used;
  uint64_t places[PLACES];  // hashes of what was written; 0 is free
  unsigned place_count;
  char path[CHECK_FILE_BYTES];  // empty: stderr
  bool is_json;
  int file;  // -1: not open
} out = {.busy = ATOMIC_FLAG_INIT, .file = -1};

static atomic_ullong counts[RULE_COUNT];
static _Atomic(scope_source) scopes;
static slab sites = {.size = sizeof(site)};

//===-- Sites ---------------------------------------------------------------------------------===//

typedef struct unwinding {
  site* into;
  uintptr_t function;  // frames begin at the caller of this one; 0: that is not asked
  uintptr_t pc;        // or at this program counter
  bool has_begun;
} unwinding;

static _Unwind_Reason_Code note_frame(struct _Unwind_Context* frame, void* argument) {
  unwinding* u = argument;
  uintptr_t pc = _Unwind_GetIP(frame);
  u->has_begun |= pc == u->pc;
  if (!u->has_begun) {
    u->has_begun = u->function && _Unwind_GetRegionStart(frame) == u->function;
    return _URC_NO_REASON;
  }
  if (!pc) return _URC_END_OF_STACK;
  u->into->frames[u->into->frame_count++] = (void*)pc;
  return u->into->frame_count < SITE_FRAMES ? _URC_NO_REASON : _URC_END_OF_STACK;
}

static void note_scopes(site* s) {
  scope_source source = atomic_load(&scopes);
  if (!source) source = tm_trace_text;
  s->scopes[0] = '\0';
  if (source) source(s->scopes, sizeof(s->scopes));
}

static void fill(site* s, int id, uintptr_t function, const void* pc) {
  unwinding u = {.into = s, .function = function, .pc = (uintptr_t)pc};
  s->call = id;
  s->frame_count = 0;
  _Unwind_Backtrace(note_frame, &u);
  if (!s->frame_count && pc) s->frames[s->frame_count++] = (void*)(uintptr_t)pc;
  note_scopes(s);
}

void sim_site_fill(site* s, const void* pc) {
  fill(s, CALL_COUNT, 0, pc ? pc : __builtin_return_address(0));
}

site* sim_site_here(void) {
  call* c = sim_thread()->call;
  if (!c) return NULL;
  if (c->site) return c->site;
  site* s = sim_slab_take(&sites);
  if (!s) return NULL;
  char* within =
      (char*)(uintptr_t)c->within;  // behind a call, so that the next byte may be none of it
  fill(s, (int)c->id, (uintptr_t)_Unwind_FindEnclosingFunction(within - 1), NULL);
  s->references = 1;
  c->site = s;
  return s;
}

site* sim_site_retain(site* s) {
  if (s) ++s->references;
  return s;
}

void sim_site_release(site* s) {
  if (s && --s->references == 0) sim_slab_give(&sites, s);
}

void sim_site_drop(void) { sim_slab_drop(&sites); }

//===-- Text ----------------------------------------------------------------------------------===//

__attribute__((format(printf, 1, 2))) static void add(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  size_t room = sizeof(out.text) - out.used;
  int length = vsnprintf(out.text + out.used, room, format, arguments);
  va_end(arguments);
  if (length > 0) out.used += (size_t)length < room ? (size_t)length : room - 1;
}

// A JSON string's inside, or the text as it is.
static void add_text(const char* text) {
  if (!out.is_json) {
    add("%s", text);
    return;
  }
  for (; *text; ++text) {
    unsigned char c = (unsigned char)*text;
    if (c == '"' || c == '\\') {
      add("\\%c", c);
    } else if (c < 0x20) {
      add("\\u%04x", c);
    } else {
      add("%c", c);
    }
  }
}

static const char* last_part(const char* path) {
  const char* slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

// "object(function+0x12)", "object(+0x1234)" where the object names no function, "0x1234" where
// there is no object: what addr2line and its like take.
static void add_frame(const void* pc) {
  Dl_info info = {0};
  if (!dladdr((const char*)pc - 1, &info) || !info.dli_fname) {
    add("%p", pc);
    return;
  }
  add_text(last_part(info.dli_fname));
  bool has_name = info.dli_sname && info.dli_saddr;
  add("(");
  if (has_name) add_text(info.dli_sname);
  const char* from = has_name ? info.dli_saddr : info.dli_fbase;
  add("+0x%zx)", (size_t)((const char*)pc - from));
}

static const char* call_name(const site* s) {
  return s->call < CALL_COUNT ? sim_call_name((call_id)s->call) : "the host";
}

static void add_site(const site* s) {
  add("%s", call_name(s));
  if (s->scopes[0]) {
    add(", in ");
    add_text(s->scopes);
  }
  add("\n");
  for (int i = 0; i < s->frame_count; ++i) {
    add("    ");
    add_frame(s->frames[i]);
    add("\n");
  }
}

static void add_report(const report* r) {
  add("cudasim: %s: %s\n", rule_names[r->rule], r->message);
  if (r->here) {
    add("  ");
    add_site(r->here);
  }
  if (!r->there) return;
  add("  %s ", r->relation);
  add_site(r->there);
}

static void add_json_site(const char* name, const site* s) {
  add(",\"%s\":", name);
  if (!s) {
    add("null");
    return;
  }
  add("{\"call\":\"%s\",\"scopes\":\"", call_name(s));
  add_text(s->scopes);
  add("\",\"frames\":[");
  for (int i = 0; i < s->frame_count; ++i) {
    add(i ? ",\"" : "\"");
    add_frame(s->frames[i]);
    add("\"");
  }
  add("]}");
}

static void add_json(const report* r) {
  add("{\"rule\":\"%s\",\"message\":\"", rule_names[r->rule]);
  add_text(r->message);
  add("\"");
  add_json_site("here", r->here);
  add(",\"relation\":\"%s\"", r->there ? r->relation : "");
  add_json_site("there", r->there);
  add("}\n");
}

//===-- Writing -------------------------------------------------------------------------------===//

// CUDASIM_CHECK_FILE, in which %p stands for the process id. A fork has a file of its own.
static void expand_path(char* path, size_t size) {
  const char* mark = strstr(out.path, "%p");
  if (!mark) {
    snprintf(path, size, "%s", out.path);
    return;
  }
  snprintf(path, size, "%.*s%ld%s", (int)(mark - out.path), out.path, (long)getpid(), mark + 2);
}

static int output(void) {
  if (!out.path[0]) return STDERR_FILENO;
  if (out.file < 0) {
    char path[CHECK_FILE_BYTES + 16];
    expand_path(path, sizeof(path));
    out.file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  }
  return out.file < 0 ? STDERR_FILENO : out.file;
}

static void write_all(int file, const char* text, size_t size) {
  while (size) {
    ssize_t written = write(file, text, size);
    if (written < 0 && errno != EINTR) return;
    if (written <= 0) continue;
    text += written;
    size -= (size_t)written;
  }
}

static uint64_t mix(uint64_t hash, const site* s) {
  for (int i = 0; s && i < s->frame_count; ++i) {
    hash = (hash ^ (uintptr_t)s->frames[i]) * UINT64_C(0x9e3779b97f4a7c15);
    hash ^= hash >> 29;
  }
  return hash * 31 + 1;
}

// Whether the pair of places is a new one; none is, once there were very many.
static bool note_places(const report* r) {
  uint64_t hash = mix(mix((uint64_t)r->rule + 1, r->here), r->there) | 1;
  if (out.place_count >= PLACES / 2) return false;
  unsigned at = (unsigned)(hash >> 32) % PLACES;
  for (; out.places[at]; at = (at + 1) % PLACES) {
    if (out.places[at] == hash) return false;
  }
  out.places[at] = hash;
  ++out.place_count;
  return true;
}

static void enter_output(void) {
  while (atomic_flag_test_and_set_explicit(&out.busy, memory_order_acquire)) sched_yield();
}

static void leave_output(void) { atomic_flag_clear_explicit(&out.busy, memory_order_release); }

void sim_report(const report* r) {
  const int before = errno;
  atomic_fetch_add(&counts[r->rule], 1);
  enter_output();
  if (note_places(r)) {
    out.used = 0;
    out.is_json ? add_json(r) : add_report(r);
    memcpy(out.last, out.text, out.used);
    out.last[out.used] = '\0';
    write_all(output(), out.text, out.used);
  }
  leave_output();
  if (sim_check_mode == CHECK_ABORT && !r->more_follow) abort();
  errno = before;
}

static _Unwind_Reason_Code stop_at_once(struct _Unwind_Context* frame, void* argument) {
  (void)frame;
  (void)argument;
  return _URC_END_OF_STACK;
}

void sim_report_begin(const options* o) {
  for (int i = 0; i < RULE_COUNT; ++i) atomic_store(&counts[i], 0);
  enter_output();
  memset(out.places, 0, sizeof(out.places));
  out.place_count = 0;
  out.last[0] = '\0';
  out.is_json = o->check_json;
  if (out.file >= 0) close(out.file);
  out.file = -1;
  memcpy(out.path, o->check_file, sizeof(out.path));
  leave_output();
  sim_check_mode = o->check;
  if (o->check != CHECK_OFF) _Unwind_Backtrace(stop_at_once, NULL);
}

//===-- The controls --------------------------------------------------------------------------===//

uint64_t cudasim_report_count(const char* rule) {
  uint64_t sum = 0;
  for (int i = 0; i < RULE_COUNT; ++i) {
    if (!rule || strcmp(rule, rule_names[i]) == 0) sum += atomic_load(&counts[i]);
  }
  return sum;
}

size_t cudasim_last_report(char* text, size_t size) {
  enter_output();
  size_t length = strlen(out.last);
  if (size) snprintf(text, size, "%s", out.last);
  leave_output();
  return length;
}

void cudasim_set_scope_source(void (*source)(char* text, size_t size)) {
  atomic_store(&scopes, source);
}
