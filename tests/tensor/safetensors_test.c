// Safetensors files: those of the reference implementation (safetensors/, with the script that made
// them), our own, and those that lie.

#include "tm/tensor/safetensors.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/failing.h"
#include "tests/support/machine.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/alloc/cuda.h"
#include "tm/alloc/host.h"
#include "tm/alloc/stack.h"
#include "tm/context/context.h"
#include "tm/tensor/copy.h"

#define ASSERT_OK(call) cr_assert(eq(int, (call), TM_OK), "%s", tm_last_error()->message)
#define FIXTURES "tests/tensor/safetensors/"

//===-- Paths -------------------------------------------------------------===//

static void path_of(const char* name, char* path, size_t size) {
  const char* folder = getenv("TEST_TMPDIR");
  snprintf(path, size, "%s/%ld-%s", folder ? folder : "/tmp", (long)getpid(), name);
}

// A new folder, which the test removes when it has emptied it.
static void make_folder(char* path, size_t size) {
  const char* folder = getenv("TEST_TMPDIR");
  snprintf(path, size, "%s/%ld-XXXXXX", folder ? folder : "/tmp", (long)getpid());
  cr_assert(mkdtemp(path) != NULL);
}

static int files_in(const char* folder) {
  DIR* const opened = opendir(folder);
  int count = 0;
  cr_assert(opened != NULL);
  while (readdir(opened)) count++;
  closedir(opened);
  return count - 2;  // "." and ".."
}

//===-- Values ------------------------------------------------------------===//

// Byte i of a tensor, as make_fixtures.py has it.
static uint8_t expected_byte(const char* name, tm_dtype dtype, size_t i) {
  const uint8_t byte = (uint8_t)(7 * i + strlen(name));
  return dtype == TM_BOOL ? byte % 2 : byte;
}

static void fill(const tm_tensor* tensor, const char* name) {
  for (size_t i = 0; i < tm_byte_size(tensor); i++) {
    ((uint8_t*)tm_data(tensor))[i] = expected_byte(name, tm_dtype_of(tensor), i);
  }
}

static void expect_values(const tm_tensor* tensor, const char* name) {
  cr_assert(tm_is_contiguous(tensor));
  for (size_t i = 0; i < tm_byte_size(tensor); i++) {
    cr_assert(eq(u8, ((uint8_t*)tm_data(tensor))[i], expected_byte(name, tm_dtype_of(tensor), i)),
              "byte %zu of %s", i, name);
  }
}

static void expect_tensor(const tm_tensor_map* map, const char* name, tm_dtype dtype,
                          tm_shape shape) {
  const tm_tensor* tensor = tm_tensor_map_at(map, name);
  cr_assert(tm_ok(tensor), "%s", tm_last_error()->message);
  const tm_shape there = tm_shape_of(tensor);
  cr_expect(eq(int, tm_dtype_of(tensor), dtype), "%s", name);
  cr_expect(tm_shape_equal(&there, &shape), "%s", name);
  expect_values(tensor, name);
}

static void add(tm_tensor_map* map, const char* name, tm_dtype dtype, tm_shape shape) {
  tm_auto_tensor tensor = tm_empty(shape, dtype, TM_CPU);
  cr_assert(tm_ok(&tensor));
  fill(&tensor, name);
  ASSERT_OK(tm_tensor_map_produce(map, name, &tensor));
}

static void expect_order(const tm_tensor_map_entry* entry, const char* const* names, size_t count) {
  for (size_t i = 0; i < count; i++, entry = tm_tensor_map_next(entry)) {
    cr_assert(entry != NULL);
    cr_expect(eq(str, (char*)entry->key, (char*)names[i]));
  }
  cr_expect(eq(ptr, (void*)entry, NULL));
}

//===-- Files of the reference implementation -----------------------------===//

static tm_tensor_map* load(const char* path) {
  tm_tensor_map* map = tm_safetensors_load(path, TM_CPU);
  cr_assert(map != NULL, "%s", tm_last_error()->message);
  return map;
}

Test(safetensors, reads_what_the_reference_wrote_from_numpy) {
  tm_auto_tensor_map map = load(FIXTURES "numpy.safetensors");
  expect_tensor(map, "bool", TM_BOOL, TM_SHAPE(3));
  expect_tensor(map, "uint8", TM_U8, TM_SHAPE(5));
  expect_tensor(map, "int8", TM_I8, TM_SHAPE(2, 3));
  expect_tensor(map, "int16", TM_I16, TM_SHAPE(3, 1));
  expect_tensor(map, "uint16", TM_U16, TM_SHAPE(1, 2, 3));
  expect_tensor(map, "int32", TM_I32, TM_SHAPE(2, 2));
  expect_tensor(map, "uint32", TM_U32, TM_SHAPE(4));
  expect_tensor(map, "int64", TM_I64, TM_SHAPE());
  expect_tensor(map, "uint64", TM_U64, TM_SHAPE(1, 1, 1, 1, 1, 1, 1, 1));
  expect_tensor(map, "float16", TM_F16, TM_SHAPE(7));
  expect_tensor(map, "float32", TM_F32, TM_SHAPE(2, 3, 2));
  expect_tensor(map, "float64", TM_F64, TM_SHAPE(2));
  expect_tensor(map, "none", TM_F32, TM_SHAPE(0, 3));
  expect_tensor(map, "a \"quoted\" \\ n\xc3\xa4me \xf0\x9f\x98\x80", TM_U8, TM_SHAPE(2));
  cr_expect(eq(int, (int)tm_tensor_map_size(map), 14));
  cr_expect(eq(int, (int)tm_tensor_map_metadata_size(map), 3));
  cr_expect(eq(str, (char*)tm_tensor_map_metadata(map, "format"), "np"));
  cr_expect(eq(str, (char*)tm_tensor_map_metadata(map, "line\nbreak"), "tab\tand \xc3\xa9"));
  cr_expect(eq(str, (char*)tm_tensor_map_metadata(map, ""), "empty"));
}

Test(safetensors, reads_what_the_reference_wrote_from_torch) {
  tm_auto_tensor_map map = load(FIXTURES "torch.safetensors");
  expect_tensor(map, "torch.bfloat16", TM_BF16, TM_SHAPE(3, 2));
  expect_tensor(map, "torch.float8_e4m3fn", TM_E4M3, TM_SHAPE(5));
  expect_tensor(map, "torch.float8_e5m2", TM_E5M2, TM_SHAPE(2, 2));
  cr_expect(eq(int, (int)tm_tensor_map_size(map), 3));
  cr_expect(eq(int, (int)tm_tensor_map_metadata_size(map), 0));
  tm_auto_tensor_map nibbles = load(FIXTURES "f4.safetensors");
  expect_tensor(nibbles, "f4", TM_E2M1, TM_SHAPE(3, 4));
}

Test(safetensors, a_type_that_tmcore_has_not_is_unavailable) {
  cr_expect(eq(ptr, tm_safetensors_load(FIXTURES "e8m0.safetensors", TM_CPU), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_UNAVAILABLE));
  cr_expect(strstr(tm_last_error()->message, "\"scale\" is of type F8_E8M0") != NULL);
}

static char* read_whole(const char* path, size_t* size) {
  FILE* file = fopen(path, "rb");
  cr_assert(file != NULL, "%s", path);
  char* bytes = malloc(1 << 16);
  cr_assert(bytes != NULL);
  *size = fread(bytes, 1, 1 << 16, file);
  fclose(file);
  return bytes;
}

// Order, padding, escapes and placement are the reference's.
Test(safetensors, writes_the_same_bytes_as_the_reference) {
  static const char* const paths[] = {FIXTURES "numpy.safetensors", FIXTURES "torch.safetensors",
                                      FIXTURES "f4.safetensors", FIXTURES "empty.safetensors"};
  for (size_t i = 0; i < 4; i++) {
    size_t size;
    char* bytes = read_whole(paths[i], &size);
    tm_auto_tensor_map map = load(paths[i]);
    tm_auto_buffer ours = tm_safetensors_encode(map);
    cr_assert(eq(sz, tm_buffer_byte_size(&ours), size), "%s", paths[i]);
    cr_expect(memcmp(tm_buffer_data(&ours), bytes, size) == 0, "%s: %.*s", paths[i], (int)size - 8,
              (char*)tm_buffer_data(&ours) + 8);
    free(bytes);
  }
}

//===-- There and back ----------------------------------------------------===//

static tm_tensor_map* decode(const tm_buffer* bytes) {
  tm_tensor_map* map =
      tm_safetensors_decode(tm_buffer_data(bytes), tm_buffer_byte_size(bytes), TM_CPU);
  cr_assert(map != NULL, "%s", tm_last_error()->message);
  return map;
}

Test(safetensors, every_type_order_and_metadata_survive) {
  static const char* const names[] = {"u8", "f64",  "bool", "e2m1", "u16",  "e3m2", "bf16",
                                      "i8", "e5m2", "i64",  "f16",  "e2m3", "u32",  "e4m3",
                                      "",   "i16",  "u64",  "f32",  "i32"};
  enum { COUNT = sizeof names / sizeof *names };
  tm_auto_tensor_map map = tm_tensor_map_create();
  ASSERT_OK(tm_tensor_map_add_metadata(map, "z", "\x01\x1f\"\\/\x7f"));
  ASSERT_OK(tm_tensor_map_add_metadata(map, "a", ""));
  for (int i = 0; i < COUNT; i++) {
    tm_dtype dtype = TM_F32;
    if (names[i][0]) {
      ASSERT_OK(tm_dtype_parse(names[i], &dtype));
    }
    add(map, names[i], dtype, TM_SHAPE(i % 4 + 1, 4));
  }
  tm_auto_buffer bytes = tm_safetensors_encode(map);
  cr_assert(tm_buffer_ok(&bytes), "%s", tm_last_error()->message);
  tm_auto_tensor_map back = decode(&bytes);
  expect_order(tm_tensor_map_first(back), names, COUNT);
  for (const tm_tensor_map_entry* e = tm_tensor_map_first(map); e; e = tm_tensor_map_next(e)) {
    expect_tensor(back, e->key, tm_dtype_of(&e->tensor), tm_shape_of(&e->tensor));
  }
  static const char* const texts[] = {"z", "a"};
  expect_order(tm_tensor_map_first_metadata(back), texts, 2);
  cr_expect(eq(str, (char*)tm_tensor_map_metadata(back, "z"), "\x01\x1f\"\\/\x7f"));
  cr_expect(eq(str, (char*)tm_tensor_map_metadata(back, "a"), ""));
}

Test(safetensors, values_lie_widest_type_first_so_that_they_are_aligned) {
  tm_auto_tensor_map map = tm_tensor_map_create();
  add(map, "b", TM_U8, TM_SHAPE(3));
  add(map, "d", TM_F64, TM_SHAPE(1));
  add(map, "h", TM_F16, TM_SHAPE(1));
  tm_auto_buffer bytes = tm_safetensors_encode(map);
  static const char header[] =
      "{\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[10,13]},"
      "\"d\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[0,8]},"
      "\"h\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[8,10]}}";
  const char* const data = tm_buffer_data(&bytes);
  const size_t padded = (sizeof header - 1 + 7) / 8 * 8;
  cr_assert(eq(sz, tm_buffer_byte_size(&bytes), 8 + padded + 13));
  cr_expect(eq(sz, (uint8_t)data[0], padded));
  cr_expect(memcmp(data + 8, header, sizeof header - 1) == 0, "%.*s", (int)padded, data + 8);
}

Test(safetensors, a_strided_tensor_is_written_as_it_reads) {
  tm_auto_tensor_map map = tm_tensor_map_create();
  tm_auto_tensor x = tm_empty(TM_SHAPE(2, 3), TM_I32, TM_CPU);
  for (int i = 0; i < 6; i++) TM_DATA(int32_t, &x)[i] = i;
  tm_auto_tensor t = tm_t(&x);
  ASSERT_OK(tm_tensor_map_produce(map, "x", &t));
  tm_auto_buffer bytes = tm_safetensors_encode(map);
  tm_auto_tensor_map back = decode(&bytes);
  static const int32_t expected[] = {0, 3, 1, 4, 2, 5};
  const tm_tensor* y = tm_tensor_map_at(back, "x");
  cr_assert(eq(int, (int)tm_dim(y, 0), 3));
  cr_expect(memcmp(tm_data(y), expected, sizeof expected) == 0);
}

Test(safetensors, an_empty_map_survives) {
  tm_auto_tensor_map map = tm_tensor_map_create();
  ASSERT_OK(tm_tensor_map_add_metadata(map, "format", "pt"));
  tm_auto_buffer bytes = tm_safetensors_encode(map);
  tm_auto_tensor_map back = decode(&bytes);
  cr_expect(eq(int, (int)tm_tensor_map_size(back), 0));
  cr_expect(eq(str, (char*)tm_tensor_map_metadata(back, "format"), "pt"));
}

//===-- Files -------------------------------------------------------------===//

Test(safetensors, a_file_is_replaced_when_it_is_complete) {
  char folder[4096];
  char path[4200];
  make_folder(folder, sizeof folder);
  snprintf(path, sizeof path, "%s/model", folder);
  tm_auto_tensor_map map = tm_tensor_map_create();
  add(map, "x", TM_F32, TM_SHAPE(100, 100));
  ASSERT_OK(tm_safetensors_save(map, path));
  add(map, "y", TM_U4, TM_SHAPE(2));  // which files do not have
  cr_expect(eq(int, tm_safetensors_save(map, path), TM_ERR_INVALID));
  tm_auto_tensor y = tm_tensor_map_consume(map, "y");
  cr_expect(eq(int, tm_dtype_of(&y), TM_U4));
  tm_auto_tensor_map back = load(path);
  expect_tensor(back, "x", TM_F32, TM_SHAPE(100, 100));
  cr_expect(eq(int, (int)tm_tensor_map_size(back), 1));
  add(map, "z", TM_U8, TM_SHAPE(1));
  ASSERT_OK(tm_safetensors_save(map, path));
  tm_auto_tensor_map both = load(path);
  cr_expect(eq(int, (int)tm_tensor_map_size(both), 2));
  cr_expect(eq(int, files_in(folder), 1));
  cr_expect(eq(int, unlink(path), 0));
  cr_expect(eq(int, rmdir(folder), 0));
}

Test(safetensors, what_the_system_refuses_is_said_with_the_path) {
  char path[4096];
  path_of("folder", path, sizeof path);
  tm_auto_tensor_map map = tm_tensor_map_create();
  cr_expect(eq(ptr, tm_safetensors_load("/no/such/file", TM_CPU), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_NOT_FOUND));
  cr_expect(strstr(tm_last_error()->message, "/no/such/file") != NULL);
  cr_expect(eq(ptr, tm_safetensors_load("/tmp", TM_CPU), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_IO));
  cr_expect(eq(int, tm_safetensors_save(map, "/no/such/file"), TM_ERR_IO));
  cr_expect(eq(int, mkdir(path, 0700), 0));
  cr_expect(eq(int, tm_safetensors_save(map, path), TM_ERR_IO));
  cr_expect(eq(int, rmdir(path), 0));
  cr_expect(eq(int, tm_safetensors_save(map, NULL), TM_ERR_INVALID));
  cr_expect(eq(ptr, tm_safetensors_load(NULL, TM_CPU), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
}

static tm_tensor_map* map_of(const char* name) {
  tm_tensor_map* map = tm_tensor_map_create();
  add(map, name, TM_U8, TM_SHAPE(5));
  return map;
}

static void expect_holds(const char* path, const char* name) {
  tm_auto_tensor_map map = load(path);
  expect_tensor(map, name, TM_U8, TM_SHAPE(5));
}

static unsigned mode_of(const char* path) {
  struct stat status;
  cr_assert(eq(int, lstat(path, &status), 0), "%s", path);
  return (unsigned)status.st_mode;
}

Test(safetensors, a_new_file_has_the_permissions_of_new_files_and_a_replaced_one_its_own) {
  static const unsigned modes[] = {0600, 0640, 0666, 0444, 0755};
  char path[4096];
  path_of("permissions", path, sizeof path);
  tm_auto_tensor_map map = map_of("x");
  umask(026);
  ASSERT_OK(tm_safetensors_save(map, path));
  cr_expect(eq(uint, mode_of(path), S_IFREG | 0640));
  for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
    cr_assert(eq(int, chmod(path, modes[i]), 0));
    ASSERT_OK(tm_safetensors_save(map, path));
    cr_expect(eq(uint, mode_of(path), S_IFREG | modes[i]));
  }
  cr_expect(eq(int, unlink(path), 0));
}

Test(safetensors, a_link_stays_one_and_what_it_leads_to_is_replaced) {
  char folder[4096];
  char path[4200];
  char link[4200];
  char inner[4200];
  make_folder(folder, sizeof folder);
  snprintf(inner, sizeof inner, "%s/inner", folder);
  snprintf(path, sizeof path, "%s/inner/model", folder);
  snprintf(link, sizeof link, "%s/link", folder);
  cr_assert(eq(int, mkdir(inner, 0700), 0));
  cr_assert(eq(int, symlink("inner/model", link), 0));
  tm_auto_tensor_map before = map_of("before");
  tm_auto_tensor_map after = map_of("after");
  cr_expect(eq(int, tm_safetensors_save(before, link), TM_ERR_IO));  // to nothing
  cr_expect(strstr(tm_last_error()->message, "/link") != NULL);
  cr_expect(eq(int, files_in(inner), 0));
  ASSERT_OK(tm_safetensors_save(before, path));
  ASSERT_OK(tm_safetensors_save(after, link));
  expect_holds(path, "after");
  cr_expect(eq(uint, mode_of(link) & S_IFMT, S_IFLNK));
  cr_expect(eq(int, files_in(folder), 2));
  cr_expect(eq(int, files_in(inner), 1));
  cr_expect(eq(int, unlink(path), 0));
  cr_assert(eq(int, symlink("link", path), 0));  // leads back
  cr_expect(eq(int, tm_safetensors_save(before, link), TM_ERR_IO));
  cr_expect(eq(int, unlink(path) + unlink(link) + rmdir(inner) + rmdir(folder), 0));
}

// Reads a pipe to its end; the bytes come behind their number.
typedef struct drain {
  int file;
  const char* path;  // opened first, where it is not NULL
  size_t size;
  char bytes[1 << 18];
} drain;

static void* read_to_the_end(void* user) {
  drain* const self = user;
  ssize_t got = 1;
  if (self->path) {
    self->file = open(self->path, O_RDONLY);
  }
  while (got > 0) {
    got = read(self->file, self->bytes + self->size, sizeof self->bytes - self->size);
    self->size += got > 0 ? (size_t)got : 0;
  }
  close(self->file);
  return NULL;
}

static void expect_drained(const drain* drained, const char* name) {
  tm_auto_tensor_map map = tm_safetensors_decode(drained->bytes, drained->size, TM_CPU);
  cr_assert(map != NULL, "%zu bytes: %s", drained->size, tm_last_error()->message);
  expect_tensor(map, name, TM_U8, TM_SHAPE(5));
}

Test(safetensors, a_named_pipe_is_written_to_and_stays_one) {
  char path[4096];
  pthread_t reader;
  path_of("pipe", path, sizeof path);
  cr_assert(eq(int, mkfifo(path, 0600), 0));
  drain drained = {.path = path};
  cr_assert(eq(int, pthread_create(&reader, NULL, read_to_the_end, &drained), 0));
  tm_auto_tensor_map map = map_of("x");
  const tm_status status = tm_safetensors_save(map, path);
  cr_assert(eq(uint, mode_of(path) & S_IFMT, S_IFIFO));  // else nobody ends the reader
  pthread_join(reader, NULL);
  cr_expect(eq(int, status, TM_OK));
  expect_drained(&drained, "x");
  cr_expect(eq(int, unlink(path), 0));
}

// As /dev/stdout is one.
Test(safetensors, a_link_to_an_open_pipe_is_written_to) {
  int ends[2];
  char path[64];
  cr_assert(eq(int, pipe(ends), 0));
  snprintf(path, sizeof path, "/proc/self/fd/%d", ends[1]);
  tm_auto_tensor_map map = map_of("x");
  ASSERT_OK(tm_safetensors_save(map, path));
  close(ends[1]);
  drain drained = {.file = ends[0]};
  read_to_the_end(&drained);
  expect_drained(&drained, "x");
}

static void* read_late(void* user) {
  usleep(20000);  // the writer has filled the pipe by then, or has not: both must go well
  return read_to_the_end(user);
}

// A pipe holds 64 KiB.
Test(safetensors, a_pipe_that_does_not_block_is_waited_for) {
  int ends[2];
  char path[64];
  pthread_t reader;
  cr_assert(eq(int, pipe(ends), 0));
  cr_assert(eq(int, fcntl(ends[1], F_SETFL, O_NONBLOCK), 0));
  snprintf(path, sizeof path, "/proc/self/fd/%d", ends[1]);
  tm_auto_tensor_map map = tm_tensor_map_create();
  add(map, "x", TM_U8, TM_SHAPE(200000));
  drain drained = {.file = ends[0]};
  cr_assert(eq(int, pthread_create(&reader, NULL, read_late, &drained), 0));
  ASSERT_OK(tm_safetensors_save(map, path));
  close(ends[1]);
  pthread_join(reader, NULL);
  tm_auto_buffer bytes = tm_safetensors_encode(map);
  cr_assert(eq(sz, drained.size, tm_buffer_byte_size(&bytes)));
  cr_expect(memcmp(drained.bytes, tm_buffer_data(&bytes), drained.size) == 0);
}

// As standard output is, where it goes to a file: what others write before and behind stays.
Test(safetensors, a_link_to_an_open_file_continues_it) {
  char path[4096];
  char link[4096];
  char name[64];
  drain all = {.file = -1};
  path_of("output", path, sizeof path);
  path_of("link", link, sizeof link);
  const int file = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
  cr_assert(file >= 0);
  snprintf(name, sizeof name, "/proc/self/fd/%d", file);
  cr_assert(eq(int, symlink(name, link), 0));
  tm_auto_tensor_map map = map_of("x");
  tm_auto_buffer bytes = tm_safetensors_encode(map);
  const size_t size = tm_buffer_byte_size(&bytes);
  cr_assert(write(file, "before", 6) == 6);
  ASSERT_OK(tm_safetensors_save(map, link));
  ASSERT_OK(tm_safetensors_save(map, name));
  cr_assert(write(file, "after", 5) == 5);
  all.file = open(path, O_RDONLY);
  read_to_the_end(&all);
  cr_assert(eq(sz, all.size, 2 * size + 11));
  cr_expect(memcmp(all.bytes, "before", 6) == 0);
  cr_expect(memcmp(all.bytes + 6, tm_buffer_data(&bytes), size) == 0);
  cr_expect(memcmp(all.bytes + 6 + size, tm_buffer_data(&bytes), size) == 0);
  cr_expect(memcmp(all.bytes + 6 + 2 * size, "after", 5) == 0);
  cr_expect(eq(int, close(file) + unlink(path) + unlink(link), 0));
  cr_expect(eq(int, tm_safetensors_save(map, name), TM_ERR_IO));  // closed by now
  cr_expect(strstr(tm_last_error()->message, name) != NULL);
}

// No open() takes a socket.
Test(safetensors, a_link_to_an_open_socket_is_written_to) {
  int ends[2];
  char path[64];
  cr_assert(eq(int, socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0));
  snprintf(path, sizeof path, "/dev/fd/%d", ends[1]);
  tm_auto_tensor_map map = map_of("x");
  ASSERT_OK(tm_safetensors_save(map, path));
  close(ends[1]);
  drain drained = {.file = ends[0]};
  read_to_the_end(&drained);
  expect_drained(&drained, "x");
}

Test(safetensors, a_device_that_is_full_is_an_error) {
  char path[64];
  const int file = open("/dev/full", O_WRONLY);
  cr_assert(file >= 0);
  snprintf(path, sizeof path, "/proc/self/fd/%d", file);
  tm_auto_tensor_map map = map_of("x");
  cr_expect(eq(int, tm_safetensors_save(map, path), TM_ERR_IO));
  cr_expect(strstr(tm_last_error()->message, strerror(ENOSPC)) != NULL, "%s",
            tm_last_error()->message);
  close(file);
}

Test(safetensors, a_pipe_is_not_read_and_not_waited_for) {
  char path[4096];
  path_of("unread", path, sizeof path);
  cr_assert(eq(int, mkfifo(path, 0600), 0));
  cr_expect(eq(ptr, tm_safetensors_load(path, TM_CPU), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_IO));
  cr_expect(strstr(tm_last_error()->message, "no regular file") != NULL);
  cr_expect(eq(int, unlink(path), 0));
}

Test(safetensors, a_write_that_fails_half_way_leaves_the_file_of_before) {
  char folder[4096];
  char path[4200];
  make_folder(folder, sizeof folder);
  snprintf(path, sizeof path, "%s/model", folder);
  tm_auto_tensor_map before = map_of("before");
  tm_auto_tensor_map large = map_of("large");
  add(large, "rest", TM_U8, TM_SHAPE(100000));
  ASSERT_OK(tm_safetensors_save(before, path));
  struct rlimit old;
  cr_assert(eq(int, getrlimit(RLIMIT_FSIZE, &old), 0));
  const struct rlimit small = {.rlim_cur = 10000, .rlim_max = old.rlim_max};
  signal(SIGXFSZ, SIG_IGN);
  cr_assert(eq(int, setrlimit(RLIMIT_FSIZE, &small), 0));
  const tm_status status = tm_safetensors_save(large, path);
  cr_assert(eq(int, setrlimit(RLIMIT_FSIZE, &old), 0));
  cr_expect(eq(int, status, TM_ERR_IO));
  cr_expect(strstr(tm_last_error()->message, path) != NULL, "%s", tm_last_error()->message);
  expect_holds(path, "before");
  cr_expect(eq(int, files_in(folder), 1));
  cr_expect(eq(int, unlink(path) + rmdir(folder), 0));
}

Test(safetensors, a_file_may_have_the_longest_name_there_is) {
  char path[4096];
  path_of("", path, sizeof path);
  char* const name = strrchr(path, '/') + 1;
  memset(name + strlen(name), 'n', NAME_MAX);
  name[NAME_MAX] = '\0';
  tm_auto_tensor_map map = map_of("x");
  ASSERT_OK(tm_safetensors_save(map, path));
  expect_holds(path, "x");
  cr_expect(eq(int, unlink(path), 0));
}

static void* save_often(void* path) {
  intptr_t failures = 0;
  for (int i = 0; i < 15; i++) {
    tm_auto_tensor_map map = tm_tensor_map_create();
    tm_auto_tensor x = tm_empty(TM_SHAPE(5), TM_U8, TM_CPU);
    fill(&x, "x");
    const bool done =
        tm_tensor_map_produce(map, "x", &x) == TM_OK && tm_safetensors_save(map, path) == TM_OK;
    failures += !done;
  }
  return (void*)failures;
}

Test(safetensors, threads_may_replace_one_file) {
  char folder[4096];
  char path[4200];
  pthread_t threads[4];
  make_folder(folder, sizeof folder);
  snprintf(path, sizeof path, "%s/model", folder);
  for (int i = 0; i < 4; i++) {
    cr_assert(eq(int, pthread_create(&threads[i], NULL, save_often, path), 0));
  }
  for (int i = 0; i < 4; i++) {
    void* failures = NULL;
    pthread_join(threads[i], &failures);
    cr_expect(eq(ptr, failures, NULL));
  }
  expect_holds(path, "x");
  cr_expect(eq(int, files_in(folder), 1));
  cr_expect(eq(int, unlink(path) + rmdir(folder), 0));
}

//===-- Devices -----------------------------------------------------------===//

// With a stack that has room, so that allocations in the capture succeed.
Test(safetensors, while_capturing_device_values_are_neither_saved_nor_loaded) {
  machine_configure(1, "64MiB");
  machine_require_devices(1);
  char folder[4096];
  char path[4200];
  cudaGraph_t graph = NULL;
  size_t nodes = 77;
  make_folder(folder, sizeof folder);
  snprintf(path, sizeof path, "%s/model", folder);
  tm_auto_stream stream = tm_stream_create(0, 0);
  tm_auto_allocator stack = tm_stack_allocator_create(tm_cuda_allocator(0), stream, NULL);
  ASSERT_OK(tm_stack_reserve(stack, 1 << 20));
  tm_auto_tensor_map map = map_of("x");
  tm_auto_buffer bytes = tm_safetensors_encode(map);
  TM_WITH_STREAM(stream) TM_WITH_ALLOCATOR(stack) {
    tm_auto_tensor_map there =
        tm_safetensors_decode(tm_buffer_data(&bytes), tm_buffer_byte_size(&bytes), TM_DEVICE);
    cr_assert(there != NULL, "%s", tm_last_error()->message);
    ASSERT_OK(tm_stream_sync(stream));
    const cudaError_t code =
        cudaStreamBeginCapture(tm_stream_handle(stream), cudaStreamCaptureModeGlobal);
    cr_assert(eq(int, code, 0));
    cr_expect(eq(int, tm_safetensors_save(there, path), TM_ERR_CAPTURING));
    cr_expect(eq(int, files_in(folder), 0));
    tm_auto_buffer none = tm_safetensors_encode(there);
    cr_expect(not(tm_buffer_ok(&none)));
    cr_expect(eq(int, tm_last_status(), TM_ERR_CAPTURING));
    ASSERT_OK(tm_safetensors_save(map, path));
    tm_clear_error();
    cr_expect(eq(ptr, tm_safetensors_load(path, TM_DEVICE), NULL));
    cr_expect(eq(int, tm_last_status(), TM_ERR_CAPTURING));
    expect_holds(path, "x");
    cr_assert(eq(int, cudaStreamEndCapture(tm_stream_handle(stream), &graph), 0));
    cr_assert(eq(int, cudaGraphGetNodes(graph, NULL, &nodes), 0));
    cr_expect(eq(sz, nodes, 0));
    cr_expect(eq(int, cudaGraphDestroy(graph), 0));
    ASSERT_OK(tm_safetensors_save(there, path));
    expect_holds(path, "x");
  }
  cr_expect(eq(int, unlink(path) + rmdir(folder), 0));
}

// More than the block through which values go, and a strided one.
Test(safetensors, tensors_go_to_a_device_and_come_back) {
  machine_configure(1, "64MiB");
  machine_require_devices(1);
  tm_auto_stream stream = tm_stream_create(0, 0);
  cr_assert(stream != NULL, "%s", tm_last_error()->message);
  tm_auto_tensor_map map = tm_tensor_map_create();
  add(map, "large", TM_U8, TM_SHAPE(9, 1 << 20));
  add(map, "small", TM_F16, TM_SHAPE(5));
  tm_auto_buffer bytes = tm_safetensors_encode(map);
  TM_WITH_STREAM(stream) TM_WITH_ALLOCATOR(tm_cuda_allocator(0)) {
    tm_auto_tensor_map there =
        tm_safetensors_decode(tm_buffer_data(&bytes), tm_buffer_byte_size(&bytes), TM_DEVICE);
    cr_assert(there != NULL, "%s", tm_last_error()->message);
    const tm_tensor* large = tm_tensor_map_at(there, "large");
    cr_expect(eq(int, tm_device_of(large).type, TM_DEVICE));
    tm_auto_tensor columns = tm_slice(large, TM_INDEX(0, 100), TM_INDEX(-1, 1000));
    ASSERT_OK(tm_tensor_map_produce(there, "columns", &columns));
    tm_auto_buffer again = tm_safetensors_encode(there);
    cr_assert(tm_buffer_ok(&again), "%s", tm_last_error()->message);
    tm_auto_tensor_map back = decode(&again);
    expect_tensor(back, "large", TM_U8, TM_SHAPE(9, 1 << 20));
    expect_tensor(back, "small", TM_F16, TM_SHAPE(5));
    const uint8_t* data = tm_data(tm_tensor_map_at(back, "columns"));
    cr_expect(eq(u8, data[8 * 1000 + 999], expected_byte("large", TM_U8, (8u << 20) + 1099)));
  }
}

Test(safetensors, a_device_without_a_stream_or_an_allocator_is_unavailable) {
  cr_expect(eq(ptr, tm_safetensors_load(FIXTURES "torch.safetensors", TM_DEVICE), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_UNAVAILABLE));
  tm_clear_error();
  cr_expect(eq(ptr, tm_safetensors_load_from(NULL, FIXTURES "torch.safetensors"), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
}

//===-- What cannot be written --------------------------------------------===//

static void expect_refused(const char* name, tm_dtype dtype, tm_shape shape, const char* words) {
  tm_auto_tensor_map map = tm_tensor_map_create();
  add(map, name, dtype, shape);
  tm_auto_buffer bytes = tm_safetensors_encode(map);
  cr_expect(not(tm_buffer_ok(&bytes)));
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
  cr_expect(strstr(tm_last_error()->message, words) != NULL, "%s", tm_last_error()->message);
}

Test(safetensors, what_files_cannot_hold_is_refused) {
  expect_refused("x", TM_U6, TM_SHAPE(4), "\"x\" is of u6");
  expect_refused("x", TM_POINTER, TM_SHAPE(4), "\"x\" is of pointer");
  expect_refused("x", TM_E2M1, TM_SHAPE(3), "3 of e2m1 fill no whole bytes");
  expect_refused("x", TM_E3M2, TM_SHAPE(2), "2 of e3m2 fill no whole bytes");
  expect_refused("__metadata__", TM_F32, TM_SHAPE(1), "\"__metadata__\"");
  expect_refused("\xff", TM_F32, TM_SHAPE(1), "no UTF-8");
  expect_refused("\xed\xa0\x80", TM_F32, TM_SHAPE(1), "no UTF-8");  // a surrogate
  expect_refused("\xc0\x80", TM_F32, TM_SHAPE(1), "no UTF-8");      // overlong
  expect_refused("\xe2\x82", TM_F32, TM_SHAPE(1), "no UTF-8");      // cut
}

// The mark alone makes memory dry for our copies.
Test(safetensors, dry_memory_has_no_values_to_write) {
  tm_auto_tensor_map map = tm_tensor_map_create();
  add(map, "x", TM_F32, TM_SHAPE(3));
  tm_storage* storage = tm_tensor_map_at(map, "x")->storage;
  storage->flags |= TM_STORAGE_DRY_;
  tm_auto_buffer bytes = tm_safetensors_encode(map);
  storage->flags &= ~(uint32_t)TM_STORAGE_DRY_;
  cr_expect(not(tm_buffer_ok(&bytes)));
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
  cr_expect(strstr(tm_last_error()->message, "12 bytes in dry memory") != NULL);
}

//===-- Files that lie ----------------------------------------------------===//

typedef struct lie {
  const char* header;
  size_t values;  // bytes
  tm_status status;
  const char* words;  // of the message
} lie;

#define X(fields) "{\"x\":{" fields "}}"
#define U8X(shape, offsets) X("\"dtype\":\"U8\",\"shape\":" shape ",\"data_offsets\":" offsets)
#define Y(begin, end) "{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[" #begin "," #end "]}"

static const lie lies[] = {
    // Sizes and offsets.
    {U8X("[4]", "[0,3]"), 4, TM_ERR_CORRUPT, "\"x\": (4) of u8 in bytes 0 to 3"},
    {U8X("[4]", "[0,4]"), 5, TM_ERR_CORRUPT, "4 bytes, 5 are there"},
    {U8X("[4]", "[0,4]"), 3, TM_ERR_CORRUPT, "4 bytes, 3 are there"},
    {U8X("[4]", "[1,5]"), 5, TM_ERR_CORRUPT, "begins at byte 1"},
    {U8X("[4]", "[4,0]"), 4, TM_ERR_CORRUPT, "in bytes 4 to 0"},
    {U8X("[0]", "[1,1]"), 0, TM_ERR_CORRUPT, "begins at byte 1"},
    {"{\"x\":" Y(0, 4) ",\"y\":" Y(2, 6) "}", 6, TM_ERR_CORRUPT, "\"y\" begins at byte 2"},
    {"{\"x\":" Y(0, 4) ",\"y\":" Y(0, 4) "}", 4, TM_ERR_CORRUPT, "begins at byte 0, 4 are"},
    {"{\"x\":" Y(0, 4) ",\"y\":" Y(5, 9) "}", 9, TM_ERR_CORRUPT, "\"y\" begins at byte 5"},
    {X("\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]"), 2, TM_ERR_CORRUPT, "(3) of e2m1"},
    {X("\"dtype\":\"F6_E2M3\",\"shape\":[3],\"data_offsets\":[0,3]"), 3, TM_ERR_CORRUPT, "(3) of"},
    {U8X("[1152921504606846976]", "[0,1152921504606846976]"), 4, TM_ERR_CORRUPT, "4 are there"},
    {U8X("[4294967296,4294967296]", "[0,0]"), 0, TM_ERR_CORRUPT, "\"x\": "},
    {X("\"dtype\":\"F64\",\"shape\":[2305843009213693953],\"data_offsets\":[0,8]"), 8,
     TM_ERR_CORRUPT, "\"x\": "},
    {U8X("[9223372036854775807]", "[0,9223372036854775807]"), 4, TM_ERR_CORRUPT, "4 are there"},
    {U8X("[9223372036854775808]", "[0,4]"), 4, TM_ERR_CORRUPT, "an integer beyond 2^63 - 1"},
    {U8X("[4]", "[0,18446744073709551620]"), 4, TM_ERR_CORRUPT, "an integer beyond 2^63 - 1"},
    {U8X("[1,1,1,1,1,1,1,1,1]", "[0,1]"), 1, TM_ERR_UNAVAILABLE, "more than 8 dimensions"},
    // Numbers.
    {U8X("[-1]", "[0,4]"), 4, TM_ERR_CORRUPT, "an integer of 0 or more"},
    {U8X("[04]", "[0,4]"), 4, TM_ERR_CORRUPT, "an integer of 0 or more"},
    {U8X("[4.0]", "[0,4]"), 4, TM_ERR_CORRUPT, "']' or ',' expected"},
    {U8X("[4e0]", "[0,4]"), 4, TM_ERR_CORRUPT, "']' or ',' expected"},
    {U8X("[\"4\"]", "[0,4]"), 4, TM_ERR_CORRUPT, "an integer of 0 or more"},
    // Fields.
    {X("\"dtype\":\"U8\",\"shape\":[4]"), 4, TM_ERR_CORRUPT, "without its type, shape or offsets"},
    {X("\"dtype\":\"U8\",\"dtype\":\"U8\""), 4, TM_ERR_CORRUPT, "another field expected"},
    {X("\"dtype\":\"U8\",\"stride\":[4]"), 4, TM_ERR_CORRUPT, "another field expected"},
    {X("\"dtype\":\"u8\",\"shape\":[4],\"data_offsets\":[0,4]"), 4, TM_ERR_CORRUPT,
     "\"x\" is of an unknown type, \"u8\""},
    {X("\"dtype\":8"), 4, TM_ERR_CORRUPT, "a string expected"},
    {X(""), 0, TM_ERR_CORRUPT, "a string expected"},
    {U8X("[4]", "[0]"), 4, TM_ERR_CORRUPT, "',' expected"},
    {U8X("[4]", "[0,4,4]"), 4, TM_ERR_CORRUPT, "']' or ',' expected"},
    {U8X("4", "[0,4]"), 4, TM_ERR_CORRUPT, "'[' expected"},
    {"{\"x\":" Y(0, 4) ",\"x\":" Y(4, 8) "}", 8, TM_ERR_CORRUPT, "\"x\" is there twice"},
    {"{\"x\":" Y(0, 4) ",\"\\u0078\":" Y(4, 8) "}", 8, TM_ERR_CORRUPT, "\"x\" is there twice"},
    {"{\"x\":null}", 0, TM_ERR_CORRUPT, "'{' expected"},
    // Metadata.
    {"{\"__metadata__\":{\"a\":1}}", 0, TM_ERR_CORRUPT, "a string expected"},
    {"{\"__metadata__\":[]}", 0, TM_ERR_CORRUPT, "'{' expected"},
    {"{\"__metadata__\":{\"a\":\"\",\"a\":\"\"}}", 0, TM_ERR_CORRUPT, "\"a\" is there already"},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, TM_ERR_CORRUPT, "for the second time"},
    // Text.
    {"", 0, TM_ERR_CORRUPT, "byte 0 of the header: '{' expected"},
    {" {}", 0, TM_ERR_CORRUPT, "byte 0 of the header: '{' expected"},
    {"[]", 0, TM_ERR_CORRUPT, "'{' expected"},
    {"{", 0, TM_ERR_CORRUPT, "byte 1 of the header: a string expected"},
    {"{\"", 0, TM_ERR_CORRUPT, "a string without an end"},
    {"{\"x", 0, TM_ERR_CORRUPT, "a string without an end"},
    {"{\"x\\", 0, TM_ERR_CORRUPT, "no such escape"},
    {"{\"\\x\":", 0, TM_ERR_CORRUPT, "no such escape"},
    {"{\"\\u00", 0, TM_ERR_CORRUPT, "four hexadecimal digits"},
    {"{\"\\u00g0\":", 0, TM_ERR_CORRUPT, "four hexadecimal digits"},
    {"{\"\\u0000\":", 0, TM_ERR_UNAVAILABLE, "a NUL"},  // legal, and no name here
    {X("\"dtype\":\"\\u0000\""), 0, TM_ERR_UNAVAILABLE, "a NUL"},
    {"{\"\\ud800\":", 0, TM_ERR_CORRUPT, "half a surrogate pair"},
    {"{\"\\ud800\\u0041\":", 0, TM_ERR_CORRUPT, "half a surrogate pair"},
    {"{\"\\udc00\\udc00\":", 0, TM_ERR_CORRUPT, "half a surrogate pair"},
    {"{\"\\udc00\":", 0, TM_ERR_CORRUPT, "half a surrogate pair"},
    {"{\"a\nb\":", 0, TM_ERR_CORRUPT, "a control character"},
    {"{\"\xff\":", 0, TM_ERR_CORRUPT, "no UTF-8"},
    {"{\"\xe2\x82", 0, TM_ERR_CORRUPT, "no UTF-8"},
    {"{\"\xf4\x90\x80\x80\":", 0, TM_ERR_CORRUPT, "no UTF-8"},
    {"{}{}", 0, TM_ERR_CORRUPT, "byte 2 of the header: nothing more expected"},
    {"{\"x\":" Y(0, 4) ",}", 4, TM_ERR_CORRUPT, "a string expected"},
    {"{\"x\" " Y(0, 4) "}", 4, TM_ERR_CORRUPT, "':' expected"},
};

static void put_size(uint64_t size, char* out) {
  for (int i = 0; i < 8; i++) out[i] = (char)(size >> (8 * i));
}

// A file of that header and of zeros; the caller frees it.
static char* make_file(const char* header, size_t values, size_t* size) {
  const size_t length = strlen(header);
  *size = 8 + length + values;
  char* file = calloc(*size, 1);
  cr_assert(file != NULL);
  put_size(length, file);
  for (size_t i = 0; i < length; i++) file[8 + i] = header[i];
  return file;
}

Test(safetensors, a_file_that_lies_is_corrupt) {
  for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
    size_t size;
    char* file = make_file(lies[i].header, lies[i].values, &size);
    const int64_t live = tm_bookkeeping_live();
    cr_expect(eq(ptr, tm_safetensors_decode(file, size, TM_CPU), NULL), "%s", lies[i].header);
    cr_expect(eq(int, tm_last_status(), lies[i].status), "%s: %s", lies[i].header,
              tm_last_error()->message);
    cr_expect(strstr(tm_last_error()->message, lies[i].words) != NULL, "%s: %s", lies[i].header,
              tm_last_error()->message);
    cr_expect(eq(i64, tm_bookkeeping_live(), live));
    free(file);
  }
}

Test(safetensors, a_file_may_have_spaces_escapes_and_values_at_any_address) {
  size_t size;
  char* file = make_file(
      "{ \"\\ud83d\\ude00\\u00e4\\n\" :\t{\r\n\"shape\" : [ 1 ] , \"data_offsets\" : [ 1 , 5 ] ,"
      "\"dtype\" : \"F32\" } , \"y\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]} } \n",
      5, &size);
  tm_auto_tensor_map map = tm_safetensors_decode(file, size, TM_CPU);
  cr_assert(map != NULL, "%s", tm_last_error()->message);
  cr_expect(tm_tensor_map_contains(map, "\xf0\x9f\x98\x80\xc3\xa4\n"));
  cr_expect(eq(int, (int)tm_tensor_map_size(map), 2));
  free(file);
}

// As many tensors as a header can hold.
Test(safetensors, the_shortest_tensors_fit) {
  char header[1024];
  size_t used = 0;
  for (int i = 0; i < 10; i++) {
    const char name[2] = {(char)(i ? '0' + i : 0), 0};
    used += (size_t)snprintf(header + used, sizeof header - used,
                             "%s\"%s\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[%d,%d]}%s",
                             i ? "," : "{", name, i, i + 1, i < 9 ? "" : "}");
  }
  size_t size;
  char* file = make_file(header, 10, &size);
  tm_auto_tensor_map map = tm_safetensors_decode(file, size, TM_CPU);
  cr_assert(map != NULL, "%s", tm_last_error()->message);
  cr_expect(eq(int, (int)tm_tensor_map_size(map), 10));
  free(file);
}

Test(safetensors, a_header_larger_than_the_file_allocates_nothing) {
  static const uint64_t sizes[] = {3, 1u << 30, 1ull << 60, UINT64_MAX, UINT64_MAX - 7};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    char file[10] = {0};
    put_size(sizes[i], file);
    const uint64_t calls = tm_bookkeeping_calls();
    cr_expect(eq(ptr, tm_safetensors_decode(file, sizeof file, TM_CPU), NULL));
    cr_expect(eq(int, tm_last_status(), TM_ERR_CORRUPT));
    cr_expect(eq(u64, tm_bookkeeping_calls(), calls));
  }
}

Test(safetensors, every_beginning_of_a_file_is_corrupt) {
  size_t size;
  char* bytes = read_whole(FIXTURES "numpy.safetensors", &size);
  for (size_t i = 0; i < size; i++) {
    char* cut = malloc(i ? i : 1);  // exactly as large, so that ASan sees a read behind it
    cr_assert(cut != NULL);
    memcpy(cut, bytes, i);
    cr_expect(eq(ptr, tm_safetensors_decode(cut, i, TM_CPU), NULL), "%zu of %zu bytes", i, size);
    cr_expect(eq(int, tm_last_status(), TM_ERR_CORRUPT), "%zu: %s", i, tm_last_error()->message);
    free(cut);
  }
  free(bytes);
}

// Whatever a changed bit makes of it: a status, and nothing left behind.
Test(safetensors, every_change_of_a_bit_is_survived) {
  size_t size;
  char* bytes = read_whole(FIXTURES "numpy.safetensors", &size);
  char* copy = malloc(size);  // as large, so that ASan sees a read behind it
  cr_assert(copy != NULL);
  const int64_t live = tm_bookkeeping_live();
  for (size_t bit = 0; bit < 8 * size; bit++) {
    memcpy(copy, bytes, size);
    copy[bit / 8] = (char)((unsigned)copy[bit / 8] ^ 1u << bit % 8);
    tm_tensor_map* map = tm_safetensors_decode(copy, size, TM_CPU);
    const tm_status status = map ? TM_OK : tm_last_status();
    cr_assert(status == TM_OK || status == TM_ERR_CORRUPT || status == TM_ERR_UNAVAILABLE,
              "bit %zu: %s", bit, tm_last_error()->message);
    tm_tensor_map_release(map);
  }
  cr_expect(eq(i64, tm_bookkeeping_live(), live));
  free(copy);
  free(bytes);
}

//===-- Out of memory -----------------------------------------------------===//

static tm_status produce(tm_tensor_map* map, tm_allocator* upstream, const char* name) {
  TM_TRY_TENSOR(tensor, tm_empty_from(upstream, TM_SHAPE(3, 4), TM_I16));
  memset(tm_data(&tensor), 0, tm_byte_size(&tensor));
  tm_auto_tensor turned = tm_t(&tensor);
  return tm_tensor_map_produce(map, name, &turned);
}

static tm_status encode_and_decode(tm_allocator* upstream) {
  tm_auto_tensor_map map = tm_tensor_map_create();
  if (!map) return tm_last_status();
  TM_TRY(produce(map, upstream, "x"));
  TM_TRY(produce(map, upstream, "y"));
  TM_TRY(tm_tensor_map_add_metadata(map, "format", "pt"));
  TM_TRY_BUFFER(bytes, tm_safetensors_encode(map));
  tm_auto_tensor_map back =
      tm_safetensors_decode_from(upstream, tm_buffer_data(&bytes), tm_buffer_byte_size(&bytes));
  return back ? TM_OK : tm_last_status();
}

Test(safetensors, memory_survives_every_failure) {
  expect_survives_every_failure(encode_and_decode);
}

static tm_status save_and_load(tm_allocator* upstream) {
  char path[4096];
  path_of("failing", path, sizeof path);
  tm_auto_tensor_map map = tm_tensor_map_create();
  if (!map) return tm_last_status();
  TM_TRY(produce(map, upstream, "x"));
  TM_TRY(tm_safetensors_save(map, path));
  tm_auto_tensor_map back = tm_safetensors_load_from(upstream, path);
  (void)unlink(path);
  return back ? TM_OK : tm_last_status();
}

Test(safetensors, files_survive_every_failure) { expect_survives_every_failure(save_and_load); }

static tm_status save_from_a_device(tm_allocator* upstream) {
  char path[4096];
  path_of("failing-device", path, sizeof path);
  tm_auto_tensor_map map = tm_tensor_map_create();
  tm_auto_stream stream = tm_stream_create(0, 0);
  if (!map || !stream) return tm_last_status();
  TM_USE_STREAM(stream);
  TM_TRY(produce(map, upstream, "x"));
  TM_TRY(tm_safetensors_save(map, path));
  tm_auto_tensor_map there = tm_safetensors_load_from(tm_cuda_allocator(0), path);
  const tm_status status = there ? tm_safetensors_save(there, path) : tm_last_status();
  (void)unlink(path);
  return status;
}

static void one_device(void) {
  machine_configure(1, "64MiB");
  machine_require_devices(1);
}

Test(safetensors, device_memory_survives_every_failure, .init = one_device) {
  expect_survives_every_failure_or_retries(save_from_a_device);
}

Test(safetensors, device_memory_survives_every_cuda_failure, .init = one_device) {
  expect_survives_every_cuda_failure(save_from_a_device);
}
