// What memory costs the host, on cudasim or a GPU: an allocation and its free, small copies in a
// batch and one by one, and the tensors of a step.
//
//   ./bazelw run -c opt --config=cuda //tests/bench:device_costs
//
// Compare the rows of one run: the times are of this machine. The copies are checked: "right" or
// "WRONG", and then the exit status is 1.

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "alloc/cuda_runtime.h"
#include "tm/tm.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

static tm_stream* stream;

static double now(void) {  // ns
  struct timespec t;
  (void)clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int ascending(const void* a, const void* b) {
  const double x = *(const double*)a;
  const double y = *(const double*)b;
  return (x > y) - (x < y);
}

enum { SAMPLES = 7 };

static double median(double samples[SAMPLES]) {
  qsort(samples, SAMPLES, sizeof *samples, ascending);
  return samples[SAMPLES / 2];
}

//===-- What is compared --------------------------------------------------===//

// The runtime's own calls, or an allocator of ours.
typedef struct contender {
  const char* name;
  tm_status (*take)(const struct contender* self, size_t size, void** out);
  tm_status (*give)(const struct contender* self, void* block, size_t size);
  cudaMemPool_t pool;
  tm_allocator* allocator;
} contender;

static tm_status malloc_block(const contender* self, size_t size, void** out) {
  (void)self;
  TM_TRY_CUDA(cudaMalloc(out, size));
  return TM_OK;
}

static tm_status free_block(const contender* self, void* block, size_t size) {
  (void)self;
  (void)size;
  TM_TRY_CUDA(cudaFree(block));
  return TM_OK;
}

static tm_status malloc_async(const contender* self, size_t size, void** out) {
  TM_TRY_CUDA(cudaMallocFromPoolAsync(out, size, self->pool, tm_stream_handle(stream)));
  return TM_OK;
}

static tm_status free_async(const contender* self, void* block, size_t size) {
  (void)self;
  (void)size;
  TM_TRY_CUDA(cudaFreeAsync(block, tm_stream_handle(stream)));
  return TM_OK;
}

static tm_status take_block(const contender* self, size_t size, void** out) {
  return tm_allocator_alloc(self->allocator, size, stream, out);
}

static tm_status give_block(const contender* self, void* block, size_t size) {
  tm_allocator_free(self->allocator, block, size, stream);
  return TM_OK;
}

enum { RAW = 3, OURS = 4, CONTENDERS = RAW + OURS };

static contender contenders[CONTENDERS] = {
    {"cudaMalloc", malloc_block, free_block, NULL, NULL},
    {"cudaMallocAsync, default pool", malloc_async, free_async, NULL, NULL},
    {"cudaMallocAsync, own pool", malloc_async, free_async, NULL, NULL},
    {"cuda", take_block, give_block, NULL, NULL},
    {"pool", take_block, give_block, NULL, NULL},
    {"cached(cuda)", take_block, give_block, NULL, NULL},
    {"stack(pool)", take_block, give_block, NULL, NULL},
};

// An own pool keeps what it has, as ours does.
static tm_status make_pools(void) {
  struct cudaMemPoolProps properties;
  memset(&properties, 0, sizeof properties);
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  uint64_t threshold = UINT64_MAX;
  TM_TRY_CUDA(cudaDeviceGetDefaultMemPool(&contenders[1].pool, 0));
  TM_TRY_CUDA(cudaMemPoolCreate(&contenders[2].pool, &properties));
  TM_TRY_CUDA(
      cudaMemPoolSetAttribute(contenders[2].pool, cudaMemPoolAttrReleaseThreshold, &threshold));
  return TM_OK;
}

static tm_status make_contenders(void) {
  TM_TRY(make_pools());
  tm_allocator* pool = tm_cuda_pool_allocator_create(stream, NULL);
  contenders[RAW].allocator = tm_cuda_allocator(0);
  contenders[RAW + 1].allocator = pool;
  contenders[RAW + 2].allocator = tm_cached_allocator_create(tm_cuda_allocator(0), stream, NULL);
  contenders[RAW + 3].allocator = pool ? tm_stack_allocator_create(pool, NULL, NULL) : NULL;
  for (int i = RAW; i < CONTENDERS; i++) {
    if (!contenders[i].allocator) return tm_last_status();
  }
  return TM_OK;
}

static void release_contenders(void) {
  for (int i = CONTENDERS - 1; i > RAW; i--) {
    tm_allocator_release(contenders[i].allocator);
  }
  if (contenders[2].pool) (void)cudaMemPoolDestroy(contenders[2].pool);
}

//===-- Allocations -------------------------------------------------------===//

enum { MOST_LIVE = 8 };

// Blocks that are taken one after the other and given back in reverse.
typedef struct workload {
  const char* name;
  int count;
  size_t sizes[MOST_LIVE];
} workload;

static const workload workloads[] = {
    {"4 KiB", 1, {4 * KIB}},
    {"1 MiB", 1, {MIB}},
    {"64 MiB", 1, {64 * MIB}},
    {"8 of 4 KiB to 64 MiB",
     8,
     {4 * KIB, 12 * KIB, 64 * KIB, 300 * KIB, MIB, 4 * MIB, 16 * MIB, 64 * MIB}},
};

enum { WORKLOADS = sizeof workloads / sizeof *workloads };

static tm_status run_once(const contender* c, const workload* w) {
  void* blocks[MOST_LIVE] = {NULL};
  int taken = 0;
  tm_status status = TM_OK;
  while (status == TM_OK && taken < w->count) {
    status = c->take(c, w->sizes[taken], &blocks[taken]);
    taken += status == TM_OK;
  }
  while (taken-- > 0) {
    const tm_status given = c->give(c, blocks[taken], w->sizes[taken]);
    status = status == TM_OK ? given : status;
  }
  return status;
}

// Nanoseconds of the host for an allocation and its free. What is queued is waited for between the
// samples, not in them.
static tm_status measure(const contender* c, const workload* w, double* out) {
  enum { ONCE_AT_LEAST = 20 };
  const double shortest = 5e6;  // ns
  double samples[SAMPLES];
  *out = 0;
  for (int i = -1; i < SAMPLES; i++) {  // the first is for warming up
    const double start = now();
    int runs = 0;
    while (runs < ONCE_AT_LEAST || (now() - start < shortest && runs < 2000)) {
      TM_TRY(run_once(c, w));
      runs++;
    }
    if (i >= 0) samples[i] = (now() - start) / runs / w->count;
    TM_TRY(tm_stream_sync(stream));
  }
  *out = median(samples);
  return TM_OK;
}

static tm_status compare_allocations(void) {
  double base[WORKLOADS] = {0};
  printf("%-30s", "ns per allocation and free");
  for (int w = 0; w < WORKLOADS; w++) printf(" %22s", workloads[w].name);
  printf("\n");
  for (int c = 0; c < CONTENDERS; c++) {
    printf("%-30s", contenders[c].name);
    for (int w = 0; w < WORKLOADS; w++) {
      double ns = 0;
      TM_TRY(measure(&contenders[c], &workloads[w], &ns));
      if (c == 0) base[w] = ns;
      printf(" %12.0f %8.4fx", ns, ns / base[w]);
    }
    printf("\n");
    if (contenders[c].allocator) TM_TRY(tm_allocator_trim(contenders[c].allocator, 0));
  }
  return TM_OK;
}

//===-- Small copies ------------------------------------------------------===//

enum { PIECES = 1000 };

// PIECES pieces of one size, to places in another order, so that no two become one.
typedef struct pieces {
  tm_buffer source;
  tm_buffer destination;
  tm_buffer from[PIECES];
  tm_buffer to[PIECES];
  tm_batch_copy* batch;
} pieces;

static int64_t place_of(int64_t i) { return i * 7 % PIECES; }  // 7 and PIECES have no divisor

static tm_status make_pieces(pieces* p, tm_device_type from, int64_t size) {
  p->batch = tm_batch_copy_create();
  if (!p->batch) return tm_last_status();
  p->source = tm_buffer_empty(PIECES * size, TM_U8, from);
  p->destination = tm_buffer_empty(PIECES * size, TM_U8, TM_DEVICE);
  for (int64_t i = 0; i < PIECES; i++) {
    p->from[i] = tm_buffer_slice(&p->source, i * size, size);
    p->to[i] = tm_buffer_slice(&p->destination, place_of(i) * size, size);
    if (!tm_buffer_ok(&p->from[i]) || !tm_buffer_ok(&p->to[i])) return tm_last_status();
    TM_TRY(tm_buffer_fill_bytes(&p->from[i], (uint8_t)(i % 251)));
  }
  return tm_stream_sync(stream);
}

static void release_pieces(pieces* p) {
  for (int i = 0; i < PIECES; i++) {
    tm_buffer_release(&p->from[i]);
    tm_buffer_release(&p->to[i]);
  }
  tm_buffer_release(&p->source);
  tm_buffer_release(&p->destination);
  tm_batch_copy_release(p->batch);
}

static tm_status by_runtime(pieces* p) {
  for (int i = 0; i < PIECES; i++) {
    TM_TRY_CUDA(cudaMemcpyAsync(p->to[i].data, p->from[i].data, (size_t)p->from[i].size,
                                cudaMemcpyDefault, tm_stream_handle(stream)));
  }
  return TM_OK;
}

static tm_status by_copies(pieces* p) {
  for (int i = 0; i < PIECES; i++) {
    TM_TRY(tm_buffer_copy(&p->from[i], &p->to[i]));
  }
  return TM_OK;
}

static tm_status by_batch(pieces* p) {
  for (int i = 0; i < PIECES; i++) {
    TM_TRY(tm_batch_copy_add_buffer(p->batch, &p->from[i], &p->to[i]));
  }
  return tm_batch_copy_run(p->batch);
}

static tm_status check_pieces(const pieces* p, int64_t size, bool* is_right) {
  *is_right = false;
  TM_TRY_BUFFER(image, tm_buffer_empty(PIECES * size, TM_U8, TM_CPU));
  TM_TRY(tm_buffer_copy(&p->destination, &image));
  TM_TRY(tm_stream_sync(stream));
  *is_right = true;
  for (int64_t i = 0; i < PIECES; i++) {
    const uint8_t* piece = (const uint8_t*)image.data + place_of(i) * size;
    for (int64_t n = 0; n < size; n++) *is_right &= piece[n] == i % 251;
  }
  return TM_OK;
}

typedef struct way {
  const char* name;
  tm_status (*run)(pieces* p);
} way;

static const way ways[] = {
    {"cudaMemcpyAsync", by_runtime}, {"tm_buffer_copy", by_copies}, {"tm_batch_copy", by_batch}};

// Microseconds until all is queued, and until all is done.
static tm_status time_way(const way* w, pieces* p, double* queued, double* done) {
  double queue_samples[SAMPLES];
  double done_samples[SAMPLES];
  *queued = *done = 0;
  for (int i = -1; i < SAMPLES; i++) {
    const double start = now();
    TM_TRY(w->run(p));
    const double middle = now();
    TM_TRY(tm_stream_sync(stream));
    if (i < 0) continue;
    queue_samples[i] = (middle - start) / 1000;
    done_samples[i] = (now() - start) / 1000;
  }
  *queued = median(queue_samples);
  *done = median(done_samples);
  return TM_OK;
}

static tm_status compare_ways(pieces* p, const char* name, int64_t size, bool* all_right) {
  double base_queued = 0;
  double base_done = 0;
  for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
    double queued = 0;
    double done = 0;
    bool is_right = false;
    TM_TRY(tm_buffer_clear(&p->destination));
    TM_TRY(time_way(&ways[i], p, &queued, &done));
    TM_TRY(check_pieces(p, size, &is_right));
    if (i == 0) {
      base_queued = queued;
      base_done = done;
    }
    *all_right &= is_right;
    printf("%-16s %7lld B  %-16s %9.1f %7.3fx %9.1f %7.3fx  %s\n", name, (long long)size,
           ways[i].name, queued, queued / base_queued, done, done / base_done,
           is_right ? "right" : "WRONG");
  }
  return TM_OK;
}

static tm_status compare_copies(bool* all_right) {
  static const struct {
    const char* name;
    tm_device_type type;
  } sources[] = {{"device to device", TM_DEVICE}, {"pinned to device", TM_CPU_PINNED}};
  static const int64_t sizes[] = {256, 4096, 65536};
  static pieces p;
  TM_USE_ALLOCATOR(tm_pinned_allocator());
  TM_USE_ALLOCATOR(contenders[RAW].allocator);
  printf("\n%d pieces, us until %14s %17s %17s\n", PIECES, "", "queued", "done");
  for (size_t s = 0; s < sizeof sources / sizeof *sources; s++) {
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
      p = (pieces){.batch = NULL};
      tm_status status = make_pieces(&p, sources[s].type, sizes[i]);
      if (status == TM_OK) status = compare_ways(&p, sources[s].name, sizes[i], all_right);
      (void)!tm_stream_sync(stream);
      release_pieces(&p);
      TM_TRY(status);
    }
  }
  return TM_OK;
}

//===-- Tensors -----------------------------------------------------------===//

enum { LAYERS = 32, TENSORS = 12, TOKENS = 64 };

// Activations of a layer of a decoder of 4096 channels; all are live together at its end.
static tm_status run_layer(int64_t tokens) {
  static const int64_t widths[TENSORS] = {4096, 6144, 4096, 1024,  1024,  4096,
                                          4096, 4096, 4096, 14336, 14336, 4096};
  tm_tensor tensors[TENSORS];
  int made = 0;
  while (made < TENSORS) {
    tensors[made] = tm_empty(TM_SHAPE(tokens, widths[made]), TM_F16, TM_DEVICE);
    if (!tm_ok(&tensors[made])) break;
    made++;
  }
  const tm_status status = made == TENSORS ? TM_OK : tm_last_status();
  while (made-- > 0) tm_release(&tensors[made]);
  return status;
}

static tm_status run_step(tm_allocator* allocator) {
  TM_USE_ALLOCATOR(allocator);
  for (int i = 0; i < LAYERS; i++) {
    TM_SCOPE("layer");
    TM_TRY(run_layer(TOKENS));
  }
  return TM_OK;
}

static tm_status compare_steps(void) {
  double base = 0;
  printf("\n%d tensors a step %13s %10s\n", LAYERS * TENSORS, "us a step", "ns each");
  for (int c = RAW; c < CONTENDERS; c++) {
    double samples[SAMPLES];
    for (int i = -1; i < SAMPLES; i++) {
      enum { STEPS = 5 };
      const double start = now();
      for (int n = 0; n < STEPS; n++) TM_TRY(run_step(contenders[c].allocator));
      if (i >= 0) samples[i] = (now() - start) / STEPS;
      TM_TRY(tm_stream_sync(stream));
    }
    const double ns = median(samples);
    if (c == RAW) base = ns;
    printf("%-16s %14.1f %10.1f %8.4fx\n", contenders[c].name, ns / 1000, ns / (LAYERS * TENSORS),
           ns / base);
    TM_TRY(tm_allocator_trim(contenders[c].allocator, 0));
  }
  return TM_OK;
}

static tm_status compare_all(bool* all_right) {
  TM_USE_STREAM(stream);
  TM_TRY(make_contenders());
  TM_TRY(compare_allocations());
  TM_TRY(compare_copies(all_right));
  return compare_steps();
}

int main(void) {
  bool all_right = true;
  stream = tm_stream_create(0, 0);
  tm_status status = stream ? compare_all(&all_right) : tm_last_status();
  if (status != TM_OK) fprintf(stderr, "%s\n", tm_last_error()->message);
  release_contenders();
  tm_stream_release(stream);
  return status != TM_OK || !all_right;
}
