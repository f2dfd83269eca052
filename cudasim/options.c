#include "cudasim/options.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static bool read_schedule(const char* asked, schedule* out) {
  const char* text = text_of(asked, "CUDASIM_SCHEDULE");
  *out = SCHEDULE_THREADS;
  if (!text || strcmp(text, "threads") == 0) return true;
  *out = SCHEDULE_EAGER;
  return strcmp(text, "eager") == 0 || complain("CUDASIM_SCHEDULE", text, "threads, eager");
}

static bool read_switch(cudasim_switch asked, const char* name, bool otherwise, bool* out) {
  *out = asked == CUDASIM_DEFAULT ? otherwise : asked == CUDASIM_ON;
  const char* text = asked == CUDASIM_DEFAULT ? text_of(NULL, name) : NULL;
  if (!text) return true;
  *out = strcmp(text, "1") == 0;
  return *out || strcmp(text, "0") == 0 || complain(name, text, "0, 1");
}

bool sim_options_resolve(const cudasim_options* asked, options* out) {
  bool is_good = read_devices(asked->devices, &out->devices);
  is_good &= read_memory(asked->memory, out->memory);
  is_good &= read_schedule(asked->schedule, &out->schedule);
  is_good &= read_switch(asked->protect, "CUDASIM_PROTECT", true, &out->protect);
  is_good &= read_switch(asked->verbose, "CUDASIM_VERBOSE", false, &out->verbose);
  return is_good;
}
