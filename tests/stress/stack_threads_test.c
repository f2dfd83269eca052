// Stacks under threads, for ThreadSanitizer: an owner allocates and releases, others return blocks,
// and whoever is last drops the stack while blocks are still on their way back.

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/counting_allocator.h"
#include "tm/alloc/stack.h"
#include "tm/alloc/storage.h"
#include "tm/check.h"

enum { ROUNDS = 300, BLOCKS = 200, RETURNERS = 3 };

typedef struct handoff {
  tm_storage* blocks[BLOCKS];  // atomic
  void* raw[BLOCKS];           // atomic
  tm_allocator* stack;
  int done;  // atomic
} handoff;

static void* return_blocks(void* argument) {
  handoff* h = argument;
  for (bool last = false; !last;) {
    last = __atomic_load_n(&h->done, __ATOMIC_ACQUIRE);
    for (int i = 0; i < BLOCKS; i++) {
      tm_storage_release(__atomic_exchange_n(&h->blocks[i], NULL, __ATOMIC_ACQ_REL));
      tm_allocator_free(h->stack, __atomic_exchange_n(&h->raw[i], NULL, __ATOMIC_ACQ_REL), 300,
                        NULL);
    }
    (void)sched_yield();
  }
  return NULL;
}

// The owner allocates and hands blocks to other threads, keeping every third one to itself.
static void produce(handoff* h) {
  for (int i = 0; i < BLOCKS; i++) {
    tm_storage* storage;
    TM_CHECK_OK(tm_storage_alloc(h->stack, 100 + (size_t)i, NULL, &storage));
    if (i % 3 == 1) {  // the block there before is this thread's to release again
      storage = __atomic_exchange_n(&h->blocks[i], storage, __ATOMIC_ACQ_REL);
    }
    tm_storage_release(storage);
    if (i % 3 == 2) {
      void* raw;
      TM_CHECK_OK(tm_allocator_alloc(h->stack, 300, NULL, &raw));
      tm_allocator_free(h->stack, __atomic_exchange_n(&h->raw[i], raw, __ATOMIC_ACQ_REL), 300,
                        NULL);
    }
  }
}

static void returns_from_many_threads(void) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  static handoff h;
  h = (handoff){.stack = tm_stack_allocator_create(&upstream.base, NULL, NULL)};
  pthread_t threads[RETURNERS];
  for (int i = 0; i < RETURNERS; i++) {
    TM_CHECK_EQ(pthread_create(&threads[i], NULL, return_blocks, &h), 0);
  }
  for (int i = 0; i < ROUNDS; i++) {
    produce(&h);
  }
  __atomic_store_n(&h.done, 1, __ATOMIC_RELEASE);
  for (int i = 0; i < RETURNERS; i++) {
    pthread_join(threads[i], NULL);
  }
  tm_allocator_stats stats;
  TM_CHECK_OK(tm_allocator_get_stats(h.stack, &stats));
  TM_CHECK_EQ(stats.live_blocks, 0);
  tm_allocator_release(h.stack);
  tm_allocator_release(&upstream.base);
  TM_CHECK(upstream.destroyed);
  TM_CHECK_EQ(upstream.live_bytes, 0);
}

typedef struct drop {
  tm_allocator* stack;
  tm_storage* blocks[4];
} drop;

static void* drop_stack(void* argument) {
  tm_allocator_release(((drop*)argument)->stack);
  return NULL;
}

static void* return_two(void* argument) {
  tm_storage_release(((drop*)argument)->blocks[0]);
  tm_storage_release(((drop*)argument)->blocks[1]);
  return NULL;
}

// The owner frees, another thread returns, a third drops the stack, all at once.
static void closing_races_with_frees(void) {
  for (int round = 0; round < 2000; round++) {
    counting_allocator upstream;
    counting_allocator_init(&upstream);
    drop d = {.stack = tm_stack_allocator_create(&upstream.base, NULL, NULL)};
    for (int i = 0; i < 4; i++) {
      TM_CHECK_OK(tm_storage_alloc(d.stack, 1000, NULL, &d.blocks[i]));
    }
    tm_allocator_release(&upstream.base);
    pthread_t dropper;
    pthread_t returner;
    TM_CHECK_EQ(pthread_create(&returner, NULL, return_two, &d), 0);
    TM_CHECK_EQ(pthread_create(&dropper, NULL, drop_stack, &d), 0);
    for (int i = 0; i < round % 16; i++) {
      (void)sched_yield();
    }
    tm_storage_release(d.blocks[3]);
    tm_storage_release(d.blocks[2]);
    pthread_join(dropper, NULL);
    pthread_join(returner, NULL);
    TM_CHECK(upstream.destroyed);
    TM_CHECK_EQ(upstream.live_bytes, 0);
  }
}

static void* share_and_release(void* argument) {
  tm_storage* storage = argument;
  for (int i = 0; i < 10000; i++) {
    tm_storage_release(tm_storage_retain(storage));
  }
  tm_storage_release(storage);
  return NULL;
}

static void references_are_counted_across_threads(void) {
  counting_allocator upstream;
  counting_allocator_init(&upstream);
  tm_storage* storage;
  TM_CHECK_OK(tm_storage_alloc(&upstream.base, 100, NULL, &storage));
  pthread_t threads[RETURNERS];
  for (int i = 0; i < RETURNERS; i++) {
    TM_CHECK_EQ(pthread_create(&threads[i], NULL, share_and_release, tm_storage_retain(storage)),
                0);
  }
  tm_storage_release(storage);
  for (int i = 0; i < RETURNERS; i++) {
    pthread_join(threads[i], NULL);
  }
  TM_CHECK_EQ(upstream.live_bytes, 0);
  tm_allocator_release(&upstream.base);
  TM_CHECK(upstream.destroyed);
}

int main(void) {
  returns_from_many_threads();
  closing_races_with_frees();
  references_are_counted_across_threads();
  printf("stack_threads_test: done\n");
  return 0;
}
