// The adaptors from C++: made over temporaries, over each other, and refused by an exception.

#include <stdlib.h>

#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>

#include "tests/cpp/support.hpp"

namespace {

std::string log_path() {
  const char* folder = getenv("TEST_TMPDIR");
  return std::string(folder ? folder : "/tmp") + "/adaptor_test.csv";
}

void all_of_them_nest() {
  counting_upstream upstream;
  const std::string path = log_path();
  const tmcore::allocator top = tmcore::tracking_adaptor(tmcore::logging_adaptor(
      tmcore::guard_adaptor(tmcore::limit_adaptor(
          tmcore::statistics_adaptor(tmcore::fault_adaptor(tmcore::locked_adaptor(upstream.get()))),
          1 << 20)),
      path.c_str()));
  TM_CHECK_STREQ(top.name(), "tracking");
  TM_CHECK_STREQ(tm_allocator_name(top.upstream()), "logging");
  void* block = top.allocate(1000);
  TM_CHECK_NE(block, nullptr);
  std::memset(block, 1, 1000);
  TM_CHECK_GE(upstream.figures().live_bytes, 1000u);
  top.deallocate(block, 1000);
  TM_CHECK_EQ(std::remove(path.c_str()), 0);
}

void what_is_refused_throws() {
  const tmcore::allocator stack = tmcore::stack_allocator(tmcore::host_allocator());
  bool thrown = false;
  try {
    (void)tmcore::locked_adaptor(stack);
  } catch (const tmcore::error& e) {
    thrown = std::strstr(e.what(), "belongs to the thread") != nullptr;
  }
  TM_CHECK(thrown);
  TM_CHECK(!tmcore::locked_adaptor(stack, std::nothrow));
  TM_CHECK(!tmcore::logging_adaptor(stack, "/no/such/folder/x.csv", std::nothrow));
  TM_CHECK_EQ(tm_last_status(), TM_ERR_NOT_FOUND);
}

void an_exception_ends_drawing_on_a_reservation() {
  counting_upstream upstream;
  const tmcore::allocator limit = tmcore::limit_adaptor(upstream.get(), 1024);
  tm_limit_reservation room;
  TM_CHECK_OK(tm_limit_reserve(limit.get(), 512, &room));
  void* block = nullptr;
  try {
    TM_WITH_RESERVATION(&room) {
      block = limit.allocate(256);
      throw std::runtime_error("out of the block");
    }
  } catch (const std::runtime_error&) {
  }
  TM_CHECK_EQ(room.bytes, 256u);
  TM_CHECK_EQ(tm_limit_draw_on_(nullptr), nullptr);
  limit.deallocate(block, 256);
  tm_limit_cancel(&room);
}

void a_reservation_gives_back_at_its_end() {
  counting_upstream upstream;
  const tmcore::allocator limit = tmcore::limit_adaptor(upstream.get(), 1024);
  {
    tmcore::limit_reservation room(limit, 768);
    TM_CHECK(room);
    TM_CHECK(!tmcore::limit_reservation(limit, 512, std::nothrow));
    void* committed = room.commit(256);
    void* drawn = nullptr;
    {
      const tmcore::reservation_guard guard(room);
      drawn = limit.allocate(256);
    }
    TM_CHECK_EQ(room.left(), 256u);
    bool thrown = false;
    try {
      (void)room.commit(512);
    } catch (const tmcore::error& e) {
      thrown = e.code() == TM_ERR_OUT_OF_RANGE;
    }
    TM_CHECK(thrown);
    TM_CHECK_EQ(room.commit(512, {}, std::nothrow), nullptr);
    limit.deallocate(committed, 256);
    limit.deallocate(drawn, 256);
  }
  tm_limit_state state;
  TM_CHECK_OK(tm_limit_get(limit.get(), &state));
  TM_CHECK_EQ(state.used + state.reserved, 0u);
}

}  // namespace

int main() {
  RUN_TEST(all_of_them_nest);
  RUN_TEST(what_is_refused_throws);
  RUN_TEST(an_exception_ends_drawing_on_a_reservation);
  RUN_TEST(a_reservation_gives_back_at_its_end);
  std::printf("adaptors pass\n");
  return 0;
}
