#include "tm/alloc/logging_adaptor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "alloc/adaptor.h"

enum { LINE_SIZE = 160, DAY_SECONDS = 86400 };

typedef struct logging {
  tm_allocator base;  // must be first
  int file;
  long offset;      // seconds of local time ahead of UTC
  uint64_t lost;    // lines; atomic
  int first_error;  // errno of the first lost one; atomic
} logging;

//===-- Lines ---------------------------------------------------------------===//

// A line that is written in part is ended by the rest, or by the next one: readers see one bad
// line.
static int write_all(int file, const char* text, size_t size) {
  while (size > 0) {
    const ssize_t written = write(file, text, size);
    if (written == 0) {
      return EIO;  // a device that takes nothing and says nothing
    }
    if (written < 0 && errno != EINTR) {
      return errno;
    }
    text += written > 0 ? written : 0;
    size -= written > 0 ? (size_t)written : 0;
  }
  return 0;
}

static void write_or_count(logging* l, const char* text, size_t size) {
  const int before = errno;
  const int error = write_all(l->file, text, size);
  if (error) {
    int none = 0;
    (void)__atomic_compare_exchange_n(&l->first_error, &none, error, false, __ATOMIC_RELAXED,
                                      __ATOMIC_RELAXED);
    (void)__atomic_fetch_add(&l->lost, 1, __ATOMIC_RELAXED);
  }
  errno = before;
}

// localtime_r would take a lock for each line, which a forked child may find held for ever.
static void log_line(logging* l, const char* action, const void* ptr, size_t size,
                     const tm_stream* stream) {
  struct timespec now;
  (void)clock_gettime(CLOCK_REALTIME, &now);
  const long of_day = (long)((now.tv_sec + l->offset) % DAY_SECONDS);
  char line[LINE_SIZE];
  const int length =
      snprintf(line, sizeof line, "%ld,%02ld:%02ld:%02ld:%06ld,%s,0x%llx,%zu,0x%llx\n",
               syscall(SYS_gettid), of_day / 3600, of_day / 60 % 60, of_day % 60,
               now.tv_nsec / 1000, action, (unsigned long long)(uintptr_t)ptr, size,
               (unsigned long long)(uintptr_t)tm_stream_handle(stream ? stream : l->base.stream));
  write_or_count(l, line, (size_t)length);
}

//===-- Slots ---------------------------------------------------------------===//

static tm_status logging_alloc(tm_allocator* self, size_t size, tm_stream* stream, void** out) {
  const tm_status status = tm_adaptor_ask_(self, size, stream, out);
  const bool made = status == TM_OK;
  log_line((logging*)self, made ? "allocate" : "allocate failure", made ? *out : NULL, size,
           stream);
  return status;
}

static void logging_free(tm_allocator* self, void* ptr, size_t size, tm_stream* stream) {
  log_line((logging*)self, "free", ptr, size, stream);
  tm_adaptor_give_back_(self, ptr, size, stream);
}

static void logging_destroy(tm_allocator* self) {
  (void)close(((logging*)self)->file);
  tm_adaptor_destroy_(self);
}

static const tm_allocator_vtable logging_vtable = {
    .name = "logging",
    .destroy = logging_destroy,
    .alloc = logging_alloc,
    .free = logging_free,
    .trim = tm_adaptor_trim_,
    .get_stats = tm_adaptor_get_stats_,
};

//===-- Public functions ----------------------------------------------------===//

static tm_status raise_io(int error, const char* what, const char* path) {
  errno = error;
  return TM_RAISE(error == ENOENT ? TM_ERR_NOT_FOUND : TM_ERR_IO, "logging: %s %s: %m", what, path);
}

static long offset_of_local_time(void) {
  const time_t now = time(NULL);
  struct tm local;
  return localtime_r(&now, &local) ? local.tm_gmtoff : 0;
}

static tm_status open_log(const char* path, int* out) {
  static const char header[] = "Thread,Time,Action,Pointer,Size,Stream\n";
  *out = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
  if (*out < 0) {
    return raise_io(errno, "cannot open", path);
  }
  const int error = write_all(*out, header, sizeof header - 1);
  if (error) {
    (void)close(*out);
    return raise_io(error, "cannot write to", path);
  }
  return TM_OK;
}

tm_allocator* tm_logging_adaptor_create(tm_allocator* upstream, const char* path) {
  if (!path) {
    (void)TM_RAISE(TM_ERR_INVALID, "tm_logging_adaptor_create: the path is NULL");
    return NULL;
  }
  logging* l = tm_adaptor_create_(sizeof *l, &logging_vtable, upstream,
                                  "tm_logging_adaptor_create: the upstream");
  if (!l) {
    return NULL;
  }
  if (open_log(path, &l->file) != TM_OK) {
    tm_adaptor_destroy_(&l->base);
    return NULL;
  }
  l->offset = offset_of_local_time();
  return &l->base;
}

tm_status tm_logging_check(tm_allocator* adaptor) {
  TM_TRY(tm_adaptor_check_(adaptor, &logging_vtable, "tm_logging_check: the allocator"));
  const logging* l = (const logging*)adaptor;
  const uint64_t lost = __atomic_load_n(&l->lost, __ATOMIC_RELAXED);
  if (lost == 0) {
    return TM_OK;
  }
  errno = __atomic_load_n(&l->first_error, __ATOMIC_RELAXED);
  return TM_RAISE(TM_ERR_IO, "logging: %llu lines could not be written: %m",
                  (unsigned long long)lost);
}
