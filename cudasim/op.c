#include "cudasim/op.h"

#include <stdbool.h>
#include <string.h>

#include "cudasim/device.h"
#include "cudasim/device_memory.h"
#include "cudasim/kernel.h"
#include "cudasim/order.h"
#include "cudasim/runtime.h"
#include "cudasim/slab.h"
#include "cudasim/space.h"

static slab ops = {.size = sizeof(op)};

//===-- Staging -------------------------------------------------------------------------------===//

// Buffers of STAGING_BYTES >> class bytes, so that a thousand small copies in a queue stay small.
#define STAGING_CLASSES 12

// All staging buffers together, so that a full queue of copies does not take the host's memory.
#define STAGING_LIMIT ((size_t)64 << 20)

typedef struct staging {
  union {
    int class;
    struct staging* next;  // while spare
  };
  max_align_t contents[];
} staging;

static staging* spare[STAGING_CLASSES];
static size_t staging_bytes;  // spare ones included

static size_t class_bytes(int class) { return STAGING_BYTES >> class; }

static void drop_spare(void) {
  for (int i = 0; i < STAGING_CLASSES; ++i) {
    while (spare[i]) {
      staging* next = spare[i]->next;
      sim_bookkeeping_free(spare[i]);
      staging_bytes -= class_bytes(i);
      spare[i] = next;
    }
  }
}

static staging* make(int class) {
  if (staging_bytes + class_bytes(class) > STAGING_LIMIT) drop_spare();
  if (staging_bytes + class_bytes(class) > STAGING_LIMIT) return NULL;
  staging* s = sim_bookkeeping_alloc(sizeof(staging) + class_bytes(class));
  if (s) staging_bytes += class_bytes(class);
  return s;
}

void* sim_staging_take(size_t size) {
  int class = 0;
  while (class + 1 < STAGING_CLASSES && class_bytes(class + 1) >= size) ++class;
  staging* s = spare[class];
  if (s) {
    spare[class] = s->next;
  } else {
    s = make(class);
  }
  if (!s) return NULL;
  s->class = class;
  return s->contents;
}

static void staging_give(void* contents) {
  if (!contents) return;
  staging* s = (staging*)((char*)contents - offsetof(staging, contents));
  int class = s->class;
  s->next = spare[class];
  spare[class] = s;
}

//===-- Doing the work ------------------------------------------------------------------------===//

// Whether the rows of `g` follow each other without gaps, so that a box is one piece.
static bool is_dense(const grid* g, const box* b) {
  return (b->height <= 1 || g->pitch == b->width) &&
         (b->depth <= 1 || g->slice == b->width * b->height);
}

static char* row(const grid* g, size_t y, size_t z) { return g->at + z * g->slice + y * g->pitch; }

static void copy(const op* o) {
  const box* b = &o->copy.extent;
  if (is_dense(&o->copy.to, b) && is_dense(&o->copy.from, b)) {
    memmove(o->copy.to.at, o->copy.from.at, b->width * b->height * b->depth);
    return;
  }
  for (size_t z = 0; z < b->depth; ++z) {
    for (size_t y = 0; y < b->height; ++y) {
      memmove(row(&o->copy.to, y, z), row(&o->copy.from, y, z), b->width);
    }
  }
}

static void fill(const op* o) {
  const box* b = &o->fill.extent;
  if (is_dense(&o->fill.to, b)) {
    size_t bytes = b->width * b->height * b->depth;
    bool clears = o->fill.value == 0 && o->fill.written.device;
    if (clears) {
      sim_space_clear(&o->fill.written.device->space, o->fill.written.address, bytes);
    } else {
      memset(o->fill.to.at, o->fill.value, bytes);
    }
    return;
  }
  for (size_t z = 0; z < b->depth; ++z) {
    for (size_t y = 0; y < b->height; ++y) memset(row(&o->fill.to, y, z), o->fill.value, b->width);
  }
}

static void call_host(const op* o) {
  sim_thread()->in_host_function = true;
  o->host.function(o->host.argument);
  sim_thread()->in_host_function = false;
}

void sim_op_run(const op* o) {
  switch (o->kind) {
    case OP_COPY:
      copy(o);
      break;
    case OP_FILL:
      fill(o);
      break;
    case OP_KERNEL:
      sim_kernel_run(o->kernel.run);
      break;
    case OP_HOST:
      call_host(o);
      break;
    case OP_WAIT:
    case OP_RECORD:
    case OP_FREE:
    case OP_EMPTY:
      break;
  }
}

//===-- Lifetime ------------------------------------------------------------------------------===//

op* sim_op_create(op_kind kind) {
  op* o = sim_slab_take(&ops);
  if (o) *o = (op){.kind = kind};
  return o;
}

op* sim_host_op(cudaHostFn_t function, void* argument) {
  op* o = sim_op_create(OP_HOST);
  if (!o) return NULL;
  o->host.function = function;
  o->host.argument = argument;
  return o;
}

static void touch(const span* s) {
  if (s->device) sim_space_touch(&s->device->space, s->address, s->bytes);
}

void sim_op_release(op* o) {
  if (o->kind == OP_COPY) {
    touch(&o->copy.written);
    touch(&o->copy.read);
    staging_give(o->copy.staging);
  } else if (o->kind == OP_FILL) {
    touch(&o->fill.written);
  } else if (o->kind == OP_KERNEL) {
    sim_kernel_run_release(o->kernel.run);
  } else if (o->kind == OP_HOST) {
    sim_order_note_run(o);
  } else if (o->kind == OP_FREE) {
    sim_device_memory_give(o->free.block);
  }
  sim_slab_give(&ops, o);
}

void sim_op_drop(void) {
  sim_slab_drop(&ops);
  drop_spare();
}
