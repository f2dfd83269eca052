// The operations an engine does thousands of times per step, one at a time, for counting their
// instructions (instructions.sh) or a quick look at their time:
//
//   hot_paths OPERATION COUNT
//
// Beside ours stand two yardsticks, out of line like a library's: a push and pop of a thread-local
// stack, and a tensor that fills its shape and bumps an array.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <tm/tm.h>

#define NOINLINE __attribute__((noinline))

// Keeps the compiler from seeing through what was just done.
static inline void clobber(const void* p) { __asm__ volatile("" : : "r"(p) : "memory"); }

static tm_allocator* stack;
static tm_allocator* other;

//===-- Yardsticks --------------------------------------------------------===//

static __thread struct {
  void* slot[64];
  int depth;
  void* top;
} pushed;

NOINLINE static void yardstick_push(void* value) {
  pushed.slot[pushed.depth++] = value;
  pushed.top = value;
  clobber(&pushed);
}

NOINLINE static void yardstick_pop(void) {
  pushed.depth--;
  pushed.top = pushed.slot[pushed.depth];
  clobber(&pushed);
}

NOINLINE static void push_pop(void) {
  yardstick_push(stack);
  yardstick_pop();
}

typedef struct ideal_tensor {
  void* data;
  int64_t shape[TM_MAX_RANK];
  int64_t stride[TM_MAX_RANK];
  int rank;
} ideal_tensor;

static char region[1 << 20];
static __thread size_t bumped;

NOINLINE static bool ideal_make(ideal_tensor* tensor, const int64_t* shape, int rank, size_t bits) {
  int64_t size = 1;
  tensor->rank = rank;
  for (int i = rank - 1; i >= 0; i--) {
    tensor->shape[i] = shape[i];
    tensor->stride[i] = size;
    if (__builtin_mul_overflow(size, shape[i], &size)) return false;
  }
  size_t bytes;
  if (__builtin_mul_overflow((size_t)size, bits / 8, &bytes)) return false;
  bytes = (bytes + 255) & ~(size_t)255;
  if (bytes > sizeof region - bumped) return false;
  tensor->data = region + bumped;
  bumped += bytes;
  return true;
}

NOINLINE static void ideal_free(const ideal_tensor* tensor) {
  bumped = (size_t)((char*)tensor->data - region);
}

NOINLINE static void ideal_rows(int64_t rows, int64_t columns) {
  const int64_t shape[] = {rows, columns};
  ideal_tensor tensor;
  if (ideal_make(&tensor, shape, 2, 16)) ideal_free(&tensor);
}

static void ideal(void) { ideal_rows(16, 128); }

static void nothing(void) { clobber(NULL); }

//===-- Ours --------------------------------------------------------------===//

NOINLINE static void scope(void) { TM_WITH_ALLOCATOR(stack) clobber(NULL); }

NOINLINE static void two_scopes(void) {
  TM_WITH_ALLOCATOR(stack) TM_WITH_ALLOCATOR(tm_host_allocator()) clobber(NULL);
}

NOINLINE static void guard_of_two(void) {
  TM_USE_ALLOCATOR(stack);
  TM_USE_ALLOCATOR(other);
  clobber(NULL);
}

NOINLINE static void named_scope(void) { TM_WITH_SCOPE("layer") clobber(NULL); }

NOINLINE static void lookup(void) { clobber(tm_current_allocator(TM_CPU)); }

NOINLINE static void tensor_of(int64_t rows, int64_t columns) {
  tm_auto_tensor tensor = tm_empty(TM_SHAPE(rows, columns), TM_F16, TM_CPU);
  clobber(&tensor);
}

static void stack_tensor(void) { tensor_of(16, 128); }

NOINLINE static tm_status checked_of(int64_t rows, int64_t columns) {
  TM_TRY_TENSOR(tensor, tm_empty(TM_SHAPE(rows, columns), TM_F16, TM_CPU));
  clobber(&tensor);
  return TM_OK;
}

static void checked_tensor(void) { (void)!checked_of(16, 128); }

NOINLINE static void sliced(const tm_tensor* tensor) {
  tm_auto_tensor part = tm_slice_outer(tensor, 4, 8);
  clobber(&part);
}

static tm_tensor whole;

static void slice(void) { sliced(&whole); }

NOINLINE static void ten_of(int64_t rows, int64_t columns) {
  tm_tensor tensors[10];
  for (int i = 0; i < 10; i++) {
    tensors[i] = tm_empty(TM_SHAPE(rows, columns), TM_F16, TM_CPU);
  }
  clobber(tensors);
  for (int i = 9; i >= 0; i--) {
    tm_release(&tensors[i]);
  }
}

static void ten_stack_tensors(void) { ten_of(16, 128); }

//===-- The program -------------------------------------------------------===//

typedef struct operation {
  const char* name;
  void (*run)(void);
} operation;

static const operation operations[] = {
    {"nothing", nothing},
    {"push_pop", push_pop},
    {"ideal_tensor", ideal},
    {"scope", scope},
    {"two_scopes", two_scopes},
    {"guard_of_two", guard_of_two},
    {"named_scope", named_scope},
    {"lookup", lookup},
    {"stack_tensor", stack_tensor},
    {"ten_stack_tensors", ten_stack_tensors},
    {"slice", slice},
    {"checked_tensor", checked_tensor},
};

static const operation* find_operation(const char* name) {
  for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++) {
    if (strcmp(operations[i].name, name) == 0) {
      return &operations[i];
    }
  }
  return NULL;
}

static double run(const operation* chosen, long count) {
  struct timespec before;
  struct timespec after;
  clock_gettime(CLOCK_MONOTONIC, &before);
  for (long i = 0; i < count; i++) {
    chosen->run();
  }
  clock_gettime(CLOCK_MONOTONIC, &after);
  return (double)(after.tv_sec - before.tv_sec) * 1e9 + (double)(after.tv_nsec - before.tv_nsec);
}

int main(int argc, char** argv) {
  const operation* chosen = argc == 3 ? find_operation(argv[1]) : NULL;
  const long count = argc == 3 ? strtol(argv[2], NULL, 10) : 0;
  if (!chosen || count <= 0) {
    fprintf(stderr, "usage: hot_paths OPERATION COUNT\n");
    return 2;
  }
  stack = tm_stack_allocator_create(tm_host_allocator(), NULL, NULL);
  if (!stack || tm_stack_reserve(stack, 1 << 20) != TM_OK) {
    fprintf(stderr, "hot_paths: %s\n", tm_last_error()->message);
    return 1;
  }
  other = tm_host_allocator();
  TM_WITH_ALLOCATOR(stack) {
    ten_stack_tensors();  // the arena learns what it needs
    whole = tm_empty(TM_SHAPE(16, 128), TM_F16, TM_CPU);
    printf("%s: %.1f ns\n", chosen->name, run(chosen, count) / (double)count);
  }
  tm_release(&whole);
  tm_allocator_release(stack);
  return 0;
}
