// SipHash-2-4 (Aumasson and Bernstein), a hash under a secret key: the names in a file of somebody
// else's cannot be chosen to collide in a table, which would take time in the square of their
// number. Private.
#ifndef TM_TENSOR_KEY_HASH_H_
#define TM_TENSOR_KEY_HASH_H_

#include <stddef.h>
#include <stdint.h>

uint64_t tm_siphash_(const uint64_t key[2], const void* bytes, size_t size);

// Under a key that this process has drawn.
// Threads: safe.
uint64_t tm_key_hash_(const void* bytes, size_t size);

#endif  // TM_TENSOR_KEY_HASH_H_
