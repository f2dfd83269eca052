// TurboMind defines macros of the same names: the opt-in headers say so, and <tm/tm.h> defines none
// of them, so that people can migrate file by file.

#define TM_CHECK(x) turbomind_check(x)
#define TM_CHECK_EQ(a, b) turbomind_check((a) == (b))
#define TM_LOG_INFO(...) turbomind_log(__VA_ARGS__)
#define TM_CUDA_CHECK(x) turbomind_check((x) == 0)

#include <tm/tm.h>

static int checks;
static void turbomind_check(int holds) { checks += holds; }

int main(void) {
  TM_CHECK_EQ(checks, 0);
  TM_CHECK(checks == 1);
  return checks == 2 ? 0 : 1;
}
