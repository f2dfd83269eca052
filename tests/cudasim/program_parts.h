// What the files of random programs have in common.
#ifndef TESTS_CUDASIM_PROGRAM_PARTS_H_
#define TESTS_CUDASIM_PROGRAM_PARTS_H_

#include "tests/cudasim/program.h"

// Something that exists; streams also without a valid handle, and MODEL_NONE where chance found
// nothing.
model_stream_arg pick_stream(program* p);
model_stream_arg pick_any_stream(program* p);
int pick_event(program* p);
int pick_buffer(program* p, bool (*fits)(const model_buffer* b));

// Makes `s`, or the host where it is no stream, come after what `race` says it would race with.
// False if that cannot be done now.
bool make_safe(program* p, model_stream_arg s, int (*race)(program* p, int stream, const void* of),
               const void* of);

void synchronize_device(program* p);

// Frees the buffer in `s` once that is safe; whether that was done.
bool release_in(program* p, int buffer, model_stream_arg s);

// Allocates from a pool, or with MODEL_NONE from the current one; the buffer, or MODEL_NONE.
int allocate_in(program* p, int pool, size_t size, model_stream_arg s);

// Steps of program_work.c.
void work_step(program* p);
void wrong_work_step(program* p);
void captured_work_step(program* p);
void turn_over_step(program* p);

// Steps of program_graph.c.
void begin_capture(program* p);
void fork_capture(program* p);
void join_capture(program* p);
void end_capture(program* p);
void ask_capture(program* p);
void exchange_mode(program* p);
void graph_step(program* p);
void launch_graph(program* p);

#endif  // TESTS_CUDASIM_PROGRAM_PARTS_H_
