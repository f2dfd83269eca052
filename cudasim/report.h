// Reports: what a check found, with the two places in the program that do not go together.
//
//   cudasim: unordered-copies: <message>
//     cudaMemcpyAsync, in attention (decoder.c:12) < step (engine.c:40)      `here`
//       program(enqueue+0x2f)
//       program(main+0x118)
//     written by cudaMemsetAsync                                             `relation`, `there`
//       program(clear+0x15)
//
// A check takes a site for each call that it may want to name later, keeps it, and reports:
//
//   if (sim_check_mode != CHECK_OFF) { ... }                  // off costs this branch
//   site* s = sim_site_here();                                // under the runtime's lock; retain
//   it sim_report(&(report){.rule = RULE_..., .message = text, .here = s, .relation = "freed by",
//                        .there = freed});
//
// In a signal handler there is neither the lock nor memory: fill a site of your own, and report
// that as well. Sites that are read there must not be released meanwhile.
//
//   static site here;
//   sim_site_fill(&here, NULL);  // the frames of the code that calls it, innermost first
//   sim_report(...);             // no memory, no lock of the runtime
//
// A new rule is a line in CUDASIM_RULES.
#ifndef CUDASIM_REPORT_H_
#define CUDASIM_REPORT_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cudasim/calls.h"
#include "cudasim/options.h"

// Name, and how it is written.
#define CUDASIM_RULES(X)                    \
  X(USE_BEFORE_ALLOC, "use-before-alloc")   \
  X(USE_AFTER_FREE, "use-after-free")       \
  X(UNORDERED_COPIES, "unordered-copies")   \
  X(WRONG_FREE, "wrong-free")               \
  X(DOUBLE_FREE, "double-free")             \
  X(OUT_OF_BOUNDS, "out-of-bounds")         \
  X(LEAK, "leak")                           \
  X(READ_BEFORE_SYNC, "read-before-sync")   \
  X(WRITE_BEFORE_SYNC, "write-before-sync") \
  X(DEVICE_ACCESS, "device-access")

typedef enum rule_id {
#define RULE_ENUM_(name, text) RULE_##name,
  CUDASIM_RULES(RULE_ENUM_)
#undef RULE_ENUM_
      RULE_COUNT
} rule_id;

// Of the machine; set when it is made.
extern check_mode sim_check_mode;

static inline bool check_is_on(void) { return __builtin_expect(sim_check_mode != CHECK_OFF, 0); }

//===-- Sites ---------------------------------------------------------------------------------===//

#define SITE_FRAMES 8
#define SITE_SCOPES 200

// A place in the program: the call of the runtime, who called it, and the open scopes there.
typedef struct site {
  uint32_t references;
  int call;  // call_id; CALL_COUNT where it is none
  int frame_count;
  void* frames[SITE_FRAMES];  // return addresses, innermost first
  char scopes[SITE_SCOPES];   // text; empty where there are none
} site;

// The site of the call that the calling thread is in; taken once per call, so that it costs little
// to ask again. NULL when the host has no memory. Borrowed until the call ends. Needs the lock.
site* sim_site_here(void);

// Fills a site that is nobody's call: frames from the caller of this function on, or, with a
// program counter such as that of a signal's context, from that on. Allocates nothing.
void sim_site_fill(site* s, const void* pc);

// NULL is no site. Need the lock.
site* sim_site_retain(site* s);
void sim_site_release(site* s);

// Frees the memory of all sites.
void sim_site_drop(void);

//===-- Reports -------------------------------------------------------------------------------===//

typedef struct report {
  rule_id rule;
  const char* message;   // one line, without the call
  const site* here;      // where it shows; NULL: nowhere
  const char* relation;  // what `there` has done to the memory, e.g. "freed by"
  const site* there;     // the other side, or NULL
  bool more_follow;      // the process is not ended yet
} report;

// Counts the report and writes it, unless one of the same rule and places was written before; ends
// the process where the machine's mode is CHECK_ABORT. Allocates nothing, leaves errno, needs no
// lock: good in signal handlers.
void sim_report(const report* r);

// Takes over the machine's options, and forgets reports of earlier ones. The first unwinding of a
// stack may allocate: it happens here.
void sim_report_begin(const options* o);

#endif  // CUDASIM_REPORT_H_
