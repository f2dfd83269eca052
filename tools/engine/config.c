#include "engine/config.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <tm/tm.h>

enum {
  LARGEST_SIZE = 1 << 24,    // of any number in a config
  LARGEST_FILE = 1 << 20,    // bytes; a real config has a few thousand
  LARGEST_TENSOR_LOG2 = 44,  // elements: keeps every product of this file's numbers in 64 bits
};

// A config while it is being read: the values, and the text to find their lines in.
typedef struct config_reader {
  const char* file;
  const char* text;
  size_t size;
  const json_t* root;
} config_reader;

//===-- Lines -------------------------------------------------------------===//

// The end of `"key" :` where it starts at `at`, else NULL.
static const char* match_key(const char* at, const char* end, const char* key) {
  const size_t length = strlen(key);
  if ((size_t)(end - at) < length + 2 || at[0] != '"' || memcmp(at + 1, key, length) != 0 ||
      at[length + 1] != '"') {
    return NULL;
  }
  at += length + 2;
  while (at < end && strchr(" \t\r\n", *at)) at++;
  return at < end && *at == ':' ? at : NULL;
}

// The line of a key, from 1; of the first line where the key is not there. JSON libraries keep
// lines for what does not parse, not for values.
static int line_of_key(const config_reader* r, const char* key) {
  const char* end = r->text + r->size;
  int line = 1;
  for (const char* at = r->text; at < end; at++) {
    if (*at == '\n') line++;
    if (match_key(at, end, key)) return line;
  }
  return 1;
}

static tm_status bad_value(const config_reader* r, const char* key, const char* wanted) {
  char* shown = json_dumps(json_object_get(r->root, key), JSON_ENCODE_ANY | JSON_COMPACT);
  const tm_status status = TM_RAISE(TM_ERR_CORRUPT, "%s:%d: \"%s\" must be %s, not %.60s", r->file,
                                    line_of_key(r, key), key, wanted, shown ? shown : "that");
  free(shown);
  return status;
}

//===-- Values ------------------------------------------------------------===//

// The value of a key; NULL where it is missing or null.
static const json_t* value_of(const config_reader* r, const char* key) {
  const json_t* value = json_object_get(r->root, key);
  return json_is_null(value) ? NULL : value;
}

// A `fallback` of 0: the key must be there.
static tm_status read_count(const config_reader* r, const char* key, int64_t fallback,
                            int64_t* out) {
  const json_t* value = value_of(r, key);
  if (!value && fallback == 0) {
    return TM_RAISE(TM_ERR_CORRUPT, "%s: \"%s\" is missing", r->file, key);
  }
  if (value && (!json_is_integer(value) || json_integer_value(value) < 1 ||
                json_integer_value(value) > LARGEST_SIZE)) {
    return bad_value(r, key, "an integer from 1 to 16777216");
  }
  *out = value ? (int64_t)json_integer_value(value) : fallback;
  return TM_OK;
}

static tm_status read_flag(const config_reader* r, const char* key, bool* out) {
  const json_t* value = value_of(r, key);
  if (value && !json_is_boolean(value)) {
    return bad_value(r, key, "true or false");
  }
  *out = json_is_true(value);
  return TM_OK;
}

static tm_status read_dtype(const config_reader* r, tm_dtype* out) {
  static const struct {
    const char* name;
    tm_dtype dtype;
  } dtypes[] = {{"bfloat16", TM_BF16}, {"float16", TM_F16}, {"float32", TM_F32}};
  const char* key = value_of(r, "torch_dtype") ? "torch_dtype" : "dtype";
  const json_t* value = value_of(r, key);
  if (!value) {
    return TM_RAISE(TM_ERR_CORRUPT, "%s: \"torch_dtype\" is missing", r->file);
  }
  for (size_t i = 0; json_is_string(value) && i < sizeof(dtypes) / sizeof(dtypes[0]); i++) {
    if (strcmp(json_string_value(value), dtypes[i].name) == 0) {
      *out = dtypes[i].dtype;
      return TM_OK;
    }
  }
  return bad_value(r, key, "\"bfloat16\", \"float16\" or \"float32\"");
}

static tm_status read_family(const config_reader* r, model_config* config) {
  const json_t* value = value_of(r, "model_type");
  const char* family = value ? json_string_value(value) : "llama";
  if (!family || (strcmp(family, "llama") != 0 && strcmp(family, "mistral") != 0 &&
                  strcmp(family, "qwen2") != 0)) {
    return bad_value(r, "model_type", "\"llama\", \"mistral\" or \"qwen2\"");
  }
  config->qkv_bias = strcmp(family, "qwen2") == 0;
  return TM_OK;
}

//===-- What is not understood --------------------------------------------===//

static tm_status refuse_unknown_parts(const config_reader* r) {
  static const char* const parts[] = {"quantization_config", "num_local_experts", "num_experts"};
  static const char* const biases[] = {"attention_bias", "mlp_bias"};
  for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
    if (value_of(r, parts[i])) return bad_value(r, parts[i], "absent: it is not supported");
  }
  for (size_t i = 0; i < sizeof(biases) / sizeof(biases[0]); i++) {
    bool has_bias = false;
    TM_TRY(read_flag(r, biases[i], &has_bias));
    if (has_bias) return bad_value(r, biases[i], "false: such biases are not supported");
  }
  return TM_OK;
}

static bool fits(int64_t a, int64_t b, int64_t c) {
  int64_t product;
  return !__builtin_mul_overflow(a, b, &product) && !__builtin_mul_overflow(product, c, &product) &&
         product <= (int64_t)1 << LARGEST_TENSOR_LOG2;
}

static tm_status check_together(const config_reader* r, const model_config* c) {
  if (c->kv_heads < 1 || c->heads % c->kv_heads != 0) {
    return bad_value(r, "num_key_value_heads", "a divisor of \"num_attention_heads\"");
  }
  if (!fits(c->layers, 3 * c->heads, c->head_dim) || !fits(c->hidden, 3 * c->heads, c->head_dim) ||
      !fits(c->hidden, c->intermediate, 2) || !fits(c->hidden, c->vocabulary, 1)) {
    return TM_RAISE(TM_ERR_CORRUPT,
                    "%s: the sizes together make tensors of more than 2^%d elements", r->file,
                    LARGEST_TENSOR_LOG2);
  }
  return TM_OK;
}

//===-- Reading -----------------------------------------------------------===//

static tm_status read_head_dim(const config_reader* r, model_config* c) {
  const int64_t share = c->heads > 0 && c->hidden % c->heads == 0 ? c->hidden / c->heads : 0;
  if (share == 0 && !value_of(r, "head_dim")) {
    return bad_value(r, "hidden_size",
                     "a multiple of \"num_attention_heads\", or \"head_dim\" given");
  }
  return read_count(r, "head_dim", share, &c->head_dim);
}

static tm_status read_model(const config_reader* r, model_config* c) {
  TM_TRY(read_family(r, c));
  TM_TRY(refuse_unknown_parts(r));
  TM_TRY(read_count(r, "num_hidden_layers", 0, &c->layers));
  TM_TRY(read_count(r, "hidden_size", 0, &c->hidden));
  TM_TRY(read_count(r, "num_attention_heads", 0, &c->heads));
  TM_TRY(read_count(r, "num_key_value_heads", c->heads, &c->kv_heads));
  TM_TRY(read_head_dim(r, c));
  TM_TRY(read_count(r, "intermediate_size", 0, &c->intermediate));
  TM_TRY(read_count(r, "vocab_size", 0, &c->vocabulary));
  TM_TRY(read_count(r, "max_position_embeddings", 0, &c->max_positions));
  TM_TRY(read_dtype(r, &c->dtype));
  TM_TRY(read_flag(r, "tie_word_embeddings", &c->tied_embeddings));
  return check_together(r, c);
}

tm_status model_config_parse(const char* text, size_t size, const char* file, model_config* out) {
  *out = (model_config){0};
  json_error_t error;
  json_t* root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
  if (!root) {
    return TM_RAISE(TM_ERR_CORRUPT, "%s:%d: %s", file, error.line > 0 ? error.line : 1, error.text);
  }
  const config_reader reader = {.file = file, .text = text, .size = size, .root = root};
  model_config config = {0};
  const tm_status status = json_is_object(root)
                               ? read_model(&reader, &config)
                               : TM_RAISE(TM_ERR_CORRUPT, "%s:1: the top level is no object", file);
  if (status == TM_OK) *out = config;
  json_decref(root);
  return status;
}

static tm_status parse_open_file(FILE* file, const char* path, model_config* out) {
  char* text = tm_bookkeeping_alloc(LARGEST_FILE + 1, "a config file");
  if (!text) return tm_last_status();
  const size_t size = fread(text, 1, LARGEST_FILE + 1, file);
  tm_status status = TM_OK;
  if (ferror(file)) {
    status = TM_RAISE(TM_ERR_IO, "%s: %s", path, strerror(errno));
  } else if (size > LARGEST_FILE) {
    status = TM_RAISE(TM_ERR_CORRUPT, "%s: more than 1 MiB cannot be a config", path);
  } else {
    status = model_config_parse(text, size, path, out);
  }
  tm_bookkeeping_free(text);
  return status;
}

tm_status model_config_read(const char* path, model_config* out) {
  *out = (model_config){0};
  FILE* file = fopen(path, "rb");
  if (!file) {
    return TM_RAISE(errno == ENOENT ? TM_ERR_NOT_FOUND : TM_ERR_IO, "%s: %s", path,
                    strerror(errno));
  }
  const tm_status status = parse_open_file(file, path, out);
  (void)fclose(file);
  return status;
}
