// tm: the command line of tmcore.

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tm/tm.h>
#include <unistd.h>

#include "tools/info.h"
#include "tools/plan.h"
#include "tools/replay.h"
#include "tools/trace.h"

static const struct {
  const char* name;
  const char* full_name;  // what its messages begin with
  int (*run)(int argc, char** argv);
  const char* summary;
} commands[] = {
    {"replay", "tm replay", replay_main, "serve a trace of requests, compare allocators"},
    {"plan", "tm plan", plan_main, "what an engine needs of a device, to the byte; what fits"},
    {"trace", "tm trace", trace_main, "replay a log of allocations through allocators"},
    {"info", "tm info", info_main, "what the library sees: versions, backend, devices, memory"},
};

enum { COMMANDS = sizeof(commands) / sizeof(commands[0]) };

static void print_help(void) {
  (void)printf("Usage: tm COMMAND [OPTION...]\n\n");
  for (int i = 0; i < COMMANDS; i++) {
    (void)printf("  %-8s %s\n", commands[i].name, commands[i].summary);
  }
  (void)printf("\n'tm COMMAND --help' says more. 'tm --version' prints the version.\n");
}

// `bazel run` starts a program in a folder of its own; file names are meant from the user's.
static void enter_users_folder(void) {
  const char* folder = getenv("BUILD_WORKING_DIRECTORY");
  if (folder && chdir(folder) != 0) perror(folder);
}

static int run_command(int argc, char** argv) {
  for (int i = 0; i < COMMANDS; i++) {
    if (strcmp(argv[0], commands[i].name) == 0) {
      argv[0] = (char*)commands[i].full_name;  // getopt prints it and writes to no argv[0]
      return commands[i].run(argc, argv);
    }
  }
  (void)fprintf(stderr, "tm: '%s' is no command; 'tm --help' lists them\n", argv[0]);
  return 2;
}

static int run(int argc, char** argv) {
  if (argc < 2) {
    (void)fprintf(stderr, "tm: a command is expected; 'tm --help' lists them\n");
    return 2;
  }
  if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
    print_help();
    return 0;
  }
  if (strcmp(argv[1], "--version") == 0) {
    (void)printf("tm (tmcore) %s\n", tm_version());
    return 0;
  }
  return run_command(argc - 1, argv + 1);
}

// A report that did not arrive is no success, whatever it said.
static int check_output(int status) {
  errno = 0;
  if (fflush(stdout) == 0 && !ferror(stdout)) return status;
  (void)fprintf(stderr, "tm: stdout: %s\n", errno ? strerror(errno) : "not all could be written");
  return 2;
}

int main(int argc, char** argv) {
  enter_users_folder();
  return check_output(run(argc, argv));
}
