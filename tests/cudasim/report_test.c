// What reports look like, where they go, what is reported at the end of a process, and when that
// ends. A program of its own: each case runs in a child, whose reports are read from a file.

#define _GNU_SOURCE  // memmem
#include <ctype.h>
#include <malloc.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cudasim.h"
#include "tests/cudasim/expect.h"

#define BYTES ((size_t)4096)

static char path[64];  // of the reports

static void make_machine(cudasim_options o) {
  o.check_file = path;
  o.memory = "1GiB";
  if (!o.check) o.check = "report";
  EXPECT(cudasim_configure(&o) == cudaSuccess);
}

//===-- A mistake -----------------------------------------------------------------------------===//

// Exported, so that reports have their names; and no call is their last, so that each has a frame.
__attribute__((visibility("default"))) int fill_here(void* p, cudaStream_t stream);
__attribute__((visibility("default"))) int fill_there(void* p, cudaStream_t stream);

__attribute__((noinline)) int fill_here(void* p, cudaStream_t stream) {
  EXPECT(cudaMemsetAsync(p, 1, BYTES, stream) == cudaSuccess);
  return 0;
}

__attribute__((noinline)) int fill_there(void* p, cudaStream_t stream) {
  EXPECT(cudaMemsetAsync((char*)p + 96, 2, BYTES - 96, stream) == cudaSuccess);
  return 0;
}

static void make_mistakes(int count) {
  void* p;
  cudaStream_t streams[2];
  EXPECT(cudaMalloc(&p, BYTES) == cudaSuccess);
  for (int i = 0; i < 2; ++i) {
    EXPECT(cudaStreamCreateWithFlags(&streams[i], cudaStreamNonBlocking) == cudaSuccess);
  }
  for (int i = 0; i < count; ++i) {
    fill_here(p, streams[0]);
    fill_there(p, streams[1]);
    EXPECT(cudaDeviceSynchronize() == cudaSuccess);
  }
  EXPECT(cudaFree(p) == cudaSuccess);
  for (int i = 0; i < 2; ++i) EXPECT(cudaStreamDestroy(streams[i]) == cudaSuccess);
}

//===-- Reading reports -----------------------------------------------------------------------===//

static char* read_reports(const char* from) {
  static char text[65536];
  FILE* file = fopen(from, "r");
  size_t length = file ? fread(text, 1, sizeof(text) - 1, file) : 0;
  if (file) fclose(file);
  text[length] = '\0';
  return text;
}

// Makes "0x*" of every hexadecimal number.
static void hide_addresses(char* text) {
  char* to = text;
  for (const char* from = text; *from;) {
    bool is_number = strncmp(from, "0x", 2) == 0;
    *to++ = *from++;
    if (!is_number) continue;
    *to++ = *from++;
    while (isxdigit((unsigned char)*from)) ++from;
    *to++ = '*';
  }
  *to = '\0';
}

// Takes out the frames of all but the functions that are exported here.
static void hide_other_frames(char* text) {
  char* to = text;
  char* next;
  for (char* line = text; *line; line = next) {
    char* end = strchr(line, '\n');
    next = end ? end + 1 : line + strlen(line);
    bool is_frame = strncmp(line, "    ", 4) == 0;
    size_t length = (size_t)(next - line);
    if (is_frame && !memmem(line, length, "(fill_", 6)) continue;
    memmove(to, line, length);
    to += length;
  }
  *to = '\0';
}

static void expect_text(const char* got, const char* expected) {
  if (strcmp(got, expected) == 0) return;
  fprintf(stderr, "got:\n%s\nexpected:\n%s\n", got, expected);
  _exit(1);
}

// How the child ended.
static int run_child(void (*child)(void)) {
  int status;
  fflush(NULL);
  pid_t id = fork();
  if (id == 0) {
    child();
    exit(0);
  }
  EXPECT(waitpid(id, &status, 0) == id);
  return status;
}

static bool ended_well(int status) { return WIFEXITED(status) && WEXITSTATUS(status) == 0; }

//===-- What they look like -------------------------------------------------------------------===//

static void say_scopes(char* text, size_t size) { snprintf(text, size, "layer 3 (model.c:12)"); }

static void make_a_mistake(void) {
  make_machine((cudasim_options){.check_leaks = CUDASIM_OFF});
  cudasim_set_scope_source(say_scopes);
  make_mistakes(1);
}

static void is_text_for_people(void) {
  EXPECT(ended_well(run_child(make_a_mistake)));
  char* text = read_reports(path);
  hide_addresses(text);
  hide_other_frames(text);
  expect_text(text,
              "cudasim: unordered-copies: writes bytes 96 to 4095 of 4096 at 0x* on device 0; "
              "nothing orders this and the write of bytes 0 to 4095 of 4096 at 0x* on device 0\n"
              "  cudaMemsetAsync, in layer 3 (model.c:12)\n"
              "    report_test(fill_there+0x*)\n"
              "  written by cudaMemsetAsync, in layer 3 (model.c:12)\n"
              "    report_test(fill_here+0x*)\n");
}

static void say_strange_scopes(char* text, size_t size) { snprintf(text, size, "a \"b\"\\\n\t"); }

static void make_a_mistake_in_json(void) {
  make_machine((cudasim_options){.check_format = "json", .check_leaks = CUDASIM_OFF});
  cudasim_set_scope_source(say_strange_scopes);
  make_mistakes(1);
}

// Moves `*text` behind `expected`.
static void pass(const char** text, const char* expected) {
  size_t length = strlen(expected);
  if (strncmp(*text, expected, length) != 0) expect_text(*text, expected);
  *text += length;
}

static void pass_frames(const char** text, const char* first) {
  pass(text, "\"frames\":[\"");
  pass(text, first);
  pass(text, "+0x*)\"");
  *text += strcspn(*text, "]");
  pass(text, "]}");
}

static void is_json_for_machines(void) {
  EXPECT(ended_well(run_child(make_a_mistake_in_json)));
  char* read = read_reports(path);
  hide_addresses(read);
  const char* text = read;
  pass(&text,
       "{\"rule\":\"unordered-copies\",\"message\":\"writes bytes 96 to 4095 of 4096 at 0x* on "
       "device 0; nothing orders this and the write of bytes 0 to 4095 of 4096 at 0x* on device "
       "0\",\"here\":{\"call\":\"cudaMemsetAsync\",\"scopes\":\"a \\\"b\\\"\\\\\\u000a\\u0009\",");
  pass_frames(&text, "report_test(fill_there");
  pass(&text,
       ",\"relation\":\"written by\",\"there\":{\"call\":\"cudaMemsetAsync\",\"scopes\":\"a "
       "\\\"b\\\"\\\\\\u000a\\u0009\",");
  pass_frames(&text, "report_test(fill_here");
  expect_text(text, "}\n");
}

static void make_a_mistake_often(void) {
  make_machine((cudasim_options){.check_leaks = CUDASIM_OFF});
  make_mistakes(20);
  EXPECT(cudasim_report_count("unordered-copies") == 20);
  EXPECT(cudasim_report_count("leak") == 0);
  EXPECT(cudasim_report_count(NULL) == 20);
}

static void is_written_once_for_two_places(void) {
  EXPECT(ended_well(run_child(make_a_mistake_often)));
  const char* text = read_reports(path);
  EXPECT(strncmp(text, "cudasim: ", 9) == 0 && !strstr(text + 1, "cudasim: "));
}

//===-- Where they go, and what comes then ----------------------------------------------------===//

static void make_a_mistake_in_a_file_of_its_own(void) {
  snprintf(path + strlen(path), sizeof(path) - strlen(path), ".%%p");
  make_a_mistake();
}

static void goes_to_a_file_by_process(void) {
  int status;
  pid_t id = fork();
  if (id == 0) {
    make_a_mistake_in_a_file_of_its_own();
    exit(0);
  }
  EXPECT(waitpid(id, &status, 0) == id && ended_well(status));
  char own[96];
  snprintf(own, sizeof(own), "%s.%ld", path, (long)id);
  EXPECT(strstr(read_reports(own), "unordered-copies"));
  EXPECT(*read_reports(path) == '\0');
  unlink(own);
}

static void make_a_mistake_and_end(void) {
  make_machine((cudasim_options){.check = "abort"});
  make_mistakes(2);
}

static void ends_the_process_if_asked(void) {
  int status = run_child(make_a_mistake_and_end);
  EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
  EXPECT(strstr(read_reports(path), "unordered-copies"));
}

static void make_a_mistake_unchecked(void) {
  make_machine((cudasim_options){.check = "off"});
  make_mistakes(1);
  EXPECT(cudasim_report_count(NULL) == 0);
}

static void is_not_made_if_off(void) {
  EXPECT(ended_well(run_child(make_a_mistake_unchecked)));
  EXPECT(*read_reports(path) == '\0');
}

static void settings_are_checked(void) {
  EXPECT(freopen("/dev/null", "w", stderr) != NULL);
  EXPECT(cudasim_configure(&(cudasim_options){.check = "on"}) == cudaErrorInvalidValue);
  EXPECT(cudasim_configure(&(cudasim_options){.check_format = "xml"}) == cudaErrorInvalidValue);
  EXPECT(cudasim_configure(&(cudasim_options){.check = "report"}) == cudaSuccess);
}

//===-- The end -------------------------------------------------------------------------------===//

static void leave_things(cudasim_options o) {
  make_machine(o);
  for (int i = 0; i < 3; ++i) {
    void* p;
    EXPECT(cudaMallocAsync(&p, 1000, cudaStreamPerThread) == cudaSuccess);
  }
  void* pinned;
  cudaStream_t stream;
  cudaEvent_t event;
  cudaGraph_t graph;
  EXPECT(cudaMallocHost(&pinned, 64) == cudaSuccess);
  EXPECT(cudaStreamCreate(&stream) == cudaSuccess);
  EXPECT(cudaEventCreate(&event) == cudaSuccess);
  EXPECT(cudaGraphCreate(&graph, 0) == cudaSuccess);
}

static void leave_things_behind(void) { leave_things((cudasim_options){0}); }

static void leave_things_and_end(void) { leave_things((cudasim_options){.check = "abort"}); }

static void leave_things_unchecked(void) {
  leave_things((cudasim_options){.check = "abort", .check_leaks = CUDASIM_OFF});
}

static void has_what_was_left_at_exit(void) {
  EXPECT(ended_well(run_child(leave_things_behind)));
  const char* text = read_reports(path);
  EXPECT(strstr(text,
                "cudasim: leak: 3 allocations of 3000 bytes in all were not freed\n"
                "  cudaMallocAsync\n"));
  EXPECT(strstr(text,
                "cudasim: leak: 1 allocation of 64 bytes in all was not freed\n"
                "  cudaMallocHost\n"));
  EXPECT(strstr(text, "cudasim: leak: 1 stream was not destroyed\n  cudaStreamCreate\n"));
  EXPECT(strstr(text, "cudasim: leak: 1 event was not destroyed\n  cudaEventCreate\n"));
  EXPECT(strstr(text, "cudasim: leak: 1 graph was not destroyed\n  cudaGraphCreate\n"));
}

static void has_all_that_was_left_before_the_process_is_ended(void) {
  int status = run_child(leave_things_and_end);
  EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
  EXPECT(strstr(read_reports(path), "1 graph was not destroyed"));
}

static void has_nothing_that_was_left_if_not_asked(void) {
  EXPECT(ended_well(run_child(leave_things_unchecked)));
  EXPECT(*read_reports(path) == '\0');
}

static void leave_nothing(void) {
  make_machine((cudasim_options){0});
  cudaStream_t stream;
  void* p;
  EXPECT(cudaStreamCreate(&stream) == cudaSuccess);
  EXPECT(cudaMallocAsync(&p, 16, stream) == cudaSuccess);
  EXPECT(cudaFreeAsync(p, stream) == cudaSuccess);
  EXPECT(cudaMemset(NULL, 0, 0) == cudaSuccess);
  EXPECT(cudaStreamDestroy(stream) == cudaSuccess);
}

static void has_nothing_where_nothing_was_left(void) {
  EXPECT(ended_well(run_child(leave_nothing)));
  EXPECT(*read_reports(path) == '\0');
}

//===-- Memory --------------------------------------------------------------------------------===//

// Work that the host never waits for, in streams that come and go.
static void queue_work(char* p, cudaStream_t stream, int count) {
  for (int i = 0; i < count; ++i) {
    size_t at = (size_t)i * 64 % (1 << 20);
    EXPECT(cudaMemsetAsync(p + at, 1, 64, stream) == cudaSuccess);
  }
}

static void queue_very_much(void) {
  make_machine((cudasim_options){.schedule = "eager", .check_leaks = CUDASIM_OFF});
  void* p;
  cudaStream_t stream;
  EXPECT(cudaMalloc(&p, 1 << 20) == cudaSuccess);
  EXPECT(cudaStreamCreate(&stream) == cudaSuccess);
  queue_work(p, stream, 2000);
  size_t before = mallinfo2().uordblks;
  queue_work(p, stream, 50000);
  EXPECT(mallinfo2().uordblks <= before + (64 << 10));
  EXPECT(cudasim_report_count(NULL) == 0);
}

static void needs_no_memory_for_what_is_long_past(void) {
  EXPECT(ended_well(run_child(queue_very_much)));
}

//===-- Cases ---------------------------------------------------------------------------------===//

typedef struct test_case {
  const char* name;
  void (*run)(void);
} test_case;

#define CASE(function) \
  { #function, function }

static const test_case cases[] = {
    CASE(is_text_for_people),
    CASE(is_json_for_machines),
    CASE(is_written_once_for_two_places),
    CASE(goes_to_a_file_by_process),
    CASE(ends_the_process_if_asked),
    CASE(is_not_made_if_off),
    CASE(settings_are_checked),
    CASE(has_what_was_left_at_exit),
    CASE(has_all_that_was_left_before_the_process_is_ended),
    CASE(has_nothing_that_was_left_if_not_asked),
    CASE(has_nothing_where_nothing_was_left),
    CASE(needs_no_memory_for_what_is_long_past),
};

static bool run(const test_case* c) {
  snprintf(path, sizeof(path), "/tmp/report_test.XXXXXX");
  int file = mkstemp(path);
  EXPECT(file >= 0);
  close(file);
  bool passed = ended_well(run_child(c->run));
  unlink(path);
  printf("%s %s\n", passed ? "passed" : "FAILED", c->name);
  return passed;
}

int main(void) {
  unsetenv("CUDASIM_CHECK_LEAKS");
  int failed = 0;
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); ++i) failed += !run(&cases[i]);
  return failed != 0;
}
