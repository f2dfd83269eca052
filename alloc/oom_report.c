// A report is larger than what a library that is loaded late may have of thread-locals, and raising
// allocates nothing. So reports lie in one table, a place in it is a thread's from its first report
// until it ends, and the thread-local is a pointer.

#include "tm/alloc/oom_report.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "alloc/cuda_runtime.h"
#include "tm/alloc/allocator.h"
#include "tm/alloc/stream.h"
#include "tm/base/text.h"
#include "tm/base/thread_exit.h"

//===-- Where reports are kept ----------------------------------------------===//

typedef struct place {
  bool taken;        // atomic
  uint64_t failure;  // the number of the failure that the report is of; 0: it is of none
  tm_oom_report report;
} place;

static place places[TM_OOM_THREADS];
static __thread place* own_place;
static tm_thread_exit at_exit;

static void give_place_back(void* value) {
  place* self = value;
  own_place = NULL;
  self->failure = 0;
  __atomic_store_n(&self->taken, false, __ATOMIC_RELEASE);
}

// The thread's place; NULL where all are taken. Where the system has no more thread keys, it stays
// taken when the thread ends.
static place* find_place(void) {
  for (size_t i = 0; !own_place && i < TM_OOM_THREADS; i++) {
    if (!__atomic_exchange_n(&places[i].taken, true, __ATOMIC_ACQUIRE)) {
      own_place = &places[i];
      (void)tm_thread_exit_set_(&at_exit, give_place_back, own_place);
    }
  }
  return own_place;
}

const tm_oom_report* tm_last_oom_report(void) {
  const bool is_latest = own_place && own_place->failure != 0 &&
                         own_place->failure == tm_last_error()->number &&
                         tm_last_status() == TM_ERR_NO_MEMORY;
  return is_latest ? &own_place->report : NULL;
}

void tm_restore_oom_report_(const tm_oom_report* report) {
  place* kept = find_place();
  if (kept) {
    if (report != &kept->report) {
      kept->report = *report;
    }
    kept->failure = tm_last_error()->number;
  }
}

//===-- Filling -------------------------------------------------------------===//

static bool get_stats(tm_allocator* allocator, tm_allocator_stats* out) {
  memset(out, 0, sizeof *out);
  return allocator->vtable->get_stats && allocator->vtable->get_stats(allocator, out) == TM_OK;
}

static void add_stats(tm_oom_report* report, tm_allocator* allocator) {
  tm_allocator_stats stats;
  report->has_stats = get_stats(allocator, &stats);
  if (!report->has_stats) {
    return;
  }
  report->knows_largest_free = stats.knows_largest_free;
  report->live_bytes = stats.live_bytes;
  report->live_blocks = stats.live_blocks;
  report->reserved_bytes = stats.reserved_bytes;
  report->largest_free_bytes = stats.largest_free_bytes;
}

static void add_limit(tm_oom_report* report, tm_allocator* allocator) {
  tm_allocator_stats stats;
  for (tm_allocator* link = allocator; link; link = link->upstream) {
    (void)get_stats(link, &stats);  // a budget is known also where nothing else is
    if (stats.limit_bytes != 0 &&
        (report->limit_bytes == 0 || stats.limit_bytes < report->limit_bytes)) {
      report->limit_bytes = stats.limit_bytes;
    }
  }
}

static uint32_t ask_holders(tm_allocator* allocator, tm_oom_holder* out) {
  return allocator->vtable->top_holders
             ? allocator->vtable->top_holders(allocator, out, TM_OOM_HOLDERS)
             : 0;
}

static void add_holders(tm_oom_report* report, tm_allocator* allocator) {
  for (tm_allocator* link = allocator; link && report->holder_count == 0; link = link->upstream) {
    report->holder_count = ask_holders(link, report->holders);
  }
}

static bool may_be_capturing(const tm_stream* stream) {
  bool capturing = false;
  return stream && (tm_stream_is_capturing(stream, &capturing) != TM_OK || capturing);
}

static void add_device_memory(tm_oom_report* report, const tm_allocator* allocator,
                              const tm_stream* stream) {
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  report->has_device_memory =
      allocator->device.type == TM_DEVICE && tm_device_usable_(allocator->device.id) &&
      !may_be_capturing(stream) && !may_be_capturing(allocator->stream) &&
      tm_device_memory(allocator->device.id, &free_bytes, &total_bytes) == TM_OK;
  report->device_free_bytes = free_bytes;
  report->device_total_bytes = total_bytes;
}

static void fill_report(tm_oom_report* report, tm_allocator* allocator, size_t size,
                        const tm_stream* stream) {
  memset(report, 0, sizeof *report);
  report->asked_bytes = size;
  report->device = allocator->device;
  snprintf(report->allocator, sizeof report->allocator, "%s", allocator->vtable->name);
  add_stats(report, allocator);
  add_limit(report, allocator);
  add_device_memory(report, allocator, stream);
  add_holders(report, allocator);
}

//===-- As text -------------------------------------------------------------===//

static void add_number(tm_text* text, const char* before, uint64_t number, const char* after) {
  tm_text_add_string_(text, before);
  tm_text_add_number_(text, number);
  tm_text_add_string_(text, after);
}

static void add_figures(tm_text* text, const tm_oom_report* report) {
  char device[TM_DEVICE_TEXT_SIZE];
  tm_device_text(report->device, device, sizeof device);
  tm_text_add_string_(text, report->allocator);
  tm_text_add_string_(text, " on ");
  tm_text_add_string_(text, device);
  add_number(text, ": ", report->asked_bytes, " bytes asked");
  if (report->has_stats) {
    add_number(text, ", ", report->live_bytes, " live");
    add_number(text, " in ", report->live_blocks, " blocks");
    add_number(text, ", ", report->reserved_bytes, " reserved");
  }
  if (report->knows_largest_free) {
    add_number(text, ", largest free block ", report->largest_free_bytes, "");
  }
  if (report->limit_bytes) {
    add_number(text, ", limit ", report->limit_bytes, "");
  }
  if (report->has_device_memory) {
    add_number(text, "; the device has ", report->device_free_bytes, " of ");
    add_number(text, "", report->device_total_bytes, " bytes free");
  }
}

static void add_holder_texts(tm_text* text, const tm_oom_report* report) {
  for (uint32_t i = 0; i < report->holder_count && i < TM_OOM_HOLDERS; i++) {
    const tm_oom_holder* holder = &report->holders[i];
    add_number(text, i == 0 ? "; held: " : "; ", holder->bytes, " bytes by ");
    tm_text_add_string_(text, holder->scope[0] ? holder->scope : "(no scope)");
  }
}

void tm_oom_report_text(const tm_oom_report* report, char* text, size_t size) {
  if (size == 0) {
    return;
  }
  tm_text out = tm_text_of_(text, size);
  if (report) {
    add_figures(&out, report);
    add_holder_texts(&out, report);
  }
  tm_text_finish_(&out);
}

//===-- Raising -------------------------------------------------------------===//

enum { FIGURES_SIZE = 320 };  // bytes that hold all but the holders, the terminating NUL included

// Whether there is more to say than what has been said: a limit is said by what refuses for it.
static bool adds_anything(const tm_oom_report* report) {
  return report->has_stats || report->has_device_memory || report->holder_count;
}

// The reason is cut before the figures are, and the holders before the reason.
static void write_message(char* message, const char* reason, const tm_oom_report* report) {
  char figures[FIGURES_SIZE];
  tm_text numbers = tm_text_of_(figures, sizeof figures);
  add_figures(&numbers, report);
  tm_text_finish_(&numbers);
  const size_t room = TM_ERROR_MESSAGE_SIZE - 1 - numbers.used - strlen("; ");
  const size_t length = strlen(reason);
  tm_text text = tm_text_of_(message, TM_ERROR_MESSAGE_SIZE);
  if (length > room) {
    tm_text_add_(&text, reason, room - strlen("..."));
    tm_text_add_string_(&text, "...");
  } else {
    tm_text_add_(&text, reason, length);
  }
  tm_text_add_string_(&text, length ? "; " : "");
  tm_text_add_string_(&text, figures);
  add_holder_texts(&text, report);
  tm_text_finish_(&text);
}

tm_status tm_raise_oom_(tm_allocator* allocator, size_t size, const tm_stream* stream) {
  const tm_error kept = *tm_last_error();
  const bool has_reason = kept.code == TM_ERR_NO_MEMORY;
  place* own = find_place();
  tm_oom_report local;
  tm_oom_report* report = own ? &own->report : &local;
  fill_report(report, allocator, size, stream);
  if (has_reason && !adds_anything(report)) {
    tm_restore_error_(&kept);
  } else {
    char message[TM_ERROR_MESSAGE_SIZE];
    write_message(message, has_reason ? kept.message : "", report);
    (void)tm_raise_(TM_ERR_NO_MEMORY, has_reason ? kept.file : __FILE__,
                    has_reason ? kept.line : __LINE__, "%s", message);
  }
  if (own) {
    own->failure = tm_last_error()->number;
  }
  return TM_ERR_NO_MEMORY;
}
