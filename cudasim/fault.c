#include "cudasim/fault.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "cudasim/fault_spec.h"
#include "cudasim/include/cudasim.h"
#include "cudasim/runtime.h"
#include "cudasim/slab.h"

typedef struct order {
  cudaError_t error;  // cudaSuccess: no order
  uint64_t ahead;     // calls that still succeed
  uint64_t count;     // calls that then fail; 0 stands for all
} order;

atomic_bool sim_faults_armed;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static order orders[CALL_COUNT];
static fault_plan* in_force;

const char* const sim_call_names[CALL_COUNT] = {
#define NAME_(function) #function,
    CUDASIM_CALLS(NAME_)
#undef NAME_
};

const char* sim_call_name(call_id id) { return sim_call_names[id]; }

static void note_armed(void) {
  bool armed = in_force != NULL;
  for (int i = 0; i < CALL_COUNT; ++i) armed |= orders[i].error != cudaSuccess;
  atomic_store(&sim_faults_armed, armed);
}

//===-- Orders --------------------------------------------------------------------------------===//

static int find(const char* function) {
  for (int i = 0; i < CALL_COUNT; ++i) {
    if (strcmp(sim_call_names[i], function) == 0) return i;
  }
  return -1;
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

//===-- Plans ---------------------------------------------------------------------------------===//

void sim_fault_arm(fault_plan* plan) {
  pthread_mutex_lock(&lock);
  sim_bookkeeping_free(in_force);
  in_force = plan;
  note_armed();
  pthread_mutex_unlock(&lock);
}

cudaError_t cudasim_faults(const char* spec, char* why, size_t why_bytes) {
  cudaError_t error = sim_machine_make();
  if (error) return error;
  char text[512] = "";
  fault_plan* asked;
  error = sim_fault_parse(spec ? spec : "", sim_device_count(), &asked, text, sizeof(text));
  if (why) snprintf(why, why_bytes, "%s", text);
  if (error && !why) fprintf(stderr, "cudasim: %s\n", text);
  if (!error) sim_fault_arm(asked);
  return error;
}

void cudasim_fail_nothing(void) {
  pthread_mutex_lock(&lock);
  memset(orders, 0, sizeof(orders));
  sim_bookkeeping_free(in_force);
  in_force = NULL;
  note_armed();
  pthread_mutex_unlock(&lock);
}

//===-- Natural errors ------------------------------------------------------------------------===//

// What makes a name that of a function which takes memory for something that it hands out.
static bool takes_memory(const char* name) {
  static const char* const parts[] = {"Malloc",   "Alloc",       "Create", "Register",
                                      "GraphAdd", "Instantiate", "Clone"};
  if (strstr(name, "Get")) return false;
  for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); ++i) {
    if (strstr(name, parts[i])) return true;
  }
  return false;
}

static cudaError_t natural_error(call_id id) {
  return takes_memory(sim_call_names[id]) ? cudaErrorMemoryAllocation : cudaErrorUnknown;
}

//===-- Calls ---------------------------------------------------------------------------------===//

// FNV-1a: of the name and not of the id, so that seeds mean the same when functions are added.
static uint64_t hash_of(const char* name) {
  uint64_t hash = UINT64_C(0xcbf29ce484222325);
  for (; *name; ++name) hash = (hash ^ (unsigned char)*name) * UINT64_C(0x100000001b3);
  return hash;
}

// A number from 0 up to 1 that depends on the seed, the function and which call of it this is, so
// that the calls of other functions and threads do not matter. SplitMix64.
static double draw(uint64_t seed, call_id id, uint64_t nth) {
  uint64_t z = (seed ^ hash_of(sim_call_names[id])) + nth * UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static bool hits(fault_rule* r, call_id id, int current) {
  if (!r->is_meant[id] || (r->device >= 0 && r->device != current) || !r->count) return false;
  if (r->ahead) {
    --r->ahead;
    return false;
  }
  if (r->fraction < 1 && draw(r->seed, id, ++r->calls[id]) >= r->fraction) return false;
  if (r->count != FAULT_EVERY_CALL) --r->count;
  return true;
}

static fault next_of_plan(call_id id, int current) {
  for (size_t i = 0; in_force && i < in_force->count; ++i) {
    fault_rule* r = &in_force->rules[i];
    if (!hits(r, id, current)) continue;
    return (fault){.error = r->error ? r->error : natural_error(id), .effect = r->effect};
  }
  return (fault){0};
}

fault sim_fault_next(call_id id, int current) {
  pthread_mutex_lock(&lock);
  fault f = {.error = next(&orders[id])};
  if (!f.error) f = next_of_plan(id, current);
  pthread_mutex_unlock(&lock);
  return f;
}
