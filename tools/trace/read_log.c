#include "trace/read_log.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "trace/array.h"
#include "trace/log_text.h"
#include "trace/minimalloc_log.h"
#include "trace/rmm_log.h"
#include "trace/umpire_log.h"

static const struct {
  const char* name;
  bool (*begins)(log_field line);
  tm_status (*parse)(const char* text, size_t size, const char* file, allocation_log* out);
} formats[LOG_FORMATS] = {
    [LOG_ANY] = {"any", NULL, NULL},
    [LOG_RMM] = {"rmm", rmm_log_begins, rmm_log_parse},
    [LOG_UMPIRE] = {"umpire", umpire_log_begins, umpire_log_parse},
    [LOG_MINIMALLOC] = {"minimalloc", minimalloc_log_begins, minimalloc_log_parse},
};

const char* log_format_name(log_format format) { return formats[format].name; }

log_format log_format_find(const char* name) {
  int i = 0;
  while (i < LOG_FORMATS && strcmp(formats[i].name, name) != 0) i++;
  return (log_format)i;
}

//===-- Text --------------------------------------------------------------===//

static tm_status detect(const char* text, size_t size, const char* file, log_format* out) {
  log_text lines = log_text_of(text, size, file);
  *out = LOG_ANY;
  if (!log_next_line(&lines)) {
    return TM_RAISE(TM_ERR_CORRUPT, "%s:1: the file is empty", file);
  }
  for (int i = LOG_ANY + 1; i < LOG_FORMATS; i++) {
    if (formats[i].begins(lines.line)) {
      *out = (log_format)i;
      return TM_OK;
    }
  }
  return TM_RAISE(TM_ERR_CORRUPT,
                  "%s:%llu: neither RMM's header, nor one of MiniMalloc's (id,lower,upper,size), "
                  "nor a JSON object of Umpire's",
                  file, (unsigned long long)lines.line_number);
}

tm_status allocation_log_parse(const char* text, size_t size, const char* file, log_format format,
                               allocation_log* out) {
  *out = (allocation_log){0};
  if (format == LOG_ANY) TM_TRY(detect(text, size, file, &format));
  return formats[format].parse(text, size, file, out);
}

//===-- Files -------------------------------------------------------------===//

typedef struct file_text {
  char* bytes;
  size_t size;
  size_t capacity;
} file_text;

// A pipe does not say how much there is: the text grows as it comes.
static tm_status read_all(FILE* file, const char* path, file_text* out) {
  size_t got = 1;
  while (got) {
    if (out->size == out->capacity) {
      TM_TRY(array_make_room((void**)&out->bytes, &out->capacity, out->size, 1, "a log's text"));
    }
    got = fread(out->bytes + out->size, 1, out->capacity - out->size, file);
    out->size += got;
  }
  return ferror(file) ? TM_RAISE(TM_ERR_IO, "%s: %s", path, strerror(errno)) : TM_OK;
}

tm_status allocation_log_read(const char* path, log_format format, allocation_log* out) {
  file_text text = {0};
  *out = (allocation_log){0};
  FILE* file = fopen(path, "rb");
  if (!file) {
    return TM_RAISE(errno == ENOENT ? TM_ERR_NOT_FOUND : TM_ERR_IO, "%s: %s", path,
                    strerror(errno));
  }
  tm_status status = read_all(file, path, &text);
  (void)fclose(file);
  if (status == TM_OK) status = allocation_log_parse(text.bytes, text.size, path, format, out);
  tm_bookkeeping_free(text.bytes);
  return status;
}
