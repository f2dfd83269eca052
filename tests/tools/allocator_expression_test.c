// Allocators named in a text: what each makes, and where a text that is none goes wrong.

#include "tools/allocator_expression.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>
#include <tm/tm.h>

//===-- What is read ------------------------------------------------------===//

static const struct {
  const char* text;
  size_t depth;
  size_t own_depth;
  expression_memory memory;
} good[] = {
    {"host", 1, 0, MEMORY_HOST},
    {"cuda", 1, 0, MEMORY_DEVICE},
    {"pinned", 1, 0, MEMORY_PINNED},
    {"pool:64MiB", 1, 0, MEMORY_DEVICE},
    {"pool:threshold=1,maximum=64MiB", 1, 0, MEMORY_DEVICE},
    {"stack(pool)", 2, 1, MEMORY_DEVICE},
    {"stack(stack(pinned))", 3, 2, MEMORY_PINNED},
    {" stack : initial = 1 MiB , maximum = 2 MiB ( host ) ", 2, 1, MEMORY_HOST},
    {"stack:0(host)", 2, 1, MEMORY_HOST},
    {"dry", 1, 0, MEMORY_DRY},
    {"limit:8GiB(cached(cuda))", 3, 0, MEMORY_DEVICE},
    {"guard(stack(locked(dry:1GiB)))", 4, 2, MEMORY_DRY},
    {"statistics(tracking(logging:x.csv(fault:7(host))))", 5, 0, MEMORY_HOST},
};

Test(allocator_expression, allocators_are_read_outermost_first) {
  for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
    allocator_expression e;
    cr_assert(allocator_expression_parse(good[i].text, &e) == TM_OK, "%s: %s", good[i].text,
              tm_last_error()->message);
    cr_expect(eq(sz, e.depth, good[i].depth), "%s", good[i].text);
    cr_expect(eq(sz, e.own_depth, good[i].own_depth), "%s", good[i].text);
    cr_expect(eq(int, e.memory, good[i].memory), "%s", good[i].text);
    const bool has_streams = good[i].memory == MEMORY_DEVICE || good[i].memory == MEMORY_PINNED;
    cr_expect(eq(int, allocator_expression_uses_streams(&e), has_streams), "%s", good[i].text);
    cr_expect(not(allocator_expression_owns_file(&e)));
  }
}

Test(allocator_expression, options_have_their_values) {
  allocator_expression e;
  cr_assert(eq(int, allocator_expression_parse("stack:maximum=2MiB,1K(host)", &e), TM_OK));
  cr_expect(eq(u64, e.nodes[0].values[0].number, 1024));
  cr_expect(eq(u64, e.nodes[0].values[1].number, 2 << 20));
  cr_expect(eq(u64, e.nodes[1].values[0].number, 0));
  cr_assert(eq(int,
               allocator_expression_parse("fault:seed=9,probability=0.25,above=4K,7(host)", &e),
               TM_OK));
  cr_expect(eq(u64, e.nodes[0].values[0].number, 7));
  cr_expect(eq(dbl, e.nodes[0].values[1].fraction, 0.25));
  cr_expect(eq(u64, e.nodes[0].values[2].number, 9));
  cr_expect(eq(u64, e.nodes[0].values[3].number, 4096));
  cr_assert(eq(int, allocator_expression_parse("logging: a b.csv (host)", &e), TM_OK));
  cr_expect(eq(sz, e.nodes[0].values[0].length, strlen("a b.csv")));
  cr_expect(strncmp(e.nodes[0].values[0].text, "a b.csv", strlen("a b.csv")) == 0);
}

Test(allocator_expression, a_file_outside_an_arena_is_each_threads) {
  allocator_expression e;
  cr_assert(eq(int, allocator_expression_parse("logging:x.csv(stack(host))", &e), TM_OK));
  cr_expect(allocator_expression_owns_file(&e));
  cr_assert(eq(int, allocator_expression_parse("stack(logging:x.csv(host))", &e), TM_OK));
  cr_expect(not(allocator_expression_owns_file(&e)));
}

//===-- What is wrong -----------------------------------------------------===//

static const struct {
  const char* text;
  int column;
  const char* what;
} bad[] = {
    {"", 1, "the name of an allocator is expected"},
    {"  ", 3, "the name of an allocator is expected"},
    {"hots", 1,
     "'hots' is no allocator; known are host, pinned, cuda, pool, dry, stack, cached, statistics, "
     "limit, tracking, logging, locked, guard, fault"},
    {"Host", 1, "'Host' is no allocator"},
    {"stack(hots)", 7, "'hots' is no allocator"},
    {"stack()", 7, "the name of an allocator is expected"},
    {"stack", 6, "stack is over another allocator: stack(...) is expected"},
    {"stack(host", 11, "')' is expected"},
    {"stack(host))", 12, "')' is left over"},
    {"stack(host) pool", 13, "'pool' is left over"},
    {"host(host)", 5, "host is over no other allocator"},
    {"host,pool", 5, "',pool' is left over"},
    {"host:1MiB", 6, "host has no option '1MiB'; it has none"},
    {"stack:size=1(host)", 7, "stack has no option 'size'; it has initial, maximum"},
    {"stack:initial(host)", 14, "initial of stack takes a size such as 64MiB, not ''"},
    {"stack:initial=(host)", 15, "initial of stack takes a size such as 64MiB, not ''"},
    {"stack:initial=-1(host)", 15, "takes a size such as 64MiB, not '-1'"},
    {"stack:initial=1.5(host)", 15, "not '1.5'"},
    {"stack:initial=99999999999999999999(host)", 15, "not '99999999999999999999'"},
    {"stack:1MiB,initial=2MiB(host)", 20, "'initial' is given twice"},
    {"stack:1MiB,2MiB(host)", 12, "'initial' is given twice"},
    {"stack:,1MiB(host)", 7, "stack has no option ''"},
    {"stack:(host)", 7, "stack has no option ''"},
    {"stack(stack:x(host))", 13, "stack has no option 'x'"},
    {"limit(host)", 1, "limit needs a size such as 64MiB: limit:..."},
    {"limit:-1(host)", 7, "limit has no option '-1'; it has bytes"},
    {"logging(host)", 1, "logging needs the name of a file: logging:..."},
    {"logging:(host)", 9, "logging has no option ''; it has file"},
    {"logging:file=(host)", 14, "file of logging takes the name of a file, not ''"},
    {"fault:probability=1.5(host)", 19, "takes a number from 0 to 1, not '1.5'"},
    {"fault:probability=-0.5(host)", 19, "not '-0.5'"},
    {"fault:probability=nan(host)", 19, "not 'nan'"},
    {"fault:probability=0.5x(host)", 19, "not '0.5x'"},
    {"fault:every=1.5(host)", 13, "every of fault takes an integer, not '1.5'"},
    {"stack(stack(stack(stack(stack(stack(stack(stack(stack(stack(stack(stack(stack(stack(stack("
     "stack(host))))))))))))))))",
     97, "more than 16 allocators"},
};

Test(allocator_expression, errors_name_the_column) {
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    allocator_expression e;
    char place[32];
    tm_clear_error();
    cr_expect(eq(int, allocator_expression_parse(bad[i].text, &e), TM_ERR_INVALID), "%s",
              bad[i].text);
    const char* message = tm_last_error()->message;
    (void)snprintf(place, sizeof(place), ", column %d: ", bad[i].column);
    cr_expect(strstr(message, place) != NULL, "'%s' in: %s", place, message);
    cr_expect(strstr(message, bad[i].what) != NULL, "'%s' in: %s", bad[i].what, message);
    cr_expect(eq(sz, e.depth, 0));
  }
}

Test(allocator_expression, an_endless_text_is_refused_in_one_message) {
  static char text[5000];
  allocator_expression e;
  memset(text, 'x', sizeof(text) - 1);
  cr_expect(eq(int, allocator_expression_parse(text, &e), TM_ERR_INVALID));
  cr_expect(strstr(tm_last_error()->message, "is no allocator; known are") != NULL);
  (void)snprintf(text, sizeof(text), "pool:%01000d", 1);
  cr_expect(eq(int, allocator_expression_parse(text, &e), TM_ERR_INVALID));
}

//===-- What is made ------------------------------------------------------===//

static allocator_expression parsed(const char* text) {
  allocator_expression e;
  cr_assert(allocator_expression_parse(text, &e) == TM_OK, "%s", tm_last_error()->message);
  return e;
}

static tm_allocator* wrap_in_stack(tm_allocator* innermost, void* user) {
  tm_allocator* stack = tm_stack_allocator_create(innermost, NULL, NULL);
  tm_allocator_release(innermost);
  *(tm_allocator**)user = stack;
  return stack;
}

Test(allocator_expression, each_thread_gets_arenas_of_its_own) {
  const allocator_expression e = parsed("stack:maximum=1MiB(stack(host))");
  tm_allocator* arenas[2];
  tm_auto_allocator shared = allocator_expression_make_shared(&e, NULL, NULL, NULL);
  cr_expect(eq(ptr, shared, tm_host_allocator()));
  tm_auto_allocator first = allocator_expression_make_own(&e, shared, NULL, &arenas[0]);
  tm_auto_allocator second = allocator_expression_make_own(&e, shared, NULL, &arenas[1]);
  cr_assert(tm_is_stack(first) && tm_is_stack(second));
  cr_expect(first != second);
  cr_expect(eq(ptr, tm_stack_upstream(first), arenas[0]));
  cr_expect(eq(ptr, tm_stack_upstream(arenas[0]), tm_host_allocator()));
  void* block;
  cr_expect(eq(int, tm_allocator_alloc(first, 2 << 20, NULL, &block), TM_ERR_NO_MEMORY));
}

Test(allocator_expression, without_an_arena_all_is_shared) {
  const allocator_expression e = parsed("host");
  tm_allocator* wrapped = NULL;
  tm_auto_allocator shared = allocator_expression_make_shared(&e, NULL, wrap_in_stack, &wrapped);
  cr_assert(shared && shared == wrapped);
  tm_allocator* arena = shared;
  tm_auto_allocator own = allocator_expression_make_own(&e, shared, NULL, &arena);
  cr_expect(eq(ptr, own, shared));
  cr_expect(eq(ptr, arena, NULL));
}

// One of each name, as far as the machine has it.
Test(allocator_expression, every_allocator_is_made) {
  static const char* const texts[] = {
      "host",
      "dry",
      "stack(host)",
      "cached(host)",
      "statistics(dry)",
      "limit:1(host)",
      "tracking(host)",
      "locked(host)",
      "guard(host)",
      "fault:1(host)",
      "logging:/dev/null(host)",
      "stack(cached(dry))",
  };
  for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
    const allocator_expression e = parsed(texts[i]);
    tm_auto_allocator shared = allocator_expression_make_shared(&e, NULL, NULL, NULL);
    tm_auto_allocator own = allocator_expression_make_own(&e, shared, NULL, NULL);
    cr_assert(own != NULL, "%s: %s", texts[i], tm_last_error()->message);
    const size_t length = strcspn(texts[i], ":(");
    cr_expect(strncmp(tm_allocator_name(own), texts[i], length) == 0, "%s makes %s", texts[i],
              tm_allocator_name(own));
  }
}

Test(allocator_expression, what_is_not_safe_is_refused) {
  const allocator_expression locked = parsed("locked(stack(host))");
  tm_auto_allocator shared = allocator_expression_make_shared(&locked, NULL, NULL, NULL);
  cr_expect(eq(ptr, allocator_expression_make_own(&locked, shared, NULL, NULL), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
  const allocator_expression guard = parsed("guard(cached(dry))");
  cr_expect(eq(ptr, allocator_expression_make_shared(&guard, NULL, NULL, NULL), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
}

static tm_allocator* fail(tm_allocator* innermost, void* user) {
  (void)user;
  tm_allocator_release(innermost);
  (void)TM_RAISE(TM_ERR_NO_MEMORY, "no wrapper");
  return NULL;
}

Test(allocator_expression, what_cannot_be_made_is_null) {
  const allocator_expression host = parsed("host");
  cr_expect(eq(ptr, allocator_expression_make_shared(&host, NULL, fail, NULL), NULL));
  const allocator_expression stack = parsed("stack:2MiB,maximum=1MiB(host)");
  tm_auto_allocator shared = allocator_expression_make_shared(&stack, NULL, NULL, NULL);
  tm_allocator* arena = shared;
  cr_expect(eq(ptr, allocator_expression_make_own(&stack, shared, NULL, &arena), NULL));
  cr_expect(eq(ptr, arena, NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
}
