// Scopes, checks and log lines as users write them: C and C++, without a warning from any compiler.

#include <stddef.h>
#include <stdint.h>
#include <tm/check.h>
#include <tm/cuda_check.h>
#include <tm/log.h>
#include <tm/tm.h>

typedef enum mode { MODE_A, MODE_B } mode;
typedef struct opaque opaque;

static int forward(int layer, int tokens) { return layer + tokens; }
static tm_status step(int n) { return n ? TM_OK : TM_RAISE(TM_ERR_INVALID, "step %d", n); }
static void quiet(void) { TM_FUNCTION_SCOPE(); }

tm_status scopes(int n);
tm_status scopes(int n) {
  TM_FUNCTION_SCOPE();
  TM_SCOPE("a");
  TM_SCOPE("b");
  TM_WITH_SCOPE("c") TM_WITH_SCOPE("d") quiet();
  if (n)
    TM_SCOPE_CALL(quiet());
  else
    TM_SCOPE_CALL(forward(1, 2));
  int sum = TM_SCOPE_CALL(forward(n, TM_SCOPE_CALL(forward(n, 1))));
  for (int i = 0; i < n; i++) sum += TM_SCOPE_CALL(forward(i, n)) + TM_SCOPE_CALL(forward(n, i));
  TM_TRY(TM_SCOPE_CALL(step(sum)));
  return TM_SCOPE_CALL(step(n));
}

void checks(int n, size_t size, const char* text, opaque* handle, mode m);
void checks(int n, size_t size, const char* text, opaque* handle, mode m) {
  const float single = 1;
  const uint8_t byte = 3;
  char buffer[4] = "abc";
  if (n)
    TM_CHECK(n > 0);
  else
    TM_CHECK(n == 0, "n is %d, %zu bytes", n, size);
  TM_CHECK_EQ(n, size);
  TM_CHECK_NE(size, -1, "plain");
  TM_CHECK_LT(byte, 300);
  TM_CHECK_LE(single, 2.5);
  TM_CHECK_GT('b', 'a', "%s", text);
  TM_CHECK_GE(m, MODE_A);
  TM_CHECK_EQ(m, MODE_B);
  TM_CHECK_EQ(text, buffer);
  TM_CHECK_NE(handle, NULL);
  TM_CHECK_EQ(n == 1, true);
  TM_CHECK_EQ(&checks, &checks);
  TM_CHECK_STREQ(text, "abc");
  TM_CHECK_STRNE(buffer, text, "layer %d", n);
  TM_CHECK_OK(step(n));
  TM_CHECK_OK(step(n), "step %d", n);
  opaque* same = TM_CHECK_NOTNULL(handle);
  TM_CHECK_NOTNULL(same, "layer %d of %d", n, 2);
  const char* same_text = TM_CHECK_NOTNULL(TM_CHECK_NOTNULL(text));
  TM_CHECK_EQ(same_text, text);
  TM_CUDA_CHECK(forward(n, 1));
  TM_CUDA_CHECK(forward(n, 1), "layer %d", n);
  TM_CUDA_CHECK_LAST();
  TM_CUDA_CHECK_LAST("layer %d", n);
}

void logs(int n);
void logs(int n) {
  if (n)
    TM_LOG_TRACE("n is %d", n);
  else
    TM_LOG_DEBUG("none");
  TM_LOG_INFO("%s", "text");
  TM_LOG_WARNING("warning");
  TM_LOG_ERROR("error");
  if (n > 1) TM_LOG_FATAL("fatal %d", n);
}
