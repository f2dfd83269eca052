#include "tensor/output_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tm/alloc/bookkeeping.h"

enum {
  SCRATCH_NAME_SIZE = 48,  // bytes, the NUL included; shorter than any limit of a name
  SCRATCH_ATTEMPTS = 1000,
};

static TM_COLD tm_status raise_errno(const tm_output_file* file) {
  return TM_RAISE(TM_ERR_IO, "%s: %s", file->name, strerror(errno));
}

static int open_uninterrupted(const char* path, int flags, mode_t mode) {
  int descriptor;
  do {
    descriptor = open(path, flags | O_CLOEXEC | O_NOCTTY, mode);
  } while (descriptor < 0 && errno == EINTR);
  return descriptor;
}

//===-- Beside the old one ------------------------------------------------===//

// Names are new in this process; those of a process that died with the same id are passed over.
static int create_scratch(char* path, size_t folder, mode_t mode) {
  static uint64_t count;
  int descriptor = -1;
  for (int i = 0; i < SCRATCH_ATTEMPTS; i++) {
    const uint64_t n = __atomic_fetch_add(&count, 1, __ATOMIC_RELAXED);
    snprintf(path + folder, SCRATCH_NAME_SIZE, ".tmcore-%ld-%llu.tmp", (long)getpid(),
             (unsigned long long)n);
    descriptor = open_uninterrupted(path, O_WRONLY | O_CREAT | O_EXCL, mode);
    if (descriptor >= 0 || errno != EEXIST) {
      break;
    }
  }
  return descriptor;
}

static tm_status open_scratch(tm_output_file* file, mode_t mode) {
  const char* const slash = strrchr(file->path, '/');
  const size_t folder = slash ? (size_t)(slash - file->path) + 1 : 0;
  file->scratch = tm_bookkeeping_alloc(folder + SCRATCH_NAME_SIZE, "the scratch name of a file");
  if (!file->scratch) {
    return TM_ERR_NO_MEMORY;
  }
  memcpy(file->scratch, file->path, folder);
  file->descriptor = create_scratch(file->scratch, folder, mode);
  return file->descriptor >= 0 ? TM_OK : raise_errno(file);
}

// Who may not give files away keeps this one; then it must not run as its owner, who is another
// now.
static tm_status pass_permissions_on(const tm_output_file* file, const struct stat* old) {
  mode_t mode = old->st_mode & 07777;
  if (fchown(file->descriptor, old->st_uid, old->st_gid) != 0) {
    mode &= (mode_t) ~(S_ISUID | S_ISGID);
  }
  return fchmod(file->descriptor, mode) == 0 ? TM_OK : raise_errno(file);
}

// The path itself, or what it leads to where it is a link.
static tm_status find_path(tm_output_file* file) {
  const char* const path = file->name;
  struct stat status;
  const bool is_link = lstat(path, &status) == 0 && S_ISLNK(status.st_mode);
  file->path = tm_bookkeeping_alloc(is_link ? PATH_MAX : strlen(path) + 1, "the name of a file");
  if (!file->path) {
    return TM_ERR_NO_MEMORY;
  }
  if (is_link) {
    return realpath(path, file->path) ? TM_OK : raise_errno(file);
  }
  memcpy(file->path, path, strlen(path));
  return TM_OK;
}

// Nobody who may not read the old file reads the new one meanwhile.
static tm_status open_beside(const struct stat* old, tm_output_file* file) {
  TM_TRY(find_path(file));
  TM_TRY(open_scratch(file, old ? 0600 : 0666));
  return old ? pass_permissions_on(file, old) : TM_OK;
}

//===-- An open one -------------------------------------------------------===//

// The number behind one of the folders of open files; -1 where there is none.
static int descriptor_of(const char* path) {
  static const char* const folders[] = {"/proc/self/fd/", "/dev/fd/"};
  for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
    const size_t length = strlen(folders[i]);
    if (strncmp(path, folders[i], length) == 0 && path[length] >= '0' && path[length] <= '9') {
      char* end;
      const long number = strtol(path + length, &end, 10);
      return *end == '\0' && number <= INT_MAX ? (int)number : -1;
    }
  }
  return -1;
}

// The open file that a path means, as /dev/stdout does by its link: opened anew, it would begin at
// its start, and sockets cannot be; replaced, what else is written to it would be lost.
static int find_open(const char* path) {
  char target[64];
  const int number = descriptor_of(path);
  if (number >= 0) {
    return number;
  }
  const ssize_t size = readlink(path, target, sizeof target - 1);
  if (size < 0) {
    return -1;
  }
  target[size] = '\0';
  return descriptor_of(target);
}

//===-- Public ------------------------------------------------------------===//

static tm_status open_any(tm_output_file* file) {
  struct stat status;
  const int number = find_open(file->name);
  if (number >= 0) {
    file->descriptor = fcntl(number, F_DUPFD_CLOEXEC, 0);
    return file->descriptor >= 0 ? TM_OK : raise_errno(file);
  }
  const bool exists = stat(file->name, &status) == 0;
  if (!exists && errno != ENOENT) {
    return raise_errno(file);
  }
  if (!exists || S_ISREG(status.st_mode)) {
    return open_beside(exists ? &status : NULL, file);
  }
  file->descriptor = open_uninterrupted(file->name, O_WRONLY, 0);
  return file->descriptor >= 0 ? TM_OK : raise_errno(file);
}

static void free_names(tm_output_file* file) {
  tm_bookkeeping_free(file->scratch);
  tm_bookkeeping_free(file->path);
  *file = (tm_output_file){.descriptor = -1};
}

tm_status tm_output_file_open_(const char* path, tm_output_file* out) {
  *out = (tm_output_file){.descriptor = -1, .name = path};
  const tm_status status = open_any(out);
  if (status == TM_OK) {
    return TM_OK;
  }
  if (out->descriptor >= 0) {
    return tm_output_file_close_(out, status);
  }
  free_names(out);
  return status;
}

tm_status tm_output_file_close_(tm_output_file* file, tm_status status) {
  if (status == TM_OK && file->scratch && fsync(file->descriptor) != 0) {
    status = raise_errno(file);
  }
  if (close(file->descriptor) != 0 && errno != EINTR && status == TM_OK) {
    status = raise_errno(file);
  }
  if (status == TM_OK && file->scratch && rename(file->scratch, file->path) != 0) {
    status = raise_errno(file);
  }
  if (status != TM_OK && file->scratch) {
    (void)unlink(file->scratch);
  }
  free_names(file);
  return status;
}
