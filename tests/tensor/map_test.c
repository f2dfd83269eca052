// Tensor maps: by example, and against a model, which is an array that is searched from its start.
// The model's seed is printed; TM_TEST_SEED repeats a run.

#include "tm/tensor/map.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/support/failing.h"
#include "tm/alloc/bookkeeping.h"
#include "tm/context/context.h"

#define ASSERT_OK(call) cr_assert(eq(int, (call), TM_OK), "%s", tm_last_error()->message)

static tm_tensor make_number(int32_t number) {
  tm_tensor tensor = tm_empty(TM_SHAPE(1), TM_I32, TM_CPU);
  cr_assert(tm_ok(&tensor));
  *TM_DATA(int32_t, &tensor) = number;
  return tensor;
}

static int32_t number_of(const tm_tensor* tensor) {
  const int32_t* data = TM_DATA(int32_t, tensor);
  return data ? *data : -1;
}

static tm_tensor_map* make_map(int count) {
  static const char* const names[] = {"q", "k", "v", "out"};
  tm_tensor_map* map = tm_tensor_map_create();
  for (int i = 0; i < count; i++) {
    tm_auto_tensor tensor = make_number(100 + i);
    ASSERT_OK(tm_tensor_map_produce(map, names[i], &tensor));
  }
  return map;
}

static void expect_error(tm_status status, const char* words) {
  cr_expect(eq(int, tm_last_status(), status));
  cr_expect(strstr(tm_last_error()->message, words) != NULL, "\"%s\" is not in: %s", words,
            tm_last_error()->message);
  tm_clear_error();
}

//===-- Putting in --------------------------------------------------------===//

Test(map, produce_takes_the_reference_over) {
  tm_auto_tensor_map map = tm_tensor_map_create();
  tm_auto_tensor x = make_number(7);
  void* const data = tm_data(&x);
  ASSERT_OK(tm_tensor_map_produce(map, "x", &x));
  cr_expect(not(tm_ok(&x)));
  cr_expect(eq(ptr, tm_data(tm_tensor_map_at(map, "x")), data));
  cr_expect(eq(int, (int)tm_tensor_map_size(map), 1));
}

Test(map, produce_of_a_duplicate_changes_nothing) {
  tm_auto_tensor_map map = make_map(2);
  tm_auto_tensor x = make_number(7);
  cr_expect(eq(int, tm_tensor_map_produce(map, "k", &x), TM_ERR_EXISTS));
  expect_error(TM_ERR_EXISTS, "\"k\"");
  cr_expect(eq(int, number_of(&x), 7));
  cr_expect(eq(int, number_of(tm_tensor_map_at(map, "k")), 101));
  cr_expect(eq(int, (int)tm_tensor_map_size(map), 2));
}

Test(map, produce_of_a_null_tensor_keeps_the_first_failure) {
  tm_auto_tensor_map map = make_map(1);
  tm_auto_tensor x = tm_empty(TM_SHAPE(-3), TM_F32, TM_CPU);
  cr_expect(eq(int, tm_tensor_map_produce(map, "x", &x), TM_ERR_INVALID));
  expect_error(TM_ERR_INVALID, "-3");
  cr_expect(not(tm_tensor_map_contains(map, "x")));
}

Test(map, produce_copies_the_key) {
  tm_auto_tensor_map map = tm_tensor_map_create();
  char key[] = "key";
  tm_auto_tensor x = make_number(1);
  ASSERT_OK(tm_tensor_map_produce(map, key, &x));
  key[0] = 'h';
  cr_expect(tm_tensor_map_contains(map, "key"));
  cr_expect(not(tm_tensor_map_contains(map, "hey")));
}

static void count_call(void* data, size_t size, void* user) {
  (void)data;
  (void)size;
  ++*(int*)user;
}

Test(map, produce_of_a_borrowed_tensor_makes_a_reference) {
  tm_tensor_map* map = tm_tensor_map_create();
  int32_t memory = 9;
  int deleted = 0;
  tm_tensor x = tm_adopt(&memory, sizeof memory, TM_SHAPE(1), TM_I32, tm_device_make(TM_CPU, 0),
                         count_call, &deleted);
  tm_auto_tensor borrowed = tm_borrow(&x);
  ASSERT_OK(tm_tensor_map_produce(map, "x", &borrowed));
  cr_expect(not(tm_ok(&borrowed)));
  tm_release(&x);
  cr_expect(eq(int, deleted, 0));
  cr_expect(eq(int, number_of(tm_tensor_map_at(map, "x")), 9));
  tm_tensor_map_release(map);
  cr_expect(eq(int, deleted, 1));
}

Test(map, the_empty_key_is_one) {
  tm_auto_tensor_map map = tm_tensor_map_create();
  tm_auto_tensor x = make_number(3);
  ASSERT_OK(tm_tensor_map_produce(map, "", &x));
  cr_expect(eq(int, number_of(tm_tensor_map_at(map, "")), 3));
}

//===-- Asking ------------------------------------------------------------===//

Test(map, at_lists_the_keys_that_are_there) {
  tm_auto_tensor_map map = make_map(3);
  const tm_tensor* x = tm_tensor_map_at(map, "w");
  cr_assert(x != NULL);
  cr_expect(not(tm_ok(x)));
  expect_error(TM_ERR_NOT_FOUND, "no \"w\" among 3: \"q\", \"k\", \"v\"");
}

Test(map, at_passes_its_failure_through_a_chain) {
  tm_auto_tensor_map map = make_map(1);
  tm_auto_tensor x = tm_unsqueeze_move(tm_view(tm_tensor_map_at(map, "w"), TM_SHAPE(1, 1)), 0);
  cr_expect(not(tm_ok(&x)));
  expect_error(TM_ERR_NOT_FOUND, "\"w\"");
}

Test(map, more_keys_than_fit_a_message_are_cut) {
  tm_auto_tensor_map map = tm_tensor_map_create();
  for (int i = 0; i < 100; i++) {
    char key[32];
    snprintf(key, sizeof key, "model.layers.%d.weight", i);
    tm_auto_tensor tensor = make_number(i);
    ASSERT_OK(tm_tensor_map_produce(map, key, &tensor));
  }
  cr_expect(not(tm_ok(tm_tensor_map_at(map, "bias"))));
  const char* message = tm_last_error()->message;
  cr_expect(strcmp(message + strlen(message) - 3, "...") == 0, "%s", message);
  expect_error(TM_ERR_NOT_FOUND, "no \"bias\" among 100: \"model.layers.0.weight\", ");
}

Test(map, try_raises_nothing) {
  tm_auto_tensor_map map = make_map(2);
  cr_expect(eq(ptr, (void*)tm_tensor_map_try(map, "w"), NULL));
  cr_expect(eq(int, number_of(tm_tensor_map_try(map, "q")), 100));
  tm_auto_tensor none = tm_tensor_map_try_consume(map, "w");
  cr_expect(not(tm_ok(&none)));
  cr_expect(eq(int, tm_last_status(), TM_OK));
}

Test(map, null_handles_and_keys_are_errors) {
  tm_auto_tensor_map map = make_map(1);
  tm_auto_tensor x = make_number(1);
  cr_expect(eq(int, tm_tensor_map_produce(NULL, "x", &x), TM_ERR_INVALID));
  expect_error(TM_ERR_INVALID, "a tensor map is null");
  cr_expect(eq(int, tm_tensor_map_produce(map, NULL, &x), TM_ERR_INVALID));
  expect_error(TM_ERR_INVALID, "the key is NULL");
  cr_expect(eq(int, tm_tensor_map_produce(map, "x", NULL), TM_ERR_INVALID));
  expect_error(TM_ERR_INVALID, "a tensor is null");
  cr_expect(not(tm_ok(tm_tensor_map_at(NULL, "x"))));
  expect_error(TM_ERR_INVALID, "a tensor map is null");
  cr_expect(eq(int, (int)tm_tensor_map_size(NULL), 0));
  cr_expect(eq(ptr, (void*)tm_tensor_map_first(NULL), NULL));
  cr_expect(eq(ptr, (void*)tm_tensor_map_next(NULL), NULL));
  tm_tensor_map_release(NULL);
}

Test(map, iteration_follows_the_order_of_insertion) {
  tm_auto_tensor_map map = make_map(4);
  tm_auto_tensor k = tm_tensor_map_consume(map, "k");
  ASSERT_OK(tm_tensor_map_produce(map, "k", &k));  // now the last
  static const char* const expected[] = {"q", "v", "out", "k"};
  size_t i = 0;
  for (const tm_tensor_map_entry* e = tm_tensor_map_first(map); e; e = tm_tensor_map_next(e)) {
    cr_assert(i < 4);
    cr_expect(eq(str, (char*)e->key, (char*)expected[i]));
    cr_expect(eq(ptr, (void*)e->text, NULL));
    i++;
  }
  cr_expect(eq(sz, i, 4));
}

//===-- Taking out --------------------------------------------------------===//

Test(map, consume_takes_the_key_out) {
  tm_auto_tensor_map map = make_map(2);
  tm_auto_tensor q = tm_tensor_map_consume(map, "q");
  cr_expect(eq(int, number_of(&q), 100));
  cr_expect(not(tm_tensor_map_contains(map, "q")));
  tm_auto_tensor again = tm_tensor_map_consume(map, "q");
  cr_expect(not(tm_ok(&again)));
  expect_error(TM_ERR_NOT_FOUND, "no \"q\" among 1: \"k\"");
}

Test(map, try_consume_also_takes_a_tensor_without_elements) {
  tm_auto_tensor_map map = tm_tensor_map_create();
  tm_auto_tensor none = tm_empty(TM_SHAPE(0, 4), TM_F32, TM_CPU);
  ASSERT_OK(tm_tensor_map_produce(map, "x", &none));
  tm_auto_tensor x = tm_tensor_map_try_consume(map, "x");
  cr_expect(tm_ok(&x));
  cr_expect(eq(int, (int)tm_dim(&x, 1), 4));
  cr_expect(eq(int, (int)tm_tensor_map_size(map), 0));
}

Test(map, release_frees_what_is_in_it) {
  const int64_t before = tm_bookkeeping_live();
  tm_tensor_map* map = make_map(4);
  ASSERT_OK(tm_tensor_map_add_metadata(map, "format", "pt"));
  tm_auto_tensor kept = tm_share(tm_tensor_map_at(map, "v"));
  tm_tensor_map_release(map);
  cr_expect(eq(int, number_of(&kept), 102));
  tm_release(&kept);
  cr_expect(eq(i64, tm_bookkeeping_live(), before));
}

//===-- Keys by their addresses -------------------------------------------===//

// A map remembers where it found the key that lies at an address.
Test(map, a_key_may_change_in_its_place) {
  tm_auto_tensor_map map = make_map(3);
  char key[4] = "q";
  for (int i = 0; i < 6; i++) {
    key[0] = "qkv"[i % 3];
    cr_expect(eq(int, number_of(tm_tensor_map_at(map, key)), 100 + i % 3));
  }
  key[0] = 'w';
  cr_expect(not(tm_tensor_map_contains(map, key)));
  key[0] = 'v';
  tm_auto_tensor v = tm_tensor_map_consume(map, key);
  cr_expect(eq(int, number_of(&v), 102));
  cr_expect(not(tm_tensor_map_contains(map, key)));
  cr_expect(not(tm_tensor_map_contains(map, "v")));
  key[0] = 'x';
  ASSERT_OK(tm_tensor_map_produce(map, key, &v));
  cr_expect(not(tm_tensor_map_contains(map, "v")));
  cr_expect(eq(int, number_of(tm_tensor_map_at(map, "x")), 102));
  key[0] = 'v';
  cr_expect(not(tm_tensor_map_contains(map, key)));
}

// One by itself, which no compiler puts elsewhere.
static char* copy_of(const char* key) {
  char* copy = strdup(key);
  cr_assert(copy != NULL);
  return copy;
}

Test(map, a_key_comes_from_any_address) {
  tm_auto_tensor_map map = tm_tensor_map_create();
  char* keys[3] = {copy_of("x"), copy_of("x"), copy_of("x")};
  tm_auto_tensor x = make_number(1);
  ASSERT_OK(tm_tensor_map_produce(map, keys[0], &x));
  x = tm_tensor_map_consume(map, keys[1]);
  ASSERT_OK(tm_tensor_map_produce(map, keys[2], &x));  // of an address that is new
  tm_auto_tensor y = make_number(2);
  for (int i = 0; i < 3; i++) {
    cr_expect(eq(int, number_of(tm_tensor_map_at(map, keys[i])), 1));
    cr_expect(eq(int, tm_tensor_map_produce(map, keys[i], &y), TM_ERR_EXISTS));
  }
  x = tm_tensor_map_consume(map, keys[0]);
  for (int i = 0; i < 3; i++) cr_expect(not(tm_tensor_map_contains(map, keys[i])));
  ASSERT_OK(tm_tensor_map_produce(map, keys[1], &y));
  for (int i = 0; i < 3; i++) {
    cr_expect(eq(int, number_of(tm_tensor_map_try(map, keys[i])), 2));
    free(keys[i]);
  }
}

// As long as what entries have room for, and longer.
Test(map, keys_of_any_length_come_and_go) {
  tm_auto_tensor_map map = tm_tensor_map_create();
  char key[200];
  for (int round = 0; round < 3; round++) {
    for (size_t length = 0; length < sizeof key; length++) {
      memset(key, 'a' + round, length);
      key[length] = '\0';
      tm_auto_tensor x = make_number((int32_t)length);
      ASSERT_OK(tm_tensor_map_produce(map, key, &x));
      tm_auto_tensor y = tm_tensor_map_consume(map, key);
      cr_assert(eq(int, number_of(&y), (int)length));
      ASSERT_OK(tm_tensor_map_produce(map, key, &y));
      cr_assert(eq(str, (char*)tm_tensor_map_first(map)->key, key));
      y = tm_tensor_map_try_consume(map, key);
      cr_assert(eq(int, (int)tm_tensor_map_size(map), 0));
    }
  }
}

Test(map, keys_that_come_again_take_no_memory) {
  static const char* const names[] = {"hidden", "residual", "logits",
                                      "a name that is longer than what most entries have room for"};
  tm_auto_tensor_map map = tm_tensor_map_create();
  tm_tensor tensors[4];
  for (int i = 0; i < 4; i++) tensors[i] = make_number(i);
  uint64_t before = 0;
  for (int step = 0; step < 3; step++) {
    before = tm_bookkeeping_calls();
    for (int i = 0; i < 4; i++) ASSERT_OK(tm_tensor_map_produce(map, names[i], &tensors[i]));
    for (int i = 0; i < 4; i++) tensors[i] = tm_tensor_map_consume(map, names[i]);
  }
  cr_expect(eq(u64, tm_bookkeeping_calls(), before));
  for (int i = 0; i < 4; i++) {
    cr_expect(eq(int, number_of(&tensors[i]), i));
    tm_release(&tensors[i]);
  }
}

Test(map, a_tensor_of_every_rank_comes_out_as_it_went_in) {
  tm_auto_tensor_map map = tm_tensor_map_create();
  for (int32_t rank = 0; rank <= TM_MAX_RANK; rank++) {
    tm_shape shape = {0};
    shape.rank = rank;
    for (int32_t i = 0; i < rank; i++) shape.dim[i] = 1 + i % 3;
    tm_auto_tensor x = tm_empty(shape, TM_F16, TM_CPU);
    tm_auto_tensor same = tm_share(&x);
    ASSERT_OK(tm_tensor_map_produce(map, "x", &x));
    tm_auto_tensor out = tm_tensor_map_consume(map, "x");
    cr_expect(tm_layout_equal(&out.layout, &same.layout));
    cr_expect(eq(ptr, out.data, same.data));
    cr_expect(eq(int, out.storage->references, 2));
    shape.dim[rank / 2] = 0;
    if (rank > 0) {
      tm_auto_tensor none = tm_empty(shape, TM_F16, TM_CPU);
      ASSERT_OK(tm_tensor_map_produce(map, "x", &none));
      tm_auto_tensor refused = tm_tensor_map_consume(map, "x");
      cr_expect(not(tm_ok(&refused)));
      expect_error(TM_ERR_INVALID, "no elements");
      tm_auto_tensor taken = tm_tensor_map_try_consume(map, "x");
      cr_expect(tm_ok(&taken));
    }
  }
}

//===-- Threads -----------------------------------------------------------===//

enum { ASKING = 4, ASKED = 40 };

// By keys at one address, at addresses of their own, and by literals.
static void* ask(void* user) {
  const tm_tensor_map* map = user;
  intptr_t wrong = 0;
  char own[ASKED][16];
  for (int i = 0; i < ASKED; i++) snprintf(own[i], sizeof own[i], "key %d", i);
  for (int i = 0; i < 20 * ASKED; i++) {
    char key[16];
    snprintf(key, sizeof key, "key %d", i % ASKED);
    wrong += number_of(tm_tensor_map_try(map, key)) != i % ASKED;
    wrong += number_of(tm_tensor_map_at(map, own[i % ASKED])) != i % ASKED;
    wrong += number_of(tm_tensor_map_at(map, "key 7")) != 7;
    wrong += tm_tensor_map_contains(map, "key") ? 1 : 0;
  }
  return (void*)wrong;
}

Test(map, threads_may_ask_side_by_side) {
  tm_auto_tensor_map map = tm_tensor_map_create();
  for (int round = 0; round < 3; round++) {
    for (int i = 0; i < ASKED; i++) {
      char key[16];
      snprintf(key, sizeof key, "key %d", i);
      tm_auto_tensor x = round ? tm_tensor_map_consume(map, key) : make_number(i);
      ASSERT_OK(tm_tensor_map_produce(map, key, &x));
    }
    pthread_t threads[ASKING];
    for (int i = 0; i < ASKING; i++) {
      cr_assert(eq(int, pthread_create(&threads[i], NULL, ask, map), 0));
    }
    for (int i = 0; i < ASKING; i++) {
      void* wrong = NULL;
      cr_assert(eq(int, pthread_join(threads[i], &wrong), 0));
      cr_expect(eq(ptr, wrong, NULL));
    }
  }
}

//===-- Metadata ----------------------------------------------------------===//

Test(map, metadata_are_kept_apart_from_the_tensors) {
  tm_auto_tensor_map map = make_map(1);
  char text[] = "pt";
  ASSERT_OK(tm_tensor_map_add_metadata(map, "q", text));
  ASSERT_OK(tm_tensor_map_add_metadata(map, "empty", ""));
  text[0] = 'x';
  cr_expect(eq(str, (char*)tm_tensor_map_metadata(map, "q"), "pt"));
  cr_expect(eq(int, tm_tensor_map_add_metadata(map, "q", "tf"), TM_ERR_EXISTS));
  cr_expect(eq(str, (char*)tm_tensor_map_metadata(map, "q"), "pt"));
  cr_expect(eq(ptr, (void*)tm_tensor_map_metadata(map, "k"), NULL));
  cr_expect(eq(int, (int)tm_tensor_map_size(map), 1));
  cr_expect(eq(int, (int)tm_tensor_map_metadata_size(map), 2));
  const tm_tensor_map_entry* second = tm_tensor_map_next(tm_tensor_map_first_metadata(map));
  cr_expect(eq(str, (char*)second->key, "empty"));
  cr_expect(eq(str, (char*)second->text, ""));
  cr_expect(not(tm_ok(&second->tensor)));
}

//===-- Against a model ---------------------------------------------------===//

enum { STEPS = 100000, KEYS = 300, NAME = 72 };

typedef struct model {
  int32_t key[KEYS];  // of each entry in the order of insertion
  int32_t number[KEYS];
  int size;
} model;

static uint64_t random_state;

static uint64_t random_below(uint64_t limit) {  // splitmix64
  uint64_t z = random_state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return (z ^ (z >> 31)) % limit;
}

static int model_find(const model* m, int32_t key) {
  for (int i = 0; i < m->size; i++) {
    if (m->key[i] == key) return i;
  }
  return -1;
}

static void model_remove(model* m, int at) {
  m->size--;
  for (int i = at; i < m->size; i++) {
    m->key[i] = m->key[i + 1];
    m->number[i] = m->number[i + 1];
  }
}

static void expect_equal(const tm_tensor_map* map, const model* m) {
  const tm_tensor_map_entry* e = tm_tensor_map_first(map);
  cr_assert(eq(int, (int)tm_tensor_map_size(map), m->size));
  for (int i = 0; i < m->size; i++) {
    cr_assert(e != NULL);
    cr_assert(eq(int, (int)strtol(e->key, NULL, 10), m->key[i]));
    cr_assert(eq(int, number_of(&e->tensor), m->number[i]));
    e = tm_tensor_map_next(e);
  }
  cr_assert(eq(ptr, (void*)e, NULL));
}

static void step_produce(tm_tensor_map* map, model* m, int32_t key, const char* name) {
  const int32_t number = (int32_t)random_below(1000000);
  tm_auto_tensor tensor = make_number(number);
  tm_bookkeeping_fail_nth(random_below(4) == 0 ? 1 + (int64_t)random_below(3) : 0);
  const tm_status status = tm_tensor_map_produce(map, name, &tensor);
  tm_bookkeeping_fail_nth(0);
  if (model_find(m, key) >= 0) {
    cr_assert(eq(int, status, TM_ERR_EXISTS));
  } else if (status == TM_OK) {
    m->key[m->size] = key;
    m->number[m->size++] = number;
  } else {
    cr_assert(eq(int, status, TM_ERR_NO_MEMORY));
  }
  cr_assert(eq(int, tm_ok(&tensor), status != TM_OK));
}

static void step_consume(tm_tensor_map* map, model* m, int32_t key, const char* name, bool may) {
  const int at = model_find(m, key);
  tm_clear_error();
  tm_auto_tensor tensor =
      may ? tm_tensor_map_try_consume(map, name) : tm_tensor_map_consume(map, name);
  if (at < 0) {
    cr_assert(not(tm_ok(&tensor)));
    cr_assert(eq(int, tm_last_status(), may ? TM_OK : TM_ERR_NOT_FOUND));
    return;
  }
  cr_assert(eq(int, number_of(&tensor), m->number[at]));
  model_remove(m, at);
}

static void step_ask(const tm_tensor_map* map, const model* m, int32_t key, const char* name) {
  const int at = model_find(m, key);
  cr_assert(eq(int, tm_tensor_map_contains(map, name), at >= 0));
  const tm_tensor* tensor = tm_tensor_map_at(map, name);
  cr_assert(eq(int, tm_ok(tensor), at >= 0));
  if (at >= 0) {
    cr_assert(eq(int, number_of(tensor), m->number[at]));
  }
}

Test(map, behaves_as_its_model) {
  const char* given = getenv("TM_TEST_SEED");
  random_state = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL) * 1000003u;
  printf("TM_TEST_SEED=%" PRIu64 "\n", random_state);
  static model m;
  static char names[2][KEYS][NAME];  // a key has three addresses, one of them that of all keys
  static const char padding[] = " and more than fits into the entry of a map that has it";
  for (int i = 0; i < 2 * KEYS; i++) {
    snprintf(names[i / KEYS][i % KEYS], NAME, "%d%s", i % KEYS, i % KEYS % 3 ? "" : padding);
  }
  tm_auto_tensor_map map = tm_tensor_map_create();
  for (int i = 0; i < STEPS; i++) {
    // Phases of few and of many keys, so that the table both grows and empties.
    const int32_t key = (int32_t)random_below(i / 5000 % 2 ? KEYS : 5);
    char here[NAME];
    snprintf(here, sizeof here, "%d%s", key, key % 3 ? "" : padding);
    const char* name = random_below(2) ? here : names[random_below(2)][key];
    switch (random_below(4)) {
      case 0:
        step_consume(map, &m, key, name, random_below(2) == 0);
        break;
      case 1:
        step_ask(map, &m, key, name);
        break;
      default:
        step_produce(map, &m, key, name);
    }
    if (i % 64 == 0) expect_equal(map, &m);
  }
  expect_equal(map, &m);
}

//===-- Out of memory -----------------------------------------------------===//

// Enough that the table grows, which it does when a chain of it has ten entries.
static tm_status fill(tm_tensor_map* map, tm_allocator* upstream) {
  for (int i = 0; i < 400; i++) {
    char key[200];  // every hundredth longer than an entry has room for
    snprintf(key, sizeof key, "%0*d", i % 100 ? 1 : 150, i);
    TM_TRY_TENSOR(tensor, tm_empty_from(upstream, TM_SHAPE(0), TM_F32));
    TM_TRY(tm_tensor_map_produce(map, key, &tensor));
  }
  return tm_tensor_map_add_metadata(map, "format", "pt");
}

static tm_status create_fill_and_release(tm_allocator* upstream) {
  tm_tensor_map* map = tm_tensor_map_create();
  if (!map) return tm_last_status();
  const tm_status status = fill(map, upstream);
  tm_tensor_map_release(map);
  return status;
}

Test(map, survives_every_failure) { expect_survives_every_failure(create_fill_and_release); }
