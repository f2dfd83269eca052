// The steps of random programs that capture and launch graphs.

#include "tests/cudasim/program_parts.h"

static model_stream_arg pick_captured(program* p) {
  model_stream_arg s = pick_stream(p);
  for (int i = 0; i < 12 && p->model.streams[s.index].capture == MODEL_NONE; ++i) {
    s = pick_stream(p);
  }
  return s;
}

//===-- Captures ------------------------------------------------------------------------------===//

void begin_capture(program* p) {
  int running = 0;
  for (int i = 0; i < MODEL_CAPTURES; ++i) running += p->model.captures[i].exists;
  if (running == MODEL_CAPTURES) return;
  model_stream_arg s = pick_any_stream(p);
  bool is_default = s.index != MODEL_NONE && s.index < MODEL_FIRST_OWN;
  if (is_default && !model_is_legacy(s.index)) return;
  int mode = program_chance(p, 15) ? 7 : (int)program_draw(p, 3);
  TRY(p, model_begin_capture(&p->model, s, (enum cudaStreamCaptureMode)mode),
      cudaStreamBeginCapture(s.handle, (enum cudaStreamCaptureMode)mode),
      "cudaStreamBeginCapture(stream %d, %d)", s.index, mode);
}

// Records what is captured in one stream and makes another wait for it.
static void link(program* p, model_stream_arg from, model_stream_arg to) {
  int e = pick_event(p);
  if (e == MODEL_NONE) return;
  cudaEvent_t handle = p->model.events[e].handle;
  TRY(p, model_record(&p->model, "cudaEventRecord", e, from, 0),
      cudaEventRecord(handle, from.handle), "cudaEventRecord(event %d, stream %d)", e, from.index);
  TRY(p, model_wait_event(&p->model, to, e, 0), cudaStreamWaitEvent(to.handle, handle, 0),
      "cudaStreamWaitEvent(stream %d, event %d)", to.index, e);
}

void fork_capture(program* p) {
  model_stream_arg from = pick_captured(p);
  model_stream_arg to = pick_stream(p);
  if (p->model.streams[from.index].capture == MODEL_NONE || to.index < MODEL_FIRST_OWN) return;
  link(p, from, to);
}

static model_stream_arg origin_of(const program* p, int capture) {
  int index = p->model.captures[capture].origin;
  return (model_stream_arg){index, p->model.streams[index].handle};
}

void join_capture(program* p) {
  model_stream_arg from = pick_captured(p);
  int capture = p->model.streams[from.index].capture;
  if (capture != MODEL_NONE) link(p, from, origin_of(p, capture));
}

// Joins what is not, most of the time.
static void join_all(program* p, int capture) {
  for (int i = MODEL_FIRST_OWN; i < MODEL_STREAMS; ++i) {
    const model_stream* s = &p->model.streams[i];
    bool is_other = s->capture == capture && i != p->model.captures[capture].origin;
    if (is_other) link(p, (model_stream_arg){i, s->handle}, origin_of(p, capture));
    if (!p->model.captures[capture].exists) return;
  }
}

void ask_capture(program* p) {
  model_stream_arg s = pick_any_stream(p);
  enum cudaStreamCaptureStatus expected = cudaStreamCaptureStatusNone;
  enum cudaStreamCaptureStatus found;
  cudaError_t error =
      TRY(p, model_capture_status(&p->model, "cudaStreamIsCapturing", s, &expected),
          cudaStreamIsCapturing(s.handle, &found), "cudaStreamIsCapturing(stream %d)", s.index);
  if (!error && found != expected) program_fail(p, "the status is %d, not %d", found, expected);
}

void exchange_mode(program* p) {
  enum cudaStreamCaptureMode mode =
      (enum cudaStreamCaptureMode)(program_chance(p, 8) ? 5 : program_draw(p, 3));
  enum cudaStreamCaptureMode before = p->model.mode;
  enum cudaStreamCaptureMode given = mode;
  cudaError_t error =
      TRY(p, model_exchange_mode(&p->model, mode), cudaThreadExchangeStreamCaptureMode(&given),
          "cudaThreadExchangeStreamCaptureMode(%d)", mode);
  if (!error && given != before) program_fail(p, "the mode was %d, not %d", given, before);
}

//===-- Graphs --------------------------------------------------------------------------------===//

static int pick_graph(program* p) {
  for (int i = 0; i < 8; ++i) {
    int graph = (int)program_draw(p, MODEL_GRAPHS);
    if (p->model.graphs[graph].exists) return graph;
  }
  return MODEL_NONE;
}

static int pick_exec(program* p) {
  for (int i = 0; i < 8; ++i) {
    int exec = (int)program_draw(p, MODEL_GRAPHS);
    if (p->model.execs[exec].exists) return exec;
  }
  return MODEL_NONE;
}

static void instantiate(program* p) {
  int graph = pick_graph(p);
  int slot = model_exec_slot(&p->model);
  if (slot == MODEL_NONE) return;
  if (graph != MODEL_NONE && !model_can_launch(&p->model, &p->model.graphs[graph].nodes)) return;
  cudaGraph_t handle = graph == MODEL_NONE ? p->gone_graph : p->model.graphs[graph].handle;
  cudaGraphExec_t exec = NULL;
  cudaError_t error =
      TRY(p, model_instantiate(&p->model, graph, slot), cudaGraphInstantiate(&exec, handle, 0),
          "cudaGraphInstantiate(exec %d, graph %d)", slot, graph);
  if (!error) p->model.execs[slot].handle = exec;
}

static void destroy_graph(program* p) {
  int graph = pick_graph(p);
  cudaGraph_t handle = graph == MODEL_NONE ? p->gone_graph : p->model.graphs[graph].handle;
  cudaError_t error = TRY(p, model_destroy_graph(&p->model, graph), cudaGraphDestroy(handle),
                          "cudaGraphDestroy(graph %d)", graph);
  if (!error) p->gone_graph = handle;
}

static void destroy_exec(program* p) {
  int exec = pick_exec(p);
  cudaGraphExec_t handle = exec == MODEL_NONE ? p->gone_exec : p->model.execs[exec].handle;
  cudaError_t error = TRY(p, model_destroy_exec(&p->model, exec), cudaGraphExecDestroy(handle),
                          "cudaGraphExecDestroy(exec %d)", exec);
  if (!error) p->gone_exec = handle;
}

void graph_step(program* p) {
  unsigned kind = program_draw(p, 6);
  if (kind < 4) {
    instantiate(p);
  } else if (kind == 4) {
    destroy_graph(p);
  } else {
    destroy_exec(p);
  }
}

void end_capture(program* p) {
  int graph = model_graph_slot(&p->model);
  if (graph == MODEL_NONE) {
    graph_step(p);
    return;
  }
  model_stream_arg s = program_chance(p, 8) ? pick_any_stream(p) : pick_captured(p);
  int capture = s.index == MODEL_NONE ? MODEL_NONE : p->model.streams[s.index].capture;
  if (capture != MODEL_NONE && !program_chance(p, 8)) {
    s = origin_of(p, capture);
    join_all(p, capture);
  }
  cudaGraph_t handle = NULL;
  cudaError_t error =
      TRY(p, model_end_capture(&p->model, s, graph), cudaStreamEndCapture(s.handle, &handle),
          "cudaStreamEndCapture(stream %d, graph %d)", s.index, graph);
  if (error || p->has_failed) return;
  p->model.graphs[graph].handle = handle;
  size_t count = 0;
  size_t expected = (size_t)p->model.graphs[graph].nodes.count;
  if (!p->model.devices[p->model.device].broken &&
      (cudaGraphGetNodes(handle, NULL, &count) || count != expected)) {
    program_fail(p, "the graph has %zu nodes, not %zu", count, expected);
  }
  if (!p->has_failed) instantiate(p);
}

static int race_of_nodes(program* p, int stream, const void* of) {
  return model_race_of_nodes(&p->model, stream, of);
}

static bool is_any_broken(const program* p) {
  bool is_broken = false;
  for (int d = 0; d < MODEL_DEVICES; ++d) is_broken |= p->model.devices[d].broken != cudaSuccess;
  return is_broken;
}

void launch_graph(program* p) {
  int exec = pick_exec(p);
  model_stream_arg s = pick_stream(p);
  if (p->model.streams[s.index].capture != MODEL_NONE || is_any_broken(p)) return;
  const model_exec* e = &p->model.execs[exec == MODEL_NONE ? 0 : exec];
  if (exec != MODEL_NONE) {
    if (!model_can_launch(&p->model, &e->nodes)) return;
    if (!make_safe(p, s, race_of_nodes, &e->nodes)) return;
  }
  cudaGraphExec_t handle = exec == MODEL_NONE ? p->gone_exec : e->handle;
  TRY(p, model_launch_graph(&p->model, exec, s), cudaGraphLaunch(handle, s.handle),
      "cudaGraphLaunch(exec %d, stream %d)", exec, s.index);
}
