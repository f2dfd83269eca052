#include "tools/allocator_expression.h"

#include <ctype.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/size_text.h"

//===-- The allocators that are known -------------------------------------===//

typedef enum option_type {
  OPTION_SIZE,      // bytes: 64MiB
  OPTION_COUNT,     // an integer
  OPTION_FRACTION,  // from 0 to 1
  OPTION_FILE,      // a name
} option_type;

typedef struct option_kind {
  const char* name;  // NULL behind the last
  option_type type;
  bool is_required;
} option_kind;

// A row of the table: what is to be known of an allocator to name it.
struct allocator_kind {
  const char* name;
  const char* summary;
  bool has_inner;            // needs one in parentheses
  bool is_arena;             // belongs to one thread
  expression_memory memory;  // unless it has an inner one
  option_kind
      options[EXPRESSION_MAX_OPTIONS + 1];  // the first is meant where only a value is given
  tm_allocator* (*create)(const allocator_node* node, tm_allocator* inner, tm_stream* stream);
};

#define CREATOR(name)                                                           \
  static tm_allocator* name(const allocator_node* node __attribute__((unused)), \
                            tm_allocator* inner __attribute__((unused)),        \
                            tm_stream* stream __attribute__((unused)))

CREATOR(create_host) { return tm_host_allocator(); }

CREATOR(create_pinned) { return tm_pinned_allocator(); }

CREATOR(create_cuda) { return tm_cuda_allocator(0); }

CREATOR(create_pool) {
  const tm_cuda_pool_options options = {
      .maximum_bytes = node->values[0].number,
      .release_threshold = node->values[1].number,
  };
  return tm_cuda_pool_allocator_create(stream, &options);
}

CREATOR(create_dry) {
  const tm_dry_options options = {.maximum_bytes = node->values[0].number};
  return tm_dry_allocator_create(tm_device_make(TM_DEVICE, 0), &options);
}

CREATOR(create_stack) {
  const tm_stack_options options = {
      .initial_bytes = node->values[0].number,
      .maximum_bytes = node->values[1].number,
  };
  return tm_stack_allocator_create(inner, stream, &options);
}

CREATOR(create_cached) {
  const tm_cached_options options = {
      .initial_bytes = node->values[0].number,
      .maximum_bytes = node->values[1].number,
  };
  return tm_cached_allocator_create(inner, stream, &options);
}

CREATOR(create_statistics) { return tm_statistics_adaptor_create(inner); }

CREATOR(create_limit) { return tm_limit_adaptor_create(inner, node->values[0].number); }

CREATOR(create_tracking) { return tm_tracking_adaptor_create(inner, NULL); }

CREATOR(create_locked) { return tm_locked_adaptor_create(inner); }

CREATOR(create_guard) { return tm_guard_adaptor_create(inner); }

CREATOR(create_logging) {
  char path[PATH_MAX];
  (void)snprintf(path, sizeof(path), "%.*s", (int)node->values[0].length, node->values[0].text);
  return tm_logging_adaptor_create(inner, path);
}

CREATOR(create_fault) {
  const tm_fault_options options = {
      .every_nth = node->values[0].number,
      .probability = node->values[1].fraction,
      .seed = node->values[2].number,
      .above_bytes = node->values[3].number,
  };
  return tm_fault_adaptor_create(inner, &options);
}

static const allocator_kind kinds[] = {
    {
        .name = "host",
        .summary = "host memory, from libc",
        .memory = MEMORY_HOST,
        .create = create_host,
    },
    {
        .name = "pinned",
        .summary = "page-locked host memory, cached",
        .memory = MEMORY_PINNED,
        .create = create_pinned,
    },
    {
        .name = "cuda",
        .summary = "cudaMalloc and cudaFree",
        .memory = MEMORY_DEVICE,
        .create = create_cuda,
    },
    {
        .name = "pool",
        .summary = "a CUDA memory pool of its own",
        .memory = MEMORY_DEVICE,
        .options = {{"maximum", OPTION_SIZE, false}, {"threshold", OPTION_SIZE, false}},
        .create = create_pool,
    },
    {
        .name = "dry",
        .summary = "addresses without memory",
        .memory = MEMORY_DRY,
        .options = {{"maximum", OPTION_SIZE, false}},
        .create = create_dry,
    },
    {
        .name = "stack",
        .summary = "an arena",
        .has_inner = true,
        .is_arena = true,
        .options = {{"initial", OPTION_SIZE, false}, {"maximum", OPTION_SIZE, false}},
        .create = create_stack,
    },
    {
        .name = "cached",
        .summary = "a cache, best fit",
        .has_inner = true,
        .options = {{"initial", OPTION_SIZE, false}, {"maximum", OPTION_SIZE, false}},
        .create = create_cached,
    },
    {
        .name = "statistics",
        .summary = "counts",
        .has_inner = true,
        .create = create_statistics,
    },
    {
        .name = "limit",
        .summary = "a budget",
        .has_inner = true,
        .options = {{"bytes", OPTION_SIZE, true}},
        .create = create_limit,
    },
    {
        .name = "tracking",
        .summary = "knows the holders of what is out",
        .has_inner = true,
        .create = create_tracking,
    },
    {
        .name = "logging",
        .summary = "writes RMM's log",
        .has_inner = true,
        .options = {{"file", OPTION_FILE, true}},
        .create = create_logging,
    },
    {
        .name = "locked",
        .summary = "one thread at a time",
        .has_inner = true,
        .create = create_locked,
    },
    {
        .name = "guard",
        .summary = "red zones",
        .has_inner = true,
        .create = create_guard,
    },
    {
        .name = "fault",
        .summary = "refuses on purpose",
        .has_inner = true,
        .options = {{"every", OPTION_COUNT, false},
                    {"probability", OPTION_FRACTION, false},
                    {"seed", OPTION_COUNT, false},
                    {"above", OPTION_SIZE, false}},
        .create = create_fault,
    },
};

enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

//===-- Messages ----------------------------------------------------------===//

enum {
  SHOWN_TEXT = 100,  // characters of an expression in a message
  SHOWN_WORD = 40,
  NAMES_SIZE = 160,
};

// An expression while it is read.
typedef struct expression_reader {
  const char* text;
  const char* at;
} expression_reader;

// A piece of it.
typedef struct word {
  const char* text;
  size_t length;
} word;

static int column(const expression_reader* r, const char* at) { return (int)(at - r->text) + 1; }

static int shown(word w) { return w.length < SHOWN_WORD ? (int)w.length : SHOWN_WORD; }

// "allocators 'X', column N: ", which every message begins with.
#define RAISE_AT(reader, place, format, ...)                                                    \
  TM_RAISE(TM_ERR_INVALID, "allocators '%.*s', column %d: " format, SHOWN_TEXT, (reader)->text, \
           column(reader, place), __VA_ARGS__)

static void append(char* text, size_t size, const char* name) {
  const size_t used = strlen(text);
  (void)snprintf(text + used, size - used, "%s%s", used ? ", " : "", name);
}

static tm_status unknown_name(const expression_reader* r, word name) {
  char known[NAMES_SIZE] = "";
  for (int i = 0; i < KINDS; i++) append(known, sizeof(known), kinds[i].name);
  return RAISE_AT(r, name.text, "'%.*s' is no allocator; known are %s", shown(name), name.text,
                  known);
}

static tm_status unknown_option(const expression_reader* r, const allocator_kind* kind, word key) {
  char known[NAMES_SIZE] = "";
  for (const option_kind* o = kind->options; o->name; o++) append(known, sizeof(known), o->name);
  return RAISE_AT(r, key.text, "%s has no option '%.*s'; it has %s", kind->name, shown(key),
                  key.text, known[0] ? known : "none");
}

//===-- Words -------------------------------------------------------------===//

static void skip_blanks(expression_reader* r) {
  while (*r->at == ' ' || *r->at == '\t') r->at++;
}

static bool take(expression_reader* r, char wanted) {
  skip_blanks(r);
  return *r->at == wanted && *r->at++;
}

// What comes before one of `ends`, without blanks around it.
static word take_word(expression_reader* r, const char* ends) {
  skip_blanks(r);
  word w = {.text = r->at, .length = strcspn(r->at, ends)};
  r->at += w.length;
  while (w.length && isspace((unsigned char)w.text[w.length - 1])) w.length--;
  return w;
}

static bool is_word(word w, const char* text) {
  return strlen(text) == w.length && memcmp(w.text, text, w.length) == 0;
}

//===-- Options -----------------------------------------------------------===//

static const char* const wanted_values[] = {"a size such as 64MiB", "an integer",
                                            "a number from 0 to 1", "the name of a file"};

static bool parse_fraction(const char* text, double* out) {
  char* end;
  *out = strtod(text, &end);
  return isdigit((unsigned char)*text) && *end == '\0' && isfinite(*out) && *out <= 1;
}

static bool parse_value(word value, option_type type, option_value* out) {
  char text[SIZE_TEXT_SIZE];
  *out = (option_value){.text = value.text, .length = value.length};
  if (type == OPTION_FILE) return value.length > 0 && value.length < PATH_MAX;
  if (value.length >= sizeof(text)) return false;
  memcpy(text, value.text, value.length);
  text[value.length] = '\0';
  if (type == OPTION_SIZE) return size_parse(text, &out->number);
  if (type == OPTION_COUNT) return count_parse(text, UINT64_MAX, &out->number);
  return parse_fraction(text, &out->fraction);
}

static tm_status set_option(const expression_reader* r, allocator_node* node, size_t index,
                            word value) {
  const option_kind* option = &node->kind->options[index];
  if (node->given & 1u << index) {
    return RAISE_AT(r, value.text, "'%s' is given twice", option->name);
  }
  if (!parse_value(value, option->type, &node->values[index])) {
    return RAISE_AT(r, value.text, "%s of %s takes %s, not '%.*s'", option->name, node->kind->name,
                    wanted_values[option->type], shown(value), value.text);
  }
  node->given |= 1u << index;
  return TM_OK;
}

// The index of an option, or of the end of them.
static size_t find_option(const allocator_kind* kind, word key) {
  size_t i = 0;
  while (kind->options[i].name && !is_word(key, kind->options[i].name)) i++;
  return i;
}

// Whether a word that is no option's name can be the value of the first option.
static bool is_first_value(const allocator_kind* kind, word value) {
  const option_kind* first = &kind->options[0];
  if (!first->name || value.length == 0) return false;
  return first->type == OPTION_FILE || isdigit((unsigned char)*value.text);
}

static tm_status parse_option(expression_reader* r, allocator_node* node) {
  const word first = take_word(r, "=,()");
  const bool has_value = take(r, '=');
  const size_t index = find_option(node->kind, first);
  if (node->kind->options[index].name) {
    const word nothing = {.text = r->at};
    return set_option(r, node, index, has_value ? take_word(r, ",()") : nothing);
  }
  if (has_value || !is_first_value(node->kind, first)) return unknown_option(r, node->kind, first);
  return set_option(r, node, 0, first);
}

static tm_status parse_options(expression_reader* r, allocator_node* node, const char* name) {
  if (take(r, ':')) {
    do {
      TM_TRY(parse_option(r, node));
    } while (take(r, ','));
  }
  for (size_t i = 0; node->kind->options[i].name; i++) {
    if (node->kind->options[i].is_required && !(node->given & 1u << i)) {
      return RAISE_AT(r, name, "%s needs %s: %s:...", node->kind->name,
                      wanted_values[node->kind->options[i].type], node->kind->name);
    }
  }
  return TM_OK;
}

//===-- Allocators --------------------------------------------------------===//

static const allocator_kind* find_kind(word name) {
  for (int i = 0; i < KINDS; i++) {
    if (is_word(name, kinds[i].name)) return &kinds[i];
  }
  return NULL;
}

// Stores whether another one follows in parentheses.
static tm_status parse_node(expression_reader* r, allocator_node* out, bool* has_inner) {
  *out = (allocator_node){0};
  *has_inner = false;
  const word name = take_word(r, ":,()=");
  out->kind = find_kind(name);
  if (name.length == 0) return RAISE_AT(r, name.text, "%s", "the name of an allocator is expected");
  if (!out->kind) return unknown_name(r, name);
  TM_TRY(parse_options(r, out, name.text));
  const char* parenthesis = r->at;
  *has_inner = take(r, '(');
  if (*has_inner && !out->kind->has_inner) {
    return RAISE_AT(r, parenthesis, "%s is over no other allocator", out->kind->name);
  }
  if (!*has_inner && out->kind->has_inner) {
    return RAISE_AT(r, parenthesis, "%s is over another allocator: %s(...) is expected",
                    out->kind->name, out->kind->name);
  }
  return TM_OK;
}

static tm_status parse_end(expression_reader* r, size_t open) {
  for (size_t i = 0; i < open; i++) {
    if (!take(r, ')')) return RAISE_AT(r, r->at, "%s", "')' is expected");
  }
  skip_blanks(r);
  return *r->at ? RAISE_AT(r, r->at, "'%.*s' is left over", SHOWN_WORD, r->at) : TM_OK;
}

static tm_status parse(expression_reader* r, allocator_expression* out) {
  bool has_inner = true;
  while (has_inner) {
    if (out->depth == EXPRESSION_MAX_DEPTH) {
      return RAISE_AT(r, r->at, "more than %d allocators are inside one another",
                      EXPRESSION_MAX_DEPTH);
    }
    TM_TRY(parse_node(r, &out->nodes[out->depth], &has_inner));
    out->depth++;
    if (out->nodes[out->depth - 1].kind->is_arena) out->own_depth = out->depth;
  }
  out->memory = out->nodes[out->depth - 1].kind->memory;
  return parse_end(r, out->depth - 1);
}

tm_status allocator_expression_parse(const char* text, allocator_expression* out) {
  expression_reader reader = {.text = text, .at = text};
  allocator_expression read = {.text = text};
  *out = (allocator_expression){0};
  TM_TRY(parse(&reader, &read));
  *out = read;
  return TM_OK;
}

//===-- Making ------------------------------------------------------------===//

bool allocator_expression_uses_streams(const allocator_expression* e) {
  return e->memory == MEMORY_PINNED || e->memory == MEMORY_DEVICE;
}

bool allocator_expression_owns_file(const allocator_expression* e) {
  for (size_t i = 0; i < e->own_depth; i++) {
    if (e->nodes[i].kind->options[0].type == OPTION_FILE) return true;
  }
  return false;
}

// Makes the nodes from `end` outwards to `begin` over `inner`, whose reference it takes over.
static tm_allocator* make_over(const allocator_expression* e, size_t begin, size_t end,
                               tm_allocator* inner, tm_stream* stream, tm_allocator** out_arena) {
  for (size_t i = end; i > begin && inner; i--) {
    const allocator_node* node = &e->nodes[i - 1];
    tm_allocator* outer = node->kind->create(node, inner, stream);
    tm_allocator_release(inner);
    inner = outer;
    if (out_arena && i == e->own_depth) *out_arena = inner;
  }
  return inner;
}

tm_allocator* allocator_expression_make_shared(const allocator_expression* e, tm_stream* stream,
                                               allocator_wrapper wrap, void* user) {
  const allocator_node* innermost = &e->nodes[e->depth - 1];
  if (!allocator_expression_uses_streams(e)) stream = NULL;
  tm_allocator* made = innermost->kind->create(innermost, NULL, stream);
  if (made && wrap) made = wrap(made, user);
  return make_over(e, e->own_depth, e->depth - 1, made, stream, NULL);
}

tm_allocator* allocator_expression_make_own(const allocator_expression* e, tm_allocator* shared,
                                            tm_stream* stream, tm_allocator** out_arena) {
  tm_allocator* arena = NULL;
  if (!allocator_expression_uses_streams(e)) stream = NULL;
  tm_allocator* made = make_over(e, 0, e->own_depth, tm_allocator_retain(shared), stream, &arena);
  if (out_arena) *out_arena = made ? arena : NULL;
  return made;
}

//===-- Help --------------------------------------------------------------===//

void allocator_expression_help(void) {
  static const char* const placeholders[] = {"=SIZE", "=N", "=0.1", "=FILE"};
  for (int i = 0; i < KINDS; i++) {
    (void)printf("  %-11s %s", kinds[i].name, kinds[i].summary);
    for (const option_kind* o = kinds[i].options; o->name; o++) {
      (void)printf("%s%s%s", o == kinds[i].options ? ": " : ", ", o->name, placeholders[o->type]);
    }
    (void)printf("\n");
  }
}
