#include "cudasim/options.h"

#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cudasim/fault_spec.h"
#include "cudasim/slab.h"
#include "cudasim/ticks.h"

#define SMALLEST_MEMORY ((uint64_t)2 << 20)
#define LARGEST_MEMORY ((uint64_t)4 << 40)

static bool complain(const char* name, const char* value, const char* allowed) {
  fprintf(stderr, "cudasim: %s is \"%s\"; allowed: %s\n", name, value, allowed);
  return false;
}

// What was asked for, else the environment's, else NULL.
static const char* text_of(const char* asked, const char* name) {
  const char* value = asked ? asked : getenv(name);
  return value && *value ? value : NULL;
}

static bool read_devices(int asked, int* out) {
  static const char allowed[] = "a number from 1 to 64";
  char buffer[16];
  snprintf(buffer, sizeof(buffer), "%d", asked);
  const char* text = text_of(asked ? buffer : NULL, "CUDASIM_DEVICES");
  *out = 1;
  if (!text) return true;
  char* end;
  long value = strtol(text, &end, 10);
  if (*end || value < 1 || value > CUDASIM_MAX_DEVICES) {
    return complain("CUDASIM_DEVICES", text, allowed);
  }
  *out = (int)value;
  return true;
}

// The multiplier of a suffix, of which `*text` is moved to the end; 0 if it is none.
static uint64_t read_unit(const char** text) {
  static const char letters[] = "KMGT";
  if (**text == '\0' || **text == ',') return 1;
  const char* letter = strchr(letters, **text);
  if (!letter || strncmp(*text + 1, "iB", 2) != 0) return 0;
  *text += 3;
  return UINT64_C(1) << (10 * (letter - letters + 1));
}

// One size, of which `*text` is moved to the end; 0 if it is none.
static uint64_t read_size(const char** text) {
  if (!isdigit((unsigned char)**text)) return 0;
  char* end;
  errno = 0;
  uint64_t value = strtoull(*text, &end, 10);
  *text = end;
  uint64_t unit = read_unit(text);
  uint64_t size;
  if (errno || !unit || __builtin_mul_overflow(value, unit, &size)) return 0;
  return size >= SMALLEST_MEMORY && size <= LARGEST_MEMORY ? size : 0;
}

static bool read_memory(const char* asked, uint64_t* out) {
  static const char allowed[] =
      "a size from 2MiB to 4TiB such as 80GiB, 512MiB or a number of bytes, or one for each device "
      "with commas between";
  const char* text = text_of(asked, "CUDASIM_MEMORY");
  const char* rest = text ? text : "80GiB";
  for (int i = 0; i < CUDASIM_MAX_DEVICES; ++i) {
    if (i > 0 && *rest == '\0') {
      out[i] = out[i - 1];
      continue;
    }
    if (i > 0) ++rest;  // the comma
    out[i] = read_size(&rest);
    if (!out[i] || (*rest != '\0' && *rest != ',')) {
      return complain("CUDASIM_MEMORY", text, allowed);
    }
  }
  return *rest == '\0' || complain("CUDASIM_MEMORY", text, allowed);
}

static bool read_host_memory(const char* asked, uint64_t* out) {
  *out = UINT64_MAX;
  const char* text = text_of(asked, "CUDASIM_HOST_MEMORY");
  const char* rest = text;
  if (!text) return true;
  *out = read_size(&rest);
  return (*out && *rest == '\0') ||
         complain("CUDASIM_HOST_MEMORY", text,
                  "a size from 2MiB to 4TiB such as 64GiB, 512MiB or a number of bytes");
}

//===-- Faults --------------------------------------------------------------------------------===//

static bool read_faults(const char* asked, int devices, fault_plan** out) {
  char why[512];
  const char* text = text_of(asked, "CUDASIM_FAULTS");
  *out = NULL;
  if (!text || sim_fault_parse(text, devices, out, why, sizeof(why)) == cudaSuccess) return true;
  fprintf(stderr, "cudasim: CUDASIM_FAULTS: %s\n", why);
  return false;
}

//===-- Schedules -----------------------------------------------------------------------------===//

static uint64_t seed_of_clock;

static void draw_seed(void) {
  seed_of_clock = ticks_ns_now() % 1000000000;  // short enough to be typed
  fprintf(stderr, "cudasim: CUDASIM_SCHEDULE=random:%llu\n", (unsigned long long)seed_of_clock);
}

// The process has one seed of its own, so that what was printed once repeats all its machines.
static uint64_t own_seed(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, draw_seed);
  return seed_of_clock;
}

static bool read_seed(const char* text, uint64_t* out) {
  if (!isdigit((unsigned char)*text)) return false;
  char* end;
  errno = 0;
  *out = strtoull(text, &end, 10);
  return !errno && *end == '\0';
}

static bool read_schedule(const char* asked, schedule* out, uint64_t* seed) {
  static const char with_seed[] = "random:";
  const char* text = text_of(asked, "CUDASIM_SCHEDULE");
  *out = SCHEDULE_THREADS;
  *seed = 0;
  if (!text || strcmp(text, "threads") == 0) return true;
  *out = SCHEDULE_EAGER;
  if (strcmp(text, "eager") == 0) return true;
  *out = SCHEDULE_RANDOM;
  if (strcmp(text, "random") == 0) {
    *seed = own_seed();
    return true;
  }
  size_t length = strlen(with_seed);
  if (strncmp(text, with_seed, length) == 0 && read_seed(text + length, seed)) return true;
  return complain("CUDASIM_SCHEDULE", text,
                  "threads, eager, random, random:SEED with a number from 0 to 2^64 - 1");
}

//===-- All -----------------------------------------------------------------------------------===//

static bool read_switch(cudasim_switch asked, const char* name, bool otherwise, bool* out) {
  *out = asked == CUDASIM_DEFAULT ? otherwise : asked == CUDASIM_ON;
  const char* text = asked == CUDASIM_DEFAULT ? text_of(NULL, name) : NULL;
  if (!text) return true;
  *out = strcmp(text, "1") == 0;
  return *out || strcmp(text, "0") == 0 || complain(name, text, "0, 1");
}

static bool read_check(const char* asked, check_mode* out) {
  const char* text = text_of(asked, "CUDASIM_CHECK");
  *out = CHECK_OFF;
  if (!text || strcmp(text, "off") == 0) return true;
  *out = CHECK_REPORT;
  if (strcmp(text, "report") == 0) return true;
  *out = CHECK_ABORT;
  return strcmp(text, "abort") == 0 || complain("CUDASIM_CHECK", text, "off, report, abort");
}

static bool read_check_format(const char* asked, bool* is_json) {
  const char* text = text_of(asked, "CUDASIM_CHECK_FORMAT");
  *is_json = text && strcmp(text, "json") == 0;
  return !text || *is_json || strcmp(text, "text") == 0 ||
         complain("CUDASIM_CHECK_FORMAT", text, "text, json");
}

static bool read_check_file(const char* asked, char* out) {
  const char* text = text_of(asked, "CUDASIM_CHECK_FILE");
  int length = snprintf(out, CHECK_FILE_BYTES, "%s", text ? text : "");
  return length < CHECK_FILE_BYTES ||
         complain("CUDASIM_CHECK_FILE", text, "a path of less than 512 bytes");
}

bool sim_options_resolve(const cudasim_options* asked, options* out) {
  bool is_good = read_devices(asked->devices, &out->devices);
  is_good &= read_memory(asked->memory, out->memory);
  is_good &= read_schedule(asked->schedule, &out->schedule, &out->seed);
  is_good &= read_switch(asked->protect, "CUDASIM_PROTECT", true, &out->protect);
  is_good &= read_switch(asked->verbose, "CUDASIM_VERBOSE", false, &out->verbose);
  is_good &= read_check(asked->check, &out->check);
  is_good &= read_check_format(asked->check_format, &out->check_json);
  is_good &= read_check_file(asked->check_file, out->check_file);
  is_good &= read_switch(asked->check_leaks, "CUDASIM_CHECK_LEAKS", true, &out->check_leaks);
  is_good &= read_host_memory(asked->host_memory, &out->host_memory);
  is_good &= read_faults(asked->faults, out->devices, &out->faults);
  if (is_good) return true;
  sim_bookkeeping_free(out->faults);
  out->faults = NULL;
  return false;
}
