// Function signatures and calls, reduced to the name of the function. Private.
#ifndef TM_BASE_SIGNATURE_H_
#define TM_BASE_SIGNATURE_H_

#include <stdbool.h>

#include "tm/base/text.h"

// Appends the name in a signature as compilers spell them (gcc and clang in __PRETTY_FUNCTION__,
// MSVC in __FUNCSIG__):
//
//   virtual void Layer<T>::forward(T, int) const [with T = float]    Layer<T>::forward()
//   T make(T, U) [T = int, U = char]                                 make()
//   auto main(int, char **)::(anonymous class)::operator()() const   main()::<lambda>()
//
// Arguments of class templates stay as they are spelled, those of the function itself go; all that
// has no name is "(anonymous)", and a lambda "<lambda>". False, and nothing is appended, where
// there is no parameter list (__func__ in C) or it is no signature.
bool tm_signature_name_(const char* signature, tm_text* out);

// Appends the name of the function that a call expression calls last: "forward()" for
// `layers[i]->forward(x, f(3))`, "ns::f()" for `y = ns::f<int>(x)`. False, and nothing is appended,
// where there is none.
bool tm_call_name_(const char* call, tm_text* out);

#endif  // TM_BASE_SIGNATURE_H_
