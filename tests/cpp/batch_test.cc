// Batches of copies, state and warps in C++.

#include <numeric>
#include <type_traits>
#include <utility>

#include "tests/cpp/support.hpp"

static_assert(!std::is_copy_constructible<tmcore::batch_copy>::value, "it owns its copies");
static_assert(std::is_nothrow_move_constructible<tmcore::batch_copy>::value, "moves are free");
static_assert(!std::is_copy_constructible<tmcore::copy_group>::value, "a guard");

namespace {

using tmcore::batch_copy;
using tmcore::buffer_;
using tmcore::copy_group;
using tmcore::tensor_;

// Numbers from `first` on.
tensor_<int> count_from(int first, const tmcore::dims& shape) {
  tensor_<int> t(shape, TM_CPU);
  std::iota(t.data(), t.data() + t.size(), first);
  return t;
}

template <class... Int>
buffer_<int> numbers(Int... value) {
  buffer_<int> b(sizeof...(value), TM_CPU);
  int* next = b.data();
  ((*next++ = value), ...);
  return b;
}

void a_batch_copies_what_was_added() {
  const batch_copy batch = batch_copy::create();
  const tensor_<int> x = count_from(0, {10});
  const tensor_<int> y({10}, TM_CPU);
  const buffer_<int> from = numbers(1, 2, 3);
  const buffer_<int> to(3, TM_CPU);
  const buffer_<int> front(3, TM_CPU);
  int here[2] = {8, 9};
  int there[2] = {};
  batch.add(x, y);
  batch.add(from, to);
  batch.add(from, 2, front);
  TM_CHECK_EQ(batch.add(here, 2, there), there + 2);
  TM_CHECK_EQ(batch.size(), 4u);
  batch.run();
  TM_CHECK_EQ(batch.size(), 0u);
  TM_CHECK_EQ(batch.counted().added, 4u);
  TM_CHECK_EQ(y.data()[9], 9);
  TM_CHECK_EQ(to.data()[2], 3);
  TM_CHECK_EQ(front.data()[1], 2);
  TM_CHECK_EQ(there[1], 9);
  batch.add(x, y);
  batch.clear();
  TM_CHECK_EQ(batch.size(), 0u);
}

void a_group_merges_until_its_block_ends() {
  const batch_copy batch = batch_copy::create();
  const tensor_<int> x = count_from(0, {10});
  const tensor_<int> y({10}, TM_CPU);
  {
    const copy_group group{batch};
    for (int i = 0; i < 10; i++) batch.add(x.slice(i, 1), y.slice(i, 1));
    TM_CHECK_EQ(batch.size(), 1u);
    TM_CHECK_EQ(batch.run(std::nothrow), TM_ERR_INVALID);
    try {
      const copy_group inner{batch};
      TM_CHECK(false, "a group inside a group");
    } catch (const tmcore::error& e) {
      TM_CHECK_EQ(e.code(), TM_ERR_INVALID);
    }
    TM_CHECK_EQ(batch.run(std::nothrow), TM_ERR_INVALID);  // the outer one is open still
  }
  batch.run();
  TM_CHECK_EQ(y.data()[9], 9);
}

void a_group_closes_when_an_exception_leaves_it() {
  const batch_copy batch = batch_copy::create();
  const tensor_<int> x = count_from(0, {10});
  const tensor_<int> y({9}, TM_CPU);
  try {
    const copy_group group{batch};
    batch.add(x, y);
    TM_CHECK(false, "shapes differ");
  } catch (const tmcore::error& e) {
    TM_CHECK_EQ(e.code(), TM_ERR_INVALID);
  }
  batch.run();
  try {
    TM_WITH_COPY_GROUP(batch.get()) { batch.add(x, y); }
    TM_CHECK(false, "shapes differ");
  } catch (const tmcore::error& e) {
    TM_CHECK_EQ(e.code(), TM_ERR_INVALID);
  }
  batch.run();
}

void a_batch_moves_and_null_ones_are_errors() {
  batch_copy first = batch_copy::create();
  const tensor_<int> x = count_from(0, {10});
  const tensor_<int> y({10}, TM_CPU);
  first.add(x, y);
  batch_copy second = std::move(first);
  TM_CHECK(!first);  // NOLINT(bugprone-use-after-move): moved-from is null
  TM_CHECK_EQ(second.size(), 1u);
  const batch_copy none;
  TM_CHECK_EQ(none.run(std::nothrow), TM_ERR_INVALID);
  TM_CHECK_EQ(none.add(x, y, std::nothrow), TM_ERR_INVALID);
  first = std::move(second);
  first.run();
  TM_CHECK_EQ(y.data()[9], 9);
  first = batch_copy::adopt(first.release());
  TM_CHECK(static_cast<bool>(first));
}

void a_state_swaps() {
  counting_upstream upstream;
  {
    tmcore::state s({4, 2}, TM_I32, upstream.get());
    const void* front = s.front().data();
    const void* back = s.back().data();
    s.swap();
    TM_CHECK_EQ(s.front().data(), back);
    TM_CHECK_EQ(s.back().data(), front);
    tmcore::state moved = std::move(s);
    TM_CHECK_EQ(moved.front().data(), back);
    TM_CHECK(!s);  // NOLINT(bugprone-use-after-move): moved-from is null
    const tmcore::state none({-1}, TM_I32, TM_CPU, std::nothrow);
    TM_CHECK(!none);
    TM_CHECK(!none.back());
  }
}

void rows_follow_their_sequences() {
  const batch_copy batch = batch_copy::create();
  const tensor_<int> old = count_from(0, {4, 2});
  const tensor_<int> added = count_from(10, {3, 2});
  const tensor_<int> to({3, 2}, TM_CPU);
  const buffer_<int> perm = numbers(3, 0, 4);
  warp(batch, old, 4, perm, added, to);
  batch.run();
  TM_CHECK_EQ(to.data()[1], 7);
  TM_CHECK_EQ(to.data()[2], 0);
  TM_CHECK_EQ(to.data()[5], 15);
  const tensor_<int> stay = count_from(50, {3, 2});
  warp(batch, old, 4, perm, stay);
  batch.run();
  TM_CHECK_EQ(stay.data()[0], 6);
  TM_CHECK_EQ(stay.data()[5], 55);
  TM_CHECK_EQ(warp(batch, old, 9, perm, to, std::nothrow), TM_ERR_OUT_OF_RANGE);
}

void rows_of_differing_lengths() {
  const batch_copy batch = batch_copy::create();
  const tensor_<int> old = count_from(0, {6});
  const tensor_<int> added = count_from(10, {5});
  const tensor_<int> to({10}, TM_CPU);
  const buffer_<int> old_offsets = numbers(0, 1, 3, 6);
  const buffer_<int> added_offsets = numbers(0, 0, 4, 5);
  const buffer_<int> offsets(4, TM_CPU);
  const buffer_<int> perm = numbers(2, 3, 0);
  warp(batch, {old, old_offsets}, 3, perm, {added, added_offsets}, {to, offsets});
  batch.run();
  TM_CHECK_EQ(offsets.data()[3], 8);
  TM_CHECK_EQ(to.data()[0], 3);
  TM_CHECK_EQ(to.data()[6], 13);
  TM_CHECK_EQ(to.data()[7], 0);

  const tensor_<int> padded = count_from(0, {3, 4});
  const buffer_<int> sizes = numbers(3, 0, 1);
  const tensor_<int> last = count_from(20, {3});
  const tensor_<int> grown({3, 5}, TM_CPU);
  const buffer_<int> grown_sizes(3, TM_CPU);
  append(batch, {padded, sizes}, last, 3, perm, {added, added_offsets}, {grown, grown_sizes});
  batch.run();
  TM_CHECK_EQ(grown_sizes.data()[0], 2);
  TM_CHECK_EQ(grown_sizes.data()[1], 4);
  TM_CHECK_EQ(grown_sizes.data()[2], 4);
  TM_CHECK_EQ(grown.data()[0], 8);
  TM_CHECK_EQ(grown.data()[1], 22);
  TM_CHECK_EQ(grown.data()[5], 10);
  TM_CHECK_EQ(grown.data()[13], 20);
}

}  // namespace

int main() {
  RUN_TEST(a_batch_copies_what_was_added);
  RUN_TEST(a_group_merges_until_its_block_ends);
  RUN_TEST(a_group_closes_when_an_exception_leaves_it);
  RUN_TEST(a_batch_moves_and_null_ones_are_errors);
  RUN_TEST(a_state_swaps);
  RUN_TEST(rows_follow_their_sequences);
  RUN_TEST(rows_of_differing_lengths);
  return 0;
}
