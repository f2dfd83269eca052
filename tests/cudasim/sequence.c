#include "tests/cudasim/sequence.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cudasim.h"

#define BUFFERS 12
#define BYTES 3000

typedef struct buffer {
  bool is_stream_ordered;
  unsigned char* memory;
  unsigned char model[BYTES];
  int writer;                              // stream of the last write
  bool is_touched[SEQUENCE_STREAMS];       // streams that used it since, that one included
  cudaEvent_t last_use[SEQUENCE_STREAMS];  // recorded after each use
} buffer;

// Host memory on one side of one copy.
typedef struct slot {
  unsigned char* memory;  // page-locked
  unsigned char model[BYTES];
  bool is_checked;
} slot;

// What a host function does: adds a number to each byte.
typedef struct addition {
  unsigned char* memory;  // of the device, where the host sees it
  size_t bytes;
  unsigned char number;
} addition;

typedef struct sequence {
  unsigned seed;
  unsigned random;
  sequence_options options;
  cudaStream_t streams[SEQUENCE_STREAMS];
  int stream_devices[SEQUENCE_STREAMS];
  buffer buffers[BUFFERS];
  slot slots[SEQUENCE_STEPS];
  int slot_count;
  addition additions[SEQUENCE_STEPS];
  int addition_count;
} sequence;

#define MUST(s, call)                                                                   \
  do {                                                                                  \
    cudaError_t error_ = (call);                                                        \
    if (error_ != cudaSuccess) {                                                        \
      fprintf(stderr, "seed %u: %s: %s\n", (s)->seed, #call, cudaGetErrorName(error_)); \
      abort();                                                                          \
    }                                                                                   \
  } while (0)

static unsigned draw(sequence* s, unsigned below) {
  s->random = s->random * 1664525u + 1013904223u;
  return (unsigned)((uint64_t)(s->random >> 4) * below >> 28);
}

//===-- Order ---------------------------------------------------------------------------------===//

static void use_device(sequence* s, int device) { MUST(s, cudaSetDevice(device)); }

static void wait_for(sequence* s, const buffer* b, int user, int stream) {
  if (user == stream || !b->is_touched[user]) return;
  MUST(s, cudaStreamWaitEvent(s->streams[stream], b->last_use[user], 0));
}

static void begin_read(sequence* s, const buffer* b, int stream) {
  wait_for(s, b, b->writer, stream);
}

static void begin_write(sequence* s, const buffer* b, int stream) {
  for (int user = 0; user < s->options.streams; ++user) wait_for(s, b, user, stream);
}

static void end_read(sequence* s, buffer* b, int stream) {
  MUST(s, cudaEventRecord(b->last_use[stream], s->streams[stream]));
  b->is_touched[stream] = true;
}

static void end_write(sequence* s, buffer* b, int stream) {
  memset(b->is_touched, 0, sizeof(b->is_touched));
  end_read(s, b, stream);
  b->writer = stream;
}

//===-- Steps ---------------------------------------------------------------------------------===//

typedef struct range {
  size_t offset;
  size_t bytes;
} range;

static range draw_range(sequence* s) {
  range r = {.offset = draw(s, BYTES)};
  r.bytes = 1 + draw(s, (unsigned)(BYTES - r.offset));
  return r;
}

static void fill(sequence* s, buffer* b, int stream) {
  range r = draw_range(s);
  int value = (int)draw(s, 256);
  begin_write(s, b, stream);
  MUST(s, cudaMemsetAsync(b->memory + r.offset, value, r.bytes, s->streams[stream]));
  end_write(s, b, stream);
  memset(b->model + r.offset, value, r.bytes);
}

static void fill_2d(sequence* s, buffer* b, int stream) {
  size_t pitch = 10 + draw(s, 90);
  size_t width = 1 + draw(s, (unsigned)pitch);
  size_t rows = 1 + draw(s, (unsigned)(BYTES / pitch));
  int value = (int)draw(s, 256);
  begin_write(s, b, stream);
  MUST(s, cudaMemset2DAsync(b->memory, pitch, value, width, rows, s->streams[stream]));
  end_write(s, b, stream);
  for (size_t y = 0; y < rows; ++y) memset(b->model + y * pitch, value, width);
}

static void copy(sequence* s, buffer* to, buffer* from, int stream) {
  if (to == from) return;
  range r = draw_range(s);
  begin_write(s, to, stream);
  begin_read(s, from, stream);
  MUST(s, cudaMemcpyAsync(to->memory + r.offset, from->memory + r.offset, r.bytes,
                          cudaMemcpyDefault, s->streams[stream]));
  end_read(s, from, stream);
  end_write(s, to, stream);
  memcpy(to->model + r.offset, from->model + r.offset, r.bytes);
}

static slot* new_slot(sequence* s) {
  slot* new = &s->slots[s->slot_count++];
  void* memory;
  MUST(s, cudaHostAlloc(&memory, BYTES, cudaHostAllocDefault));
  new->memory = memory;
  for (int i = 0; i < BYTES; ++i) new->memory[i] = (unsigned char)draw(s, 256);
  memcpy(new->model, new->memory, BYTES);
  return new;
}

static void upload_pinned(sequence* s, buffer* b, int stream) {
  range r = draw_range(s);
  const slot* from = new_slot(s);
  begin_write(s, b, stream);
  MUST(s, cudaMemcpyAsync(b->memory + r.offset, from->memory, r.bytes, cudaMemcpyHostToDevice,
                          s->streams[stream]));
  end_write(s, b, stream);
  memcpy(b->model + r.offset, from->memory, r.bytes);
}

static void upload_pageable(sequence* s, buffer* b, int stream) {
  range r = draw_range(s);
  unsigned char from[BYTES];
  for (int i = 0; i < BYTES; ++i) from[i] = (unsigned char)draw(s, 256);
  memcpy(b->model + r.offset, from, r.bytes);
  begin_write(s, b, stream);
  MUST(s, cudaMemcpyAsync(b->memory + r.offset, from, r.bytes, cudaMemcpyHostToDevice,
                          s->streams[stream]));
  memset(from, 0, sizeof(from));
  end_write(s, b, stream);
}

static void download(sequence* s, buffer* b, int stream) {
  range r = draw_range(s);
  slot* to = new_slot(s);
  to->is_checked = true;
  begin_read(s, b, stream);
  MUST(s, cudaMemcpyAsync(to->memory, b->memory + r.offset, r.bytes, cudaMemcpyDeviceToHost,
                          s->streams[stream]));
  end_read(s, b, stream);
  memcpy(to->model, b->model + r.offset, r.bytes);
}

static void add_on_device(void* argument) {
  const addition* a = argument;
  for (size_t i = 0; i < a->bytes; ++i) a->memory[i] = (unsigned char)(a->memory[i] + a->number);
}

static void add(sequence* s, buffer* b, int stream) {
  range r = draw_range(s);
  addition* a = &s->additions[s->addition_count++];
  *a = (addition){.memory = cudasim_device_memory(b->memory + r.offset, r.bytes),
                  .bytes = r.bytes,
                  .number = (unsigned char)draw(s, 256)};
  begin_write(s, b, stream);
  MUST(s, cudaLaunchHostFunc(s->streams[stream], add_on_device, a));
  end_write(s, b, stream);
  for (size_t i = 0; i < r.bytes; ++i) {
    b->model[r.offset + i] = (unsigned char)(b->model[r.offset + i] + a->number);
  }
}

static void allocate(sequence* s, buffer* b, int stream, bool is_stream_ordered) {
  void* memory;
  if (is_stream_ordered) {
    MUST(s, cudaMallocAsync(&memory, BYTES, s->streams[stream]));
  } else {
    MUST(s, cudaMalloc(&memory, BYTES));
  }
  b->memory = memory;
  b->is_stream_ordered = is_stream_ordered;
  memset(b->is_touched, 0, sizeof(b->is_touched));
  MUST(s, cudaMemsetAsync(memory, 0x11, BYTES, s->streams[stream]));
  memset(b->model, 0x11, BYTES);
  end_write(s, b, stream);
}

static void release(sequence* s, buffer* b, int stream) {
  if (b->is_stream_ordered && draw(s, 4)) {
    begin_write(s, b, stream);
    MUST(s, cudaFreeAsync(b->memory, s->streams[stream]));
    return;
  }
  for (int user = 0; user < s->options.streams; ++user) {
    if (b->is_touched[user]) MUST(s, cudaEventSynchronize(b->last_use[user]));
  }
  MUST(s, cudaFree(b->memory));
}

static void reallocate(sequence* s, buffer* b, int stream) {
  release(s, b, stream);
  allocate(s, b, stream, draw(s, 3));
}

static void synchronize(sequence* s, const buffer* b, int stream) {
  switch (draw(s, 4)) {
    case 0:
      MUST(s, cudaStreamSynchronize(s->streams[stream]));
      break;
    case 1:
      MUST(s, cudaEventSynchronize(b->last_use[b->writer]));
      break;
    case 2:
      MUST(s, cudaDeviceSynchronize());
      break;
    default:
      (void)cudaStreamQuery(s->streams[stream]);
  }
}

static void step(sequence* s) {
  int stream = (int)draw(s, (unsigned)s->options.streams);
  buffer* b = &s->buffers[draw(s, BUFFERS)];
  buffer* other = &s->buffers[draw(s, BUFFERS)];
  use_device(s, s->stream_devices[stream]);
  switch (draw(s, 12)) {
    case 0:
      fill(s, b, stream);
      break;
    case 1:
      fill_2d(s, b, stream);
      break;
    case 2:
      upload_pinned(s, b, stream);
      break;
    case 3:
      upload_pageable(s, b, stream);
      break;
    case 4:
      download(s, b, stream);
      break;
    case 5:
      add(s, b, stream);
      break;
    case 6:
      reallocate(s, b, stream);
      break;
    case 7:
      synchronize(s, b, stream);
      break;
    default:
      copy(s, b, other, stream);
      break;
  }
}

//===-- Beginning and end ---------------------------------------------------------------------===//

static void make_streams(sequence* s) {
  for (int i = 0; i < s->options.streams; ++i) {
    s->stream_devices[i] = (int)draw(s, (unsigned)s->options.devices);
    use_device(s, s->stream_devices[i]);
    unsigned kind = draw(s, 8);
    if (kind == 0) {
      s->streams[i] = cudaStreamPerThread;
    } else if (kind == 1) {
      s->streams[i] = cudaStreamLegacy;
    } else {
      unsigned flags = kind < 5 ? cudaStreamNonBlocking : cudaStreamDefault;
      MUST(s, cudaStreamCreateWithPriority(&s->streams[i], flags, -(int)draw(s, 6)));
    }
    for (int k = 0; k < BUFFERS; ++k) {
      unsigned timing = draw(s, 4) ? cudaEventDisableTiming : cudaEventDefault;
      MUST(s, cudaEventCreateWithFlags(&s->buffers[k].last_use[i], timing));
    }
  }
}

static void make_buffers(sequence* s) {
  for (int i = 0; i < BUFFERS; ++i) {
    int stream = (int)draw(s, (unsigned)s->options.streams);
    use_device(s, s->stream_devices[stream]);
    allocate(s, &s->buffers[i], stream, draw(s, 2));
  }
}

static void wait_for_all(sequence* s) {
  for (int device = 0; device < s->options.devices; ++device) {
    use_device(s, device);
    MUST(s, cudaDeviceSynchronize());
  }
}

static bool is_equal(const sequence* s, const char* what, int index, const unsigned char* found,
                     const unsigned char* expected) {
  for (int i = 0; i < BYTES; ++i) {
    if (found[i] == expected[i]) continue;
    fprintf(stderr, "seed %u: %s %d: byte %d is %d, not %d\n", s->seed, what, index, i, found[i],
            expected[i]);
    return false;
  }
  return true;
}

static bool is_as_modelled(sequence* s) {
  bool is_good = true;
  for (int i = 0; i < s->slot_count; ++i) {
    const slot* checked = &s->slots[i];
    is_good &= is_equal(s, checked->is_checked ? "download" : "upload", i, checked->memory,
                        checked->model);
  }
  for (int i = 0; i < BUFFERS; ++i) {
    unsigned char found[BYTES];
    MUST(s, cudaMemcpy(found, s->buffers[i].memory, BYTES, cudaMemcpyDeviceToHost));
    is_good &= is_equal(s, "buffer", i, found, s->buffers[i].model);
  }
  return is_good;
}

static void take_down(sequence* s) {
  for (int i = 0; i < BUFFERS; ++i) {
    MUST(s, cudaFree(s->buffers[i].memory));
    for (int k = 0; k < s->options.streams; ++k) {
      MUST(s, cudaEventDestroy(s->buffers[i].last_use[k]));
    }
  }
  for (int i = 0; i < s->slot_count; ++i) MUST(s, cudaFreeHost(s->slots[i].memory));
  for (int i = 0; i < s->options.streams; ++i) {
    bool is_made = s->streams[i] != cudaStreamPerThread && s->streams[i] != cudaStreamLegacy;
    if (is_made) MUST(s, cudaStreamDestroy(s->streams[i]));
  }
}

bool run_sequence(unsigned seed, const sequence_options* options) {
  sequence* s = calloc(1, sizeof(*s));
  if (!s) return false;
  s->seed = seed;
  s->random = seed * 2654435761u + 1;
  s->options = *options;
  make_streams(s);
  make_buffers(s);
  for (int i = 0; i < options->steps; ++i) step(s);
  wait_for_all(s);
  bool is_good = is_as_modelled(s);
  take_down(s);
  free(s);
  return is_good;
}
