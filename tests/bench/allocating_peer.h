// What an allocator that knows no tensors does for those of tmcore: blocks of their size.
#ifndef TESTS_BENCH_ALLOCATING_PEER_H_
#define TESTS_BENCH_ALLOCATING_PEER_H_

#include "tests/bench/operations.h"

namespace bench {

// `Peer` has allocate(bytes), release(block, bytes), and end_scope() for what gives memory back no
// earlier. Blocks of a scope are released in reverse.
template <typename Peer>
class allocating_peer {
 public:
  static operation_set set(const char* name) { return make_set(name, operations); }

 private:
  static void tensor(long count) {
    Peer peer;
    const size_t bytes = opaque(size_t{BYTES});
    for (long i = 0; i < count; i++) {
      void* const block = peer.allocate(bytes);
      keep(block);
      peer.release(block, bytes);
      peer.end_scope();
    }
  }

  static void layer(long count) {
    Peer peer;
    const size_t bytes = opaque(size_t{BYTES});
    for (long i = 0; i < count; i += TENSORS) {
      void* blocks[TENSORS];
      for (void*& block : blocks) {
        block = peer.allocate(bytes);
      }
      keep(blocks);
      for (int k = TENSORS - 1; k >= 0; k--) {
        peer.release(blocks[k], bytes);
      }
      peer.end_scope();
    }
  }

  static constexpr operation operations[] = {
      {"stack_tensor", tensor}, {"layer", layer}, {"host_tensor", tensor}};
};

}  // namespace bench

#endif  // TESTS_BENCH_ALLOCATING_PEER_H_
