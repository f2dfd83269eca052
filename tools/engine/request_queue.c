#include "engine/request_queue.h"

#include <tm/check.h>
#include <tm/tm.h>

tm_status request_queue_init(size_t capacity, request_queue* out) {
  *out = (request_queue){0};
  out->order = tm_bookkeeping_alloc(capacity * sizeof(*out->order), "a request queue");
  if (!out->order) return tm_last_status();
  out->capacity = capacity;
  return TM_OK;
}

void request_queue_deinit(request_queue* queue) {
  tm_bookkeeping_free(queue->order);
  *queue = (request_queue){0};
}

void request_queue_add(request_queue* queue, uint32_t request) {
  TM_CHECK_LT(queue->end, queue->capacity);
  queue->order[queue->end++] = request;
}

uint32_t request_queue_peek(const request_queue* queue) {
  TM_CHECK_LT(queue->front, queue->end);
  return queue->order[queue->front];
}

uint32_t request_queue_take(request_queue* queue) {
  const uint32_t request = request_queue_peek(queue);
  queue->front++;
  return request;
}

void request_queue_put_back(request_queue* queue, uint32_t request) {
  TM_CHECK_GT(queue->front, 0);
  queue->order[--queue->front] = request;
}
