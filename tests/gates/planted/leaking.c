#include <criterion/criterion.h>
#include <stdlib.h>

static void* volatile block;

Test(planted, leaks) {
  block = malloc(77);
  block = NULL;
}
