// The trace is a linked list through the callers' frames, innermost first:
//
//   tm_thread_.trace_top -> [softmax] -> [attention] -> [layer] -> NULL
//
// Code that leaves a scope by longjmp without tm_context_restore leaves `trace_top` pointing into a
// frame that is gone. Such a frame must never be followed: it is told by its address (below the
// stack pointer of a caller that is still running) or by its check word.

#include "tm/base/trace.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "tm/base/fatal.h"

static bool frame_is_live(const tm_trace_frame* frame) {
  return !tm_is_below_stack_(frame) && frame->check == tm_trace_check_(frame);
}

static const char* base_name(const char* path) {
  const char* slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

// Ends a text that was cut at `size` bytes in "...".
static void mark_cut(char* text, size_t size) {
  if (size >= 4) {
    memcpy(text + size - 4, "...", 4);
  }
}

void tm_trace_text(char* text, size_t size) {
  if (size == 0) {
    return;
  }
  size_t used = 0;
  text[0] = '\0';
  for (const tm_trace_frame* frame = tm_thread_.trace_top; frame; frame = frame->below) {
    const char* separator = used ? " < " : "";
    int n;
    const bool live = frame_is_live(frame);
    if (live) {
      n = snprintf(text + used, size - used, "%s%s (%s:%d)", separator, frame->name,
                   base_name(frame->file), frame->line);
    } else {
      n = snprintf(text + used, size - used, "%s(scopes left without closing)", separator);
    }
    if (n < 0 || (size_t)n >= size - used) {
      mark_cut(text, size);
      return;
    }
    used += (size_t)n;
    if (!live) {
      return;
    }
  }
}

size_t tm_trace_depth(void) {
  size_t depth = 0;
  const tm_trace_frame* frame = tm_thread_.trace_top;
  while (frame && frame_is_live(frame)) {
    depth++;
    frame = frame->below;
  }
  return depth;
}

const char* tm_trace_copy_name_(char* buffer, const char* name) {
  const char* text = name ? name : "(null)";
  const size_t length = strnlen(text, TM_SCOPE_NAME_SIZE - 1);
  memcpy(buffer, text, length);
  buffer[length] = '\0';
  return buffer;
}

void tm_trace_mismatch_(const tm_trace_frame* frame) {
  // `frame` belongs to the caller, who is closing it; what the thread has on top may be gone.
  const tm_trace_frame* top = tm_thread_.trace_top;
  if (!top) {
    TM_FATAL("scope \"%s\" (%s:%d) is closed, but no scope is open on this thread", frame->name,
             frame->file, frame->line);
  }
  if (!frame_is_live(top)) {
    tm_thread_.trace_top = NULL;
    TM_FATAL("scope \"%s\" (%s:%d) is closed, but a scope inside it was left without closing",
             frame->name, frame->file, frame->line);
  }
  TM_FATAL("scope \"%s\" (%s:%d) is closed out of order: the innermost is \"%s\" (%s:%d)",
           frame->name, frame->file, frame->line, top->name, top->file, top->line);
}
