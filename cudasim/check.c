#include "cudasim/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cudasim/handle.h"
#include "cudasim/pool.h"
#include "cudasim/region.h"
#include "cudasim/slab.h"
#include "cudasim/tree.h"

#define USES_KEPT 512    // of one allocation; the oldest go
#define FREED_KEPT 4096  // allocations; the oldest go

typedef struct past_use {
  struct past_use* older;
  region where;
  bool writes;
  actor* by;
  uint64_t time;
  site* site;
} past_use;

typedef struct allocation {
  tree_node node;  // must be first; major is the address
  uint64_t bytes;
  memory_kind kind;
  int device;  // -1: the host's
  actor* by;   // that allocates it; NULL: it is there at once
  uint64_t time;
  site* made;
  site* freed;  // NULL while live
  struct allocation* next_freed;
  past_use* newest;
} allocation;

static slab allocations = {.size = sizeof(allocation)};
static slab past_uses = {.size = sizeof(past_use)};

static struct {
  tree live;
  tree freed;
  allocation* first_freed;  // the oldest
  allocation* last_freed;
  unsigned freed_count;
} state;

static uint64_t address_of(const allocation* a) { return a->node.major; }

static uint64_t end_of(const allocation* a) { return a->node.major + a->bytes; }

// The allocation in `from` that holds the byte, or NULL.
static allocation* around(const tree* from, uint64_t address) {
  allocation* a = (allocation*)sim_tree_at_most(from, address, 0);
  return a && address < end_of(a) ? a : NULL;
}

static allocation* at(const tree* from, uint64_t address) {
  allocation* a = (allocation*)sim_tree_at_most(from, address, 0);
  return a && address_of(a) == address ? a : NULL;
}

//===-- Messages ------------------------------------------------------------------------------===//

__attribute__((format(printf, 5, 6))) static void report_between(rule_id rule, const site* here,
                                                                 const char* relation,
                                                                 const site* there,
                                                                 const char* format, ...) {
  char text[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  sim_report(
      &(report){.rule = rule, .message = text, .here = here, .relation = relation, .there = there});
}

// "bytes 0 to 99 of 4096 at 0x7f0000000000 of device 0"
typedef struct description {
  char text[128];
} description;

static description describe(const allocation* a, uint64_t start, uint64_t end) {
  description d;
  char where[32] = "on the host";
  if (a->device >= 0) snprintf(where, sizeof(where), "on device %d", a->device);
  snprintf(d.text, sizeof(d.text), "bytes %llu to %llu of %llu at 0x%llx %s",
           (unsigned long long)(start - address_of(a)),
           (unsigned long long)(end - 1 - address_of(a)), (unsigned long long)a->bytes,
           (unsigned long long)address_of(a), where);
  return d;
}

static description describe_region(const allocation* a, const region* r) {
  return describe(a, r->address, region_end(r));
}

static description describe_all(const allocation* a) {
  return describe(a, address_of(a), end_of(a));
}

//===-- Uses ----------------------------------------------------------------------------------===//

static void drop_use(past_use* u) {
  sim_site_release(u->site);
  sim_slab_give(&past_uses, u);
}

static void drop_uses(allocation* a) {
  while (a->newest) {
    past_use* u = a->newest;
    a->newest = u->older;
    drop_use(u);
  }
}

// Whether all that conflicts with `old` and might not come after it conflicts with `u` as well and
// might not come after that.
static bool replaces(const past_use* u, const past_use* old) {
  return (u->writes || !old->writes) && sim_region_covers(&u->where, &old->where) &&
         sim_order_is_before(old->by, old->time, u->by, u->time);
}

// Forgets what `u` makes unnecessary, and too much.
static void prune(allocation* a, const past_use* u) {
  unsigned kept = 0;
  for (past_use** link = &a->newest; *link;) {
    past_use* old = *link;
    if (kept < USES_KEPT && !actor_is_observed(old->by, old->time) && !replaces(u, old)) {
      ++kept;
      link = &old->older;
      continue;
    }
    *link = old->older;
    drop_use(old);
  }
}

static void keep(allocation* a, const past_use* u) {
  prune(a, u);
  past_use* kept = sim_slab_take(&past_uses);
  if (!kept) return;  // less is known, and less is reported
  *kept = *u;
  kept->older = a->newest;
  sim_site_retain(kept->site);
  a->newest = kept;
}

static void report_conflict(const allocation* a, const past_use* u, const past_use* old) {
  description d = describe_region(a, &u->where);
  description other = describe_region(a, &old->where);
  report_between(RULE_UNORDERED_COPIES, u->site, old->writes ? "written by" : "read by", old->site,
                 "%s %s; nothing orders this and the %s of %s", u->writes ? "writes" : "reads",
                 d.text, old->writes ? "write" : "read", other.text);
}

static void check_allocated(const allocation* a, const past_use* u) {
  if (!a->by || sim_order_is_before(a->by, a->time, u->by, u->time)) return;
  description d = describe_region(a, &u->where);
  report_between(RULE_USE_BEFORE_ALLOC, u->site, "allocated by", a->made,
                 "%s %s in a stream that does not come after the allocation",
                 u->writes ? "writes" : "reads", d.text);
}

// One report is enough for a use: the rest is most often the same mistake.
static void check_conflicts(const allocation* a, const past_use* u) {
  for (const past_use* old = a->newest; old; old = old->older) {
    if (!u->writes && !old->writes) continue;
    if (sim_order_is_before(old->by, old->time, u->by, u->time)) continue;
    if (!sim_region_overlaps(&u->where, &old->where)) continue;
    report_conflict(a, u, old);
    return;
  }
}

static past_use past_use_of(const stream* s, const use* what, uint64_t time) {
  return (past_use){.where = sim_region_of(&what->where, &what->extent),
                    .writes = what->writes,
                    .by = s->actor,
                    .time = time,
                    .site = sim_site_here()};
}

static bool is_blind(const stream* s) { return !s->actor || sim_order_is_lost(); }

// Pageable memory is in no allocation: its copies read or write it before they return.
static void check_one(const stream* s, const use* what, uint64_t time) {
  past_use u = past_use_of(s, what, time);
  allocation* a = around(&state.live, u.where.address);
  if (!a) return;
  check_allocated(a, &u);
  check_conflicts(a, &u);
}

// A copy of memory onto itself is one use, which does not conflict with itself.
static void check_uses(const stream* s, const use* uses, size_t count, uint64_t time) {
  for (size_t i = 0; i < count; ++i) check_one(s, &uses[i], time);
}

static void keep_uses(const stream* s, const use* uses, size_t count, uint64_t time) {
  for (size_t i = 0; i < count; ++i) {
    past_use u = past_use_of(s, &uses[i], time);
    allocation* a = around(&state.live, u.where.address);
    if (a) keep(a, &u);
  }
}

static size_t uses_of_copy(const copy_request* r, use* out) {
  out[0] = (use){.where = r->from, .extent = r->extent};
  out[1] = (use){.where = r->to, .extent = r->extent, .writes = true};
  return 2;
}

static size_t uses_of_fill(const fill_request* r, use* out) {
  out[0] = (use){.where = r->to, .extent = r->extent, .writes = true};
  return 1;
}

static void check_piece(const stream* s, const use* uses, size_t count) {
  if (is_blind(s)) return;
  uint64_t time = sim_order_tick(s);
  check_uses(s, uses, count, time);
  keep_uses(s, uses, count, time);
}

void sim_check_copy(const stream* s, const copy_request* r) {
  use uses[MOST_USES];
  check_piece(s, uses, uses_of_copy(r, uses));
}

void sim_check_fill(const stream* s, const fill_request* r) {
  use uses[MOST_USES];
  check_piece(s, uses, uses_of_fill(r, uses));
}

void sim_check_kernel(const stream* s, const struct kernel_run* r) {
  use uses[MOST_USES];
  check_piece(s, uses, sim_kernel_uses(r, uses));
}

uint64_t sim_check_batch_begin(const stream* s) {
  if (is_blind(s)) return 0;
  sim_order_enter(s);
  return sim_order_tick(s);
}

void sim_check_batch_copy(const stream* s, const copy_request* r, uint64_t time) {
  if (is_blind(s)) return;
  use uses[MOST_USES];
  size_t count = uses_of_copy(r, uses);
  check_uses(s, uses, count, time);
  keep_uses(s, uses, count, time);
}

//===-- Graphs --------------------------------------------------------------------------------===//

static size_t uses_of_node(const node* n, use* out) {
  switch (n->work.type) {
    case cudaGraphNodeTypeMemcpy:
      return uses_of_copy(&n->work.copy, out);
    case cudaGraphNodeTypeMemset:
      return uses_of_fill(&n->work.fill, out);
    case cudaGraphNodeTypeKernel:
      return sim_kernel_launch_uses(n->work.kernel, out);
    default:
      return 0;
  }
}

// To the outside, all nodes happen at once.
void sim_check_launch(const stream* s, const step* steps, size_t count) {
  if (is_blind(s)) return;
  uint64_t time = sim_order_tick(s);
  use uses[MOST_USES];
  for (size_t i = 0; i < count; ++i) check_uses(s, uses, uses_of_node(steps[i].node, uses), time);
  for (size_t i = 0; i < count; ++i) keep_uses(s, uses, uses_of_node(steps[i].node, uses), time);
}

#define WORD_BITS ((size_t)64)

// A bit for each node and each that it comes after.
typedef struct ancestry {
  uint64_t* bits;
  size_t words;  // of one node
} ancestry;

static uint64_t* ancestors_of(const ancestry* a, size_t i) { return a->bits + i * a->words; }

static bool is_ancestor(const ancestry* a, size_t i, size_t before) {
  return ancestors_of(a, i)[before / WORD_BITS] >> before % WORD_BITS & 1;
}

static void note_ancestors(const ancestry* a, size_t i, const node_set* before) {
  uint64_t* mine = ancestors_of(a, i);
  for (uint32_t k = 0; k < before->count; ++k) {
    size_t other = before->nodes[k];
    const uint64_t* theirs = ancestors_of(a, other);
    for (size_t w = 0; w < a->words; ++w) mine[w] |= theirs[w];
    mine[other / WORD_BITS] |= UINT64_C(1) << other % WORD_BITS;
  }
}

static void report_nodes(const node* n, const region* where, bool writes, const node* other,
                         bool other_writes) {
  const allocation* a = around(&state.live, where->address);
  if (!a) return;
  description d = describe_region(a, where);
  report_between(RULE_UNORDERED_COPIES, n->site, other_writes ? "written by" : "read by",
                 other->site, "%s %s in a graph; nothing orders this and another node that %s them",
                 writes ? "writes" : "reads", d.text, other_writes ? "writes" : "reads");
}

static bool compare_uses(const node* n, const use* mine, const node* other, const use* theirs) {
  if (!mine->writes && !theirs->writes) return false;
  region a = sim_region_of(&mine->where, &mine->extent);
  region b = sim_region_of(&theirs->where, &theirs->extent);
  if (!sim_region_overlaps(&a, &b)) return false;
  report_nodes(n, &a, mine->writes, other, theirs->writes);
  return true;
}

static void compare_nodes(const node* n, const node* other) {
  use mine[MOST_USES];
  use theirs[MOST_USES];
  size_t count = uses_of_node(n, mine);
  size_t other_count = uses_of_node(other, theirs);
  for (size_t i = 0; i < count; ++i) {
    for (size_t k = 0; k < other_count; ++k) {
      if (compare_uses(n, &mine[i], other, &theirs[k])) return;
    }
  }
}

// A node has only earlier ones before it.
void sim_check_graph(node* const* nodes, size_t count) {
  ancestry a = {.words = (count + WORD_BITS - 1) / WORD_BITS};
  if (count < 2 || sim_order_is_lost()) return;
  a.bits = sim_bookkeeping_alloc(count * a.words * sizeof(uint64_t));
  if (!a.bits) return;
  for (size_t i = 0; i < count; ++i) {
    note_ancestors(&a, i, &nodes[i]->dependencies);
    for (size_t k = 0; k < i; ++k) {
      if (!is_ancestor(&a, i, k)) compare_nodes(nodes[i], nodes[k]);
    }
  }
  sim_bookkeeping_free(a.bits);
}

//===-- Allocations ---------------------------------------------------------------------------===//

static void drop(allocation* a) {
  drop_uses(a);
  sim_site_release(a->made);
  sim_site_release(a->freed);
  sim_slab_give(&allocations, a);
}

static void drop_oldest_freed(void) {
  allocation* a = state.first_freed;
  state.first_freed = a->next_freed;
  if (!state.first_freed) state.last_freed = NULL;
  --state.freed_count;
  if (a->bytes) sim_tree_remove(&state.freed, &a->node);
  drop(a);
}

// What was freed at these addresses is not meant by them any more. It leaves the queue in its turn.
static void forget_freed(uint64_t start, uint64_t end) {
  allocation* a = (allocation*)sim_tree_at_most(&state.freed, end - 1, UINT64_MAX);
  while (a && end_of(a) > start) {
    sim_tree_remove(&state.freed, &a->node);
    a->bytes = 0;
    a = (allocation*)sim_tree_at_most(&state.freed, end - 1, UINT64_MAX);
  }
}

// As for memory that was freed where no check sees it.
static void forget_live(uint64_t start, uint64_t end) {
  allocation* a = (allocation*)sim_tree_at_most(&state.live, end - 1, UINT64_MAX);
  while (a && end_of(a) > start) {
    sim_tree_remove(&state.live, &a->node);
    drop(a);
    a = (allocation*)sim_tree_at_most(&state.live, end - 1, UINT64_MAX);
  }
}

static void bury(allocation* a, site* by) {
  sim_tree_remove(&state.live, &a->node);
  drop_uses(a);
  forget_freed(address_of(a), end_of(a));
  sim_tree_insert(&state.freed, &a->node);
  a->freed = sim_site_retain(by);
  a->next_freed = NULL;
  if (state.last_freed) {
    state.last_freed->next_freed = a;
  } else {
    state.first_freed = a;
  }
  state.last_freed = a;
  if (++state.freed_count > FREED_KEPT) drop_oldest_freed();
}

void sim_check_made(const void* p, size_t bytes, memory_kind kind, const stream* s) {
  allocation* a = p && bytes && !sim_order_is_lost() ? sim_slab_take(&allocations) : NULL;
  if (!a) return;
  uint64_t address = (uint64_t)(uintptr_t)p;
  const device* d = sim_device_of(address);
  *a = (allocation){.bytes = bytes,
                    .kind = kind,
                    .device = d ? d->id : -1,
                    .made = sim_site_retain(sim_site_here())};
  if (s && s->actor) {
    a->by = s->actor;
    a->time = sim_order_tick(s);
  }
  a->node.major = address;
  forget_live(address, address + bytes);
  forget_freed(address, address + bytes);
  sim_tree_insert(&state.live, &a->node);
}

// What `s` frees now, or the host where it is NULL, must come after the allocation and every use.
static bool is_before_free(const actor* by, uint64_t time, const stream* s, uint64_t now) {
  return s ? sim_order_is_before(by, time, s->actor, now) : actor_is_observed(by, time);
}

static void check_free(const allocation* a, const stream* s, uint64_t now, const site* here) {
  description d = describe_all(a);
  if (s && a->by && !is_before_free(a->by, a->time, s, now)) {
    report_between(RULE_USE_BEFORE_ALLOC, here, "allocated by", a->made,
                   "frees %s in a stream that does not come after the allocation", d.text);
  }
  for (const past_use* u = a->newest; u; u = u->older) {
    if (is_before_free(u->by, u->time, s, now)) continue;
    report_between(RULE_USE_AFTER_FREE, here, u->writes ? "written by" : "read by", u->site,
                   "frees %s; nothing orders this after a %s", d.text,
                   u->writes ? "write" : "read");
    return;
  }
}

void sim_check_freed(const void* p, const stream* s) {
  allocation* a = at(&state.live, (uint64_t)(uintptr_t)p);
  if (!a) return;
  site* here = sim_site_here();
  if (!sim_order_is_lost() && (!s || s->actor)) {
    check_free(a, s, s ? sim_order_tick(s) : 0, here);
  }
  bury(a, here);
}

static const char* remedy_of(const allocation* a) {
  switch (a->kind) {
    case MEMORY_PINNED:
      return "page-locked memory, which cudaFreeHost frees";
    case MEMORY_REGISTERED:
      return "registered memory, which cudaHostUnregister lets go";
    case MEMORY_DEVICE:
    case MEMORY_POOL:
      break;
  }
  return "device memory, which cudaFree and cudaFreeAsync free";
}

static void report_freed_again(const allocation* a, const site* here) {
  description d = describe_all(a);
  report_between(RULE_DOUBLE_FREE, here, "freed by", a->freed, "frees %s again", d.text);
}

void sim_check_refused_free(const void* p) {
  uint64_t address = (uint64_t)(uintptr_t)p;
  const allocation* live = around(&state.live, address);
  const allocation* freed = live ? NULL : at(&state.freed, address);
  const site* here = sim_site_here();
  if (freed) {
    report_freed_again(freed, here);
  } else if (live && address_of(live) == address) {
    report_between(RULE_WRONG_FREE, here, "allocated by", live->made, "%p is %s", p,
                   remedy_of(live));
  } else if (live) {
    report_between(RULE_WRONG_FREE, here, "allocated by", live->made,
                   "%p is %llu bytes inside an allocation of %llu", p,
                   (unsigned long long)(address - address_of(live)),
                   (unsigned long long)live->bytes);
  } else {
    report_between(RULE_WRONG_FREE, here, "", NULL, "%p is no allocation of the runtime's", p);
  }
}

const site* sim_check_origin(uint64_t address, bool* is_freed) {
  const allocation* live = around(&state.live, address);
  const allocation* freed = live ? NULL : around(&state.freed, address);
  *is_freed = freed;
  return live ? live->made : freed ? freed->freed : NULL;
}

void sim_check_refused_use(uint64_t address, uint64_t bytes) {
  const allocation* live = (allocation*)sim_tree_at_most(&state.live, address, 0);
  const allocation* freed = around(&state.freed, address);
  const site* here = sim_site_here();
  unsigned long long size = bytes;
  if (freed && (!live || address >= end_of(live))) {
    description d = describe_all(freed);
    report_between(RULE_USE_AFTER_FREE, here, "freed by", freed->freed,
                   "uses %llu bytes at %llu of what was freed: %s", size,
                   (unsigned long long)(address - address_of(freed)), d.text);
  } else if (live && sim_device_of(address_of(live)) == sim_device_of(address)) {
    report_between(RULE_OUT_OF_BOUNDS, here, "allocated by", live->made,
                   "uses %llu bytes at %llu of an allocation of %llu at 0x%llx", size,
                   (unsigned long long)(address - address_of(live)),
                   (unsigned long long)live->bytes, (unsigned long long)address_of(live));
  } else {
    report_between(RULE_OUT_OF_BOUNDS, here, "", NULL,
                   "uses %llu bytes at 0x%llx, which is in no allocation", size,
                   (unsigned long long)address);
  }
}

// Device memory lies at addresses of its device only.
static void forget_from(tree* all, int id, bool is_freed) {
  allocation* a = (allocation*)sim_tree_at_least(all, 0, 0);
  while (a) {
    allocation* next = (allocation*)sim_tree_at_least(all, address_of(a) + 1, 0);
    if (a->device == id) {
      sim_tree_remove(all, &a->node);
      if (is_freed) {
        a->bytes = 0;
      } else {
        drop(a);
      }
    }
    a = next;
  }
}

void sim_check_device_gone(int id) {
  forget_from(&state.live, id, false);
  forget_from(&state.freed, id, true);
}

//===-- The end -------------------------------------------------------------------------------===//

#define GROUPS 512  // of leaks; what comes from further places is counted with the last

typedef struct group {
  const site* made;
  uint64_t count;
  uint64_t bytes;
  const char* what;
} group;

static bool is_same_place(const site* a, const site* b) {
  return a->call == b->call && a->frame_count == b->frame_count &&
         memcmp(a->frames, b->frames, (size_t)a->frame_count * sizeof(a->frames[0])) == 0;
}

static void count_leak(group* groups, const site* made, const char* what, uint64_t bytes) {
  if (!made) return;
  unsigned i = 0;
  while (i < GROUPS - 1 && groups[i].count && !is_same_place(groups[i].made, made)) ++i;
  if (!groups[i].count) groups[i] = (group){.made = made, .what = what};
  ++groups[i].count;
  groups[i].bytes += bytes;
}

static bool is_legacy(const stream* s) { return s == s->device->legacy; }

static bool is_default(const pool* p) { return p == p->device->default_pool; }

// What the runtime opened for itself, in whatever call, is none.
static const char* leak_of(handle_kind kind, const void* object, const site* made) {
  switch ((call_id)made->call) {
    case CALL_cudaStreamCreate:
    case CALL_cudaStreamCreateWithFlags:
    case CALL_cudaStreamCreateWithPriority:
      return kind == HANDLE_STREAM && !is_legacy(object) ? "stream" : NULL;
    case CALL_cudaEventCreate:
    case CALL_cudaEventCreateWithFlags:
      return kind == HANDLE_EVENT ? "event" : NULL;
    case CALL_cudaMemPoolCreate:
      return kind == HANDLE_POOL && !is_default(object) ? "memory pool" : NULL;
    case CALL_cudaGraphCreate:
    case CALL_cudaStreamBeginCapture:
      return kind == HANDLE_GRAPH ? "graph" : NULL;
    case CALL_cudaGraphInstantiate:
      return kind == HANDLE_GRAPH_EXEC ? "executable graph" : NULL;
    default:
      return NULL;
  }
}

static void count_handle(void* groups, handle_kind kind, const void* object, const site* made) {
  const char* what = leak_of(kind, object, made);
  if (what) count_leak(groups, made, what, 0);
}

static void report_group(const group* g) {
  char text[128];
  unsigned long long count = g->count;
  const char* plural = g->count == 1 ? "" : "s";
  const char* were = g->count == 1 ? "was" : "were";
  if (g->bytes) {
    snprintf(text, sizeof(text), "%llu %s%s of %llu bytes in all %s not freed", count, g->what,
             plural, (unsigned long long)g->bytes, were);
  } else {
    snprintf(text, sizeof(text), "%llu %s%s %s not destroyed", count, g->what, plural, were);
  }
  sim_report(&(report){.rule = RULE_LEAK, .message = text, .here = g->made, .more_follow = true});
}

void sim_check_leaks(void) {
  static group groups[GROUPS];
  memset(groups, 0, sizeof(groups));
  if (sim_order_is_lost()) return;
  const allocation* a = (allocation*)sim_tree_at_least(&state.live, 0, 0);
  for (; a; a = (allocation*)sim_tree_at_least(&state.live, address_of(a) + 1, 0)) {
    count_leak(groups, a->made, a->kind == MEMORY_REGISTERED ? "registration" : "allocation",
               a->bytes);
  }
  sim_handle_for_each(count_handle, groups);
  unsigned found = 0;
  for (unsigned i = 0; i < GROUPS && groups[i].count; ++i, ++found) report_group(&groups[i]);
  if (found && sim_check_mode == CHECK_ABORT) abort();
}

void sim_check_drop(void) {
  sim_slab_drop(&allocations);
  sim_slab_drop(&past_uses);
  memset(&state, 0, sizeof(state));
  sim_order_drop();
  sim_site_drop();
}
