// The hash of keys against the published values.

#include "tensor/key_hash.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

// Of the bytes 0, 1, 2, ... under the key of the bytes 0 to 15.
Test(key_hash, is_siphash_2_4) {
  static const uint64_t key[2] = {0x0706050403020100u, 0x0f0e0d0c0b0a0908u};
  uint8_t bytes[16];
  for (int i = 0; i < 16; i++) bytes[i] = (uint8_t)i;
  cr_expect(eq(u64, tm_siphash_(key, bytes, 0), 0x726fdb47dd0e0e31u));
  cr_expect(eq(u64, tm_siphash_(key, bytes, 1), 0x74f839c593dc67fdu));
  cr_expect(eq(u64, tm_siphash_(key, bytes, 8), 0x93f5f5799a932462u));
  cr_expect(eq(u64, tm_siphash_(key, bytes, 15), 0xa129ca6149be45e5u));
}

Test(key_hash, is_the_same_throughout_a_process) {
  cr_expect(eq(u64, tm_key_hash_("abc", 3), tm_key_hash_("abc", 3)));
  cr_expect(ne(u64, tm_key_hash_("abc", 3), tm_key_hash_("abd", 3)));
}
