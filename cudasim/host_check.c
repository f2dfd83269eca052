#include "cudasim/host_check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "cudasim/device.h"
#include "cudasim/fault_handler.h"
#include "cudasim/op.h"
#include "cudasim/scheduler.h"
#include "cudasim/slab.h"
#include "cudasim/stream.h"

// Uses of one block that are kept; of more, the oldest are forgotten.
#define MOST_USES 64

// One side of a copy.
typedef struct host_use {
  struct host_use* next;  // of the block, newest first
  uint64_t address;
  uint64_t bytes;  // from the first to the last
  box extent;
  size_t pitch;
  size_t slice;
  bool is_written;
  bool is_reported;  // and stands in nobody's way any more
  const stream* stream;
  uint64_t position;
  history* known;    // to the stream when it was queued
  uint64_t devices;  // a bit for each whose synchronization is enough
  site* site;
} host_use;

static slab uses = {.size = sizeof(host_use)};
static pinned* used;  // blocks that have uses
static bool has_lent;
static atomic_bool is_active;

// A thread that runs a host function or a kernel. Not in thread-locals, of which a library that is
// loaded late gets few.
typedef struct running {
  struct running* next;
  pthread_t thread;
  const op* op;
  history* known;
} running;

static slab runnings = {.size = sizeof(running)};
static running* all_running;

//===-- Rights --------------------------------------------------------------------------------===//

static bool reaches(const host_use* u, uint64_t from, uint64_t to) {
  return u->address < to && u->address + u->bytes > from;
}

static uint64_t page_down(uint64_t address) { return address / PINNED_PAGE * PINNED_PAGE; }

static uint64_t page_index(const pinned* p, uint64_t address) {
  return (address - pinned_address(p)) / PINNED_PAGE;
}

static bool is_open(const pinned* p, uint64_t page) {
  uint64_t i = page_index(p, page);
  return p->open[i / 64] >> i % 64 & 1;
}

static void set_open(pinned* p, uint64_t page, bool opens) {
  uint64_t i = page_index(p, page);
  uint64_t bit = UINT64_C(1) << i % 64;
  p->open[i / 64] = opens ? p->open[i / 64] | bit : p->open[i / 64] & ~bit;
  p->has_open |= opens;
}

// A use of a part of a page forbids the page, unless the program has a thread that could not say
// that it meant the rest.
static bool forbids(const host_use* u, const pinned* p, uint64_t page) {
  if (u->is_reported || !reaches(u, page, page + PINNED_PAGE)) return false;
  if (!sim_fault_handler_is_careful()) return true;
  uint64_t last = pinned_address(p) + p->bytes;
  uint64_t end = page + PINNED_PAGE < last ? page + PINNED_PAGE : last;
  return u->address <= page && u->address + u->bytes >= end &&
         u->extent.height * u->extent.depth == 1;
}

static int rights_of(const pinned* p, uint64_t page) {
  int rights = PROT_READ | PROT_WRITE;
  if (p->has_open && is_open(p, page)) return rights;
  for (const host_use* u = p->uses; u; u = u->next) {
    if (forbids(u, p, page)) rights &= u->is_written ? PROT_NONE : PROT_READ;
  }
  return rights;
}

// The next page after `page` whose rights may be others.
static uint64_t next_change(const pinned* p, uint64_t page, uint64_t end) {
  if (p->has_open) return page + PINNED_PAGE;
  for (const host_use* u = p->uses; u; u = u->next) {
    const uint64_t edges[] = {page_down(u->address), page_down(u->address) + PINNED_PAGE,
                              page_down(u->address + u->bytes - 1),
                              page_down(u->address + u->bytes - 1) + PINNED_PAGE};
    for (int i = 0; i < 4; ++i) {
      if (edges[i] > page && edges[i] < end) end = edges[i];
    }
  }
  return end;
}

// Sets the rights of the pages that hold the bytes, as few calls as there are different ones.
static void apply(const pinned* p, uint64_t address, uint64_t bytes) {
  uint64_t end = page_down(address + bytes - 1) + PINNED_PAGE;
  uint64_t from = page_down(address);
  int rights = rights_of(p, from);
  for (uint64_t page = next_change(p, from, end); from < end;) {
    int next = page < end ? rights_of(p, page) : -1;
    if (next == rights) {
      page = next_change(p, page, end);
      continue;
    }
    sim_pinned_protect(from, page - from, rights);
    from = page;
    rights = next;
    if (page < end) page = next_change(p, page, end);
  }
}

static void apply_all(const pinned* p) { apply(p, pinned_address(p), p->bytes); }

//===-- Uses ----------------------------------------------------------------------------------===//

static void release(host_use* u) {
  sim_history_release(u->known);
  sim_site_release(u->site);
  sim_slab_give(&uses, u);
}

static void link_used(pinned* p) {
  if (p->uses) return;
  p->next_used = used;
  used = p;
}

static void unlink_used(pinned* p) {
  if (p->uses) return;
  pinned** link = &used;
  while (*link && *link != p) link = &(*link)->next_used;
  if (*link) *link = p->next_used;
}

static bool is_same(const host_use* a, const host_use* b) {
  return a->stream == b->stream && a->address == b->address && a->bytes == b->bytes &&
         a->is_written == b->is_written && memcmp(&a->extent, &b->extent, sizeof(box)) == 0 &&
         a->pitch == b->pitch && a->slice == b->slice;
}

// The use that is to go for `u`: one that is over no later, else one too many.
static host_use** find_superseded(pinned* p, const host_use* u) {
  int count = 0;
  host_use** last = &p->uses;
  for (host_use** link = &p->uses; *link; link = &(*link)->next, ++count) {
    if (is_same(*link, u)) return link;
    last = link;
  }
  return count >= MOST_USES ? last : NULL;
}

static void close_pages(pinned* p, const host_use* u) {
  if (!p->has_open) return;
  for (uint64_t page = page_down(u->address); page < u->address + u->bytes; page += PINNED_PAGE) {
    set_open(p, page, false);
  }
}

static void add(pinned* p, host_use* u) {
  sim_pinned_lock();
  host_use** superseded = find_superseded(p, u);
  host_use* old = superseded ? *superseded : NULL;
  link_used(p);  // as long as an old one shows that it may be there already
  if (old) *superseded = old->next;
  u->next = p->uses;
  p->uses = u;
  close_pages(p, u);
  if (old) apply(p, old->address, old->bytes);
  apply(p, u->address, u->bytes);
  sim_pinned_unlock();
  if (old) release(old);
}

static void note(const op* o, const grid* g, const box* extent, uint64_t address, bool is_written) {
  pinned* p = sim_pinned_around(address);
  host_use* u = p ? sim_slab_take(&uses) : NULL;
  if (!u) return;
  *u = (host_use){.address = address,
                  .extent = *extent,
                  .pitch = g->pitch,
                  .slice = g->slice,
                  .is_written = is_written,
                  .stream = o->stream,
                  .position = o->position,
                  .known = sim_history_retain(o->stream->known),
                  .devices = UINT64_C(1) << o->stream->device->id,
                  .site = sim_site_retain(sim_site_here())};
  u->bytes = (extent->depth - 1) * g->slice + (extent->height - 1) * g->pitch + extent->width;
  sim_fault_handler_keep();
  add(p, u);
}

void sim_host_check_queued(const op* o) {
  if (!atomic_load_explicit(&is_active, memory_order_relaxed)) return;
  if (o->kind == OP_COPY) {
    const span* written = &o->copy.written;
    const span* read = &o->copy.read;
    if (!written->device) note(o, &o->copy.to, &o->copy.extent, written->address, true);
    if (!read->device) note(o, &o->copy.from, &o->copy.extent, read->address, false);
  } else if (o->kind == OP_FILL && !o->fill.written.device) {
    note(o, &o->fill.to, &o->fill.extent, o->fill.written.address, true);
  }
}

//===-- What the host knows -------------------------------------------------------------------===//

typedef struct knowledge {
  const stream* stream;
  uint64_t position;
  const history* known;
  uint64_t devices;
} knowledge;

static bool is_covered(const host_use* u, const knowledge* k) {
  if (!stream_is_done(u->stream, u->position)) return false;
  if (u->devices & k->devices) return true;
  if (u->stream == k->stream && u->position <= k->position) return true;
  return sim_history_of(k->known, u->stream->slot) >= u->position;
}

static void drop_covered(pinned* p, const knowledge* k) {
  for (host_use** link = &p->uses; *link;) {
    host_use* u = *link;
    if (!is_covered(u, k)) {
      link = &u->next;
      continue;
    }
    *link = u->next;
    apply(p, u->address, u->bytes);
    release(u);
  }
  if (p->uses || !p->has_open) return;
  memset(p->open, 0, (page_index(p, pinned_end(p) - 1) / 64 + 1) * sizeof(uint64_t));
  p->has_open = p->is_lent = false;
}

static void learn(const knowledge* k) {
  if (!used) return;
  sim_pinned_lock();
  for (pinned** link = &used; *link;) {
    pinned* p = *link;
    drop_covered(p, k);
    if (p->uses) {
      link = &p->next_used;
    } else {
      *link = p->next_used;
    }
  }
  sim_pinned_unlock();
}

void sim_host_check_learn(const stream* s, uint64_t position, const history* known) {
  learn(&(knowledge){.stream = s, .position = position, .known = known});
}

void sim_host_check_learn_device(const device* d) {
  learn(&(knowledge){.devices = UINT64_C(1) << d->id});
  for (const stream* s = d->streams; s; s = s->next_of_device) {
    learn(&(knowledge){.stream = s, .position = s->completed, .known = s->known});
  }
}

void sim_host_check_close(const stream* s) {
  const knowledge k = {.stream = s, .position = s->completed, .known = s->known};
  for (pinned* p = used; p; p = p->next_used) {
    for (host_use* u = p->uses; u; u = u->next) {
      if (is_covered(u, &k)) u->devices |= UINT64_C(1) << s->device->id;
    }
  }
}

void sim_host_check_forget(pinned* p) {
  sim_pinned_lock();
  bool was_used = p->uses;
  while (p->uses) {
    host_use* u = p->uses;
    p->uses = u->next;
    release(u);
  }
  if (was_used) unlink_used(p);
  sim_pinned_unlock();
}

void sim_host_check_wait(stream* s, uint64_t position) {
  history* known = check_is_on() ? sim_history_retain(s->known) : NULL;
  sim_scheduler_wait(s, position);
  if (!check_is_on()) return;
  sim_host_check_learn(s, position, known);
  sim_history_release(known);
}

host_knowledge sim_host_check_ask(const stream* s, uint64_t position, history* known) {
  if (!check_is_on()) return (host_knowledge){0};
  return (host_knowledge){.stream = s, .position = position, .known = sim_history_retain(known)};
}

void sim_host_check_answer(const host_knowledge* k) {
  if (!k->stream) return;
  if (stream_is_done(k->stream, k->position)) {
    sim_host_check_learn(k->stream, k->position, k->known);
  }
  sim_history_release(k->known);
}

//===-- Host functions ------------------------------------------------------------------------===//

void sim_host_check_run(const op* o) {
  if (o->kind != OP_HOST && o->kind != OP_KERNEL) return;
  if (o->kind == OP_HOST) sim_host_check_learn(o->stream, o->position - 1, o->stream->known);
  running* r = sim_slab_take(&runnings);
  if (!r) return;
  *r = (running){.thread = pthread_self(), .op = o, .known = sim_history_retain(o->stream->known)};
  sim_pinned_lock();
  r->next = all_running;
  all_running = r;
  sim_pinned_unlock();
}

static void take_back(pinned* p) {
  if (!p->is_lent) return;
  memset(p->open, 0, (page_index(p, pinned_end(p) - 1) / 64 + 1) * sizeof(uint64_t));
  p->has_open = p->is_lent = false;
  apply_all(p);
}

// Where the calling thread is in the list, or the list's end.
static running** find_running(void) {
  running** link = &all_running;
  while (*link && !pthread_equal((*link)->thread, pthread_self())) link = &(*link)->next;
  return link;
}

void sim_host_check_ran(const op* o) {
  if (o->kind != OP_HOST && o->kind != OP_KERNEL) return;
  sim_pinned_lock();
  running** link = find_running();
  running* r = *link;
  if (r) *link = r->next;
  if (has_lent) {
    for (pinned* p = used; p; p = p->next_used) take_back(p);
  }
  has_lent = false;
  sim_pinned_unlock();
  if (!r) return;
  sim_history_release(r->known);
  sim_slab_give(&runnings, r);
}

// Whether what the calling thread runs comes before or after the use.
static bool is_ordered(const host_use* u) {
  const running* r = *find_running();
  if (!r) return false;
  const op* o = r->op;
  return u->stream == o->stream || sim_history_of(u->known, o->stream->slot) >= o->position ||
         sim_history_of(r->known, u->stream->slot) >= u->position;
}

//===-- Verdicts ------------------------------------------------------------------------------===//

static const char* verb(access_kind kind) {
  return kind == ACCESS_READ ? "reads" : kind == ACCESS_WRITE ? "writes" : "uses";
}

static bool holds(const host_use* u, uint64_t address) {
  uint64_t at = address - u->address;
  if (at >= u->bytes) return false;
  if (u->extent.depth > 1) at %= u->slice;
  if (u->extent.height > 1) {
    if (at / u->pitch >= u->extent.height) return false;
    at %= u->pitch;
  }
  return at < u->extent.width;
}

// The newest of the uses that the access is at odds with, or NULL. None of them is in the way
// again.
static const host_use* settle_conflicts(const pinned* p, const host_access* a) {
  const host_use* found = NULL;
  for (host_use* u = p->uses; u; u = u->next) {
    bool matters = u->is_written || a->kind != ACCESS_READ;
    if (!matters || u->is_reported || !holds(u, a->address) || is_ordered(u)) continue;
    u->is_reported = true;
    apply(p, u->address, u->bytes);
    if (!found) found = u;
  }
  return found;
}

static void say_there(finding* out, rule_id rule, const char* relation, const site* there) {
  out->rule = rule;
  out->relation = relation;
  out->has_there = there;
  if (there) out->there = *there;
}

static void say_conflict(const pinned* p, const host_use* u, const host_access* a, finding* out) {
  say_there(out, a->kind == ACCESS_READ ? RULE_READ_BEFORE_SYNC : RULE_WRITE_BEFORE_SYNC,
            u->is_written ? "written by" : "read by", u->site);
  snprintf(out->message, sizeof(out->message),
           "%s %s byte %llu of %llu of page-locked memory that a copy %s, before it has waited for "
           "the copy",
           *find_running() ? "a host function" : "the host", verb(a->kind),
           (unsigned long long)(a->address - pinned_address(p)), (unsigned long long)p->bytes,
           u->is_written ? "writes" : "reads");
}

// An access to a page of a live block.
static bool admit_live(pinned* p, const host_access* a, finding* out) {
  uint64_t page = page_down(a->address);
  int rights = rights_of(p, page);
  bool is_denied = a->kind == ACCESS_READ ? !(rights & PROT_READ) : !(rights & PROT_WRITE);
  if (!is_denied) return false;
  const host_use* u = settle_conflicts(p, a);
  if (u) {
    say_conflict(p, u, a, out);
    return true;
  }
  if (*find_running()) p->is_lent = has_lent = true;
  set_open(p, page, true);
  apply(p, page, 1);
  return true;
}

static bool admit_freed(const pinned* p, const host_access* a, finding* out) {
  say_there(out, RULE_USE_AFTER_FREE, "freed by", p->freed);
  snprintf(out->message, sizeof(out->message),
           "the host %s byte %llu of %llu of page-locked memory that is freed", verb(a->kind),
           (unsigned long long)(a->address - pinned_address(p)), (unsigned long long)p->bytes);
  return sim_pinned_protect(page_down(a->address), PINNED_PAGE, PROT_READ | PROT_WRITE);
}

static bool admit_before(const pinned* p, const host_access* a, finding* out) {
  say_there(out, RULE_OUT_OF_BOUNDS, "allocated by", p->allocated);
  snprintf(out->message, sizeof(out->message),
           "the host %s %llu bytes before the first of %llu of page-locked memory", verb(a->kind),
           (unsigned long long)(pinned_address(p) - a->address), (unsigned long long)p->bytes);
  if (pinned_address(p) - a->address <= 16 && sim_fault_handler_is_in_free(a->pc)) {
    out->rule = RULE_WRONG_FREE;
    snprintf(out->message, sizeof(out->message),
             "free() of page-locked memory, %llu bytes: cudaFreeHost frees it",
             (unsigned long long)p->bytes);
  }
  return sim_pinned_protect(page_down(a->address), PINNED_PAGE, PROT_READ | PROT_WRITE);
}

static bool admit_behind(const pinned* p, const host_access* a, finding* out) {
  say_there(out, RULE_OUT_OF_BOUNDS, "allocated by", p->allocated);
  unsigned long long distance = a->address - pinned_address(p) - p->bytes + 1;
  snprintf(out->message, sizeof(out->message),
           "the host %s %llu bytes behind the last of %llu of page-locked memory", verb(a->kind),
           distance, (unsigned long long)p->bytes);
  return sim_pinned_protect(page_down(a->address), PINNED_PAGE, PROT_READ | PROT_WRITE);
}

// The first half of a page that is always forbidden is taken for the end of the block before it.
static bool admit(const host_access* a, finding* out) {
  pinned* p = sim_pinned_before(a->address);
  if (!p) return false;
  if (a->address >= pinned_end(p)) {
    return a->address - pinned_end(p) < PINNED_PAGE && !p->is_freed && admit_behind(p, a, out);
  }
  if (a->address < pinned_address(p)) {
    const pinned* before = sim_pinned_before(p->node.major - 1);
    bool is_near = before && !before->is_freed && pinned_end(before) == p->node.major;
    if (is_near && a->address - p->node.major < PINNED_PAGE / 2)
      return admit_behind(before, a, out);
    return !p->is_freed && admit_before(p, a, out);
  }
  return p->is_freed ? admit_freed(p, a, out) : admit_live(p, a, out);
}

bool sim_host_check_admit(const host_access* a, finding* out) {
  out->message[0] = '\0';
  if (!atomic_load(&is_active) || !sim_pinned_holds(a->address)) return false;
  sim_pinned_lock();
  bool is_admitted = admit(a, out);
  sim_pinned_unlock();
  return is_admitted;
}

//===-- The machine ---------------------------------------------------------------------------===//

void sim_host_check_begin(void) {
  if (!check_is_on()) return;
  sim_fault_handler_install();
  atomic_store(&is_active, true);
}

bool sim_host_check_is_active(void) { return atomic_load(&is_active); }

void sim_host_check_end(void) {
  if (!atomic_exchange(&is_active, false)) return;
  sim_pinned_lock();
  sim_pinned_forgive();
  sim_pinned_unlock();
}

void sim_host_check_in_child(void) {
  if (atomic_exchange(&is_active, false)) sim_pinned_separate();
}

void sim_host_check_drop(void) {
  atomic_store(&is_active, false);
  sim_fault_handler_remove();
  for (pinned* p = used; p; p = p->next_used) {
    while (p->uses) {
      host_use* u = p->uses;
      p->uses = u->next;
      release(u);
    }
  }
  used = NULL;
  has_lent = false;
  sim_pinned_drop();
  sim_slab_drop(&uses);
  sim_slab_drop(&runnings);
  all_running = NULL;
}
