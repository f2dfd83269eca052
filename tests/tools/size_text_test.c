// Sizes and counts as people write them.

#include "tools/size_text.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

static const struct {
  const char* text;
  uint64_t bytes;
} good[] = {
    {"0", 0},
    {"123", 123},
    {"123B", 123},
    {"1K", 1024},
    {"1KiB", 1024},
    {"1KB", 1000},
    {"80GiB", (uint64_t)80 << 30},
    {"80 GiB", (uint64_t)80 << 30},
    {"1.5TiB", (uint64_t)3 << 39},
    {"0.5K", 512},
    {"2.0GB", 2000000000},
    {"9223372036854775807", INT64_MAX},
};

static const char* const bad[] = {
    "",
    " ",
    "GiB",
    "-1",
    "+1",
    "80gib",
    "80Gi",
    "80GiBs",
    "1,5G",
    "1.",
    ".5G",
    "1e9",
    "0x10",
    "80 GiB ",
    "80  G",
    "1.0001K",
    "8EiB",
    "1..5K",
    "0.3",
    "8388608TiB",
    "9223372036854775808",
    "99999999999999999999",
    "1.00000000000000000001G",
};

Test(size_text, sizes_are_read) {
  for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
    uint64_t bytes;
    cr_expect(size_parse(good[i].text, &bytes), "%s", good[i].text);
    cr_expect(eq(u64, bytes, good[i].bytes), "%s", good[i].text);
  }
}

Test(size_text, what_is_no_size_is_refused) {
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    uint64_t bytes = 7;
    cr_expect(not(size_parse(bad[i], &bytes)), "%s", bad[i]);
    cr_expect(eq(u64, bytes, 0));
  }
}

Test(size_text, counts_are_read_up_to_the_largest) {
  uint64_t count;
  cr_expect(count_parse("0", 10, &count) && count == 0);
  cr_expect(count_parse("10", 10, &count) && count == 10);
  cr_expect(not(count_parse("11", 10, &count)));
  cr_expect(not(count_parse("", 10, &count)));
  cr_expect(not(count_parse("1x", 10, &count)));
  cr_expect(not(count_parse("-1", 10, &count)));
  cr_expect(count_parse("18446744073709551615", UINT64_MAX, &count) && count == UINT64_MAX);
  cr_expect(not(count_parse("18446744073709551616", UINT64_MAX, &count)));
}

static void expect_size(uint64_t bytes, const char* wanted) {
  char text[SIZE_TEXT_SIZE];
  size_format(bytes, text);
  cr_expect(eq(str, text, (char*)wanted));
}

static void expect_count(uint64_t count, const char* wanted) {
  char text[SIZE_TEXT_SIZE];
  count_format(count, text);
  cr_expect(eq(str, text, (char*)wanted));
}

Test(size_text, sizes_and_counts_are_written) {
  expect_size(0, "0 B");
  expect_size(1023, "1023 B");
  expect_size(1024, "1.00 KiB");
  expect_size((uint64_t)80 << 30, "80.00 GiB");
  expect_size(UINT64_MAX, "16.00 EiB");
  expect_count(0, "0");
  expect_count(999, "999");
  expect_count(1000, "1,000");
  expect_count(19366, "19,366");
  expect_count(UINT64_MAX, "18,446,744,073,709,551,615");
}
