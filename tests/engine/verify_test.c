// The verifying allocator: silent about good allocators, and not about two broken ones.

#include "engine/verify.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdint.h>
#include <string.h>
#include <tm/tm.h>

#include "tests/engine/fixture.h"
#include "tests/support/gate.h"
#include "tests/support/machine.h"

static void small_device(void) {
  machine_configure(1, "256MiB");
  machine_require_devices(1);
}

static tm_tensor make_bytes(int64_t bytes) { return tm_empty(TM_SHAPE(bytes), TM_U8, TM_DEVICE); }

//===-- Good allocators ---------------------------------------------------===//

// Sizes at which the number of stamps changes.
static const int64_t sizes[] = {1,    64,   128,  256,  4096,  4097,  4168,
                                4169, 8192, 8264, 8265, 12345, 65536, 1 << 20};
enum { SIZES = sizeof(sizes) / sizeof(sizes[0]), ROUNDS = 3 };

static void use_memory(tm_allocator* verifying, tm_stream* stream) {
  TM_USE_STREAM(stream);
  TM_USE_ALLOCATOR(verifying);
  for (int round = 0; round < ROUNDS; round++) {
    tm_tensor tensors[SIZES];
    for (int i = 0; i < SIZES; i++) {
      tensors[i] = make_bytes(sizes[i]);
      cr_assert(tm_ok(&tensors[i]), "%s", tm_last_error()->message);
    }
    for (int i = 0; i < SIZES; i++) tm_release(&tensors[(i * 5) % SIZES]);
  }
}

static tm_allocator* make_source(activation_source source, tm_stream* stream) {
  if (source == FROM_CUDA) return tm_cuda_allocator(0);
  tm_allocator* pool = tm_cuda_pool_allocator_create(stream, NULL);
  if (source == FROM_POOL) return pool;
  tm_allocator* stack = tm_stack_allocator_create(pool, stream, NULL);
  tm_allocator_release(pool);
  return stack;
}

Test(verify, finds_nothing_in_good_allocators, .init = small_device) {
  for (int source = 0; source < ACTIVATION_SOURCES; source++) {
    verifier* v = verifier_create();
    tm_stream* stream = tm_stream_create(0, 0);
    tm_allocator* memory = make_source((activation_source)source, stream);
    tm_allocator* verifying = verify_allocator_create(v, memory, VERIFY_STAMPS);
    use_memory(verifying, stream);
    cr_assert(eq(int, tm_stream_sync(stream), TM_OK));
    cr_expect(eq(u64, verifier_findings(v), 0), "%s", verifier_first_finding(v));
    cr_expect(eq(u64, verifier_checked(v), ROUNDS * (uint64_t)SIZES));
    tm_allocator_release(verifying);
    tm_allocator_release(memory);
    tm_stream_release(stream);
    verifier_destroy(v);
  }
}

// The second stream must wait for the first one's check, or the verifier would see its own stamps.
Test(verify, finds_nothing_when_memory_moves_between_streams_in_order, .init = small_device) {
  verifier* v = verifier_create();
  tm_auto_stream first = tm_stream_create(0, 0);
  tm_auto_stream second = tm_stream_create(0, 0);
  tm_allocator* pool = tm_cuda_pool_allocator_create(first, NULL);
  tm_allocator* verifying = verify_allocator_create(v, pool, VERIFY_STAMPS);
  gate held;
  TM_WITH_ALLOCATOR(verifying) {
    for (int i = 0; i < 10; i++) {
      TM_WITH_STREAM(first) {
        tm_auto_tensor x = make_bytes(100000);
        cr_assert(tm_ok(&x));
        gate_close(&held, first);
      }
      TM_WITH_STREAM(second) {
        tm_auto_tensor y = make_bytes(100000);
        cr_expect(tm_ok(&y));
      }
      gate_open(&held);
      cr_assert(eq(int, tm_stream_sync(second), TM_OK));
    }
  }
  cr_assert(eq(int, tm_stream_sync(first), TM_OK));
  cr_expect(eq(u64, verifier_findings(v), 0), "%s", verifier_first_finding(v));
  cr_expect(eq(u64, verifier_checked(v), 20));
  tm_allocator_release(verifying);
  tm_allocator_release(pool);
  verifier_destroy(v);
}

//===-- Planted bugs ------------------------------------------------------===//

// Hands out the same memory `stride` bytes further each time, whatever is in use.
typedef struct broken_memory {
  char* base;
  size_t next;
  size_t stride;
} broken_memory;

static tm_status broken_alloc(size_t size, tm_stream* stream, void** out, void* user) {
  (void)size;
  (void)stream;
  broken_memory* m = user;
  *out = m->base + m->next;
  m->next += m->stride;
  return TM_OK;
}

static void broken_free(void* ptr, size_t size, tm_stream* stream, void* user) {
  (void)ptr;
  (void)size;
  (void)stream;
  (void)user;
}

static tm_allocator* make_broken(broken_memory* m) {
  const tm_callback_options options = {
      .name = "broken",
      .device = tm_device_make(TM_DEVICE, 0),
      .alloc = broken_alloc,
      .free = broken_free,
      .user = m,
  };
  void* base;
  cr_assert(eq(int, tm_allocator_alloc(tm_cuda_allocator(0), 4 << 20, NULL, &base), TM_OK));
  m->base = base;
  return tm_callback_allocator_create(&options);
}

Test(verify, finds_a_planted_overlap, .init = small_device) {
  verifier* v = verifier_create();
  tm_auto_stream stream = tm_stream_create(0, 0);
  broken_memory memory = {.stride = 8192};
  tm_auto_allocator broken = make_broken(&memory);
  tm_auto_allocator verifying = verify_allocator_create(v, broken, VERIFY_STAMPS);
  TM_WITH_STREAM(stream) TM_WITH_ALLOCATOR(verifying) {
    tm_auto_tensor a = make_bytes(8192);
    tm_auto_tensor b = make_bytes(8192);
    cr_assert(tm_ok(&a) && tm_ok(&b));
    cr_expect(eq(u64, verifier_findings(v), 0), "neighbours are no overlap");
    memory.next = 8192 + 4096;
    tm_auto_tensor c = make_bytes(8192);
    cr_assert(tm_ok(&c));
    cr_expect(eq(u64, verifier_findings(v), 1), "the ranges show it at once");
  }
  cr_assert(eq(int, tm_stream_sync(stream), TM_OK));
  cr_expect(eq(u64, verifier_findings(v), 2), "and so does the stamp that was written over");
  cr_expect(strstr(verifier_first_finding(v), "overlaps live block 2") != NULL, "%s",
            verifier_first_finding(v));
  verifier_destroy(v);
}

Test(verify, ranges_alone_find_an_overlap_without_touching_memory, .init = small_device) {
  verifier* v = verifier_create();
  broken_memory memory = {.stride = 4096};
  tm_auto_allocator broken = make_broken(&memory);
  tm_auto_allocator verifying = verify_allocator_create(v, broken, VERIFY_RANGES);
  TM_WITH_ALLOCATOR(verifying) {
    tm_auto_tensor a = make_bytes(4097);
    tm_auto_tensor b = make_bytes(4096);
    cr_expect(tm_ok(&a) && tm_ok(&b));
  }
  cr_expect(eq(u64, verifier_findings(v), 1));
  cr_expect(eq(u64, verifier_checked(v), 0));
  verifier_destroy(v);
}

// The first stream is held up, the second gets the memory and runs ahead: the ranges never overlap,
// the contents do.
Test(verify, finds_a_planted_premature_reuse_across_streams) {
  machine_leave_unchecked();
  small_device();
  verifier* v = verifier_create();
  tm_auto_stream first = tm_stream_create(0, 0);
  tm_auto_stream second = tm_stream_create(0, 0);
  broken_memory memory = {.stride = 0};
  tm_auto_allocator broken = make_broken(&memory);
  tm_auto_allocator verifying = verify_allocator_create(v, broken, VERIFY_STAMPS);
  gate held;
  TM_WITH_ALLOCATOR(verifying) {
    TM_WITH_STREAM(first) {
      tm_auto_tensor x = make_bytes(100000);
      cr_assert(tm_ok(&x));
      cr_assert(eq(int, tm_stream_sync(first), TM_OK));  // x has its stamps before y gets its own
      gate_close(&held, first);
    }
    TM_WITH_STREAM(second) {
      tm_auto_tensor y = make_bytes(100000);
      cr_assert(tm_ok(&y));
      cr_assert(eq(int, tm_stream_sync(second), TM_OK));
      cr_expect(eq(u64, verifier_findings(v), 0));
      gate_open(&held);
      cr_assert(eq(int, tm_stream_sync(first), TM_OK));
      cr_expect(eq(u64, verifier_findings(v), 1));
    }
  }
  cr_assert(eq(int, tm_stream_sync(second), TM_OK));
  cr_expect(eq(u64, verifier_findings(v), 1), "the second one's memory is as it left it");
  cr_expect(strstr(verifier_first_finding(v), "was written by another at byte 0") != NULL, "%s",
            verifier_first_finding(v));
  verifier_destroy(v);
}

// The 40th page is written: none of the edges shows it.
Test(verify, finds_a_write_in_the_middle, .init = small_device) {
  verifier* v = verifier_create();
  tm_auto_stream stream = tm_stream_create(0, 0);
  tm_auto_allocator verifying = verify_allocator_create(v, tm_cuda_allocator(0), VERIFY_STAMPS);
  TM_WITH_STREAM(stream) TM_WITH_ALLOCATOR(verifying) {
    tm_auto_tensor x = make_bytes(1 << 20);
    tm_auto_tensor part = tm_slice_outer(&x, 163840, 8);
    cr_assert(eq(int, tm_clear(&part), TM_OK));
  }
  cr_assert(eq(int, tm_stream_sync(stream), TM_OK));
  cr_expect(eq(u64, verifier_findings(v), 1));
  cr_expect(strstr(verifier_first_finding(v), "at byte 163840") != NULL, "%s",
            verifier_first_finding(v));
  verifier_destroy(v);
}

//===-- With the engine ---------------------------------------------------===//

Test(verify, finds_nothing_in_the_engine, .init = small_device) {
  const model_config config = tiny_model(2);
  const trace_request requests[] = {{300, 20}, {20, 30}, {100, 10}, {1, 1}};
  const request_trace trace = {.requests = (trace_request*)requests, .count = 4};
  for (int source = 0; source < ACTIVATION_SOURCES; source++) {
    verifier* v = verifier_create();
    engine_fixture f;
    cr_assert(eq(int, fixture_init(&f, &config, 0.5), TM_OK), "%s", tm_last_error()->message);
    tm_allocator* memory = make_source((activation_source)source, f.stream);
    f.activations = verify_allocator_create(v, memory, VERIFY_STAMPS);
    tm_allocator_release(memory);
    cr_assert(eq(int, engine_start(f.engine, f.activations, &trace), TM_OK));
    cr_assert(eq(int, fixture_serve(&f), TM_OK), "%s", tm_last_error()->message);
    const uint64_t tensors = engine_get_counts(f.engine).tensors;
    fixture_deinit(&f);
    cr_assert(eq(int, tm_device_sync(0), TM_OK));
    cr_expect(eq(u64, verifier_findings(v), 0), "%s", verifier_first_finding(v));
    cr_expect(verifier_checked(v) > tensors, "every tensor, the warm-up's included");
    verifier_destroy(v);
  }
}
