// Handles that the program holds: numbers that look like pointers, are never followed, and are
// known to be dead once their object is gone. Guarded by the runtime's lock.
#ifndef CUDASIM_HANDLE_H_
#define CUDASIM_HANDLE_H_

struct site;

typedef enum handle_kind {
  HANDLE_STREAM = 1,
  HANDLE_EVENT = 2,
  HANDLE_POOL = 3,
  HANDLE_GRAPH = 4,
  HANDLE_NODE = 5,
  HANDLE_GRAPH_EXEC = 6,
} handle_kind;

// A new handle of `object`; NULL when the host has no memory.
void* sim_handle_open(handle_kind kind, void* object);

// The object of a live handle of that kind; NULL for anything else, whatever its value.
void* sim_handle_object(handle_kind kind, const void* handle);

// Ends a live handle. It is not given out again.
void sim_handle_close(const void* handle);

// Calls `visit` for all live handles that were opened while the checker was on, with the site of
// the call that opened them.
void sim_handle_for_each(void (*visit)(void* user, handle_kind kind, const void* object,
                                       const struct site* opened),
                         void* user);

// Ends all handles and frees the table.
void sim_handle_close_all(void);

#endif  // CUDASIM_HANDLE_H_
