// The requests that wait, by number, in the order in which they are to be admitted.
//
// All are added at the start. What is taken from the front may go back to the front and nowhere
// else, so an array and an index are enough.
#ifndef ENGINE_REQUEST_QUEUE_H_
#define ENGINE_REQUEST_QUEUE_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <tm/tm.h>

typedef struct request_queue {
  uint32_t* order;
  size_t front;  // the first that waits
  size_t end;    // behind the last
  size_t capacity;
} request_queue;

// Makes an empty queue for up to `capacity` requests.
// Errors: TM_ERR_NO_MEMORY. On error `*out` is all zero.
tm_status request_queue_init(size_t capacity, request_queue* out);

// Adds a request behind all others.
void request_queue_add(request_queue* queue, uint32_t request);

// Frees what the queue holds and empties it.
void request_queue_deinit(request_queue* queue);

static inline bool request_queue_is_empty(const request_queue* queue) {
  return queue->front == queue->end;
}

// The first in the queue, which must not be empty: left there, or taken.
uint32_t request_queue_peek(const request_queue* queue);
uint32_t request_queue_take(request_queue* queue);

// Puts a request that was taken before everybody else.
void request_queue_put_back(request_queue* queue, uint32_t request);

#endif  // ENGINE_REQUEST_QUEUE_H_
