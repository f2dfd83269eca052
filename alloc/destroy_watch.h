// Who wants to know that an allocator or a stream is about to be destroyed: the context, to catch
// one that is still current. Private to tmcore.
#ifndef TM_ALLOC_DESTROY_WATCH_H_
#define TM_ALLOC_DESTROY_WATCH_H_

// Told of an object whose last reference is gone, on the thread that dropped it. `what` is its
// kind, for a message.
typedef void (*tm_destroy_watcher_)(const void* object, const char* what);

// There is one watcher; setting the same one again changes nothing.
// Threads: safe.
void tm_watch_destroy_(tm_destroy_watcher_ watcher);

void tm_tell_destroy_(const void* object, const char* what);

#endif  // TM_ALLOC_DESTROY_WATCH_H_
