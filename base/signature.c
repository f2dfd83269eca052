// A signature is scanned from left to right. Words before the name (return type, specifiers) look
// like names until a space or a * follows them, so what was taken for one is dropped there:
//
//   static   std::vector<int>   ns::  Class<T>::  method  (int)   const [with T = int]
//   dropped  dropped            kept  kept        kept    ->()    skipped; `::` would go on
//
// Nothing here recurses, and no function reads past the terminating NUL.

#include "tm/base/signature.h"

#include <ctype.h>
#include <stddef.h>
#include <string.h>

static bool is_name_char(char c) {
  return isalnum((unsigned char)c) || c == '_' || c == '$' || c == '~' || (unsigned char)c >= 0x80;
}

static bool starts_with(const char* text, const char* prefix) {
  return strncmp(text, prefix, strlen(prefix)) == 0;
}

// Whether `text` starts with `word` and does not go on as a longer one.
static bool starts_with_word(const char* text, const char* word) {
  return starts_with(text, word) && !is_name_char(text[strlen(word)]);
}

static const char* skip_spaces(const char* at) {
  while (*at == ' ') at++;
  return at;
}

static const char* skip_name(const char* at) {
  while (is_name_char(*at)) at++;
  return at;
}

//===-- Brackets ----------------------------------------------------------===//

// Each returns what follows, or NULL where the text ends before.

static const char* skip_quoted(const char* at) {
  const char quote = *at++;
  for (; *at && *at != quote; at++) {
    if (*at == '\\' && at[1]) at++;
  }
  return *at ? at + 1 : NULL;
}

// Digits may be separated by ' (1'000); letters before it are a literal's prefix (u8'x' is missed).
static bool starts_quoted(const char* start, const char* at) {
  return *at == '"' || (*at == '\'' && !(at > start && isdigit((unsigned char)at[-1])));
}

// `at` is at an `open`, "(" or "[".
static const char* skip_group(const char* at, char open, char close) {
  const char* start = at;
  int depth = 0;
  while (*at) {
    if (starts_quoted(start, at)) {
      at = skip_quoted(at);
      if (!at) return NULL;
      continue;
    }
    depth += (*at == open) - (*at == close);
    at++;
    if (depth == 0) return at;
  }
  return NULL;
}

// `at` is at a "<". What is compared inside (3 > 2) stands in parentheses.
static const char* skip_angles(const char* at) {
  const char* start = at;
  int depth = 0;
  while (*at) {
    if (*at == '(' || *at == '[') {
      at = skip_group(at, *at, *at == '(' ? ')' : ']');
    } else if (starts_quoted(start, at)) {
      at = skip_quoted(at);
    } else {
      depth += (*at == '<') - (*at == '>' && at[-1] != '-');
      at++;
      if (depth == 0) return at;
    }
    if (!at) return NULL;
  }
  return NULL;
}

//===-- Signatures --------------------------------------------------------===//

typedef struct scan {
  const char* at;
  tm_text* out;
  size_t base;        // bytes in `out` before the name
  size_t lambda;      // bytes in `out` before the component that is a lambda if operator() follows
  const char* start;  // of the component at hand; NULL between components
  const char* end;    // behind it, template arguments included
  const char* name_end;  // behind it, without them
} scan;

enum { NO_LAMBDA = (size_t)-1 };

typedef enum step { STEP_ON, STEP_DONE, STEP_FAILED } step;

// Appends a piece with one spelling for all compilers: no space before *, &, > and [.
static void add_spelled(tm_text* out, const char* start, const char* end) {
  for (; start < end; start++) {
    const bool superfluous = *start == ' ' && (start + 1 == end || strchr("*&>[", start[1]));
    if (!superfluous) tm_text_add_(out, start, 1);
  }
}

// What was scanned so far is no part of the name.
static void drop(scan* s) {
  tm_text_rewind_(s->out, s->base);
  s->start = NULL;
  s->lambda = NO_LAMBDA;
}

static bool ends_signature(const char* at) {
  return *at == '\0' || *at == ')' || starts_with(at, "->") || starts_with_word(at, "requires");
}

// Skips what may follow a parameter list: qualifiers, and the values of template parameters.
static const char* skip_qualifiers(const char* at) {
  static const char* const words[] = {"const", "volatile", "mutable", "noexcept", "throw"};
  for (;;) {
    const char* before = at;
    at = skip_spaces(at);
    while (*at == '&') at++;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
      if (starts_with_word(at, words[i])) at += strlen(words[i]);
    }
    const char* next = skip_spaces(at);
    const bool values = *next == '[';
    const bool condition = *next == '(' && next > before && isalpha((unsigned char)at[-1]);
    if (values || condition) {
      at = skip_group(next, *next, values ? ']' : ')');
      if (!at) return NULL;
    }
    if (at == before) return at;
  }
}

// A function's parameters, or what stands for them, end at `at`: the name ends here too, unless it
// is only where a local class or a lambda is defined.
static step finish_function(scan* s, const char* at) {
  tm_text_add_(s->out, "()", 2);
  s->start = NULL;
  s->lambda = NO_LAMBDA;
  at = skip_qualifiers(at);
  if (!at) return STEP_FAILED;
  if (!starts_with(at, "::")) return ends_signature(at) ? STEP_DONE : STEP_FAILED;
  tm_text_add_(s->out, "::", 2);
  s->at = at + 2;
  return STEP_ON;
}

// The parameters of a conversion operator are the empty parentheses behind which the signature
// ends: the type may have parentheses itself.
static step scan_conversion(scan* s, const char* type) {
  const char* at = type;
  while (*at) {
    if (*at == '<') {
      at = skip_angles(at);
      if (!at) return STEP_FAILED;
    } else if (*at == '(') {
      const char* next = skip_group(at, '(', ')');
      if (!next) return STEP_FAILED;
      const bool empty = next - at == 2 || starts_with(at, "(void)");
      const char* after = empty ? skip_qualifiers(next) : NULL;
      if (after && (ends_signature(after) || starts_with(after, "::"))) {
        tm_text_add_string_(s->out, "operator ");
        add_spelled(s->out, type, at);
        return finish_function(s, next);
      }
      at = next;
    } else {
      at++;
    }
  }
  return STEP_FAILED;
}

// Where a parameter list starts at `at`, behind spaces and template arguments; NULL: nowhere.
static const char* find_parameters(const char* at) {
  at = skip_spaces(at);
  if (*at == '<') {
    at = skip_angles(at);
    if (!at) return NULL;
    at = skip_spaces(at);
  }
  return *at == '(' ? at : NULL;
}

// The length of the operator's symbol at `at`; 0 where it is none. `operator<<int>(` is a `<`.
static size_t symbol_length(const char* at) {
  static const char* const words[] = {"new", "delete", "co_await"};
  for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
    if (starts_with_word(at, words[i])) {
      const char* end = at + strlen(words[i]);
      const char* bracket = skip_spaces(end);
      return (size_t)((starts_with(bracket, "[]") ? bracket + 2 : end) - at);
    }
  }
  if (starts_with(at, "()") || starts_with(at, "[]")) return 2;
  if (starts_with(at, "\"\"")) return (size_t)(skip_name(skip_spaces(at + 2)) - at);
  for (size_t length = strspn(at, "+-*/%^&|~!=<>,"); length > 0; length--) {
    if (length <= 3 && find_parameters(at + length)) return length;
  }
  return 0;
}

static step scan_operator(scan* s) {
  const char* symbol = skip_spaces(s->at + strlen("operator"));
  const size_t length = symbol_length(symbol);
  if (length == 0) return scan_conversion(s, symbol);
  const char* parameters = find_parameters(symbol + length);
  if (!parameters) return STEP_FAILED;
  if (s->lambda != NO_LAMBDA && starts_with(symbol, "()")) {
    tm_text_rewind_(s->out, s->lambda);
    tm_text_add_string_(s->out, "<lambda>");
  } else {
    tm_text_add_string_(s->out, isalpha((unsigned char)*symbol) ? "operator " : "operator");
    add_spelled(s->out, symbol, symbol + length);
  }
  const char* after = skip_group(parameters, '(', ')');
  return after ? finish_function(s, after) : STEP_FAILED;
}

// A component without a name, each compiler in its own words: returns what follows it, or NULL
// where there is none.
static const char* skip_anonymous(const char* at, bool* lambda) {
  static const char* const spellings[] = {
      "{anonymous}", "(anonymous namespace)", "(anonymous struct)", "(anonymous union)",
      "(anonymous)", "`anonymous-namespace'", "<unnamed>"};
  *lambda = starts_with(at, "(anonymous class)") || starts_with(at, "(lambda") ||
            starts_with(at, "<lambda_");
  if (*lambda) return *at == '<' ? skip_angles(at) : skip_group(at, '(', ')');
  for (size_t i = 0; i < sizeof spellings / sizeof spellings[0]; i++) {
    if (starts_with(at, spellings[i])) return at + strlen(spellings[i]);
  }
  if (starts_with(at, "<unnamed ")) return skip_angles(at);
  if (starts_with(at, "_GLOBAL__N_")) return skip_name(at);  // nvcc's
  return NULL;
}

// At the start of a component, unless it is a plain name: operators, lambdas, what has no name.
static step scan_special(scan* s, bool* found) {
  *found = true;
  if (starts_with_word(s->at, "operator")) return scan_operator(s);
  if (starts_with(s->at, "<lambda(")) {  // gcc's: the parameters are inside
    const char* after = skip_angles(s->at);
    if (!after) return STEP_FAILED;
    tm_text_add_string_(s->out, "<lambda>");
    return finish_function(s, after);
  }
  bool lambda;
  const char* after = skip_anonymous(s->at, &lambda);
  if (after && starts_with(after, "::")) {
    s->lambda = lambda ? s->out->used : NO_LAMBDA;
    tm_text_add_string_(s->out, "(anonymous)::");
    s->at = after + 2;
    return STEP_ON;
  }
  *found = false;
  return STEP_ON;
}

static bool is_word_before_group(const char* start, const char* end) {
  static const char* const words[] = {"decltype",   "__attribute__", "alignas", "explicit",
                                      "__declspec", "__typeof__",    "typeof",  "noexcept"};
  for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
    const size_t length = strlen(words[i]);
    if ((size_t)(end - start) == length && memcmp(start, words[i], length) == 0) return true;
  }
  return false;
}

static step scan_parenthesis(scan* s) {
  if (!s->start) {  // int (* f(int))[4]: the name is inside
    drop(s);
    s->at++;
    return STEP_ON;
  }
  const char* after = skip_group(s->at, '(', ')');
  if (!after) return STEP_FAILED;
  if (is_word_before_group(s->start, s->end)) {
    drop(s);
    s->at = after;
    return STEP_ON;
  }
  add_spelled(s->out, s->start, s->name_end);
  return finish_function(s, after);
}

static step scan_angles(scan* s) {
  const char* after = skip_angles(s->at);
  if (!after) return STEP_FAILED;
  if (!s->start) s->start = s->name_end = s->at;
  s->at = s->end = after;
  return STEP_ON;
}

// The characters between names.
static step scan_separator(scan* s) {
  if (starts_with(s->at, "::")) {
    if (s->start) add_spelled(s->out, s->start, s->end);
    if (s->out->used > s->base) tm_text_add_(s->out, "::", 2);
    s->start = NULL;
    s->lambda = NO_LAMBDA;
    s->at += 2;
    return STEP_ON;
  }
  if (*s->at == '[' && s->start) {  // name[abi:cxx11]
    s->at = skip_group(s->at, '[', ']');
    return s->at ? STEP_ON : STEP_FAILED;
  }
  if (*s->at == ' ') {
    const char* next = skip_spaces(s->at);
    const bool opens = *next == '(' && s->start && is_word_before_group(s->start, s->end);
    if (!opens) drop(s);
    s->at = next;
    return STEP_ON;
  }
  if (!strchr("*&:^", *s->at)) return STEP_FAILED;
  drop(s);
  s->at++;
  return STEP_ON;
}

static step scan_next(scan* s) {
  // gcc writes "void<unnamed struct>::f()".
  if (!s->start || starts_with(s->at, "<unnamed ")) {
    if (s->start) drop(s);
    bool found;
    const step special = scan_special(s, &found);
    if (found) return special;
  }
  if (is_name_char(*s->at)) {
    if (s->start && s->end != s->at) return STEP_FAILED;  // Class<T>name
    if (!s->start) s->start = s->at;
    s->at = s->end = s->name_end = skip_name(s->at);
    return STEP_ON;
  }
  if (*s->at == '(') return scan_parenthesis(s);
  return *s->at == '<' ? scan_angles(s) : scan_separator(s);
}

bool tm_signature_name_(const char* signature, tm_text* out) {
  scan s = {.at = signature, .out = out, .base = out->used, .lambda = NO_LAMBDA};
  step result = STEP_ON;
  while (result == STEP_ON && *s.at) {
    result = scan_next(&s);
  }
  if (result == STEP_DONE) return true;
  tm_text_rewind_(out, s.base);
  return false;
}

//===-- Calls -------------------------------------------------------------===//

// A piece of a call expression: from `start` to `end` a name with its qualifiers, and `end` without
// the template arguments of its last component.
typedef struct callee {
  const char* start;
  const char* end;
} callee;

// Reads `a::b<c>::d<e>` at `at`. A "<" that nothing closes, or that no call follows, is an
// operator.
static const char* read_callee(const char* at, callee* out) {
  out->start = at;
  for (;;) {
    at = out->end = skip_name(at);
    const char* after = *at == '<' ? skip_angles(at) : NULL;
    if (after && (*after == '(' || starts_with(after, "::"))) at = after;
    if (!starts_with(at, "::")) return at;
    at += 2;
  }
}

bool tm_call_name_(const char* call, tm_text* out) {
  callee last = {NULL, NULL};
  for (const char* at = call; *at;) {
    if (is_name_char(*at) || starts_with(at, "::")) {
      callee name;
      at = read_callee(at, &name);
      if (*skip_spaces(at) == '(') last = name;
    } else if (*at == '(' || *at == '[') {
      at = skip_group(at, *at, *at == '(' ? ')' : ']');
    } else if (starts_quoted(call, at)) {
      at = skip_quoted(at);
    } else {
      at++;
    }
    if (!at) return false;
  }
  if (!last.start || last.start == last.end) return false;
  add_spelled(out, last.start, last.end);
  tm_text_add_(out, "()", 2);
  return true;
}
