// What the tracking adaptor knows of the blocks that are out.

#include "tm/alloc/tracking_adaptor.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/counting_allocator.h"
#include "tests/support/expect_fatal.h"
#include "tests/support/failing.h"
#include "tests/support/random.h"
#include "tm/alloc/host.h"
#include "tm/alloc/limit_adaptor.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/storage.h"
#include "tm/base/trace.h"
#include "tm/log.h"

static tm_allocator* create(tm_allocator* upstream) {
  tm_allocator* adaptor = tm_tracking_adaptor_create(upstream, NULL);
  cr_assert(adaptor != NULL, "%s", tm_last_error()->message);
  return adaptor;
}

static void* take(tm_allocator* allocator, size_t size) {
  void* block = NULL;
  cr_assert(eq(int, tm_allocator_alloc(allocator, size, NULL, &block), TM_OK));
  return block;
}

static void expect_totals(tm_allocator* adaptor, size_t blocks, size_t bytes) {
  size_t live_blocks;
  size_t live_bytes;
  cr_assert(eq(int, tm_tracking_totals(adaptor, &live_blocks, &live_bytes), TM_OK));
  cr_expect(eq(sz, live_blocks, blocks));
  cr_expect(eq(sz, live_bytes, bytes));
}

Test(tracking_adaptor, knows_each_block_with_its_size_age_and_scopes) {
  tm_auto_allocator adaptor = create(tm_host_allocator());
  expect_totals(adaptor, 0, 0);
  void* plain = take(adaptor, 100);
  void* scoped = NULL;
  TM_WITH_SCOPE("serve") {
    TM_SCOPE("kv cache");
    scoped = take(adaptor, 2000);
  }
  expect_totals(adaptor, 2, 2100);
  tm_tracking_block blocks[3];
  size_t count;
  cr_assert(eq(int, tm_tracking_get_blocks(adaptor, blocks, 3, &count), TM_OK));
  cr_assert(eq(sz, count, 2));
  const tm_tracking_block* first = blocks[0].ptr == plain ? &blocks[0] : &blocks[1];
  const tm_tracking_block* second = first == &blocks[0] ? &blocks[1] : &blocks[0];
  cr_expect(first->ptr == plain && first->size == 100);
  cr_expect(eq(str, (char*)first->scope, "(no scope)"));
  cr_expect(second->ptr == scoped && second->size == 2000);
  cr_expect(strncmp(second->scope, "kv cache (tracking_adaptor_test.c:", 34) == 0, "%s",
            second->scope);
  cr_expect(strstr(second->scope, " < serve (") != NULL);
  cr_expect(first->age_ns >= second->age_ns);
  cr_assert(eq(int, tm_tracking_get_blocks(adaptor, blocks, 1, &count), TM_OK));
  cr_expect(eq(sz, count, 1));
  cr_assert(eq(int, tm_tracking_get_blocks(adaptor, NULL, 0, &count), TM_OK));
  cr_expect(eq(sz, count, 0));
  tm_allocator_free(adaptor, plain, 100, NULL);
  tm_allocator_free(adaptor, scoped, 2000, NULL);
  expect_totals(adaptor, 0, 0);
}

Test(tracking_adaptor, a_report_has_the_largest_holders_first) {
  tm_auto_allocator adaptor = create(tm_host_allocator());
  void* blocks[4];
  TM_WITH_SCOPE("small") blocks[0] = take(adaptor, 10);
  for (int i = 1; i < 3; i++) {
    TM_WITH_SCOPE("large") blocks[i] = take(adaptor, 1000);
  }
  blocks[3] = take(adaptor, 500);
  char text[1024];
  cr_assert(eq(int, tm_tracking_report(adaptor, text, sizeof text), TM_OK));
  const char* head = "tracking: 4 blocks of 2510 bytes in all are outstanding\n";
  cr_expect(strncmp(text, head, strlen(head)) == 0, "%s", text);
  const char* large = strstr(text, "\n  2000 bytes in 2 blocks, the oldest for 0.");
  const char* none = strstr(text, "\n  500 bytes in 1 block, the oldest for 0.");
  const char* small = strstr(text, "\n  10 bytes in 1 block, the oldest for 0.");
  cr_assert(large && none && small, "%s", text);
  cr_expect(large < none && none < small);
  cr_expect(strstr(large, ": large (tracking_adaptor_test.c:") != NULL);
  cr_expect(strstr(none, ": (no scope)") != NULL);
  char cut[40];
  cr_assert(eq(int, tm_tracking_report(adaptor, cut, sizeof cut), TM_OK));
  cr_expect(eq(sz, strlen(cut), sizeof cut - 1));
  cr_expect(strcmp(cut + sizeof cut - 4, "...") == 0);
  tm_allocator_free(adaptor, blocks[0], 10, NULL);
  tm_allocator_free(adaptor, blocks[1], 1000, NULL);
  cr_assert(eq(int, tm_tracking_report(adaptor, text, sizeof text), TM_OK));
  cr_expect(strstr(text, "\n  1000 bytes in 1 block, the oldest") != NULL, "%s", text);
  cr_expect(strstr(text, ": small (") == NULL, "%s", text);
  tm_allocator_free(adaptor, blocks[2], 1000, NULL);
  tm_allocator_free(adaptor, blocks[3], 500, NULL);
  cr_assert(eq(int, tm_tracking_report(adaptor, text, sizeof text), TM_OK));
  cr_expect(eq(str, text, "tracking: 0 blocks of 0 bytes in all are outstanding"));
}

Test(tracking_adaptor, out_of_memory_names_the_top_holders) {
  tm_auto_allocator limit = tm_limit_adaptor_create(tm_host_allocator(), 4096);
  tm_auto_allocator adaptor = create(limit);
  void* blocks[2];
  TM_WITH_SCOPE("weights") blocks[0] = take(adaptor, 3000);
  TM_WITH_SCOPE("cache") blocks[1] = take(adaptor, 500);
  void* none = &none;
  const int line = __LINE__ + 1;
  cr_expect(eq(int, tm_allocator_alloc(adaptor, 1000, NULL, &none), TM_ERR_NO_MEMORY));
  cr_expect(none == NULL);
  const char* message = tm_last_error()->message;
  cr_expect(strncmp(message, "limit: 1024 bytes asked; 3520 used", 34) == 0, "%s", message);
  cr_expect(strstr(message, "; held: 3000 bytes by weights (tracking_adaptor_test.c:") != NULL,
            "%s", message);
  cr_expect(strstr(message, "; 500 bytes by cache (") != NULL, "%s", message);
  cr_expect(eq(str, (char*)tm_last_error()->file, "limit_adaptor.c"));  // who refused
  cr_expect(tm_last_error()->line != line);
  tm_allocator_free(adaptor, blocks[0], 3000, NULL);
  tm_allocator_free(adaptor, blocks[1], 500, NULL);
  expect_totals(adaptor, 0, 0);
}

Test(tracking_adaptor, only_the_nearest_adaptor_names_holders) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  upstream.budget = 1024;
  tm_allocator* below = create(&upstream.base);
  tm_allocator* above = create(below);
  void* held = take(above, 512);
  void* none;
  cr_expect(eq(int, tm_allocator_alloc(above, 1000, NULL, &none), TM_ERR_NO_MEMORY));
  const char* first = strstr(tm_last_error()->message, "; held: ");
  cr_assert(first != NULL);
  cr_expect(strstr(first + 1, "; held: ") == NULL, "%s", tm_last_error()->message);
  tm_allocator_free(above, held, 512, NULL);
  tm_allocator_release(above);
  tm_allocator_release(below);
  tm_allocator_release(&upstream.base);
}

Test(tracking_adaptor, storages_and_regions_of_an_arena_are_known) {
  tm_auto_allocator adaptor = create(tm_host_allocator());
  tm_auto_allocator stack = tm_stack_allocator_create(adaptor, NULL, NULL);
  tm_storage* storage;
  cr_assert(eq(int, tm_storage_alloc(stack, 1000, NULL, &storage), TM_OK));
  expect_totals(adaptor, 1, 2 << 20);
  tm_storage_release(storage);
  cr_assert(eq(int, tm_allocator_trim(stack, 0), TM_OK));
  expect_totals(adaptor, 0, 0);
}

//===-- Leaks -----------------------------------------------------------------===//

static char logged[2048];

static void keep_line(tm_log_level level, const char* line, void* user) {
  (void)level;
  (void)user;
  const size_t used = strlen(logged);
  (void)snprintf(logged + used, sizeof logged - used, "%s\n", line);
}

Test(tracking_adaptor, what_is_out_at_its_end_is_logged) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  tm_set_log_sink(keep_line, NULL);
  tm_allocator* adaptor = create(&upstream.base);
  void* leaked[2];
  TM_WITH_SCOPE("leaky") leaked[0] = take(adaptor, 300);
  leaked[1] = take(adaptor, 20);
  tm_allocator_release(adaptor);
  cr_expect(strstr(logged, "tracking: 2 blocks of 320 bytes in all are outstanding") != NULL, "%s",
            logged);
  cr_expect(strstr(logged, "300 bytes in 1 block") != NULL, "%s", logged);
  cr_expect(strstr(logged, ": leaky (tracking_adaptor_test.c:") != NULL, "%s", logged);
  logged[0] = '\0';
  adaptor = tm_tracking_adaptor_create(&upstream.base, &(tm_tracking_options){.quiet = true});
  void* quiet = take(adaptor, 10);
  tm_allocator_release(adaptor);
  adaptor = create(&upstream.base);
  tm_allocator_free(adaptor, take(adaptor, 10), 10, NULL);
  tm_allocator_release(adaptor);
  cr_expect(eq(str, logged, ""));
  tm_set_log_sink(NULL, NULL);
  tm_allocator_free(&upstream.base, leaked[0], 300, NULL);  // they were never the adaptor's own
  tm_allocator_free(&upstream.base, leaked[1], 20, NULL);
  tm_allocator_free(&upstream.base, quiet, 10, NULL);
  cr_expect(eq(sz, upstream.live_bytes, 0));
  tm_allocator_release(&upstream.base);
}

//===-- Misuse ----------------------------------------------------------------===//

Test(tracking_adaptor, freeing_what_is_no_block_is_fatal_and_changes_nothing) {
  tm_auto_allocator adaptor = create(tm_host_allocator());
  char* block = take(adaptor, 100);
  EXPECT_FATAL(tm_allocator_free(adaptor, block + 64, 36, NULL), "is no live block");
  EXPECT_FATAL(tm_allocator_free(adaptor, block, 90, NULL),
               "is freed with 90 bytes, and was allocated with 100");
  expect_totals(adaptor, 1, 100);
  tm_allocator_free(adaptor, block, 100, NULL);
  EXPECT_FATAL(tm_allocator_free(adaptor, block, 100, NULL), "is no live block");
}

Test(tracking_adaptor, misuse_is_an_error) {
  cr_expect(tm_tracking_adaptor_create(NULL, NULL) == NULL);
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
  tm_auto_allocator adaptor = create(tm_host_allocator());
  size_t blocks = 1;
  size_t bytes = 1;
  cr_expect(eq(int, tm_tracking_totals(tm_host_allocator(), &blocks, &bytes), TM_ERR_INVALID));
  cr_expect(blocks == 0 && bytes == 0);
  cr_expect(strstr(tm_last_error()->message, "is a host, no tracking") != NULL);
  cr_expect(eq(int, tm_tracking_totals(adaptor, NULL, &bytes), TM_ERR_INVALID));
  cr_expect(eq(int, tm_tracking_get_blocks(adaptor, NULL, 1, &blocks), TM_ERR_INVALID));
  cr_expect(eq(int, tm_tracking_report(adaptor, NULL, 10), TM_ERR_INVALID));
  char text[8] = "x";
  cr_expect(eq(int, tm_tracking_report(adaptor, text, 0), TM_ERR_INVALID));
  cr_expect(eq(int, tm_tracking_report(tm_host_allocator(), text, sizeof text), TM_ERR_INVALID));
  cr_expect(eq(str, text, ""));
}

//===-- Against a model -------------------------------------------------------===//

enum { STEPS = 30000, MAX_LIVE = 700, SCOPES = 5 };

typedef struct model {
  tm_allocator* adaptor;
  void* live[MAX_LIVE];
  size_t sizes[MAX_LIVE];
  int scopes[MAX_LIVE];
} model;

static void step(model* m, test_random* random) {
  const size_t i = test_random_below(random, MAX_LIVE);
  if (m->live[i]) {
    tm_allocator_free(m->adaptor, m->live[i], m->sizes[i], NULL);
    m->live[i] = NULL;
    return;
  }
  m->sizes[i] = 1 + test_random_below(random, 300);
  m->scopes[i] = (int)test_random_below(random, SCOPES);
  char name[16];
  (void)snprintf(name, sizeof name, "scope %d", m->scopes[i]);
  TM_SCOPE_COPY(name);
  m->live[i] = take(m->adaptor, m->sizes[i]);
}

static void expect_block(const model* m, const tm_tracking_block* block) {
  for (int i = 0; i < MAX_LIVE; i++) {
    if (m->live[i] == block->ptr) {
      char scope[24];
      (void)snprintf(scope, sizeof scope, "scope %d (", m->scopes[i]);
      cr_assert(eq(sz, block->size, m->sizes[i]));
      cr_assert(strncmp(block->scope, scope, strlen(scope)) == 0);
      return;
    }
  }
  cr_assert(false, "%p is not live", block->ptr);
}

static void expect_model(const model* m) {
  static tm_tracking_block blocks[MAX_LIVE];
  size_t count;
  cr_assert(eq(int, tm_tracking_get_blocks(m->adaptor, blocks, MAX_LIVE, &count), TM_OK));
  size_t live = 0;
  size_t bytes = 0;
  for (int i = 0; i < MAX_LIVE; i++) {
    live += m->live[i] != NULL;
    bytes += m->live[i] ? m->sizes[i] : 0;
  }
  cr_assert(eq(sz, count, live));
  expect_totals(m->adaptor, live, bytes);
  for (size_t i = 0; i < count; i++) {
    expect_block(m, &blocks[i]);
  }
}

Test(tracking_adaptor, knows_what_a_model_knows) {
  static model m;
  test_random random = test_random_start("tracking_adaptor");
  m.adaptor = create(tm_host_allocator());
  for (int i = 0; i < STEPS; i++) {
    step(&m, &random);
    if (i % 1000 == 0) {
      expect_model(&m);
    }
  }
  expect_model(&m);
  for (int i = 0; i < MAX_LIVE; i++) {
    tm_allocator_free(m.adaptor, m.live[i], m.sizes[i], NULL);
  }
  expect_totals(m.adaptor, 0, 0);
  tm_allocator_release(m.adaptor);
}

//===-- Failures --------------------------------------------------------------===//

static tm_status create_and_use(tm_allocator* upstream) {
  tm_auto_allocator adaptor = tm_tracking_adaptor_create(upstream, NULL);
  if (!adaptor) {
    return tm_last_status();
  }
  void* first;
  TM_TRY(tm_allocator_alloc(adaptor, 100, NULL, &first));
  TM_SCOPE("another");
  void* second;
  const tm_status status = tm_allocator_alloc(adaptor, 200, NULL, &second);
  if (status == TM_OK) {
    tm_allocator_free(adaptor, second, 200, NULL);
  }
  tm_allocator_free(adaptor, first, 100, NULL);
  return status;
}

Test(tracking_adaptor, survives_every_failure) {
  expect_survives_every_failure_or_retries(create_and_use);
}

enum { MANY = 300 };

// So many blocks that the tables grow.
static tm_status use_many(tm_allocator* upstream) {
  tm_auto_allocator adaptor = tm_tracking_adaptor_create(upstream, NULL);
  if (!adaptor) {
    return tm_last_status();
  }
  void* blocks[MANY] = {NULL};
  tm_status status = TM_OK;
  for (int i = 0; i < MANY && status == TM_OK; i++) {
    status = tm_allocator_alloc(adaptor, 64, NULL, &blocks[i]);
  }
  const tm_error kept = *tm_last_error();
  for (int i = 0; i < MANY; i++) {
    tm_allocator_free(adaptor, blocks[i], 64, NULL);
  }
  tm_restore_error_(&kept);
  return status;
}

Test(tracking_adaptor, a_table_that_cannot_grow_goes_on) {
  expect_survives_every_failure_or_retries(use_many);
}
