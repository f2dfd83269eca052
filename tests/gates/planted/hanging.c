#include <criterion/criterion.h>
#include <unistd.h>

Test(planted, hangs) { pause(); }
