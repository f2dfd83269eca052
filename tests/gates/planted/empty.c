// Without a single test.

#include <criterion/criterion.h>
