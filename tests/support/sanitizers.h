// Which sanitizers a test is built with: UNDER_ASAN and UNDER_TSAN are 1 or 0.
#ifndef TM_TESTS_SUPPORT_SANITIZERS_H_
#define TM_TESTS_SUPPORT_SANITIZERS_H_

#ifdef __has_feature
#define UNDER_ASAN (__has_feature(address_sanitizer))
#define UNDER_TSAN (__has_feature(thread_sanitizer))
#else
#ifdef __SANITIZE_ADDRESS__
#define UNDER_ASAN 1
#else
#define UNDER_ASAN 0
#endif
#ifdef __SANITIZE_THREAD__
#define UNDER_TSAN 1
#else
#define UNDER_TSAN 0
#endif
#endif

#endif  // TM_TESTS_SUPPORT_SANITIZERS_H_
