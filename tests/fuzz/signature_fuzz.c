// Any text as a function's signature and as a call: what comes out fits, and is nothing where the
// text is refused. The first byte is the room for the name.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tm/base/signature.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

static void reduce(bool (*function)(const char*, tm_text*), const char* text, size_t room) {
  char* name = malloc(room);  // exactly as large, so that ASan sees a write behind it
  if (!name) return;
  tm_text out = tm_text_of_(name, room);
  if (!function(text, &out) && (out.used || out.cut)) abort();
  if (out.used > out.limit) abort();
  tm_text_finish_(&out);
  if (strlen(name) > out.used) abort();
  free(name);
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  char* text = malloc(size);
  if (!text) return 0;
  memcpy(text, data + 1, size - 1);
  text[size - 1] = '\0';
  reduce(tm_signature_name_, text, (size_t)data[0] + 1);
  reduce(tm_call_name_, text, (size_t)data[0] + 1);
  free(text);
  return 0;
}
