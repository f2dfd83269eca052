// Signatures, as compilers spell them, reduced to names.

#include "tm/base/signature.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef struct spelling {
  const char* text;
  const char* name;  // NULL: it stays as it is
} spelling;

static bool reduce(bool (*function)(const char*, tm_text*), const char* text, char* name,
                   size_t size) {
  tm_text out = tm_text_of_(name, size);
  const bool reduced = function(text, &out);
  tm_text_finish_(&out);
  return reduced;
}

#define EXPECT_NAMES(function, spellings) \
  expect_names((function), (spellings), sizeof(spellings) / sizeof(spellings)[0])

static void expect_names(bool (*function)(const char*, tm_text*), const spelling* spellings,
                         size_t count) {
  for (size_t i = 0; i < count; i++) {
    char name[256];
    const bool reduced = reduce(function, spellings[i].text, name, sizeof name);
    const char* expected = spellings[i].name;
    cr_expect(reduced == (expected != NULL) && strcmp(name, expected ? expected : "") == 0,
              "%s gives %s, not %s", spellings[i].text, reduced ? name : "nothing",
              expected ? expected : "nothing");
  }
}

// What g++ 12 makes of __PRETTY_FUNCTION__, word for word.
static const spelling gcc[] = {
    {"void attr()", "attr()"},
    {"void S::m(int)", "S::m()"},
    {"static int S::st(int*)", "S::st()"},
    {"virtual void S::vi() const", "S::vi()"},
    {"S::S(int)", "S::S()"},
    {"S::~S()", "S::~S()"},
    {"C<T>::C() [with T = std::vector<std::pair<int, char> >]", "C<T>::C()"},
    {"C<T>::~C() [with T = int]", "C<T>::~C()"},
    {"int S::operator()(int) const", "S::operator()()"},
    {"S& S::operator<<(int)", "S::operator<<()"},
    {"bool S::operator<(const S&) const", "S::operator<()"},
    {"S* S::operator->()", "S::operator->()"},
    {"void S::operator,(int)", "S::operator,()"},
    {"int S::operator[](int)", "S::operator[]()"},
    {"bool operator==(const S&, const S&)", "operator==()"},
    {"bool C<T>::operator<(U) [with U = int; T = int]", "C<T>::operator<()"},
    {"bool C<T>::operator<<(U) [with U = int; T = int]", "C<T>::operator<<()"},
    {"static void* S::operator new(size_t)", "S::operator new()"},
    {"static void* S::operator new [](size_t)", "S::operator new[]()"},
    {"static void S::operator delete [](void*)", "S::operator delete[]()"},
    {"long long unsigned int operator\"\"_km(long long unsigned int)", "operator\"\"_km()"},
    {"S::operator bool() const", "S::operator bool()"},
    {"S::operator std::vector<int>*()", "S::operator std::vector<int>*()"},
    {"S::operator std::vector<std::pair<int, char> >()",
     "S::operator std::vector<std::pair<int, char>>()"},
    {"S::operator T*() [with T = long int]", "S::operator T*()"},
    {"void S::r() &", "S::r()"},
    {"void S::rr() &&", "S::rr()"},
    {"void S::cv() const volatile", "S::cv()"},
    {"void S::tm(T) [with T = int]", "S::tm()"},
    {"void C<T>::process() [with T = int]", "C<T>::process()"},
    {"void C<T>::g(U, std::function<void(int)>) [with U = int; T = int]", "C<T>::g()"},
    {"void C<T>::In::x() [with T = int]", "C<T>::In::x()"},
    {"void Bo<b>::f() [with bool b = true]", "Bo<b>::f()"},
    {"T ns::ft(T) [with T = int; int N = 2]", "ns::ft()"},
    {"void pack(T ...) [with T = {int, char, const char*}]", "pack()"},
    {"void ch() [with char c = ']']", "ch()"},
    {"void ch() [with char c = '(']::<lambda()>", "ch()::<lambda>()"},
    {"void ns::{anonymous}::anon(int)", "ns::(anonymous)::anon()"},
    {"void ns::{anonymous}::AS::m()", "ns::(anonymous)::AS::m()"},
    {"void<unnamed struct>::um()", "(anonymous)::um()"},
    {"void (* getfp(int))(char)", "getfp()"},
    {"int (& arr())[4]", "arr()"},
    {"int S::* memp()", "memp()"},
    {"void (S::* mfp(int))(int)", "mfp()"},
    {"std::string str[abi:cxx11](int)", "str()"},
    {"std::string S[abi:v2]::str[abi:cxx11](int) const", "S::str()"},
    {"decltype(auto) da(int)", "da()"},
    {"decltype ((a + b)) plus(A, B) [with A = int; B = int; decltype ((a + b)) = int]", "plus()"},
    {"const char* const* ptrs()", "ptrs()"},
    {"__vector(4) float vec()", "vec()"},
    {"__complex__ double cx()", "cx()"},
    {"void av() [with auto V = &S::at]", "av()"},
    {"void req(T) requires  integral<T> [with T = int]", "req()"},
    {"Sp& Sp::operator>>=(int)", "Sp::operator>>=()"},
    {"int Sp::operator->*(int)", "Sp::operator->*()"},
    {"void params(std::vector<std::pair<int, void (*)(int, char)> >, int (*)(int), int (&)[3])",
     "params()"},
    {"main(int, char**)::<lambda(int)>", "main()::<lambda>()"},
    {"main(int, char**)::<lambda(auto:2)> [with auto:2 = const char*]", "main()::<lambda>()"},
    {"lamT<int>(int)::<lambda(auto:1)> [with auto:1 = int]", "lamT()::<lambda>()"},
    {"N::m()::<lambda()>::<lambda(int)> mutable", "N::m()::<lambda>()::<lambda>()"},
    {"f(T) [with T = int]::<lambda(int)>", "f()::<lambda>()"},
    {"{anonymous}::<lambda()>", "(anonymous)::<lambda>()"},
    {"<lambda(int)>", "<lambda>()"},
    {"static void main(int, char**)::Loc::f()", "main()::Loc::f()"},
    {"void main(int, char**)::Loc::operator()(int) const", "main()::Loc::operator()()"},
    {"void ns::_GLOBAL__N__c300b021_4_s_cu_8427e0cc::anon(int)", "ns::(anonymous)::anon()"},
};

// The same of clang++ 14.
static const spelling clang[] = {
    {"static int S::st(int *)", "S::st()"},
    {"virtual void S::vi() const", "S::vi()"},
    {"S &S::operator<<(int)", "S::operator<<()"},
    {"bool S::operator<(const S &) const", "S::operator<()"},
    {"bool C<int>::operator<(U) [T = int, U = int]", "C<int>::operator<()"},
    {"S *S::operator->()", "S::operator->()"},
    {"static void *S::operator new[](size_t)", "S::operator new[]()"},
    {"std::vector<int> *S::operator std::vector<int> *()", "S::operator std::vector<int>*()"},
    {"std::vector<std::pair<int, char>> S::operator vector()", "S::operator vector()"},
    {"T *S::operator void (*)(int)() [T = void (int)]", "S::operator void (*)(int)()"},
    {"T *S::operator long *() [T = long]", "S::operator long*()"},
    {"C<std::vector<std::pair<int, char>>>::~C() [T = std::vector<std::pair<int, char>>]",
     "C<std::vector<std::pair<int, char>>>::~C()"},
    {"void C<int>::g(U, std::function<void (int)>) [T = int, U = int]", "C<int>::g()"},
    {"void ns::(anonymous namespace)::AS::m()", "ns::(anonymous)::AS::m()"},
    {"void (anonymous struct)::um()", "(anonymous)::um()"},
    {"void (*getfp(int))(char)", "getfp()"},
    {"int (&arr())[4]", "arr()"},
    {"int S::*memp()", "memp()"},
    {"void (S::*mfp(int))(int)", "mfp()"},
    {"<dependent type> plus(A, B) [A = int, B = int]", "plus()"},
    {"__attribute__((__vector_size__(4 * sizeof(float)))) float vec()", "vec()"},
    {"typeof (1 + 1) tof()", "tof()"},
    {"void Ch<'>'>::f() [C = '>']", "Ch<'>'>::f()"},
    {"void Ch<'('>::f() [C = '(']", "Ch<'('>::f()"},
    {"auto au(std::integral auto) [x:auto = int]", "au()"},
    {"auto f(int) -> std::vector<int>", "f()"},
    {"void f() noexcept(true)", "f()"},
    {"void f() const & noexcept", "f()"},
    {"void ch() [c = '>']", "ch()"},
    {"auto main(int, char **)::(anonymous class)::operator()(int) const", "main()::<lambda>()"},
    {"auto lamT(int)::(anonymous class)::operator()(auto) const [x:auto = int]",
     "lamT()::<lambda>()"},
    {"auto N::m()::(anonymous class)::operator()()::(anonymous class)::operator()(int)",
     "N::m()::<lambda>()::<lambda>()"},
    {"auto (anonymous namespace)::(anonymous class)::operator()() const",
     "(anonymous)::<lambda>()"},
    {"auto f()::(lambda at a b.cc:3:5)::operator()() const", "f()::<lambda>()"},
    {"void (anonymous class)::run()", "(anonymous)::run()"},
    {"unsigned long long operator\"\"_km(unsigned long long)", "operator\"\"_km()"},
};

static const spelling msvc[] = {
    {"void __cdecl print<char,int,const char*>(char,int,const char *)", "print()"},
    {"void __thiscall MyClass::method(int) const", "MyClass::method()"},
    {"int __stdcall FreeFunc(float)", "FreeFunc()"},
    {"class std::vector<int,class std::allocator<int> > __cdecl ns::f(void) noexcept", "ns::f()"},
    {"void (__cdecl *__cdecl get(int))(char)", "get()"},
    {"void __cdecl `anonymous-namespace'::f(void)", "(anonymous)::f()"},
    {"bool __cdecl S::operator <(const struct S &)", "S::operator<()"},
    {"bool __cdecl operator<<int>(int)", "operator<()"},
    {"__cdecl S::operator bool(void) const", "S::operator bool()"},
    {"__cdecl S::~S(void) noexcept", "S::~S()"},
    {"int &__cdecl S::get(void) &", "S::get()"},
    {"int __cdecl S::get(void) const volatile &&", "S::get()"},
    {"void *__cdecl operator new(unsigned __int64)", "operator new()"},
    {"void __cdecl S::operator delete[](void *)", "S::operator delete[]()"},
    {"double __cdecl operator \"\"_km(long double)", "operator\"\"_km()"},
    {"int __cdecl S::operator ()(int) const", "S::operator()()"},
    {"int __vectorcall ns::Layer<float>::forward(int)", "ns::Layer<float>::forward()"},
    {"auto __cdecl main::<lambda_1>::operator ()(int) const", "main::<lambda>()"},
};

static const spelling not_signatures[] = {
    {"", NULL},
    {"forward", NULL},  // __func__ in C
    {"tm_layer_forward_2", NULL},
    {"(", NULL},
    {")", NULL},
    {"f(", NULL},
    {"f(int", NULL},
    {"f<int(int)", NULL},
    {"f()x", NULL},
    {"S::operator", NULL},
    {"S::operator int", NULL},
    {"S::operator<", NULL},
    {"<lambda(", NULL},
    {"f() [with T = ", NULL},
    {"f(')", NULL},
    {"int f\n(int)", NULL},
    {"<<<<<<<<", NULL},
    {"decltype(", NULL},
};

static const spelling calls[] = {
    {"layer_forward(x, f(3))", "layer_forward()"},
    {"obj->method(x)", "method()"},
    {"a.b.c(x)", "c()"},
    {"layers[i]->forward(x)", "forward()"},
    {"ns::f<int>(x)", "ns::f()"},
    {"ns::C<int>::make<2, 3>(x)", "ns::C<int>::make()"},
    {"::f(x)", "::f()"},
    {"y = f(x)", "f()"},
    {"(void)f(x)", "f()"},
    {"!f(x)", "f()"},
    {"a(1).b(2)", "b()"},
    {"f(x)(y)", "f()"},
    {"f (x)", "f()"},
    {"f(1'000, g(2))", "f()"},
    {"this->run<true>()", "run()"},
    {"print(\")\", ')', \"\\\")\")", "print()"},
    {"a < b ? f(x) : 0", "f()"},
    {"(*function)(x)", NULL},
    {"x", NULL},
    {"", NULL},
    {"f(", NULL},
    {"f(\"", NULL},
    {"\"f(x)\"", NULL},
};

Test(signature, as_gcc_spells_them) { EXPECT_NAMES(tm_signature_name_, gcc); }
Test(signature, as_clang_spells_them) { EXPECT_NAMES(tm_signature_name_, clang); }
Test(signature, as_msvc_spells_them) { EXPECT_NAMES(tm_signature_name_, msvc); }
Test(signature, what_is_none_stays) { EXPECT_NAMES(tm_signature_name_, not_signatures); }
Test(signature, calls_by_what_they_call) { EXPECT_NAMES(tm_call_name_, calls); }

Test(signature, what_does_not_fit_is_cut_and_never_overrun) {
  const char* text = "void ns::Container<int>::process(int) const";
  const char* whole = "ns::Container<int>::process()";
  for (size_t size = 1; size < 64; size++) {
    char name[64];
    memset(name, '#', sizeof name);
    cr_expect(reduce(tm_signature_name_, text, name, size) || size < strlen(whole));
    cr_expect(lt(sz, strlen(name), size));
    for (size_t i = size; i < sizeof name; i++) {
      cr_assert(eq(chr, name[i], '#'));
    }
    if (size > strlen(whole)) cr_expect(eq(str, name, (char*)whole));
  }
}

//===-- Random text -------------------------------------------------------===//

// A text that ends where memory does: reading on is a crash.
static char* before_the_end(const char* text, size_t length) {
  const size_t page = 4096;
  static char* pages;
  if (!pages) {
    pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert(pages != MAP_FAILED);
    cr_assert(eq(int, mprotect(pages + page, page, PROT_NONE), 0));
  }
  char* start = pages + page - length - 1;
  memcpy(start, text, length);
  start[length] = '\0';
  return start;
}

// A spelling, with pieces of it and of others cut out, doubled and exchanged.
static size_t mutate(unsigned* seed, char* text, size_t size) {
  static const char alphabet[] = "()<>[]:*&,' \"operator->~{}`\\";
  const spelling* source = rand_r(seed) % 2 ? gcc : clang;
  const size_t count = (source == gcc ? sizeof gcc : sizeof clang) / sizeof(spelling);
  snprintf(text, size, "%s", source[(size_t)rand_r(seed) % count].text);
  size_t length = strlen(text);
  for (int edits = rand_r(seed) % 8; edits >= 0 && length > 2; edits--) {
    const size_t at = (size_t)rand_r(seed) % length;
    switch (rand_r(seed) % 3) {
      case 0:
        text[at] = alphabet[(size_t)rand_r(seed) % (sizeof alphabet - 1)];
        break;
      case 1:  // cut a piece out
        memmove(text + at, text + at + 1, length - at);
        length--;
        break;
      default:  // end here
        length = at;
        text[length] = '\0';
    }
  }
  return length;
}

Test(signature, any_text_gives_a_name_or_stays) {
  unsigned seed = 20240229;
  for (int i = 0; i < 200000; i++) {
    char text[256];
    char name[512];
    const size_t length = mutate(&seed, text, sizeof text);
    const char* at_the_end = before_the_end(text, length);
    const bool reduced = reduce(tm_signature_name_, at_the_end, name, sizeof name);
    const size_t used = strlen(name);
    // A name is never much longer than what it was made of, and ends as a function's does.
    const bool sound = reduced ? used >= 2 && strcmp(name + used - 2, "()") == 0 : used == 0;
    cr_assert(sound && used < 4 * length + 16, "seed 20240229, step %d: \"%s\" gives \"%s\"", i,
              text, name);
    (void)reduce(tm_call_name_, at_the_end, name, sizeof name);
  }
}
