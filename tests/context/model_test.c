// Random programs of scopes against a model: whatever is opened, in whichever order, and however it
// is left, the lookups show what a plain record of what is open says. The seed is printed;
// TM_TEST_SEED sets it.

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tm/alloc/host.h"
#include "tm/alloc/stream.h"
#include "tm/base/trace.h"
#include "tm/context/context.h"

enum { DEVICES = 4, CONTEXTS = 3, DEPTH = 12, PROGRAMS = 3000, STATEMENTS = 4 };

// What is current, said plainly.
typedef struct view {
  tm_allocator* by_type[TM_DEVICE_TYPES];
  tm_allocator* by_device[DEVICES];
  tm_stream* stream;
  size_t depth;
  size_t trace;
} view;

static tm_allocator fakes[TM_DEVICE_TYPES][DEVICES];
static tm_stream* streams[4];  // the first is NULL
static view view_now;
static size_t open_anywhere;  // in all contexts that are entered
static size_t mistakes;

// Contexts of one's own, and what each holds while it is not current. They are left as they were
// found, so that is what each begins with.
static tm_context* contexts[CONTEXTS];
static bool is_entered[CONTEXTS];
static tm_context* token;
static view captured;

static uint64_t random_state;

static uint32_t random_below(uint32_t limit) {
  random_state = random_state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(random_state >> 33) % limit;
}

static view view_of_a_new_context(void) {
  return (view){.by_type = {[TM_CPU] = tm_host_allocator()}};
}

static void compare(void) {
  for (int type = 0; type < TM_DEVICE_TYPES; type++) {
    mistakes += tm_current_allocator((tm_device_type)type) != view_now.by_type[type];
  }
  for (int id = 0; id < DEVICES; id++) {
    const tm_device device = tm_device_make(TM_DEVICE, id);
    mistakes += tm_current_allocator_on(device) != view_now.by_device[id];
  }
  mistakes += tm_current_stream() != view_now.stream;
  mistakes += tm_context_depth() != view_now.depth;
  mistakes += tm_trace_depth() != view_now.trace;
}

static void run_statements(int depth);

// The body of every scope: the model says what has been opened, and is put back afterwards.
static void run_inside(int depth) {
  compare();
  run_statements(depth - 1);
  compare();
}

static void with_allocator(int depth) {
  const view before = view_now;
  const tm_device_type type = (tm_device_type)random_below(TM_DEVICE_TYPES);
  const int id = type == TM_DEVICE ? (int)random_below(DEVICES) : 0;
  tm_allocator* allocator = random_below(8) ? &fakes[type][id] : NULL;
  view_now.depth++;
  if (allocator) {
    view_now.by_type[type] = allocator;
    if (type == TM_DEVICE) view_now.by_device[id] = allocator;
  }
  TM_WITH_ALLOCATOR(allocator) run_inside(depth);
  view_now = before;
}

static void with_stream(int depth) {
  const view before = view_now;
  tm_stream* stream = streams[random_below(4)];
  view_now.depth++;
  view_now.stream = stream ? stream : view_now.stream;
  TM_WITH_STREAM(stream) {
    TM_SCOPE("stream");
    view_now.trace++;
    run_inside(depth);
  }
  view_now = before;
}

static void with_several(int depth) {
  const view before = view_now;
  view_now.by_type[TM_DEVICE] = view_now.by_device[1] = &fakes[TM_DEVICE][1];
  view_now.by_type[TM_CPU_PINNED] = &fakes[TM_CPU_PINNED][0];
  view_now.depth += 3;
  TM_USE_ALLOCATOR(&fakes[TM_DEVICE][0]);
  TM_WITH_ALLOCATOR(&fakes[TM_DEVICE][1])
  TM_WITH_ALLOCATOR(&fakes[TM_CPU_PINNED][0]) {
    view_now.by_device[0] = &fakes[TM_DEVICE][0];
    run_inside(depth);
  }
  view_now = before;
}

static void with_context(int depth) {
  const view before = view_now;
  const uint32_t which = random_below(CONTEXTS);
  if (is_entered[which]) return;
  is_entered[which] = true;
  view_now = view_of_a_new_context();
  TM_WITH_CONTEXT(contexts[which]) run_inside(depth);
  is_entered[which] = false;
  view_now = before;
}

static void with_token(int depth) {
  const view before = view_now;
  if (!token) return;
  view_now = captured;
  TM_WITH_CONTEXT(token) run_inside(depth);
  view_now = before;
}

static void capture(int depth) {
  (void)depth;
  tm_context_release(token);
  token = tm_context_capture();
  captured = view_now;
  captured.depth = 0;
}

typedef struct jump {
  jmp_buf back;
  int left;  // scopes to go down before it jumps
} jump;

__attribute__((noinline)) static void jump_back(jump* to) {
  if (to->left < 0) {
    longjmp(to->back, 1);
  }
}

// Opens scopes of every kind, and leaves them all at once.
__attribute__((noinline)) static void open_and_jump(jump* to) {
  if (to->left-- > 0) {
    TM_SCOPE("jumped over");
    TM_USE_ALLOCATOR(&fakes[TM_DEVICE][to->left % DEVICES]);
    TM_USE_STREAM(streams[3]);
    open_anywhere += 2;
    if (to->left == 2 && token) {
      open_anywhere++;
      TM_WITH_CONTEXT(token) open_and_jump(to);
    }
    open_and_jump(to);
  }
  jump_back(to);
}

__attribute__((noinline)) static void jump_and_come_back(jump* to) {
  if (!setjmp(to->back)) {
    open_and_jump(to);
  }
}

static void leave_by_longjmp(int depth) {
  (void)depth;
  jump to = {.left = 1 + (int)random_below(4)};
  const tm_context_mark mark = tm_context_save();
  open_anywhere = 0;
  jump_and_come_back(&to);
  mistakes += tm_context_restore(&mark) != open_anywhere;
}

static void run_statements(int depth) {
  static void (*const statements[])(int) = {
      with_allocator, with_allocator, with_stream, with_several,
      with_context,   with_token,     capture,     leave_by_longjmp,
  };
  const uint32_t count = depth > 0 ? random_below(STATEMENTS) : 0;
  for (uint32_t i = 0; i < count; i++) {
    statements[random_below(sizeof statements / sizeof *statements)](depth);
    compare();
  }
}

static void make_fakes(void) {
  static const tm_allocator_vtable vtable = {.name = "fake"};
  for (int type = 0; type < TM_DEVICE_TYPES; type++) {
    for (int id = 0; id < DEVICES; id++) {
      const tm_device device = tm_device_make((tm_device_type)type, type == TM_DEVICE ? id : 0);
      tm_allocator_init_(&fakes[type][id], &vtable, device, NULL);
      fakes[type][id].references = TM_IMMORTAL_;
    }
  }
}

static uint64_t choose_seed(void) {
  const char* asked = getenv("TM_TEST_SEED");
  return asked ? strtoull(asked, NULL, 0) : (uint64_t)time(NULL);
}

Test(context, random_programs_show_what_is_open) {
  const uint64_t seed = choose_seed();
  printf("TM_TEST_SEED=%llu\n", (unsigned long long)seed);
  make_fakes();
  for (int i = 1; i < 4; i++) streams[i] = tm_stream_create(0, 0);
  for (uint64_t program = 0; program < PROGRAMS && mistakes == 0; program++) {
    random_state = seed + program;
    view_now = view_of_a_new_context();
    for (int i = 0; i < CONTEXTS; i++) contexts[i] = tm_context_create();
    run_statements(DEPTH);
    for (int i = 0; i < CONTEXTS; i++) tm_context_release(contexts[i]);
    tm_context_release(token);
    token = NULL;
    cr_assert(mistakes == 0, "TM_TEST_SEED=%llu: %zu mistakes",
              (unsigned long long)(seed + program), mistakes);
  }
  for (int i = 1; i < 4; i++) tm_stream_release(streams[i]);
}
