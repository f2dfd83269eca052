// One of each: passes, fails, is skipped, crashes.

#include <criterion/criterion.h>
#include <stdlib.h>

Test(planted, passes) { cr_expect(1); }
Test(planted, fails) { cr_expect(0); }
Test(planted, is_skipped) { cr_skip_test("not here"); }
Test(planted, crashes) { abort(); }
