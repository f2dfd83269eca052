// Adaptors as users write them: C, C++ and CUDA sources, without a warning from any compiler.

#include <stddef.h>
#include <tm/tm.h>

tm_allocator* all_over(tm_allocator* upstream);
tm_allocator* all_over(tm_allocator* upstream) {
  const tm_fault_options faults = {100, 0.01, 42, 1 << 20, TM_ERR_NO_MEMORY};
  tm_auto_allocator locked = tm_locked_adaptor_create(upstream);
  tm_auto_allocator fault = tm_fault_adaptor_create(locked, &faults);
  tm_auto_allocator guard = tm_guard_adaptor_create(fault);
  tm_auto_allocator logging = tm_logging_adaptor_create(guard, "log.csv");
  tm_auto_allocator limit = tm_limit_adaptor_create(logging, 1 << 20);
  tm_auto_allocator tracking = tm_tracking_adaptor_create(limit, NULL);
  return tm_statistics_adaptor_create(tracking);
}

tm_status admit(tm_allocator* limit, size_t bytes);
tm_status admit(tm_allocator* limit, size_t bytes) {
  tm_limit_reservation room;
  TM_TRY(tm_limit_reserve(limit, bytes, &room));
  void* blocks[3] = {NULL, NULL, NULL};
  tm_status status = TM_OK;
  if (bytes > 100)
    TM_WITH_RESERVATION(&room) status = tm_allocator_alloc(limit, 100, NULL, &blocks[0]);
  else
    TM_WITH_RESERVATION(&room) TM_WITH_RESERVATION(NULL) {
      status = tm_allocator_alloc(limit, 10, NULL, &blocks[1]);
      if (status != TM_OK) break;
    }
  TM_USE_RESERVATION(&room);
  if (status == TM_OK) status = tm_limit_commit(&room, 1, NULL, &blocks[2]);
  tm_allocator_free(limit, blocks[0], 100, NULL);
  tm_allocator_free(limit, blocks[1], 10, NULL);
  tm_allocator_free(limit, blocks[2], 1, NULL);
  tm_limit_cancel(&room);
  return status;
}

tm_status count(tm_allocator* statistics, tm_statistics_counters* out);
tm_status count(tm_allocator* statistics, tm_statistics_counters* out) {
  TM_TRY(tm_statistics_push(statistics));
  return tm_statistics_pop(statistics, out);
}
