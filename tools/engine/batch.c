#include "engine/batch.h"

#include <string.h>
#include <tm/check.h>
#include <tm/tm.h>

//===-- Making ------------------------------------------------------------===//

static bool make_pair(int64_t size, tm_tensor* host, tm_tensor* device) {
  *host = tm_empty(TM_SHAPE(size), TM_I32, TM_CPU_PINNED);
  *device = tm_empty(TM_SHAPE(size), TM_I32, TM_DEVICE);
  return tm_ok(host) && tm_ok(device);
}

static bool make_fields(const batch_limits* limits, batch* out) {
  const int64_t sizes[BATCH_FIELDS] = {
      [BATCH_TOKEN_IDS] = limits->tokens,
      [BATCH_POSITIONS] = limits->tokens,
      [BATCH_TOKEN_OFFSETS] = limits->sequences + 1,
      [BATCH_LENGTHS] = limits->sequences,
      [BATCH_BLOCK_OFFSETS] = limits->sequences + 1,
      [BATCH_BLOCKS] = limits->blocks,
      [BATCH_LAST_TOKENS] = limits->sequences,
  };
  for (int field = 0; field < BATCH_FIELDS; field++) {
    if (!make_pair(sizes[field], &out->host[field], &out->device[field])) return false;
    out->data[field] = TM_DATA(int32_t, &out->host[field]);
    out->from[field] = tm_buffer_of(&out->host[field]);
    out->to[field] = tm_buffer_of(&out->device[field]);
  }
  return make_pair(limits->sequences, &out->sampled_host, &out->sampled_device);
}

static bool make_seeds(const batch_limits* limits, batch* out) {
  const size_t count = (size_t)limits->sequences;
  out->requests = tm_bookkeeping_alloc(count * sizeof(*out->requests), "the requests of a batch");
  if (!out->requests) return false;
  out->joined = tm_empty(TM_SHAPE(limits->sequences), TM_I32, TM_CPU_PINNED);
  out->seeds_host = tm_empty(TM_SHAPE(limits->sequences), TM_I32, TM_CPU_PINNED);
  return tm_ok(&out->joined) && tm_ok(&out->seeds_host);
}

tm_status batch_init(const batch_limits* limits, batch* out) {
  TM_SCOPE("batch");
  *out = (batch){.vocabulary = limits->vocabulary};
  const tm_stream* stream = tm_require_stream();
  out->done = stream ? tm_event_create(tm_stream_device(stream).id, false) : NULL;
  out->copies = out->done ? tm_batch_copy_create() : NULL;
  if (out->copies && make_fields(limits, out) && make_seeds(limits, out)) return TM_OK;
  const tm_status status = tm_last_status();
  batch_deinit(out);
  return status;
}

void batch_deinit(batch* b) {
  tm_batch_copy_release(b->copies);
  for (int field = 0; field < BATCH_FIELDS; field++) {
    tm_buffer_release(&b->from[field]);
    tm_buffer_release(&b->to[field]);
    tm_release(&b->host[field]);
    tm_release(&b->device[field]);
  }
  tm_release(&b->joined);
  tm_release(&b->seeds_host);
  tm_bookkeeping_free(b->requests);
  tm_release(&b->sampled_host);
  tm_release(&b->sampled_device);
  tm_event_release(b->done);
  *b = (batch){0};
}

//===-- Filling -----------------------------------------------------------===//

static void put(batch* b, batch_field field, int64_t value) {
  b->data[field][b->used[field]++] = (int32_t)value;
}

// A stand-in for text: the same request says the same words in every run.
static int32_t token_at(const batch* b, const sequence* q, uint32_t position) {
  const uint64_t mixed = ((uint64_t)q->request << 32 | position) * 0x9e3779b97f4a7c15u;
  return (int32_t)((mixed >> 32) * (uint64_t)b->vocabulary >> 32);
}

static void put_tokens(batch* b, const sequence* q) {
  const uint32_t end = q->computed + q->planned;
  int32_t* ids = b->data[BATCH_TOKEN_IDS] + b->used[BATCH_TOKEN_IDS];
  int32_t* positions = b->data[BATCH_POSITIONS] + b->used[BATCH_POSITIONS];
  for (uint32_t i = 0; i < q->planned; i++) {
    ids[i] = token_at(b, q, q->computed + i);
    positions[i] = (int32_t)(q->computed + i);
  }
  b->used[BATCH_TOKEN_IDS] += q->planned;
  b->used[BATCH_POSITIONS] += q->planned;
  put(b, BATCH_TOKEN_OFFSETS, b->used[BATCH_TOKEN_IDS]);
  b->requests[b->used[BATCH_LENGTHS]] = q->request;
  put(b, BATCH_LENGTHS, end);
  put(b, BATCH_LAST_TOKENS, ids[q->planned - 1]);
  b->samples += end == q->known ? 1 : 0;
}

static void put_blocks(batch* b, const sequence* q) {
  if (q->block_count) {
    memcpy(b->data[BATCH_BLOCKS] + b->used[BATCH_BLOCKS], q->blocks,
           q->block_count * sizeof(*q->blocks));
  }
  b->used[BATCH_BLOCKS] += q->block_count;
  put(b, BATCH_BLOCK_OFFSETS, b->used[BATCH_BLOCKS]);
}

static void put_nothing(batch* b) {
  TM_CHECK(!b->in_flight);
  for (int field = 0; field < BATCH_FIELDS; field++) b->used[field] = 0;
  b->samples = 0;
  put(b, BATCH_TOKEN_OFFSETS, 0);
  put(b, BATCH_BLOCK_OFFSETS, 0);
}

void batch_fill(batch* b, const sequence* running, size_t count) {
  put_nothing(b);
  for (size_t i = 0; i < count; i++) {
    if (running[i].planned == 0) continue;
    put_tokens(b, &running[i]);
    put_blocks(b, &running[i]);
  }
}

// One token of each. Every other one is of another request than in the other kind of round: between
// rows that stay are rows that join, so the seeds move in as many pieces as they ever can.
static void fill_for_warm_up(batch* b, int64_t sequences, int round) {
  int32_t block = 0;
  put_nothing(b);
  for (uint32_t i = 0; i < (uint32_t)sequences; i++) {
    const bool changes = i % 2 == 1 && round % 2 == 1;
    const sequence one = {.request = changes ? i + (uint32_t)sequences : i,
                          .known = 1,
                          .planned = 1,
                          .block_count = 1,
                          .blocks = &block};
    put_tokens(b, &one);
    put_blocks(b, &one);
  }
}

//===-- The step on the stream --------------------------------------------===//

static tm_status add_fields(batch* b) {
  for (int field = 0; field < BATCH_FIELDS; field++) {
    TM_TRY(tm_batch_copy_add_buffer_n(b->copies, &b->from[field], b->used[field], &b->to[field]));
  }
  return TM_OK;
}

tm_status batch_upload(batch* b, seeds* remembered) {
  TM_SCOPE("upload");
  const int64_t count = batch_sequences(b);
  bool moves = false;
  b->has_seeds = false;
  tm_status status = add_fields(b);
  if (status == TM_OK) {
    status = seeds_add(remembered, b->requests, count, &b->joined, b->copies, &moves);
  }
  if (status == TM_OK) status = tm_batch_copy_run(b->copies);
  if (status != TM_OK) {
    tm_batch_copy_clear(b->copies);
    return status;
  }
  if (moves) seeds_commit(remembered, b->requests, count);
  b->has_seeds = moves;
  return TM_OK;
}

// Copies the first `count` elements.
static tm_status copy_front(const tm_tensor* source, const tm_tensor* destination, int64_t count) {
  tm_auto_tensor from = tm_slice_outer(source, 0, count);
  tm_auto_tensor to = tm_slice_outer(destination, 0, count);
  return tm_copy(&from, &to);
}

tm_status batch_download(batch* b, const seeds* remembered) {
  TM_SCOPE("download");
  const int64_t count = batch_sequences(b);
  if (b->has_seeds) TM_TRY(copy_front(&remembered->rows.front, &b->seeds_host, count));
  TM_TRY(copy_front(&b->device[BATCH_LAST_TOKENS], &b->sampled_device, count));
  return copy_front(&b->sampled_device, &b->sampled_host, count);
}

tm_status batch_launch(batch* b, bool has_samples) {
  tm_stream* stream = tm_current_stream();
  const tm_status status = tm_event_record(b->done, stream);
  if (status != TM_OK) {
    (void)!tm_stream_sync(stream);
    return status;
  }
  b->in_flight = true;
  b->has_samples = has_samples;
  return TM_OK;
}

static tm_status check_samples(const batch* b) {
  const int32_t* sampled = TM_DATA(int32_t, &b->sampled_host);
  const int32_t* sent = b->data[BATCH_LAST_TOKENS];
  for (int64_t i = 0; i < batch_sequences(b); i++) {
    if (sampled[i] != sent[i]) {
      return TM_RAISE(TM_ERR_CORRUPT, "batch: token %lld came back as %d, not as %d", (long long)i,
                      sampled[i], sent[i]);
    }
  }
  return TM_OK;
}

static tm_status check_seeds(const batch* b) {
  const int32_t* back = TM_DATA(int32_t, &b->seeds_host);
  for (int64_t i = 0; b->has_seeds && i < batch_sequences(b); i++) {
    if (back[i] != seeds_of(b->requests[i])) {
      return TM_RAISE(TM_ERR_CORRUPT, "batch: the seed of request %u came back as %d, not as %d",
                      b->requests[i], back[i], seeds_of(b->requests[i]));
    }
  }
  return TM_OK;
}

tm_status batch_wait(batch* b, int64_t* out) {
  *out = 0;
  if (!b->in_flight) return TM_OK;
  TM_TRY(tm_event_sync(b->done));
  b->in_flight = false;
  if (!b->has_samples) return TM_OK;
  TM_TRY(check_samples(b));
  TM_TRY(check_seeds(b));
  *out = b->samples;
  return TM_OK;
}

//===-- Warming up --------------------------------------------------------===//

tm_status batch_warm_up(batch* b, int64_t sequences, int round, seeds* remembered) {
  TM_SCOPE("batch_warm_up");
  int64_t sampled;
  if (tm_is_dry(&b->host[BATCH_TOKEN_IDS])) return TM_OK;  // nothing can be written there
  fill_for_warm_up(b, sequences, round);
  tm_status status = batch_upload(b, remembered);
  if (status == TM_OK) status = batch_download(b, remembered);
  // Also where that failed: what was queued still reads the batch.
  const tm_status launched = batch_launch(b, status == TM_OK);
  TM_TRY(status);
  TM_TRY(launched);
  return batch_wait(b, &sampled);
}
