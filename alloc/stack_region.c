#include "alloc/stack_region.h"

#include <string.h>

#include "tm/alloc/bookkeeping.h"

static void enter_segment(stack_region* region, size_t index) {
  region->segment_index = index;
  region->next_record = region->segments[index];
  region->segment_end = region->segments[index] + STACK_SEGMENT_RECORDS;
}

// A segment of free slots. It is a little larger than they are, so that no two segments touch.
static stack_record* make_records(stack_region* region, tm_allocator* allocator) {
  stack_record* records =
      tm_bookkeeping_alloc(STACK_SEGMENT_RECORDS * sizeof *records + 1, "a stack's records");
  for (size_t i = 0; records && i < STACK_SEGMENT_RECORDS; i++) {
    records[i].storage.allocator = allocator;
    records[i].storage.stream = allocator->stream;
    records[i].region = region;
  }
  return records;
}

// Replaces the table of segments by one with one more entry, which it fills.
static tm_status grow_segments(stack_region* region, tm_allocator* allocator) {
  const size_t count = region->segment_count;
  const size_t entry = sizeof region->segments[0];
  stack_record** table = tm_bookkeeping_alloc((count + 1) * entry, "a stack's table of records");
  if (!table) {
    return tm_last_status();
  }
  table[count] = make_records(region, allocator);
  if (!table[count]) {
    tm_bookkeeping_free(table);
    return tm_last_status();
  }
  if (count) {
    memcpy(table, region->segments, count * entry);
  }
  tm_bookkeeping_free(region->segments);
  region->segments = table;
  region->segment_count = count + 1;
  return TM_OK;
}

stack_region* stack_region_create(char* base, size_t capacity, tm_allocator* allocator) {
  stack_region* region = tm_bookkeeping_alloc(sizeof *region, "a stack's region");
  if (!region) {
    return NULL;
  }
  region->base = base;
  region->capacity = capacity;
  if (grow_segments(region, allocator) != TM_OK) {
    stack_region_destroy(region);
    return NULL;
  }
  enter_segment(region, 0);
  return region;
}

void stack_region_destroy(stack_region* region) {
  for (size_t i = 0; i < region->segment_count; i++) {
    tm_bookkeeping_free(region->segments[i]);
  }
  tm_bookkeeping_free(region->segments);
  tm_bookkeeping_free(region);
}

tm_status stack_region_add_records(stack_region* region, tm_allocator* allocator) {
  if (region->segment_index + 1 == region->segment_count) {
    TM_TRY(grow_segments(region, allocator));
  }
  enter_segment(region, region->segment_index + 1);
  return TM_OK;
}

// Where the next record stands at the start of a segment, the top is the end of the one before.
static void leave_empty_segment(stack_region* region) {
  if (region->segment_index > 0 && region->next_record == region->segments[region->segment_index]) {
    enter_segment(region, region->segment_index - 1);
    region->next_record = region->segment_end;
  }
}

stack_record* stack_region_top(const stack_region* region) {
  if (region->next_record != region->segments[region->segment_index]) {
    return region->next_record - 1;
  }
  return region->segment_index > 0
             ? region->segments[region->segment_index - 1] + STACK_SEGMENT_RECORDS - 1
             : NULL;
}

void stack_region_pop(stack_region* region) {
  leave_empty_segment(region);
  stack_record* top = --region->next_record;
  region->used = (size_t)((char*)top->storage.data - region->base);
}

void stack_region_clear(stack_region* region) {
  enter_segment(region, 0);
  region->used = 0;
  region->dead = 0;
  region->virtual_base = 0;
  region->below = NULL;
  region->retired = false;
}

static stack_record* record_at(const stack_region* region, size_t index) {
  return &region->segments[index / STACK_SEGMENT_RECORDS][index % STACK_SEGMENT_RECORDS];
}

stack_record* stack_region_find(const stack_region* region, const void* ptr) {
  size_t low = 0;
  size_t high = stack_region_records(region);
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    stack_record* record = record_at(region, middle);
    if (record->storage.data == ptr) {
      return stack_record_is_live(record) ? record : NULL;
    }
    if ((const char*)record->storage.data < (const char*)ptr) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return NULL;
}

size_t stack_region_live_bytes(const stack_region* region, size_t alignment) {
  size_t bytes = 0;
  const size_t count = stack_region_records(region);
  for (size_t i = 0; i < count; i++) {
    const stack_record* record = record_at(region, i);
    if (stack_record_is_live(record)) {
      bytes += (record->storage.size + alignment - 1) & ~(alignment - 1);
    }
  }
  return bytes;
}
