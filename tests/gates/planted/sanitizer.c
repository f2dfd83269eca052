// Says what this configuration compiles into its programs.

#include <stdio.h>

#ifndef __has_feature
#define __has_feature(feature) 0
#endif

int main(void) {
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
  puts("address");
#elif defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
  puts("thread");
#else
  puts("none");
#endif
  return 0;
}
