#define _GNU_SOURCE  // dladdr, REG_ERR
#include "cudasim/fault_handler.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "cudasim/check.h"
#include "cudasim/device.h"
#include "cudasim/host_check.h"
#include "cudasim/runtime.h"

// Handlers that were there before ours, one after the other. The program may install one over ours
// that calls ours in the end: then ours goes on with the one before.
#define MOST_EARLIER 8

// Times that an access is tried again which failed for no reason that is known: another thread has
// just made it possible.
#define TRIES 8

// What a signal's stack must have left: for a report, and for starting a thread that makes it.
#define REPORT_STACK ((size_t)24 << 10)
#define THREAD_STACK ((size_t)3 << 10)

// How long a handler waits for the runtime's lock before it takes it for its own thread's.
#define LOCK_TRIES 1000

static struct {
  struct sigaction earlier[MOST_EARLIER];  // oldest first
  int earlier_count;
  bool is_installed;
  atomic_bool is_careful;
  atomic_flag busy;  // guards what follows: one report at a time
  finding finding;
  site here;
} state = {.busy = ATOMIC_FLAG_INIT};

// What a thread that has a fault remembers. Not in thread-locals, of which a library that is loaded
// late gets few.
typedef struct passing {
  _Atomic(uint64_t) thread;  // 0: nobody's
  const void* context;       // of the fault that is being passed on
  uintptr_t frame;           // of our handler
  uint64_t address;          // of the last access that was tried again
  uint16_t level;            // of the handler that it was passed to
  uint16_t tries;
} passing;

// The last is shared by all that find no other.
static passing passings[64];

static passing* passing_of_thread(void) {
  const size_t count = sizeof(passings) / sizeof(passings[0]);
  const uint64_t self = (uint64_t)(uintptr_t)pthread_self();
  for (size_t i = 0; i + 1 < count; ++i) {
    if (atomic_load(&passings[i].thread) == self) return &passings[i];
  }
  for (size_t i = 0; i + 1 < count; ++i) {
    uint64_t nobody = 0;
    if (atomic_compare_exchange_strong(&passings[i].thread, &nobody, self)) return &passings[i];
  }
  return &passings[count - 1];
}

static void forget_passing(passing* p) {
  p->context = NULL;
  p->address = 0;
  p->tries = 0;
  atomic_store(&p->thread, 0);
}

//===-- What happened -------------------------------------------------------------------------===//

static host_access access_of(const siginfo_t* info, const ucontext_t* context) {
  host_access a = {.address = (uint64_t)(uintptr_t)info->si_addr, .kind = ACCESS_UNKNOWN};
#if defined(__x86_64__)
  const greg_t* registers = context->uc_mcontext.gregs;
  a.kind = registers[REG_ERR] & 2 ? ACCESS_WRITE : ACCESS_READ;
  a.pc = (const void*)registers[REG_RIP];
#elif defined(__aarch64__)
  a.pc = (const void*)context->uc_mcontext.pc;
#endif
  return a;
}

bool sim_fault_handler_is_in_free(const void* pc) {
  Dl_info info;
  if (!pc || !dladdr(pc, &info) || !info.dli_sname) return false;
  return strstr(info.dli_sname, "free") || strstr(info.dli_sname, "realloc");
}

//===-- Device memory -------------------------------------------------------------------------===//

// The lock, unless its owner, which may be this thread, does not let it go.
static bool try_lock(void) {
  for (int i = 0; i < LOCK_TRIES; ++i) {
    if (sim_try_lock()) return true;
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  }
  return false;
}

static void say_device(const host_access* a, const device* d, finding* out) {
  const block* b = sim_space_block_around(&d->space, a->address);
  const char* verb = a->kind == ACCESS_READ ? "reads" : a->kind == ACCESS_WRITE ? "writes" : "uses";
  out->rule = RULE_DEVICE_ACCESS;
  bool is_freed;
  const site* origin = sim_check_origin(a->address, &is_freed);
  out->has_there = origin;
  out->relation = is_freed ? "freed by" : "allocated by";
  if (origin) out->there = *origin;
  if (b) {
    snprintf(out->message, sizeof(out->message),
             "the host %s %#llx, byte %llu of an allocation of %llu on device %d", verb,
             (unsigned long long)a->address, (unsigned long long)(a->address - block_address(b)),
             (unsigned long long)b->requested, d->id);
  } else {
    snprintf(out->message, sizeof(out->message),
             "the host %s %#llx, in no live allocation of device %d", verb,
             (unsigned long long)a->address, d->id);
  }
}

static void look_at_device(const host_access* a, finding* out) {
  bool is_locked = try_lock();
  const device* d = sim_device_of(a->address);
  if (d) say_device(a, d, out);
  if (is_locked) sim_unlock();
}

//===-- Reporting -----------------------------------------------------------------------------===//

// What is left of the stack that the signal came on; SIZE_MAX where that is the thread's own.
static size_t stack_left(void) {
  stack_t stack;
  if (sigaltstack(NULL, &stack) || !(stack.ss_flags & SS_ONSTACK)) return SIZE_MAX;
  return (size_t)((char*)__builtin_frame_address(0) - (char*)stack.ss_sp);
}

static void* write_report(void* unused) {
  (void)unused;
  const finding* f = &state.finding;
  sim_report(&(report){.rule = f->rule,
                       .message = f->message,
                       .here = &state.here,
                       .relation = f->relation,
                       .there = f->has_there ? &f->there : NULL,
                       .more_follow = true});
  return NULL;
}

// On a signal's stack that is small, another thread has the room.
static void report_elsewhere(const host_access* a, size_t left) {
  static const char little[] =
      "cudasim: a host access to memory in use; the signal's stack is too "
      "small to say more\n";
  pthread_t thread;
  state.here = (site){.call = CALL_COUNT, .frame_count = 1, .frames = {(void*)(uintptr_t)a->pc}};
  if (left > THREAD_STACK && !pthread_create(&thread, NULL, write_report, NULL)) {
    pthread_join(thread, NULL);
  } else if (write(STDERR_FILENO, little, sizeof(little) - 1) < 0) {
    return;
  }
}

static void report_access(const host_access* a) {
  size_t left = stack_left();
  if (left < REPORT_STACK) {
    report_elsewhere(a, left);
    return;
  }
  sim_site_fill(&state.here, a->pc);
  write_report(NULL);
}

// Whether the access is to be tried again.
static bool handle(const host_access* a) {
  while (atomic_flag_test_and_set(&state.busy)) sched_yield();
  bool is_admitted = sim_host_check_admit(a, &state.finding);
  if (!is_admitted && sim_host_check_is_active() && !sim_pinned_holds(a->address)) {
    look_at_device(a, &state.finding);
  }
  bool is_found = state.finding.message[0] != '\0';
  if (is_found) report_access(a);
  bool aborts =
      is_found && sim_check_mode == CHECK_ABORT && state.finding.rule != RULE_DEVICE_ACCESS;
  atomic_flag_clear(&state.busy);
  if (aborts) abort();
  return is_admitted;
}

//===-- Passing on ----------------------------------------------------------------------------===//

static bool is_ours(const struct sigaction* action);

static void restore_default(int signal) {
  struct sigaction action = {.sa_handler = SIG_DFL};
  sigaction(signal, &action, NULL);
}

// Calls a handler as the kernel would have.
static void call_handler(const struct sigaction* action, int signal, siginfo_t* info,
                         void* context) {
  sigset_t before;
  sigset_t mask = action->sa_mask;
  pthread_sigmask(SIG_BLOCK, &mask, &before);
  if (action->sa_flags & SA_NODEFER) {
    sigemptyset(&mask);
    sigaddset(&mask, signal);
    pthread_sigmask(SIG_UNBLOCK, &mask, NULL);
  }
  if (action->sa_flags & SA_SIGINFO) {
    action->sa_sigaction(signal, info, context);
  } else {
    action->sa_handler(signal);
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
}

// The fault happens again when the handler has returned, and then ends the process; a signal that
// somebody sent has to be sent again.
static void end_process(int signal, const siginfo_t* info, const struct sigaction* action) {
  bool is_sent = info->si_code <= 0;
  if (is_sent && action && action->sa_handler == SIG_IGN) return;
  restore_default(signal);
  if (is_sent) raise(signal);
}

// Whether the handler to which `context` was passed has called ours. One that was left by longjmp
// does not count: a new signal comes on a frame above.
static bool is_nested(const passing* p, const void* context, uintptr_t frame) {
  return p->context == context && frame < p->frame;
}

static void pass_on(passing* p, int signal, siginfo_t* info, void* context) {
  uintptr_t frame = (uintptr_t)__builtin_frame_address(0);
  bool is_again = is_nested(p, context, frame);
  int level = is_again ? p->level - 1 : state.earlier_count - 1;
  const struct sigaction* action = level >= 0 ? &state.earlier[level] : NULL;
  if (!action || action->sa_handler == SIG_DFL || action->sa_handler == SIG_IGN) {
    end_process(signal, info, action);
    return;
  }
  p->context = context;
  if (!is_again) p->frame = frame;
  p->level = (uint16_t)level;
  const struct sigaction copy = *action;
  if (copy.sa_flags & (int)SA_RESETHAND) {
    state.earlier[level] = (struct sigaction){.sa_handler = SIG_DFL};
  }
  call_handler(&copy, signal, info, context);
  p->context = NULL;
}

// Whether another thread may have made the access possible while this one came here.
static bool may_be_late(passing* p, uint64_t address) {
  if (!sim_host_check_is_active() || !sim_pinned_holds(address)) return false;
  if (p->address != address) p->tries = 0;
  p->address = address;
  return ++p->tries <= TRIES;
}

static void on_fault(int signal, siginfo_t* info, void* context) {
  const int before = errno;
  const host_access a = access_of(info, context);
  passing* p = passing_of_thread();
  bool is_again = is_nested(p, context, (uintptr_t)__builtin_frame_address(0));
  bool is_fault = info->si_code > 0 && !is_again;
  if (is_fault && handle(&a)) {
    forget_passing(p);
  } else if (!is_fault || !may_be_late(p, a.address)) {
    pass_on(p, signal, info, context);
    if (!is_again) forget_passing(p);
  }
  errno = before;
}

//===-- Installation --------------------------------------------------------------------------===//

static bool is_ours(const struct sigaction* action) {
  return action->sa_flags & SA_SIGINFO && action->sa_sigaction == on_fault;
}

// The library must not be unloaded: its handler may be called at any time.
static void stay_loaded(void) {
  Dl_info info;
  if (dladdr((const void*)(uintptr_t)on_fault, &info) && info.dli_fname) {
    dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
  }
}

static void put(const struct sigaction* earlier) {
  if (state.earlier_count == MOST_EARLIER) {
    memmove(state.earlier, state.earlier + 1, sizeof(state.earlier[0]) * (MOST_EARLIER - 1));
    --state.earlier_count;
  }
  state.earlier[state.earlier_count++] = *earlier;
  struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
  sigaction(SIGSEGV, &action, NULL);
}

void sim_fault_handler_keep(void) {
  struct sigaction now;
  if (!sigaction(SIGSEGV, NULL, &now) && !is_ours(&now)) put(&now);
}

void sim_fault_handler_install(void) {
  state.is_installed = true;
  stay_loaded();
  sim_fault_handler_keep();
}

void sim_fault_handler_remove(void) {
  struct sigaction now;
  if (!state.is_installed || sigaction(SIGSEGV, NULL, &now) || !is_ours(&now)) return;
  if (state.earlier_count) sigaction(SIGSEGV, &state.earlier[state.earlier_count - 1], NULL);
  state.earlier_count = 0;
  state.is_installed = false;
  atomic_store(&state.is_careful, false);
}

//===-- Threads -------------------------------------------------------------------------------===//

// Whether the signals in the file of a thread's status that are blocked have SIGSEGV among them.
static bool blocks(const char* task) {
  static const char mark[] = "SigBlk:";
  char path[64];
  char text[2048];
  snprintf(path, sizeof(path), "/proc/self/task/%.20s/status", task);
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return false;
  ssize_t length = read(file, text, sizeof(text) - 1);
  close(file);
  text[length > 0 ? length : 0] = '\0';
  const char* mask = strstr(text, mark);
  return mask && strtoull(mask + strlen(mark), NULL, 16) >> (SIGSEGV - 1) & 1;
}

void sim_fault_handler_look_around(void) {
  if (atomic_load(&state.is_careful)) return;
  DIR* tasks = opendir("/proc/self/task");
  if (!tasks) return;
  bool is_blocked = false;
  for (const struct dirent* e; !is_blocked && (e = readdir(tasks));) {
    is_blocked = e->d_name[0] != '.' && blocks(e->d_name);
  }
  closedir(tasks);
  if (!is_blocked) return;
  atomic_store(&state.is_careful, true);
  sim_warn("a thread blocks SIGSEGV: only whole pages of page-locked memory are checked");
}

bool sim_fault_handler_is_careful(void) {
  return atomic_load_explicit(&state.is_careful, memory_order_relaxed);
}
