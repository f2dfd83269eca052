#include "cudasim/fault.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include "cudasim/include/cudasim.h"

typedef struct order {
  cudaError_t error;  // cudaSuccess: no order
  uint64_t ahead;     // calls that still succeed
  uint64_t count;     // calls that then fail; 0 stands for all
} order;

atomic_bool sim_faults_armed;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static order orders[CALL_COUNT];

static const char* const names[] = {
#define NAME_(function) #function,
    CUDASIM_CALLS(NAME_)
#undef NAME_
};

const char* sim_call_name(call_id id) { return names[id]; }

static int find(const char* function) {
  for (int i = 0; i < CALL_COUNT; ++i) {
    if (strcmp(names[i], function) == 0) return i;
  }
  return -1;
}

static void note_armed(void) {
  bool armed = false;
  for (int i = 0; i < CALL_COUNT; ++i) armed |= orders[i].error != cudaSuccess;
  atomic_store(&sim_faults_armed, armed);
}

cudaError_t cudasim_fail(const char* function, uint64_t nth, uint64_t count, cudaError_t error) {
  int id = function ? find(function) : -1;
  if (id < 0 || !nth) return cudaErrorInvalidValue;
  pthread_mutex_lock(&lock);
  orders[id] = (order){.error = error, .ahead = nth - 1, .count = count};
  note_armed();
  pthread_mutex_unlock(&lock);
  return cudaSuccess;
}

void cudasim_fail_nothing(void) {
  pthread_mutex_lock(&lock);
  memset(orders, 0, sizeof(orders));
  note_armed();
  pthread_mutex_unlock(&lock);
}

static cudaError_t next(order* o) {
  cudaError_t error = o->error;
  if (o->ahead) {
    --o->ahead;
    return cudaSuccess;
  }
  if (o->count && --o->count == 0) {
    o->error = cudaSuccess;
    note_armed();
  }
  return error;
}

cudaError_t sim_fault_next(call_id id) {
  pthread_mutex_lock(&lock);
  cudaError_t error = next(&orders[id]);
  pthread_mutex_unlock(&lock);
  return error;
}
