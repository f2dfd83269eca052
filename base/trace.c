// The trace is a linked list through the callers' frames, innermost first:
//
//   tm_thread_.trace_top -> [softmax] -> [attention] -> [layer] -> NULL
//
// Code that leaves a scope by longjmp without tm_context_restore leaves `trace_top` pointing into a
// frame that is gone: overwritten, or on a stack that is not mapped any more. Such a frame must
// never be followed. It is told by its address (below the stack pointer of a caller that is still
// running), by its page, or by its check word. The page of the stack pointer is there for certain,
// and most traces fit it; the kernel is asked about each further one, once in a row.
//
// A frame whose function has gone may also keep its check word, and lead back to a frame that was
// opened in its place: the walk notices that it runs in circles.

#include "tm/base/trace.h"

#include <stdbool.h>
#include <string.h>

#include "tm/base/fatal.h"
#include "tm/base/signature.h"
#include "tm/base/source_path.h"
#include "tm/base/text.h"

enum { PAGE_SIZE = 4096 };  // bytes; a larger page is asked about in parts

//===-- Walking -----------------------------------------------------------===//

typedef struct walk {
  const tm_trace_frame* next;
  tm_trace_frame frame;        // a copy of the one at hand
  bool gone;                   // it ended at a frame that must not be followed
  uintptr_t stack_page;        // page numbers known to be readable: the stack pointer's,
  uintptr_t other_page;        // and the last one asked about
  const tm_trace_frame* seen;  // a frame passed before, for noticing circles (Brent's algorithm)
  size_t steps, limit;         // since `seen`; until the next one
  const char* file;            // the last one shown, since scopes of one file often follow each
  const char* shown;           // other; and what is shown of it,
  size_t shown_length;         // bytes
} walk;

static walk walk_start(void) {
  const uintptr_t stack_page = (uintptr_t)__builtin_frame_address(0) / PAGE_SIZE;
  return (walk){
      .next = tm_thread_.trace_top, .stack_page = stack_page, .other_page = stack_page, .limit = 1};
}

static bool page_is_readable(walk* w, uintptr_t page) {
  if (page == w->stack_page || page == w->other_page) {
    return true;
  }
  w->other_page = page;
  return tm_is_readable_((const void*)(page * PAGE_SIZE));
}

static bool copy_readable(walk* w, const void* from, void* to, size_t size) {
  const uintptr_t first = (uintptr_t)from;
  if (!page_is_readable(w, first / PAGE_SIZE) ||
      !page_is_readable(w, (first + size - 1) / PAGE_SIZE)) {
    return false;
  }
  tm_copy_unchecked_(from, to, size);
  return true;
}

static bool copy_live_frame(walk* w, const tm_trace_frame* frame) {
  return !tm_is_below_stack_(frame) && (uintptr_t)frame % _Alignof(tm_trace_frame) == 0 &&
         copy_readable(w, frame, &w->frame, sizeof w->frame) &&
         w->frame.check == tm_trace_check_(&w->frame, frame);
}

static bool goes_in_circles(walk* w) {
  if (w->next == w->seen) {
    return true;
  }
  if (++w->steps == w->limit) {
    w->seen = w->next;
    w->steps = 0;
    w->limit *= 2;
  }
  return false;
}

// Goes on to the next frame; false at the end, and where there is one that must not be followed.
static bool walk_next(walk* w) {
  if (!w->next) {
    return false;
  }
  if (!copy_live_frame(w, w->next) || goes_in_circles(w)) {
    w->gone = true;
    return false;
  }
  w->next = w->frame.below;
  return true;
}

size_t tm_trace_depth(void) {
  size_t depth = 0;
  for (walk w = walk_start(); walk_next(&w);) {
    depth++;
  }
  return depth;
}

//===-- Copies ------------------------------------------------------------===//

static enum tm_scope_kind_ kind_of(const tm_trace_frame* frame) {
  return (enum tm_scope_kind_)(frame->place % 4);
}

static size_t copy_size(const tm_trace_frame* frame) {
  return sizeof *frame + (kind_of(frame) == TM_SCOPE_COPIED_ ? (size_t)TM_SCOPE_NAME_SIZE : 0);
}

size_t tm_trace_copy_size_(void) {
  size_t size = 0;
  for (walk w = walk_start(); walk_next(&w);) {
    size += copy_size(&w.frame);
  }
  return size;
}

// Copies the frame at hand to `copy`, and a name that lies in the stack behind it.
static void copy_frame(walk* w, tm_trace_frame* copy) {
  *copy = w->frame;
  if (kind_of(copy) == TM_SCOPE_COPIED_) {
    char* name = (char*)(copy + 1);
    if (!copy_readable(w, w->frame.name, name, TM_SCOPE_NAME_SIZE)) {
      (void)tm_trace_copy_name_(name, "(gone)");
    }
    copy->name = name;
  }
}

static void link_frame(tm_trace_frame* frame, tm_trace_frame* below) {
  frame->below = below;
  frame->check = tm_trace_check_(frame, frame);
}

tm_trace_frame* tm_trace_copy_(void* memory, size_t size) {
  tm_trace_frame* first = NULL;
  tm_trace_frame* last = NULL;
  char* next = memory;
  for (walk w = walk_start(); walk_next(&w) && copy_size(&w.frame) <= size;) {
    tm_trace_frame* copy = (tm_trace_frame*)next;
    copy_frame(&w, copy);
    next += copy_size(copy);
    size -= copy_size(copy);
    if (last) link_frame(last, copy);
    first = first ? first : copy;
    last = copy;
  }
  if (last) link_frame(last, NULL);
  return first;
}

//===-- Text --------------------------------------------------------------===//

// A copied name lies in the frame of its scope, which may be gone: it may have been overwritten,
// and then not even end.
static void add_copied_name(walk* w, tm_text* text) {
  char name[TM_SCOPE_NAME_SIZE];
  if (!copy_readable(w, w->frame.name, name, sizeof name)) {
    tm_text_add_string_(text, "(gone)");
    return;
  }
  tm_text_add_(text, name, strnlen(name, sizeof name - 1));
}

static void add_name(walk* w, tm_text* text) {
  const char* name = w->frame.name;
  switch (kind_of(&w->frame)) {
    case TM_SCOPE_COPIED_:
      add_copied_name(w, text);
      return;
    case TM_SCOPE_SIGNATURE_:
      if (tm_signature_name_(name, text)) return;
      break;
    case TM_SCOPE_EXPRESSION_:
      if (tm_call_name_(name, text)) return;
      break;
    case TM_SCOPE_PLAIN_:
      break;
  }
  tm_text_add_string_(text, name);
}

static void add_file(walk* w, tm_text* text) {
  if (w->frame.file != w->file || !w->file) {
    w->file = w->frame.file;
    w->shown = tm_source_path_(w->file);
    w->shown_length = strlen(w->shown);
  }
  tm_text_add_(text, w->shown, w->shown_length);
}

static void add_frame(walk* w, tm_text* text) {
  add_name(w, text);
  tm_text_add_(text, " (", 2);
  add_file(w, text);
  tm_text_add_(text, ":", 1);
  tm_text_add_number_(text, w->frame.place / 4);
  tm_text_add_(text, ")", 1);
}

void tm_trace_text(char* text, size_t size) {
  if (size == 0) {
    return;
  }
  tm_text out = tm_text_of_(text, size);
  walk w = walk_start();
  while (!out.cut && walk_next(&w)) {
    if (out.used) tm_text_add_(&out, " < ", 3);
    add_frame(&w, &out);
  }
  if (w.gone) {
    tm_text_add_string_(
        &out, out.used ? " < (scopes left without closing)" : "(scopes left without closing)");
  }
  tm_text_finish_(&out);
}

const char* tm_trace_copy_name_(char* buffer, const char* name) {
  const char* text = name ? name : "(null)";
  const size_t length = strnlen(text, TM_SCOPE_NAME_SIZE - 1);
  memcpy(buffer, text, length);
  buffer[length] = '\0';
  return buffer;
}

//===-- Misuse ------------------------------------------------------------===//

// "layer (decoder.c:12)", as the trace shows it.
static void describe(walk* w, char* text, size_t size) {
  tm_text out = tm_text_of_(text, size);
  add_frame(w, &out);
  tm_text_finish_(&out);
}

void tm_trace_mismatch_(const tm_trace_frame* frame) {
  // `frame` belongs to the caller, who is closing it; what the thread has on top may be gone.
  char closed[256];
  char innermost[256];
  walk w = walk_start();
  w.frame = *frame;
  describe(&w, closed, sizeof closed);
  if (!w.next) {
    TM_FATAL("scope %s is closed, but no scope is open on this thread", closed);
  }
  if (!walk_next(&w)) {
    tm_thread_.trace_top = NULL;
    TM_FATAL("scope %s is closed, but a scope inside it was left without closing", closed);
  }
  describe(&w, innermost, sizeof innermost);
  TM_FATAL("scope %s is closed out of order: the innermost is %s", closed, innermost);
}
