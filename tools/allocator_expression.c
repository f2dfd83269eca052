#include "tools/allocator_expression.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "tools/size_text.h"

//===-- The allocators that are known -------------------------------------===//

typedef enum option_type {
  OPTION_SIZE,   // bytes: 64MiB
  OPTION_COUNT,  // an integer
  OPTION_FLAG,   // given or not
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

static tm_allocator* create_cuda(const allocator_node* node, tm_allocator* inner,
                                 tm_stream* stream) {
  (void)node, (void)inner, (void)stream;
  return tm_cuda_allocator(0);
}

static tm_allocator* create_host(const allocator_node* node, tm_allocator* inner,
                                 tm_stream* stream) {
  (void)node, (void)inner, (void)stream;
  return tm_host_allocator();
}

static tm_allocator* create_pinned(const allocator_node* node, tm_allocator* inner,
                                   tm_stream* stream) {
  (void)node, (void)inner, (void)stream;
  return tm_pinned_allocator();
}

static tm_allocator* create_pool(const allocator_node* node, tm_allocator* inner,
                                 tm_stream* stream) {
  const tm_cuda_pool_options options = {
      .maximum_bytes = node->values[0],
      .release_threshold = node->values[1],
  };
  (void)inner;
  return tm_cuda_pool_allocator_create(stream, &options);
}

static tm_allocator* create_stack(const allocator_node* node, tm_allocator* inner,
                                  tm_stream* stream) {
  const tm_stack_options options = {
      .initial_bytes = node->values[0],
      .maximum_bytes = node->values[1],
  };
  return tm_stack_allocator_create(inner, stream, &options);
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
        .name = "stack",
        .summary = "an arena",
        .has_inner = true,
        .is_arena = true,
        .options = {{"initial", OPTION_SIZE, false}, {"maximum", OPTION_SIZE, false}},
        .create = create_stack,
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

static const char* const wanted_values[] = {"a size such as 64MiB", "an integer", "no value"};

static bool parse_value(word value, option_type type, uint64_t* out) {
  char text[SIZE_TEXT_SIZE];
  if (value.length >= sizeof(text)) return false;
  memcpy(text, value.text, value.length);
  text[value.length] = '\0';
  return type == OPTION_SIZE ? size_parse(text, out) && *out <= SIZE_MAX
                             : count_parse(text, UINT64_MAX, out);
}

static tm_status set_option(const expression_reader* r, allocator_node* node, size_t index,
                            word value, bool has_value) {
  const option_kind* option = &node->kind->options[index];
  const bool is_flag = option->type == OPTION_FLAG;
  if (node->given & 1u << index) {
    return RAISE_AT(r, value.text, "'%s' is given twice", option->name);
  }
  if (is_flag == has_value ||
      (!is_flag && !parse_value(value, option->type, &node->values[index]))) {
    return RAISE_AT(r, value.text, "%s of %s takes %s, not '%.*s'", option->name, node->kind->name,
                    wanted_values[option->type], has_value ? shown(value) : 0, value.text);
  }
  if (is_flag) node->values[index] = 1;
  node->given |= 1u << index;
  return TM_OK;
}

// The index of an option, or of the end of them.
static size_t find_option(const allocator_kind* kind, word key) {
  size_t i = 0;
  while (kind->options[i].name && !is_word(key, kind->options[i].name)) i++;
  return i;
}

static tm_status parse_option(expression_reader* r, allocator_node* node) {
  const word first = take_word(r, "=,()");
  const bool has_value = take(r, '=');
  const word value = has_value ? take_word(r, ",()") : first;
  const size_t index = find_option(node->kind, first);
  if (node->kind->options[index].name) return set_option(r, node, index, value, has_value);
  if (has_value || !node->kind->options[0].name || !isdigit((unsigned char)*first.text)) {
    return unknown_option(r, node->kind, first);
  }
  return set_option(r, node, 0, first, true);
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
  return e->memory != MEMORY_HOST;
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
  static const char* const placeholders[] = {"=SIZE", "=N", ""};
  for (int i = 0; i < KINDS; i++) {
    (void)printf("  %-11s %s", kinds[i].name, kinds[i].summary);
    for (const option_kind* o = kinds[i].options; o->name; o++) {
      (void)printf("%s%s%s", o == kinds[i].options ? "; options " : ", ", o->name,
                   placeholders[o->type]);
    }
    (void)printf("\n");
  }
}
