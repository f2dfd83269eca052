#include "cudasim/fault_spec.h"

#include <ctype.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cudasim/error.h"
#include "cudasim/slab.h"
#include "cudasim/spelling.h"

#define LONGEST_PATTERN ((size_t)80)

typedef struct slice {
  const char* text;
  size_t length;
} slice;

#define SHOWN(s) (int)(s).length, (s).text

typedef enum part {
  PART_NTH,
  PART_AFTER,
  PART_COUNT,
  PART_FRACTION,
  PART_SEED,
  PART_ERROR,
  PART_DEVICE,
  PART_STICKY,
  PART_LOST,
  PARTS,
} part;

static const char* const part_names[PARTS] = {"nth",   "after",  "count",  "fraction", "seed",
                                              "error", "device", "sticky", "lost"};

static const char allowed_parts[] =
    "a function or pattern, nth=, after=, count=, fraction=, seed=, error=, device=, sticky, lost";

// One rule as it is read.
typedef struct reader {
  slice text;  // of the rule
  fault_rule* rule;
  bool is_given[PARTS];
  bool is_about_functions;
  int devices;
  char* why;
  size_t why_bytes;
} reader;

__attribute__((format(printf, 2, 3))) static bool complain(const reader* r, const char* format,
                                                           ...) {
  char text[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  snprintf(r->why, r->why_bytes, "in \"%.*s\": %s", SHOWN(r->text), text);
  return false;
}

//===-- Slices --------------------------------------------------------------------------------===//

static bool is(slice s, const char* text) {
  return strlen(text) == s.length && memcmp(s.text, text, s.length) == 0;
}

static slice trim(slice s) {
  for (; s.length && isspace((unsigned char)*s.text); ++s.text) --s.length;
  while (s.length && isspace((unsigned char)s.text[s.length - 1])) --s.length;
  return s;
}

// Moves the piece up to the first of the separators from `*rest` to `*first`. Whether there was
// one, so that something follows, if only nothing.
static bool split(slice* rest, const char* separators, slice* first) {
  *first = (slice){.text = rest->text};
  while (first->length < rest->length && !strchr(separators, rest->text[first->length])) {
    ++first->length;
  }
  bool is_separated = first->length < rest->length;
  size_t gone = first->length + is_separated;
  *rest = (slice){.text = rest->text + gone, .length = rest->length - gone};
  *first = trim(*first);
  return is_separated;
}

//===-- Values --------------------------------------------------------------------------------===//

static bool to_number(slice s, uint64_t* out) {
  *out = 0;
  for (size_t i = 0; i < s.length; ++i) {
    if (!isdigit((unsigned char)s.text[i])) return false;
    if (__builtin_mul_overflow(*out, (uint64_t)10, out)) return false;
    if (__builtin_add_overflow(*out, (uint64_t)(s.text[i] - '0'), out)) return false;
  }
  return s.length > 0;
}

// Digits with at most one point; strtod would ask the program's locale.
static bool to_fraction(slice s, double* out) {
  double scale = 0;
  bool has_digit = false;
  *out = 0;
  for (size_t i = 0; i < s.length; ++i) {
    if (s.text[i] == '.' && scale == 0) {
      scale = 1;
    } else if (isdigit((unsigned char)s.text[i])) {
      has_digit = true;
      *out = *out * 10 + (s.text[i] - '0');
      scale *= 10;
    } else {
      return false;
    }
  }
  if (scale != 0) *out /= scale;
  return has_digit;
}

static bool refuse_value(const reader* r, part p, slice value, const char* allowed) {
  return complain(r, "%s is \"%.*s\"; allowed: %s", part_names[p], SHOWN(value), allowed);
}

static bool read_number(const reader* r, part p, slice value, uint64_t smallest, uint64_t* out) {
  if (to_number(value, out) && *out >= smallest) return true;
  return refuse_value(r, p, value,
                      smallest ? "a number from 1 to 2^64 - 1" : "a number from 0 to 2^64 - 1");
}

static bool read_nth(const reader* r, slice value) {
  if (!read_number(r, PART_NTH, value, 1, &r->rule->ahead)) return false;
  --r->rule->ahead;
  return true;
}

static bool read_count(const reader* r, slice value) {
  r->rule->count = FAULT_EVERY_CALL;
  if (is(value, "all")) return true;
  if (to_number(value, &r->rule->count) && r->rule->count) return true;
  return refuse_value(r, PART_COUNT, value, "a number from 1 to 2^64 - 1, all");
}

static bool read_fraction(const reader* r, slice value) {
  double* fraction = &r->rule->fraction;
  if (to_fraction(value, fraction) && *fraction > 0 && *fraction <= 1) return true;
  return refuse_value(r, PART_FRACTION, value, "a decimal above 0 and up to 1, such as 0.01");
}

static bool read_device(const reader* r, slice value) {
  uint64_t number;
  if (to_number(value, &number) && number < (uint64_t)r->devices) {
    r->rule->device = (int)number;
    return true;
  }
  char allowed[64];
  snprintf(allowed, sizeof(allowed), "a device, from 0 to %d", r->devices - 1);
  return refuse_value(r, PART_DEVICE, value, allowed);
}

//===-- Errors --------------------------------------------------------------------------------===//

static const char* closest_error(slice value) {
  const char* closest = NULL;
  size_t least = SIZE_MAX;
  cudaError_t code;
  for (size_t i = 1; sim_error_at(i, &code); ++i) {
    const char* name = sim_error_at(i, &code);
    size_t distance = sim_spelling_distance(value.text, value.length, name);
    if (distance >= least) continue;
    least = distance;
    closest = name;
  }
  return closest;
}

static bool read_error(const reader* r, slice value) {
  uint64_t number = 0;
  bool is_number = to_number(value, &number);
  cudaError_t code;
  for (size_t i = 1; sim_error_at(i, &code); ++i) {  // from the first that is no success
    const char* name = sim_error_at(i, &code);
    if (is_number ? number == (uint64_t)code : is(value, name)) {
      r->rule->error = code;
      return true;
    }
  }
  char allowed[128] = "the name or the number of an error of the CUDA runtime";
  if (!is_number) {
    snprintf(allowed + strlen(allowed), sizeof(allowed) - strlen(allowed), "; the closest is %s",
             closest_error(value));
  }
  return refuse_value(r, PART_ERROR, value, allowed);
}

//===-- Functions -----------------------------------------------------------------------------===//

// The name or word without a value that is closest to what was given.
static const char* closest_word(slice given) {
  const char* closest = NULL;
  size_t least = SIZE_MAX;
  for (int i = 0; i < CALL_COUNT + PARTS; ++i) {
    const char* name = i < CALL_COUNT ? sim_call_names[i] : part_names[i - CALL_COUNT];
    size_t distance = sim_spelling_distance(given.text, given.length, name);
    if (distance >= least) continue;
    least = distance;
    closest = name;
  }
  return closest;
}

static bool refuse_functions(const reader* r, slice given) {
  bool is_pattern = memchr(given.text, '*', given.length) || memchr(given.text, '?', given.length);
  if (is_pattern) return complain(r, "no function matches \"%.*s\"", SHOWN(given));
  return complain(r, "\"%.*s\" is no function of cudasim; the closest is %s", SHOWN(given),
                  closest_word(given));
}

static bool read_functions(reader* r, slice pattern) {
  char text[LONGEST_PATTERN];
  bool is_any = false;
  snprintf(text, sizeof(text), "%.*s", SHOWN(pattern));
  for (int i = 0; i < CALL_COUNT && pattern.length < sizeof(text); ++i) {
    if (fnmatch(text, sim_call_names[i], FNM_NOESCAPE) != 0) continue;
    r->rule->is_meant[i] = is_any = true;
  }
  r->is_about_functions = true;
  return is_any || refuse_functions(r, pattern);
}

//===-- Rules ---------------------------------------------------------------------------------===//

static bool read_value(const reader* r, part p, slice value) {
  switch (p) {
    case PART_NTH:
      return read_nth(r, value);
    case PART_AFTER:
      return read_number(r, p, value, 0, &r->rule->ahead);
    case PART_COUNT:
      return read_count(r, value);
    case PART_FRACTION:
      return read_fraction(r, value);
    case PART_SEED:
      return read_number(r, p, value, 0, &r->rule->seed);
    case PART_ERROR:
      return read_error(r, value);
    case PART_DEVICE:
      return read_device(r, value);
    case PART_STICKY:
    case PART_LOST:
    case PARTS:
      break;
  }
  return complain(r, "%s has no value", part_names[p]);
}

static part part_named(slice name) {
  part p = 0;
  while (p < PARTS && !is(name, part_names[p])) ++p;
  return p;
}

static bool read_part(reader* r, slice text) {
  if (!text.length) return complain(r, "a part is empty; allowed: %s", allowed_parts);
  slice name;
  slice value = text;
  bool has_value = split(&value, "=", &name);
  part p = part_named(name);
  if (p == PARTS && !has_value) return read_functions(r, name);
  if (p == PARTS) {
    return complain(r, "\"%.*s\" is unknown; allowed: %s", SHOWN(name), allowed_parts);
  }
  if (r->is_given[p]) return complain(r, "%s is given twice", part_names[p]);
  r->is_given[p] = true;
  if (has_value) return read_value(r, p, trim(value));
  return p == PART_STICKY || p == PART_LOST || complain(r, "%s has no value", part_names[p]);
}

// Parts that say the same, or that mean nothing together.
static bool check_together(const reader* r) {
  static const part pairs[][2] = {{PART_NTH, PART_AFTER},
                                  {PART_STICKY, PART_LOST},
                                  {PART_COUNT, PART_STICKY},
                                  {PART_COUNT, PART_LOST}};
  for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); ++i) {
    const part* p = pairs[i];
    if (r->is_given[p[0]] && r->is_given[p[1]]) {
      return complain(r, "%s and %s do not go together", part_names[p[0]], part_names[p[1]]);
    }
  }
  bool is_idle = r->is_given[PART_SEED] && !r->is_given[PART_FRACTION];
  return !is_idle || complain(r, "seed needs a fraction");
}

static void fill_in(const reader* r) {
  fault_rule* rule = r->rule;
  bool breaks = r->is_given[PART_STICKY] || r->is_given[PART_LOST];
  bool is_one = breaks || (r->is_given[PART_NTH] && !r->is_given[PART_FRACTION]);
  if (!r->is_given[PART_COUNT]) rule->count = is_one ? 1 : FAULT_EVERY_CALL;
  if (!r->is_about_functions) memset(rule->is_meant, true, sizeof(rule->is_meant));
  if (!breaks) return;
  bool is_lost = r->is_given[PART_LOST];
  rule->effect = is_lost ? FAULT_LOSES : FAULT_BREAKS;
  if (!rule->error) rule->error = is_lost ? cudaErrorDevicesUnavailable : cudaErrorIllegalAddress;
}

static bool read_rule(reader* r) {
  *r->rule = (fault_rule){.device = -1, .fraction = 1};
  slice rest = r->text;
  slice text;
  for (bool has_more = true; has_more;) {
    has_more = split(&rest, ":,", &text);
    if (!read_part(r, text)) return false;
  }
  if (!check_together(r)) return false;
  fill_in(r);
  return true;
}

//===-- Plans ---------------------------------------------------------------------------------===//

static size_t count_rules(const char* spec) {
  size_t count = 1;
  for (; *spec; ++spec) count += *spec == ';';
  return count;
}

static bool read_rules(slice rest, const reader* common, fault_plan* plan) {
  for (bool has_more = true; has_more;) {
    reader r = *common;
    r.rule = &plan->rules[plan->count];
    has_more = split(&rest, ";", &r.text);
    if (!r.text.length) continue;
    if (!read_rule(&r)) return false;
    ++plan->count;
  }
  return true;
}

cudaError_t sim_fault_parse(const char* spec, int devices, fault_plan** out, char* why,
                            size_t size) {
  *out = NULL;
  size_t most = count_rules(spec);
  fault_plan* plan = sim_bookkeeping_alloc(sizeof(fault_plan) + most * sizeof(fault_rule));
  if (!plan) {
    snprintf(why, size, "the host has no memory for %zu rules", most);
    return cudaErrorMemoryAllocation;
  }
  slice text = {.text = spec, .length = strlen(spec)};
  const reader common = {.devices = devices, .why = why, .why_bytes = size};
  bool is_good = read_rules(text, &common, plan);
  if (is_good && plan->count) {
    *out = plan;
  } else {
    sim_bookkeeping_free(plan);
  }
  return is_good ? cudaSuccess : cudaErrorInvalidValue;
}
