#include "engine/seeds.h"

#include <string.h>

tm_status seeds_init(int64_t max_count, seeds* out) {
  TM_SCOPE("seeds");
  *out = (seeds){.max_count = max_count};
  out->order = tm_bookkeeping_alloc((size_t)max_count * sizeof(*out->order), "the order of seeds");
  if (out->order) out->perm = tm_buffer_empty_from(tm_host_allocator(), max_count, TM_I32);
  if (tm_buffer_ok(&out->perm) &&
      tm_state_init(TM_SHAPE(max_count), TM_I32, TM_DEVICE, &out->rows) == TM_OK) {
    return TM_OK;
  }
  const tm_status status = tm_last_status();
  seeds_deinit(out);
  return status;
}

void seeds_deinit(seeds* s) {
  tm_state_deinit(&s->rows);
  tm_buffer_release(&s->perm);
  tm_bookkeeping_free(s->order);
  *s = (seeds){0};
}

int32_t seeds_of(uint32_t request) { return (int32_t)(request * 0x9e3779b1u); }

// Sequences stay in the order of their admission, so one pass over both orders finds all that stay.
// One that is overlooked, since it has made room and come back, joins once more. Returns whether
// any row moves.
static bool find_rows(seeds* s, const uint32_t* requests, int64_t count, int32_t* joined) {
  int32_t* perm = TM_BUFFER_DATA(int32_t, &s->perm);
  bool moves = count > s->count;
  int64_t row = 0;
  for (int64_t i = 0; i < count; i++) {
    int64_t next = row;
    while (next < s->count && s->order[next] != requests[i]) next++;
    const bool stays = next < s->count;
    perm[i] = (int32_t)(stays ? next : s->count);
    row = stays ? next + 1 : row;
    moves |= perm[i] != i;
    if (!stays) joined[i] = seeds_of(requests[i]);
  }
  return moves;
}

tm_status seeds_add(seeds* s, const uint32_t* requests, int64_t count, const tm_tensor* joined,
                    tm_batch_copy* copies, bool* moves) {
  *moves = find_rows(s, requests, count, TM_DATA(int32_t, joined));
  if (!*moves) return TM_OK;
  tm_auto_buffer perm = tm_buffer_slice(&s->perm, 0, count);
  if (!tm_buffer_ok(&perm)) return tm_last_status();
  return tm_warp_or(copies, &s->rows.front, s->count, &perm, joined, &s->rows.back);
}

void seeds_commit(seeds* s, const uint32_t* requests, int64_t count) {
  tm_state_swap(&s->rows);
  memcpy(s->order, requests, (size_t)count * sizeof(*requests));
  s->count = count;
}

void seeds_forget(seeds* s) { s->count = 0; }
