#include <criterion/criterion.h>
#include <criterion/parameterized.h>

Test(planted, passes) { cr_expect(1); }

ParameterizedTestParameters(planted, passes_thrice) {
  static int numbers[] = {1, 2, 3};
  return cr_make_param_array(int, numbers, 3);
}

ParameterizedTest(const int* number, planted, passes_thrice) { cr_expect(*number > 0); }
