#include "tensor/key_hash.h"

#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "tensor/little_endian.h"

static uint64_t rotate(uint64_t value, int bits) { return value << bits | value >> (64 - bits); }

static void sip_round(uint64_t v[4]) {
  v[0] += v[1];
  v[2] += v[3];
  v[1] = rotate(v[1], 13) ^ v[0];
  v[3] = rotate(v[3], 16) ^ v[2];
  v[0] = rotate(v[0], 32) + v[3];
  v[2] += v[1];
  v[3] = rotate(v[3], 21) ^ v[0];
  v[1] = rotate(v[1], 17) ^ v[2];
  v[2] = rotate(v[2], 32);
}

static void take_word(uint64_t v[4], uint64_t word) {
  v[3] ^= word;
  sip_round(v);
  sip_round(v);
  v[0] ^= word;
}

uint64_t tm_siphash_(const uint64_t key[2], const void* bytes, size_t size) {
  const uint8_t* at = bytes;
  // "somepseudorandomlygeneratedbytes"
  uint64_t v[4] = {key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du,
                   key[0] ^ 0x6c7967656e657261u, key[1] ^ 0x7465646279746573u};
  for (size_t left = size; left >= 8; left -= 8, at += 8) {
    take_word(v, tm_get_u64_(at));
  }
  uint64_t last = (uint64_t)size << 56;
  for (size_t i = 0; i < size % 8; i++) {
    last |= (uint64_t)at[i] << (8 * i);
  }
  take_word(v, last);
  v[2] ^= 0xff;
  for (int i = 0; i < 4; i++) {
    sip_round(v);
  }
  return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static uint64_t process_key[2];

// Where the system has no randomness, time and addresses have to do.
static void draw_key(void) {
  if (getentropy(process_key, sizeof process_key) != 0) {
    process_key[0] = (uint64_t)time(NULL);
    process_key[1] = (uint64_t)(uintptr_t)&process_key ^ (uint64_t)getpid() << 32;
  }
}

uint64_t tm_key_hash_(const void* bytes, size_t size) {
  (void)pthread_once(&once, draw_key);
  return tm_siphash_(process_key, bytes, size);
}
