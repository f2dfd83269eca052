#include <cstdio>
#include <deque>
#include <tm/tmcore.hpp>

// One layer of a model: it names no allocator and no stream.
static tmcore::tensor layer(const tmcore::tensor& x) {
  TM_FUNCTION_SCOPE();
  const int64_t tokens = x.shape(0);
  const int64_t hidden = x.shape(1);
  tmcore::tensor qkv({tokens, 3 * hidden}, TM_F16, TM_DEVICE);       // from the context
  tmcore::tensor q = qkv.slice({0, 0}, {-1, hidden});                // the same memory
  tmcore::tensor heads = q.view({tokens, -1, 128}).transpose(0, 1);  // counted once
  tmcore::tensor y = tmcore::empty_like(x);
  tmcore::clear(y);  // asynchronous, on the current stream
  return y;          // moved; the others go back, in reverse order
}

static void step(tmcore::stream_ref stream, tmcore::allocator_ref arena) {
  const tmcore::context_guard guard{stream, arena};  // until the end of the block
  tmcore::tensor x({8192, 4096}, TM_F16, TM_DEVICE);
  x = layer(x);
  tmcore::buffer_<int> ids(16, TM_CPU);
  for (int& id : ids) {
    id = 0;
  }
  tmcore::current_stream().sync();
}

int main() try {
  const tmcore::stream stream = tmcore::stream::create(0);
  const tmcore::allocator pool = tmcore::cuda_pool_allocator(stream);
  const tmcore::allocator arena = tmcore::stack_allocator(pool, stream);

  // What may go when memory runs out.
  std::deque<tmcore::buffer> cache;
  cache.emplace_back(int64_t{1} << 20, TM_U8, arena);
  auto evict = [&](const tm_oom_request& /*request*/) {
    const bool freed = !cache.empty();
    cache.clear();
    return freed;
  };
  const tmcore::context_guard guard{tmcore::oom_handler{evict}};

  step(stream, arena);
  try {
    const tmcore::context_guard inner{stream, arena};
    const tmcore::tensor huge({int64_t{1} << 30, 4096}, TM_F16, TM_DEVICE);
  } catch (const tmcore::out_of_memory& e) {
    std::printf("later, then: %s\n", e.what());
  }

  // The same without exceptions.
  const tmcore::context_guard inner{stream, arena};
  const tmcore::tensor huge({int64_t{1} << 30, 4096}, TM_F16, TM_DEVICE, std::nothrow);
  if (!huge) {
    std::printf("%s\n", tm_status_name(tm_last_status()));
  }

  // C handles in and out.
  tm_tensor raw = tm_empty(TM_SHAPE(4, 4), TM_F32, TM_CPU);
  const tmcore::tensor_<float> adopted = tmcore::tensor::adopt(tm_move(&raw));
  tmcore::check(tm_clear(adopted.get()));
  return adopted.data()[15] == 0.f ? 0 : 1;
} catch (const tmcore::error& e) {
  std::fprintf(stderr, "%s: %s\n", tm_status_name(e.code()), e.what());
  return 1;
}
