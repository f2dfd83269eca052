// The steps of random programs that copy, fill and compute, right and wrong.

#include <stdio.h>
#include <string.h>

#include "tests/cudasim/program_parts.h"

//===-- Choosing ------------------------------------------------------------------------------===//

static size_t window(const model_buffer* b) {
  return b->size < MODEL_WINDOW ? b->size : MODEL_WINDOW;
}

static bool can_be_filled(const model_buffer* b) { return b->memory != MEMORY_PAGEABLE; }

static size_t lesser(size_t a, size_t b) { return a < b ? a : b; }

static model_side side_at(program* p, int buffer) {
  return (model_side){.buffer = buffer,
                      .id = p->model.buffers[buffer].id,
                      .offset = program_draw(p, (unsigned)window(&p->model.buffers[buffer]))};
}

// How many steps of `pitch` there are from the side to the end of what is followed.
static size_t rows_of(const program* p, const model_side* s, size_t pitch) {
  size_t room = window(&p->model.buffers[s->buffer]) - s->offset;
  return room / pitch + (room % pitch != 0);
}

// Gives the work a shape that fits: 1, 2 or 3 dimensions.
static void draw_shape(program* p, model_work* w, bool has_source) {
  size_t to_room = window(&p->model.buffers[w->to.buffer]) - w->to.offset;
  size_t room = to_room;
  if (has_source) room = lesser(room, window(&p->model.buffers[w->from.buffer]) - w->from.offset);
  w->width = 1 + program_draw(p, (unsigned)room);
  w->height = w->depth = 1;
  if (!program_chance(p, 3)) return;
  w->width = 1 + program_draw(p, (unsigned)lesser(room, 12));
  w->to.pitch = w->width + program_draw(p, 6);
  w->from.pitch = w->width + program_draw(p, 6);
  size_t rows = rows_of(p, &w->to, w->to.pitch);
  if (has_source) rows = lesser(rows, rows_of(p, &w->from, w->from.pitch));
  rows = rows > 1 ? rows - 1 : 1;  // the last one may be cut off
  w->height = 1 + program_draw(p, (unsigned)lesser(rows, 5));
  size_t slices = rows / w->height;
  if (slices > 1 && program_chance(p, 2)) w->depth = 1 + program_draw(p, (unsigned)slices);
  w->to.slice = w->to.pitch * w->height;
  w->from.slice = w->from.pitch * w->height;
}

static bool draw_copy(program* p, model_work* w) {
  int to = pick_buffer(p, NULL);
  int from = pick_buffer(p, NULL);
  if (to == MODEL_NONE || from == MODEL_NONE || to == from) return false;
  *w = (model_work){.kind = WORK_COPY, .to = side_at(p, to), .from = side_at(p, from)};
  draw_shape(p, w, true);
  return true;
}

static bool draw_fill(program* p, model_work* w) {
  int to = pick_buffer(p, can_be_filled);
  if (to == MODEL_NONE) return false;
  *w = (model_work){.kind = WORK_FILL, .to = side_at(p, to)};
  w->value = (unsigned char)program_draw(p, 256);
  draw_shape(p, w, false);
  return true;
}

static bool draw_addition(program* p, model_work* w) {
  int to = pick_buffer(p, can_be_filled);
  if (to == MODEL_NONE) return false;
  const model_buffer* b = &p->model.buffers[to];
  *w = (model_work){.kind = WORK_ADD, .to = side_at(p, to), .height = 1, .depth = 1};
  w->value = (unsigned char)program_draw(p, 256);
  w->width = 1 + program_draw(p, (unsigned)(window(b) - w->to.offset));
  bool is_near = !model_is_on_device(b) || b->device == p->model.device;
  w->is_kernel = is_near && program_chance(p, 2);
  return true;
}

static bool draw_work(program* p, model_work* w) {
  unsigned kind = program_draw(p, 10);
  if (kind < 6) return draw_copy(p, w);
  return kind < 8 ? draw_fill(p, w) : draw_addition(p, w);
}

static char* pointer_of(const program* p, const model_side* s) {
  return p->model.buffers[s->buffer].address + s->offset;
}

static void tell(program* p, char text[160], const model_work* w) {
  if (!p->is_logging) return;
  int length = snprintf(text, 160, "buffer %d + %zu (%zu, %zu)", w->to.buffer, w->to.offset,
                        w->to.pitch, w->to.slice);
  if (w->kind == WORK_COPY && length > 0) {
    length += snprintf(text + length, 160 - (size_t)length, ", buffer %d + %zu (%zu, %zu)",
                       w->from.buffer, w->from.offset, w->from.pitch, w->from.slice);
  }
  snprintf(text + length, 160 - (size_t)length, ", %zu x %zu x %zu, %d", w->width, w->height,
           w->depth, w->value);
}

//===-- Copies --------------------------------------------------------------------------------===//

// What is passed instead of what is right.
typedef struct twist {
  model_wrong wrong;
  char* to;  // NULL: what is right
  char* from;
  bool has_null_to;
  bool has_null_from;
  enum cudaMemcpyKind kind;
  size_t more;        // bytes too many
  size_t less_pitch;  // of the destination
} twist;

static enum cudaMemcpyKind kind_of(program* p, const model_work* w) {
  bool to = model_is_on_device(&p->model.buffers[w->to.buffer]);
  bool from = model_is_on_device(&p->model.buffers[w->from.buffer]);
  if (program_chance(p, 2)) return cudaMemcpyDefault;
  if (to) return from ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice;
  return from ? cudaMemcpyDeviceToHost : cudaMemcpyHostToHost;
}

static char* to_of(const program* p, const model_work* w, const twist* t) {
  if (t->has_null_to) return NULL;
  return t->to ? t->to : pointer_of(p, &w->to);
}

static char* from_of(const program* p, const model_work* w, const twist* t) {
  if (t->has_null_from) return NULL;
  return t->from ? t->from : pointer_of(p, &w->from);
}

static void copy_1d(program* p, model_stream_arg s, const model_work* w, const twist* t,
                    bool is_async) {
  char text[160];
  tell(p, text, w);
  size_t bytes = t->wrong.is_empty ? 0 : w->width + t->more;
  char* to = to_of(p, w, t);
  char* from = from_of(p, w, t);
  if (is_async) {
    TRY(p, model_copy(&p->model, "cudaMemcpyAsync", s, w, true, t->wrong),
        cudaMemcpyAsync(to, from, bytes, t->kind, s.handle),
        "cudaMemcpyAsync(%s, kind %d, stream %d)", text, t->kind, s.index);
  } else {
    TRY(p, model_copy(&p->model, "cudaMemcpy", s, w, false, t->wrong),
        cudaMemcpy(to, from, bytes, t->kind), "cudaMemcpy(%s, kind %d)", text, t->kind);
  }
}

static void copy_2d(program* p, model_stream_arg s, const model_work* w, const twist* t,
                    bool is_async) {
  char text[160];
  tell(p, text, w);
  size_t pitch = w->to.pitch - t->less_pitch;
  size_t height = t->wrong.is_empty ? 0 : w->height;
  char* to = to_of(p, w, t);
  char* from = from_of(p, w, t);
  if (is_async) {
    TRY(p, model_copy(&p->model, "cudaMemcpy2DAsync", s, w, true, t->wrong),
        cudaMemcpy2DAsync(to, pitch, from, w->from.pitch, w->width, height, t->kind, s.handle),
        "cudaMemcpy2DAsync(%s, kind %d, stream %d)", text, t->kind, s.index);
  } else {
    TRY(p, model_copy(&p->model, "cudaMemcpy2D", s, w, false, t->wrong),
        cudaMemcpy2D(to, pitch, from, w->from.pitch, w->width, height, t->kind),
        "cudaMemcpy2D(%s, kind %d)", text, t->kind);
  }
}

static struct cudaPitchedPtr pitched(char* pointer, const model_side* s) {
  return (struct cudaPitchedPtr){
      .ptr = pointer, .pitch = s->pitch, .xsize = s->pitch, .ysize = s->slice / s->pitch};
}

static void copy_3d(program* p, model_stream_arg s, const model_work* w, const twist* t,
                    bool is_async) {
  char text[160];
  tell(p, text, w);
  struct cudaMemcpy3DParms a = {.extent = {w->width, w->height, w->depth}, .kind = t->kind};
  a.dstPtr = pitched(to_of(p, w, t), &w->to);
  a.srcPtr = pitched(from_of(p, w, t), &w->from);
  if (is_async) {
    TRY(p, model_copy(&p->model, "cudaMemcpy3DAsync", s, w, true, t->wrong),
        cudaMemcpy3DAsync(&a, s.handle), "cudaMemcpy3DAsync(%s, kind %d, stream %d)", text, t->kind,
        s.index);
  } else {
    TRY(p, model_copy(&p->model, "cudaMemcpy3D", s, w, false, t->wrong), cudaMemcpy3D(&a),
        "cudaMemcpy3D(%s, kind %d)", text, t->kind);
  }
}

static int peer_of(program* p, const model_side* s) {
  const model_buffer* b = &p->model.buffers[s->buffer];
  return model_is_on_device(b) ? b->device : (int)program_draw(p, MODEL_DEVICES);
}

static void copy_peer(program* p, model_stream_arg s, const model_work* w, bool is_async) {
  char text[160];
  tell(p, text, w);
  int to = peer_of(p, &w->to);
  int from = peer_of(p, &w->from);
  if (p->model.devices[to].broken || p->model.devices[from].broken) return;
  model_work told = *w;
  char* destination = pointer_of(p, &w->to);
  char* source = pointer_of(p, &w->from);
  if (is_async) {
    TRY(p, model_copy_peer(&p->model, "cudaMemcpyPeerAsync", s, &told, true, (model_wrong){0}),
        cudaMemcpyPeerAsync(destination, to, source, from, w->width, s.handle),
        "cudaMemcpyPeerAsync(%s, %d to %d, stream %d)", text, from, to, s.index);
  } else {
    TRY(p, model_copy_peer(&p->model, "cudaMemcpyPeer", s, &told, false, (model_wrong){0}),
        cudaMemcpyPeer(destination, to, source, from, w->width), "cudaMemcpyPeer(%s, %d to %d)",
        text, from, to);
  }
}

static void copy_batch(program* p, model_stream_arg s, const model_work* w) {
  char text[160];
  tell(p, text, w);
  void* to = pointer_of(p, &w->to);
  const void* from = pointer_of(p, &w->from);
  size_t size = w->width;
  size_t first = 0;
  struct cudaMemcpyAttributes attributes = {.srcAccessOrder = cudaMemcpySrcAccessOrderStream};
  TRY(p, model_copy_batch(&p->model, s, w, 1, (model_wrong){0}),
      cudaMemcpyBatchAsync(&to, &from, &size, 1, &attributes, &first, 1, s.handle),
      "cudaMemcpyBatchAsync(%s, stream %d)", text, s.index);
}

static bool are_both_on_devices(const program* p, const model_work* w) {
  return model_is_on_device(&p->model.buffers[w->to.buffer]) &&
         model_is_on_device(&p->model.buffers[w->from.buffer]);
}

static void copy(program* p, model_stream_arg s, const model_work* w, bool is_async) {
  twist t = {.kind = kind_of(p, w)};
  bool is_captured = p->model.streams[s.index].capture != MODEL_NONE;
  if (w->depth > 1 || (w->height > 1 && program_chance(p, 3))) {
    copy_3d(p, s, w, &t, is_async);
  } else if (w->height > 1) {
    copy_2d(p, s, w, &t, is_async);
  } else if (is_captured || !program_chance(p, 4)) {
    copy_1d(p, s, w, &t, is_async);
  } else if (program_chance(p, 2) && are_both_on_devices(p, w)) {
    copy_peer(p, s, w, is_async);
  } else if (is_async) {
    copy_batch(p, s, w);
  }
}

//===-- Fills ---------------------------------------------------------------------------------===//

static void fill_1d(program* p, model_stream_arg s, const model_work* w, const twist* t,
                    bool is_async) {
  char text[160];
  tell(p, text, w);
  size_t bytes = t->wrong.is_empty ? 0 : w->width + t->more;
  char* to = to_of(p, w, t);
  if (is_async) {
    TRY(p, model_fill(&p->model, "cudaMemsetAsync", s, w, true, t->wrong),
        cudaMemsetAsync(to, w->value, bytes, s.handle), "cudaMemsetAsync(%s, stream %d)", text,
        s.index);
  } else {
    TRY(p, model_fill(&p->model, "cudaMemset", s, w, false, t->wrong),
        cudaMemset(to, w->value, bytes), "cudaMemset(%s)", text);
  }
}

static void fill_2d(program* p, model_stream_arg s, const model_work* w, bool is_async) {
  char text[160];
  tell(p, text, w);
  char* to = pointer_of(p, &w->to);
  model_wrong none = {0};
  if (is_async) {
    TRY(p, model_fill(&p->model, "cudaMemset2DAsync", s, w, true, none),
        cudaMemset2DAsync(to, w->to.pitch, w->value, w->width, w->height, s.handle),
        "cudaMemset2DAsync(%s, stream %d)", text, s.index);
  } else {
    TRY(p, model_fill(&p->model, "cudaMemset2D", s, w, false, none),
        cudaMemset2D(to, w->to.pitch, w->value, w->width, w->height), "cudaMemset2D(%s)", text);
  }
}

static void fill_3d(program* p, model_stream_arg s, const model_work* w, bool is_async) {
  char text[160];
  tell(p, text, w);
  struct cudaPitchedPtr to = pitched(pointer_of(p, &w->to), &w->to);
  struct cudaExtent extent = {w->width, w->height, w->depth};
  model_wrong none = {0};
  if (is_async) {
    TRY(p, model_fill(&p->model, "cudaMemset3DAsync", s, w, true, none),
        cudaMemset3DAsync(to, w->value, extent, s.handle), "cudaMemset3DAsync(%s, stream %d)", text,
        s.index);
  } else {
    TRY(p, model_fill(&p->model, "cudaMemset3D", s, w, false, none),
        cudaMemset3D(to, w->value, extent), "cudaMemset3D(%s)", text);
  }
}

static void fill(program* p, model_stream_arg s, const model_work* w, bool is_async) {
  if (w->depth > 1) {
    fill_3d(p, s, w, is_async);
  } else if (w->height > 1) {
    fill_2d(p, s, w, is_async);
  } else {
    fill_1d(p, s, w, &(twist){0}, is_async);
  }
}

//===-- Functions -----------------------------------------------------------------------------===//

static void add(void* argument) {
  const program_addition* a = argument;
  for (size_t i = 0; i < a->bytes; ++i) a->memory[i] = (unsigned char)(a->memory[i] + a->number);
}

static void launch_host(program* p, model_stream_arg s, const model_work* w) {
  if (p->addition_count == PROGRAM_ADDITIONS) return;
  char text[160];
  tell(p, text, w);
  program_addition* a = &p->additions[p->addition_count++];
  unsigned char* memory = p->model.buffers[w->to.buffer].seen + w->to.offset;
  *a = (program_addition){.memory = memory, .bytes = w->width, .number = w->value};
  TRY(p, model_launch_host(&p->model, s, w, (model_wrong){0}), cudaLaunchHostFunc(s.handle, add, a),
      "cudaLaunchHostFunc(%s, stream %d)", text, s.index);
}

static const char the_kernel;
static const char no_kernel;

static size_t reach(const cudasim_launch* launch, cudasim_range* ranges) {
  ranges[0] = (cudasim_range){.pointer = *(void**)launch->arguments[0],
                              .bytes = *(size_t*)launch->arguments[1]};
  return 1;
}

static void run_kernel(const cudasim_launch* launch, dim3 block) {
  unsigned char* memory = launch->memory[0];
  size_t bytes = *(size_t*)launch->arguments[1];
  unsigned char number = *(unsigned char*)launch->arguments[2];
  for (size_t i = block.x; i < bytes; i += launch->grid.x) {
    memory[i] = (unsigned char)(memory[i] + number);
  }
}

static void register_kernel(void) {
  static bool is_registered;
  static const size_t sizes[] = {sizeof(void*), sizeof(size_t), 1};
  static const cudasim_kernel kernel = {"add", sizes, 3, reach, run_kernel};
  if (!is_registered) cudasim_register_kernel(&the_kernel, &kernel);
  is_registered = true;
}

static void launch_kernel(program* p, model_stream_arg s, const model_work* w) {
  char text[160];
  tell(p, text, w);
  register_kernel();
  void* memory = pointer_of(p, &w->to);
  size_t bytes = w->width;
  unsigned char number = w->value;
  void* arguments[] = {&memory, &bytes, &number};
  model_wrong wrong = {0};
  const void* function = &the_kernel;
  unsigned blocks = 1 + program_draw(p, 3);
  if (program_chance(p, 12)) {
    function = &no_kernel;
    wrong.early = cudaErrorInvalidDeviceFunction;
  } else if (program_chance(p, 12)) {
    blocks = 0;
    wrong.early = cudaErrorInvalidConfiguration;
  }
  TRY(p, model_launch_kernel(&p->model, s, w, wrong),
      cudaLaunchKernel(function, (dim3){blocks, 1, 1}, (dim3){32, 1, 1}, arguments, 0, s.handle),
      "cudaLaunchKernel(%s, stream %d)", text, s.index);
}

//===-- Steps ---------------------------------------------------------------------------------===//

static void do_work(program* p, model_stream_arg s, const model_work* w, bool is_async) {
  if (w->kind == WORK_COPY) {
    copy(p, s, w, is_async);
  } else if (w->kind == WORK_FILL) {
    fill(p, s, w, is_async);
  } else if (w->is_kernel) {
    launch_kernel(p, s, w);
  } else {
    launch_host(p, s, w);
  }
}

static int race_of_work(program* p, int stream, const void* of) {
  return model_race(&p->model, stream, of);
}

static model_stream_arg legacy_of(const program* p) {
  return (model_stream_arg){model_legacy(p->model.device), NULL};
}

static bool is_free(const program* p, model_stream_arg s) {
  const model_stream* found = &p->model.streams[s.index];
  return found->capture == MODEL_NONE && !p->model.devices[found->device].broken;
}

void work_step(program* p) {
  model_work w;
  if (!draw_work(p, &w)) return;
  bool is_async = w.kind == WORK_ADD || !program_chance(p, 4);
  model_stream_arg s = is_async ? pick_stream(p) : legacy_of(p);
  if (!is_free(p, s) || !make_safe(p, s, race_of_work, &w)) return;
  do_work(p, s, &w, is_async);
}

// A copy from or to what a node of a capture writes: something that edges have to order.
static bool draw_related(program* p, model_work* w) {
  const model_capture* c = &p->model.captures[program_draw(p, MODEL_CAPTURES)];
  if (!c->exists || !c->nodes.count) return false;
  const model_side* used = &c->nodes.at[program_draw(p, (unsigned)c->nodes.count)].work.to;
  int other = pick_buffer(p, NULL);
  const model_buffer* b = &p->model.buffers[used->buffer];
  if (!b->exists || b->id != used->id || other == MODEL_NONE || other == used->buffer) return false;
  bool reads = program_chance(p, 2);
  *w = (model_work){.kind = WORK_COPY,
                    .to = side_at(p, reads ? other : used->buffer),
                    .from = side_at(p, reads ? used->buffer : other)};
  draw_shape(p, w, true);
  return true;
}

void captured_work_step(program* p) {
  model_work w;
  if (program_chance(p, 3) || !draw_related(p, &w)) {
    if (!draw_work(p, &w)) return;
  }
  for (int i = 0; i < 12; ++i) {
    model_stream_arg s = pick_stream(p);
    const model_stream* found = &p->model.streams[s.index];
    if (found->capture == MODEL_NONE || model_capture_is_full(&p->model, found)) continue;
    if (model_races_in_capture(&p->model, found, &w)) continue;
    bool is_captured_kernel = w.kind == WORK_ADD && w.is_kernel;
    if (is_captured_kernel && found->device != p->model.device) continue;
    do_work(p, s, &w, true);
    return;
  }
}

//===-- Turnover ------------------------------------------------------------------------------===//

static bool is_of_pool(const model_buffer* b) { return b->memory == MEMORY_POOL; }

static void fill_window(program* p, model_stream_arg s, int buffer) {
  model_work w = {.kind = WORK_FILL, .height = 1, .depth = 1};
  w.to = (model_side){.buffer = buffer, .id = p->model.buffers[buffer].id};
  w.width = window(&p->model.buffers[buffer]);
  w.value = (unsigned char)program_draw(p, 256);
  if (make_safe(p, s, race_of_work, &w)) fill_1d(p, s, &w, &(twist){0}, true);
}

// Work, a free in one stream, and an allocation of the same size with work in another: memory that
// changes hands too early shows in the contents.
void turn_over_step(program* p) {
  int buffer = pick_buffer(p, is_of_pool);
  model_stream_arg from = pick_stream(p);
  model_stream_arg to = pick_stream(p);
  if (buffer == MODEL_NONE || !is_free(p, from) || !is_free(p, to)) return;
  int pool = p->model.buffers[buffer].pool;
  size_t size = p->model.buffers[buffer].size;
  fill_window(p, from, buffer);
  if (!p->model.pools[pool].exists || !release_in(p, buffer, from)) return;
  int new = allocate_in(p, pool, size, to);
  if (new != MODEL_NONE) fill_window(p, to, new);
}

//===-- Wrong arguments -----------------------------------------------------------------------===//

static bool is_pageable(const program* p, const model_side* s) {
  return p->model.buffers[s->buffer].memory == MEMORY_PAGEABLE;
}

static char* gone(const program* p) {
  char* gone = p->gone;
  for (int i = 0; i < MODEL_BUFFERS; ++i) {
    const model_buffer* b = &p->model.buffers[i];
    bool is_live = b->exists && gone >= b->address && gone < b->address + b->size;
    if (is_live) return NULL;
  }
  return gone;
}

// Something that the runtime refuses, or that it does nothing for.
static bool twist_copy(program* p, const model_work* w, twist* t) {
  *t = (twist){.kind = cudaMemcpyDefault, .wrong.late = cudaErrorInvalidValue};
  switch (program_draw(p, 8)) {
    case 0:
      t->has_null_to = true;
      return true;
    case 1:
      t->has_null_from = true;
      return true;
    case 2:
      t->kind = (enum cudaMemcpyKind)(5 + program_draw(p, 3));
      t->wrong.late = cudaErrorInvalidMemcpyDirection;
      return true;
    case 3:
      t->more = p->model.buffers[w->to.buffer].size;
      return !is_pageable(p, &w->to);
    case 4:
      t->to = gone(p);
      return t->to;
    case 5:
      t->from = gone(p);
      return t->from;
    case 6:
      t->kind = is_pageable(p, &w->to) ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost;
      return is_pageable(p, &w->to) || is_pageable(p, &w->from);
    default:
      t->wrong = (model_wrong){.is_empty = true};
      t->has_null_to = t->has_null_from = true;
      return true;
  }
}

static void wrong_copy(program* p, model_stream_arg s, bool is_async) {
  model_work w;
  twist t;
  if (!draw_copy(p, &w)) return;
  if (w.height > 1) {
    t = (twist){.kind = cudaMemcpyDefault, .wrong.early = cudaErrorInvalidPitchValue};
    t.less_pitch = w.to.pitch - w.width + 1;
    copy_2d(p, s, &w, &t, is_async);
  } else if (twist_copy(p, &w, &t)) {
    copy_1d(p, s, &w, &t, is_async);
  }
}

static void wrong_fill(program* p, model_stream_arg s, bool is_async) {
  model_work w;
  if (!draw_fill(p, &w)) return;
  twist t = {.wrong.late = cudaErrorInvalidValue};
  switch (program_draw(p, 4)) {
    case 0:
      t.has_null_to = true;
      break;
    case 1:
      t.more = p->model.buffers[w.to.buffer].size;
      break;
    case 2:
      t.to = gone(p);
      if (!t.to) return;
      break;
    default:
      t.wrong = (model_wrong){.is_empty = true};
  }
  fill_1d(p, s, &w, &t, is_async);
}

void wrong_work_step(program* p) {
  bool is_async = !program_chance(p, 4);
  model_stream_arg s = is_async ? pick_any_stream(p) : legacy_of(p);
  if (s.index != MODEL_NONE && p->model.streams[s.index].capture != MODEL_NONE) return;
  if (program_chance(p, 3)) {
    wrong_fill(p, s, is_async);
  } else {
    wrong_copy(p, s, is_async);
  }
}
