// The version of tmcore, and the symbol that ties headers to the library they were written for.
#ifndef TM_BASE_VERSION_H_
#define TM_BASE_VERSION_H_

#include "tm/base/attributes.h"

TM_EXTERN_C_BEGIN

#define TM_VERSION_MAJOR 0
#define TM_VERSION_MINOR 1
#define TM_VERSION_PATCH 0
#define TM_VERSION "0.1.0"

// The library's version, as TM_VERSION was when it was compiled.
TM_API const char* tm_version(void);

// Changes its name whenever the layout of a public struct or of the thread-local does. A program
// whose headers and library differ in it does not link.
extern TM_API const char tm_abi_2;
__attribute__((unused, used)) static const char* const tm_abi_ = &tm_abi_2;

TM_EXTERN_C_END

#endif  // TM_BASE_VERSION_H_
