// Layouts, maps, archives, files and DLPack in C++: what each hands on, and what becomes of
// failures.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <type_traits>

#include "tests/cpp/support.hpp"

static_assert(!std::is_copy_constructible<tmcore::tensor_map>::value, "one owner");
static_assert(std::is_nothrow_move_constructible<tmcore::tensor_map>::value, "");
static_assert(!std::is_copy_constructible<tmcore::archive>::value, "one owner");
static_assert(sizeof(tmcore::layout) == sizeof(tm_layout), "C's and nothing else");
static_assert(std::is_convertible<tmcore::layout, const tm_layout&>::value, "goes where C's does");
static_assert(std::is_convertible<const tm_layout&, tmcore::layout>::value, "comes from C's");

namespace {

using tmcore::layout;
using tmcore::tensor;
using tmcore::tensor_map;

// What a call throws.
template <class Call>
tm_status thrown(Call call) {
  try {
    call();
  } catch (const tmcore::error& e) {
    return e.code();
  }
  return TM_OK;
}

tensor count_up(const tmcore::dims& shape) {
  tensor made(shape, TM_I32, TM_CPU);
  for (int i = 0; i < made.size(); i++) {
    made.data<int>()[i] = i;
  }
  return made;
}

void expect_counts_up(const tensor& t, int64_t size) {
  TM_CHECK_EQ(t.size(), size);
  for (int i = 0; i < size; i++) {
    TM_CHECK_EQ(t.data<int>()[i], i);
  }
}

//===-- Layouts -------------------------------------------------------------------------------===//

void layouts_change_as_in_c() {
  const layout x = layout::row_major({20, 150});
  int64_t start = 0;
  const layout q = x.slice({4, 50}, {-1, 50}, &start);
  TM_CHECK_EQ(start, 650);
  TM_CHECK(to_string(q) == "(16,50):(150,1)");
  TM_CHECK(to_string(x.slice(4, 2, &start)) == "(2,150):(150,1)");
  TM_CHECK_EQ(start, 600);
  TM_CHECK_EQ(x.slice(3).shape(0), 17);
  TM_CHECK(to_string(q.view({16, 5, -1}).transpose(0, 1)) == "(5,16,10):(10,150,1)");
  TM_CHECK(to_string(q.permute({1, 0})) == "(50,16):(1,150)");
  TM_CHECK(to_string(q.unsqueeze(-1)) == "(16,50,1):(150,1,1)");
  TM_CHECK(q.unsqueeze(1).squeeze(1) == q);
  TM_CHECK(to_string(x.view({4, 5, 150}).coalesce()) == "(3000):(1)");
  TM_CHECK(q != x && x.view({20, 150}) == x);
}

void layouts_answer_as_in_c() {
  const layout q = layout::strided({16, 50}, {150, 1});
  TM_CHECK_EQ(q.rank(), 2);
  TM_CHECK_EQ(q.size(), 800);
  TM_CHECK_EQ(q.cosize(), 2300);
  TM_CHECK_EQ(q.shape(-1), 50);
  TM_CHECK_EQ(q.stride(0), 150);
  TM_CHECK_EQ(q.offset({2, 3}), 303);
  TM_CHECK_EQ(q.offset({2}), 300);
  TM_CHECK(q.shape() == tmcore::dims(16, 50));
  TM_CHECK(!q.is_contiguous() && q.is_injective());
  TM_CHECK(layout::parse(to_string(q).c_str()) == q);
  TM_CHECK_EQ(layout::row_major({}).size(), 1);  // the scalar
}

void layouts_go_to_tensors_and_back() {
  const layout columns = layout::strided({2, 3}, {1, 2});
  const tensor t = tensor::strided(columns, TM_I32, TM_CPU);
  const layout back = t.layout();
  TM_CHECK(back == columns);
  const tmcore::buffer memory(6, TM_I32, TM_CPU);
  TM_CHECK(layout(tensor(memory, columns).layout()) == columns);
}

void failures_of_layouts() {
  const layout x = layout::row_major({4, 6});
  TM_CHECK_EQ(thrown([&] { (void)x.view({5, -1}); }), TM_ERR_INVALID);
  TM_CHECK_EQ(thrown([&] { (void)x.offset({4, 0}); }), TM_ERR_OUT_OF_RANGE);
  TM_CHECK_EQ(thrown([&] { (void)x.shape(2); }), TM_ERR_OUT_OF_RANGE);
  TM_CHECK_EQ(thrown([&] { (void)layout::row_major({-1}); }), TM_ERR_INVALID);
  TM_CHECK_EQ(thrown([&] { (void)layout::parse("(4"); }), TM_ERR_CORRUPT);
  TM_CHECK_EQ(thrown([&] { (void)layout().squeeze(0); }), TM_ERR_INVALID);
  TM_CHECK_EQ(x.offset({-1}, std::nothrow), -1);
  int64_t start = 7;
  TM_CHECK(!x.slice({5, 0}, {-1, -1}, &start, std::nothrow));
  TM_CHECK_EQ(start, 0);
  // The first failure of a chain stays on record.
  TM_CHECK(!x.transpose(0, 5, std::nothrow).view({24}, std::nothrow).coalesce(std::nothrow));
  TM_CHECK_EQ(tm_last_status(), TM_ERR_OUT_OF_RANGE);
}

void types_formats_and_intervals() {
  const tm_data_format format = tmcore::linear_format(TM_F16, TM_U4, 128, 1);
  TM_CHECK(tmcore::to_string(format) == "u4 in (128,1), scales f16, zeros f16");
  TM_CHECK(tmcore::blocks(format, {4096, 100}) == tmcore::dims(32, 100));
  TM_CHECK_EQ(thrown([&] { (void)tmcore::blocks(format, {4096}); }), TM_ERR_INVALID);
  TM_CHECK(tmcore::blocks(format, {-1, 1}, std::nothrow) == tmcore::dims());
  TM_CHECK_EQ(thrown([] { (void)tmcore::linear_format(TM_F16, TM_E4M3, 3, 3); }), TM_ERR_INVALID);
  TM_CHECK_EQ(tmcore::linear_format(TM_F16, TM_I64, 1, 1, std::nothrow).dtype, TM_DTYPE_NULL);
  TM_CHECK(tmcore::to_string(tm_interval_make(2, 5)) == "[2,5)");
  TM_CHECK(tmcore::to_string(TM_BF16) == "bf16");
  TM_CHECK_EQ(tmcore::parse_dtype("e2m1"), TM_E2M1);
  TM_CHECK_EQ(thrown([] { (void)tmcore::parse_dtype("e9m9"); }), TM_ERR_NOT_FOUND);
  TM_CHECK_EQ(tmcore::parse_dtype(nullptr, std::nothrow), TM_DTYPE_NULL);
}

//===-- Maps ----------------------------------------------------------------------------------===//

void maps_hand_tensors_on() {
  counting_upstream upstream;
  {
    const tensor_map map = tensor_map::create();
    tensor x({2, 3}, TM_I32, upstream.get());
    map.produce("x", x);             // shared
    map.produce("y", std::move(x));  // moved
    TM_CHECK(!x);                    // NOLINT(bugprone-use-after-move): what is tested
    TM_CHECK_EQ(map.size(), 2);
    TM_CHECK(map.contains("x") && !map.contains("z"));
    TM_CHECK_EQ(map.at("x").data(), map.find("y").data());
    TM_CHECK(!map.find("z"));
    std::string keys;
    for (const tm_tensor_map_entry& entry : map) {
      keys += entry.key;
      TM_CHECK_EQ(tm_size(&entry.tensor), 6);
    }
    TM_CHECK(keys == "xy");
    const tensor y = map.consume("y");
    TM_CHECK(y && !map.contains("y") && !map.try_consume("y"));
    TM_CHECK_EQ(y.get()->storage->references, 2);
    TM_CHECK_EQ(upstream.figures().allocs, 1u);
  }
  TM_CHECK_EQ(upstream.figures().live_bytes, 0u);
}

void failures_of_maps() {
  const tensor_map map = tensor_map::create();
  tensor x = count_up({4});
  map.produce("x", x);
  TM_CHECK_EQ(thrown([&] { (void)map.at("z"); }), TM_ERR_NOT_FOUND);
  TM_CHECK_EQ(thrown([&] { map.produce("x", std::move(x)); }), TM_ERR_EXISTS);
  expect_counts_up(x, 4);  // NOLINT(bugprone-use-after-move): a failure moves nothing
  TM_CHECK_EQ(map.produce("x", std::move(x), std::nothrow), TM_ERR_EXISTS);
  expect_counts_up(x, 4);  // NOLINT(bugprone-use-after-move)
  TM_CHECK_EQ(map.produce("x", x, std::nothrow), TM_ERR_EXISTS);
  TM_CHECK_EQ(x.get()->storage->references, 2);
  map.produce("empty", count_up({0}));
  TM_CHECK_EQ(thrown([&] { (void)map.consume("empty"); }), TM_ERR_INVALID);
  TM_CHECK(static_cast<bool>(map.try_consume("empty")));
  TM_CHECK(!map.consume("empty", std::nothrow));
  tm_clear_error();
  const tensor_map null;
  TM_CHECK(!null && null.size() == 0 && null.begin() == null.end());
  TM_CHECK_EQ(thrown([&] { null.produce("x", x); }), TM_ERR_INVALID);
}

void maps_have_metadata_and_move() {
  tensor_map map = tensor_map::create();
  map.add_metadata("format", "pt");
  map.add_metadata("by", "us");
  TM_CHECK_EQ(map.add_metadata("by", "them", std::nothrow), TM_ERR_EXISTS);
  TM_CHECK_STREQ(map.metadata("format"), "pt");
  TM_CHECK(map.metadata("none") == nullptr);
  std::string texts;
  for (const tm_tensor_map_entry& entry : map.metadata()) {
    texts += entry.text;
  }
  TM_CHECK(texts == "ptus");
  tensor_map moved = std::move(map);
  TM_CHECK(!map);  // NOLINT(bugprone-use-after-move): what is tested
  map = std::move(moved);
  TM_CHECK_STREQ(map.metadata("by"), "us");
  const tensor_map adopted = tensor_map::adopt(map.release());
  TM_CHECK(!map && adopted);
}

//===-- Archives and files --------------------------------------------------------------------===//

void archives_give_back_what_was_put_in() {
  const tmcore::archive archive = tmcore::archive::create();
  const tensor_map map = tensor_map::create();
  map.produce("x", count_up({5}));
  const layout columns = layout::strided({2, 3}, {1, 2});
  archive.put(columns);
  archive.put(count_up({3, 4}));
  archive.put(count_up({7}).memory());
  archive.put(map);
  counting_upstream upstream;
  {
    tmcore::archive_reader reader(archive.data(), archive.size(), upstream.get());
    TM_CHECK(reader.layout() == columns);
    TM_CHECK_EQ(thrown([&] { (void)reader.layout(); }), TM_ERR_CORRUPT);  // it is a tensor
    expect_counts_up(reader.tensor(), 12);
    const tmcore::buffer_<int> ints = reader.buffer();
    TM_CHECK_EQ(ints[6], 6);
    expect_counts_up(reader.map().at("x"), 5);
    TM_CHECK(reader.at_end());
    TM_CHECK(!reader.tensor(std::nothrow));
    TM_CHECK_EQ(upstream.figures().allocs, 3u);
  }
  tmcore::archive_reader on_host(archive.data(), archive.size(), tmcore::cpu);
  TM_CHECK(on_host.layout() == columns);
}

void failures_of_archives() {
  const tmcore::archive archive = tmcore::archive::create();
  TM_CHECK_EQ(thrown([&] { archive.put(tensor()); }), TM_ERR_INVALID);
  TM_CHECK_EQ(archive.put(tmcore::buffer(), std::nothrow), TM_ERR_INVALID);
  TM_CHECK_EQ(thrown([&] { tmcore::archive_reader("no archive", 10, TM_CPU); }), TM_ERR_CORRUPT);
  TM_CHECK_EQ(
      thrown([&] { tmcore::archive_reader(archive.data(), archive.size(), tmcore::cuda(0)); }),
      TM_ERR_UNAVAILABLE);  // there is no allocator of that device
  tmcore::archive_reader nothing("no archive", 10, TM_CPU, std::nothrow);
  TM_CHECK(nothing.at_end() && !nothing.map(std::nothrow));
}

void safetensors_give_back_what_was_saved() {
  const tensor_map map = tensor_map::create();
  map.produce("a", count_up({3, 4}));
  map.produce("b", count_up({2}));
  map.add_metadata("format", "pt");
  const tmcore::buffer bytes = tmcore::safetensors::encode(map);
  const auto size = static_cast<size_t>(bytes.size());
  const tensor_map decoded = tmcore::safetensors::decode(bytes.data(), size, TM_CPU);
  expect_counts_up(decoded.at("a"), 12);
  TM_CHECK_STREQ(decoded.metadata("format"), "pt");
  const char* folder = std::getenv("TEST_TMPDIR");
  const std::string path = std::string(folder ? folder : "/tmp") + "/files_test.safetensors";
  tmcore::safetensors::save(map, path.c_str());
  counting_upstream upstream;
  {
    const tensor_map loaded = tmcore::safetensors::load(path.c_str(), upstream.get());
    expect_counts_up(loaded.at("a"), 12);
    expect_counts_up(loaded.at("b"), 2);
    TM_CHECK(upstream.figures().allocs > 0u);
  }
  TM_CHECK_EQ(std::remove(path.c_str()), 0);
  TM_CHECK_EQ(thrown([&] { (void)tmcore::safetensors::load(path.c_str(), TM_CPU); }),
              TM_ERR_NOT_FOUND);
  TM_CHECK(!tmcore::safetensors::decode(bytes.data(), size - 1, tmcore::cpu, std::nothrow));
  TM_CHECK_EQ(tm_last_status(), TM_ERR_CORRUPT);
  TM_CHECK_EQ(tmcore::safetensors::save(map, "/no/such/folder/x", std::nothrow), tm_last_status());
  TM_CHECK(!tmcore::safetensors::load(path.c_str(), tmcore::cuda(0), std::nothrow));
  TM_CHECK_EQ(tm_last_status(), TM_ERR_UNAVAILABLE);
}

//===-- DLPack --------------------------------------------------------------------------------===//

void dlpack_goes_there_and_back() {
  counting_upstream upstream;
  {
    const tensor x({2, 3}, TM_F32, upstream.get());
    const tensor back = tmcore::from_dlpack(tmcore::to_dlpack(x.t()));
    TM_CHECK_EQ(back.data(), x.data());
    TM_CHECK(tmcore::to_string(back.layout()) == "(3,2):(1,3)");
    const tensor legacy = tmcore::from_dlpack(tmcore::to_dlpack_legacy(x));
    TM_CHECK_EQ(legacy.data(), x.data());
    DLManagedTensorVersioned* managed = tmcore::to_dlpack(x, TM_DLPACK_READ_ONLY);
    TM_CHECK_EQ(thrown([&] { (void)tmcore::from_dlpack(managed); }), TM_ERR_INVALID);
    bool read_only = false;
    const tensor read = tmcore::from_dlpack(managed, &read_only);
    TM_CHECK(read && read_only);
    TM_CHECK(tmcore::to_dlpack(x, 77, std::nothrow) == nullptr);
    TM_CHECK_EQ(thrown([&] { (void)tmcore::to_dlpack(tensor()); }), TM_ERR_INVALID);
    TM_CHECK_EQ(upstream.figures().allocs, 1u);
  }
}

}  // namespace

int main() {
  RUN_TEST(layouts_change_as_in_c);
  RUN_TEST(layouts_answer_as_in_c);
  RUN_TEST(layouts_go_to_tensors_and_back);
  RUN_TEST(failures_of_layouts);
  RUN_TEST(types_formats_and_intervals);
  RUN_TEST(maps_hand_tensors_on);
  RUN_TEST(failures_of_maps);
  RUN_TEST(maps_have_metadata_and_move);
  RUN_TEST(archives_give_back_what_was_put_in);
  RUN_TEST(failures_of_archives);
  RUN_TEST(safetensors_give_back_what_was_saved);
  RUN_TEST(dlpack_goes_there_and_back);
  return 0;
}
