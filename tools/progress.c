#include "tools/progress.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "tools/size_text.h"

enum {
  BAR_WIDTH = 30,  // characters
  REDRAW_NS = 100 * 1000 * 1000,
};

static uint64_t now_ns(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

progress progress_begin(const char* label, const char* unit, uint64_t total) {
  return (progress){
      .label = label,
      .unit = unit,
      .total = total,
      .start_ns = now_ns(),
      .is_visible = isatty(STDERR_FILENO) == 1,
  };
}

static void draw(const progress* bar, uint64_t done, uint64_t now) {
  char done_text[SIZE_TEXT_SIZE];
  char total_text[SIZE_TEXT_SIZE];
  const int filled = bar->total ? (int)(done * BAR_WIDTH / bar->total) : BAR_WIDTH;
  count_format(done, done_text);
  count_format(bar->total, total_text);
  (void)fprintf(stderr, "\r%-6s [%.*s%*s] %s of %s %s, %.1f s ", bar->label, filled,
                "##############################", BAR_WIDTH - filled, "", done_text, total_text,
                bar->unit, (double)(now - bar->start_ns) * 1e-9);
  (void)fflush(stderr);
}

void progress_update(progress* bar, uint64_t done) {
  if (!bar->is_visible) return;
  const uint64_t now = now_ns();
  if (now - bar->shown_ns < REDRAW_NS) return;
  bar->shown_ns = now;
  draw(bar, done, now);
}

double progress_end(progress* bar) {
  if (bar->is_visible) (void)fprintf(stderr, "\r\033[K");
  return (double)(now_ns() - bar->start_ns) * 1e-9;
}
