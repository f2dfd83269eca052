// What is the callback allocator's own; what every allocator promises is in conformance_test.c.

#include "tm/alloc/callback.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/failing.h"
#include "tests/support/machine.h"
#include "tm/alloc/stream.h"

// What the functions are asked, and what they answer.
typedef struct foreign {
  char* next;  // the block to give; NULL: none
  tm_status status;
  size_t last_size;
  tm_stream* last_stream;
  int allocs;
  void* last_freed;
  int frees;
  int destroyed;
  bool raises;
} foreign;

static tm_status foreign_alloc(size_t size, tm_stream* stream, void** out, void* user) {
  foreign* self = user;
  self->allocs++;
  self->last_size = size;
  self->last_stream = stream;
  if (self->raises) {
    (void)TM_RAISE(self->status, "the symmetric heap is closed");
  }
  if (self->status == TM_OK) {
    *out = self->next;
  }
  return self->status;
}

static void foreign_free(void* ptr, size_t size, tm_stream* stream, void* user) {
  foreign* self = user;
  self->frees++;
  self->last_freed = ptr;
  self->last_size = size;
  self->last_stream = stream;
}

static void foreign_destroy(void* user) { ((foreign*)user)->destroyed++; }

static _Alignas(4096) char memory[8192];

static tm_callback_options options_for(foreign* user) {
  return (tm_callback_options){
      .alloc = foreign_alloc, .free = foreign_free, .destroy_user = foreign_destroy, .user = user};
}

static tm_allocator* create(const tm_callback_options* options) {
  tm_allocator* allocator = tm_callback_allocator_create(options);
  cr_assert(allocator != NULL, "%s", tm_last_error()->message);
  return allocator;
}

Test(callback, functions_see_rounded_sizes_and_the_block_they_gave) {
  foreign user = {.next = memory};
  const tm_callback_options options = options_for(&user);
  tm_allocator* allocator = create(&options);
  void* block;
  cr_assert(eq(int, tm_allocator_alloc(allocator, 100, NULL, &block), TM_OK));
  cr_expect(eq(ptr, block, memory));
  cr_expect(eq(sz, user.last_size, 128));
  cr_expect(eq(ptr, user.last_stream, NULL));
  user.last_size = 0;
  tm_allocator_free(allocator, block, 100, NULL);
  cr_expect(eq(ptr, user.last_freed, memory));
  cr_expect(eq(sz, user.last_size, 128));
  cr_expect(eq(int, user.destroyed, 0));
  tm_allocator_release(allocator);
  cr_expect(eq(int, user.destroyed, 1));
  cr_expect(eq(int, user.allocs, 1));
  cr_expect(eq(int, user.frees, 1));
}

Test(callback, a_misaligned_block_goes_back_and_is_an_error) {
  foreign user = {.next = memory + 32};
  tm_callback_options options = options_for(&user);
  options.name = "symmetric";
  tm_allocator* allocator = create(&options);
  void* block = &user;
  cr_expect(eq(int, tm_allocator_alloc(allocator, 100, NULL, &block), TM_ERR_INVALID));
  cr_expect(eq(ptr, block, NULL));
  cr_expect(eq(ptr, user.last_freed, memory + 32));
  cr_expect(eq(int, user.frees, 1));
  char address[32];
  snprintf(address, sizeof address, "%p", (void*)(memory + 32));
  const char* message = tm_last_error()->message;
  cr_expect(strstr(message, address) != NULL, "%s", message);
  cr_expect(strstr(message, "64 bytes") != NULL, "%s", message);
  cr_expect(strstr(message, "symmetric") != NULL, "%s", message);
  tm_allocator_stats stats;
  cr_expect(eq(int, tm_allocator_get_stats(allocator, &stats), TM_OK));
  cr_expect(eq(u64, stats.live_blocks, 0));
  tm_allocator_release(allocator);
}

Test(callback, a_larger_alignment_is_kept_to) {
  foreign user = {.next = memory};
  tm_callback_options options = options_for(&user);
  options.alignment = 4096;
  tm_allocator* allocator = create(&options);
  cr_expect(eq(sz, tm_allocator_alignment(allocator), 4096));
  void* block;
  cr_expect(eq(int, tm_allocator_alloc(allocator, 100, NULL, &block), TM_OK));
  cr_expect(eq(sz, user.last_size, 4096));
  tm_allocator_free(allocator, block, 100, NULL);
  user.next = memory + 2048;
  cr_expect(eq(int, tm_allocator_alloc(allocator, 100, NULL, &block), TM_ERR_INVALID));
  tm_allocator_release(allocator);
}

Test(callback, the_functions_status_is_the_allocations) {
  foreign user = {.status = TM_ERR_DEVICE_LOST, .raises = true};
  const tm_callback_options options = options_for(&user);
  tm_allocator* allocator = create(&options);
  void* block = &user;
  cr_expect(eq(int, tm_allocator_alloc(allocator, 100, NULL, &block), TM_ERR_DEVICE_LOST));
  cr_expect(eq(ptr, block, NULL));
  cr_expect(strstr(tm_last_error()->message, "the symmetric heap is closed") != NULL, "%s",
            tm_last_error()->message);
  user.raises = false;
  user.status = TM_ERR_BUSY;
  cr_expect(eq(int, tm_allocator_alloc(allocator, 100, NULL, &block), TM_ERR_BUSY));
  cr_expect(strstr(tm_last_error()->message, "TM_ERR_BUSY") != NULL, "%s",
            tm_last_error()->message);
  user.status = TM_OK;  // and no block
  cr_expect(eq(int, tm_allocator_alloc(allocator, 100, NULL, &block), TM_ERR_NO_MEMORY));
  cr_expect(strstr(tm_last_error()->message, "128 bytes") != NULL, "%s", tm_last_error()->message);
  cr_expect(eq(int, user.frees, 0));
  tm_allocator_release(allocator);
}

Test(callback, its_name_is_copied) {
  foreign user = {0};
  char name[] = "a name that is longer than it needs to be";
  tm_callback_options options = options_for(&user);
  options.name = name;
  tm_allocator* allocator = create(&options);
  memset(name, 'x', sizeof name - 1);
  cr_expect(eq(str, (char*)tm_allocator_name(allocator), "a name that is longer than it n"));
  tm_allocator_release(allocator);
}

Test(callback, refuses_what_cannot_be_and_leaves_the_user_alone) {
  foreign user = {0};
  tm_callback_options options = options_for(&user);
  cr_expect(eq(ptr, tm_callback_allocator_create(NULL), NULL));
  options.alloc = NULL;
  cr_expect(eq(ptr, tm_callback_allocator_create(&options), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
  static const size_t alignments[] = {1, 32, 96, 65};
  for (size_t i = 0; i < sizeof alignments / sizeof *alignments; i++) {
    options = options_for(&user);
    options.alignment = alignments[i];
    cr_expect(eq(ptr, tm_callback_allocator_create(&options), NULL), "%zu", alignments[i]);
  }
  options = options_for(&user);
  options.device = (tm_device){TM_DEVICE, 0};
  options.alignment = 64;  // too small on a device
  cr_expect(eq(ptr, tm_callback_allocator_create(&options), NULL));
  static const tm_device devices[] = {
      {TM_CPU, 1}, {TM_CPU_PINNED, -1}, {TM_DEVICE, -1}, {TM_DEVICE, 64}, {3, 0}, {-1, 0}};
  for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
    options = options_for(&user);
    options.device = devices[i];
    tm_clear_error();
    cr_expect(eq(ptr, tm_callback_allocator_create(&options), NULL), "device %zu", i);
    cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
  }
  cr_expect(eq(int, user.destroyed, 0));
}

//===-- Streams -------------------------------------------------------------------===//

Test(callback, without_a_stream_the_functions_are_told_the_blocks) {
  machine_configure(1, "64MiB");
  machine_require_devices(1);
  foreign user = {.next = memory};
  const tm_callback_options options = options_for(&user);
  tm_allocator* allocator = create(&options);
  tm_auto_stream stream = tm_stream_create(0, 0);
  void* block;
  cr_assert(eq(int, tm_allocator_alloc(allocator, 100, stream, &block), TM_OK));
  cr_expect(eq(ptr, user.last_stream, stream));
  user.last_stream = NULL;
  tm_allocator_free(allocator, block, 100, stream);
  cr_expect(eq(ptr, user.last_stream, stream));
  tm_allocator_release(allocator);
}

Test(callback, with_a_stream_the_functions_are_told_that_one) {
  machine_configure(2, "64MiB");
  machine_require_devices(1);
  foreign user = {.next = memory};
  tm_callback_options options = options_for(&user);
  tm_auto_stream own = tm_stream_create(0, 0);
  tm_auto_stream other = tm_stream_create(0, 0);
  options.device = (tm_device){TM_DEVICE, 0};
  options.stream = own;
  tm_allocator* allocator = create(&options);
  cr_expect(eq(ptr, tm_allocator_stream(allocator), own));
  void* block;
  cr_assert(eq(int, tm_allocator_alloc(allocator, 100, other, &block), TM_OK));
  cr_expect(eq(ptr, user.last_stream, own));
  tm_allocator_free(allocator, block, 100, other);
  cr_expect(eq(ptr, user.last_stream, own));
  cr_expect(eq(int, tm_stream_sync(own), TM_OK));
  tm_allocator_release(allocator);
  machine_require_devices(2);
  options.device.id = 1;  // the stream is of device 0
  cr_expect(eq(ptr, tm_callback_allocator_create(&options), NULL));
  cr_expect(eq(int, tm_last_status(), TM_ERR_INVALID));
}

static tm_status create_and_release(tm_allocator* upstream) {
  (void)upstream;
  foreign user = {0};
  const tm_callback_options options = options_for(&user);
  tm_allocator* allocator = tm_callback_allocator_create(&options);
  if (!allocator) {
    return user.destroyed == 0 ? tm_last_status() : TM_ERR_CORRUPT;
  }
  tm_allocator_release(allocator);
  return TM_OK;
}

Test(callback, creation_survives_every_failure) {
  expect_survives_every_failure(create_and_release);
}
