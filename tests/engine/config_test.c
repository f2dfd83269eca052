// Model configs: Hugging Face's keys, published numbers, and clear errors.

#include "engine/config.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tm/tm.h>
#include <unistd.h>

#include "engine/builtin_models.h"
#include "engine/weights.h"

// A small model; the marked lines are changed by tests.
static const char small[] =
    "{\n"
    "  \"model_type\": \"llama\",\n"
    "  \"hidden_size\": 64,\n"
    "  \"intermediate_size\": 128,\n"
    "  \"num_hidden_layers\": 2,\n"
    "  \"num_attention_heads\": 4,\n"
    "  \"num_key_value_heads\": 2,\n"
    "  \"max_position_embeddings\": 512,\n"
    "  \"vocab_size\": 1000,\n"
    "  \"torch_dtype\": \"float16\"\n"
    "}\n";

static tm_status parse(const char* text, model_config* out) {
  return model_config_parse(text, strlen(text), "config.json", out);
}

// Parses `small` with `from` replaced by `to`.
static tm_status parse_changed(const char* from, const char* to, model_config* out) {
  char text[2048];
  const char* at = strstr(small, from);
  cr_assert(at != NULL);
  (void)snprintf(text, sizeof(text), "%.*s%s%s", (int)(at - small), small, to, at + strlen(from));
  return parse(text, out);
}

static void expect_error(const char* from, const char* to, const char* message) {
  model_config config = {.layers = 7};
  cr_expect(eq(int, parse_changed(from, to, &config), TM_ERR_CORRUPT));
  cr_expect(strstr(tm_last_error()->message, message) != NULL, "%s: %s", to,
            tm_last_error()->message);
  cr_expect(eq(i64, config.layers, 0), "the output is all zero on error");
}

Test(config, reads_every_number) {
  model_config c;
  cr_assert(eq(int, parse(small, &c), TM_OK), "%s", tm_last_error()->message);
  cr_expect(eq(i64, c.hidden, 64));
  cr_expect(eq(i64, c.intermediate, 128));
  cr_expect(eq(i64, c.layers, 2));
  cr_expect(eq(i64, c.heads, 4));
  cr_expect(eq(i64, c.kv_heads, 2));
  cr_expect(eq(i64, c.head_dim, 16));
  cr_expect(eq(i64, c.max_positions, 512));
  cr_expect(eq(i64, c.vocabulary, 1000));
  cr_expect(eq(int, c.dtype, TM_F16));
  cr_expect(not(c.tied_embeddings));
  cr_expect(not(c.qkv_bias));
  cr_expect(eq(i64, model_qkv_width(&c), 128), "4 heads and 2 * 2 of keys and values, of 16");
  cr_expect(eq(i64, model_kv_bytes_per_token(&c), 256), "2 layers, 2 * 2 heads of 16, 2 bytes");
}

Test(config, what_is_left_out_has_its_default) {
  model_config c;
  cr_assert(eq(int, parse_changed("  \"num_key_value_heads\": 2,\n", "", &c), TM_OK));
  cr_expect(eq(i64, c.kv_heads, 4));
  cr_assert(eq(int, parse_changed("  \"model_type\": \"llama\",\n", "", &c), TM_OK));
  cr_assert(
      eq(int, parse_changed("\"vocab_size\"", "\"head_dim\": null, \"vocab_size\"", &c), TM_OK));
  cr_expect(eq(i64, c.head_dim, 16));
}

Test(config, head_dim_and_the_newer_dtype_key_count) {
  model_config c;
  cr_assert(
      eq(int, parse_changed("\"vocab_size\"", "\"head_dim\": 32, \"vocab_size\"", &c), TM_OK));
  cr_expect(eq(i64, c.head_dim, 32));
  cr_assert(
      eq(int, parse_changed("\"torch_dtype\": \"float16\"", "\"dtype\": \"bfloat16\"", &c), TM_OK));
  cr_expect(eq(int, c.dtype, TM_BF16));
}

Test(config, a_bad_value_is_named_with_its_line) {
  expect_error("\"hidden_size\": 64", "\"hidden_size\": 0",
               "config.json:3: \"hidden_size\" must be an integer from 1 to 16777216, not 0");
  expect_error("\"hidden_size\": 64", "\"hidden_size\": \"64\"", "config.json:3: ");
  expect_error("\"hidden_size\": 64", "\"hidden_size\": 64.5", "not 64.5");
  expect_error("\"vocab_size\": 1000", "\"vocab_size\": 99999999", "config.json:9: ");
  expect_error("\"num_hidden_layers\": 2", "\"num_hidden_layers\": -2", "config.json:5: ");
  expect_error("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", "a divisor of");
  expect_error("\"num_attention_heads\": 4", "\"num_attention_heads\": 6", "a multiple of");
  expect_error("\"float16\"", "\"int4\"", "config.json:10: \"torch_dtype\" must be ");
  expect_error("\"float16\"", "16", "config.json:10: ");
  expect_error("\"llama\"", "\"mamba\"", "config.json:2: \"model_type\" must be ");
  expect_error("\"llama\"", "3", "config.json:2: ");
  expect_error("\"vocab_size\"", "\"tie_word_embeddings\": 1, \"vocab_size\"", "true or false");
}

Test(config, what_is_missing_is_named) {
  expect_error("\"hidden_size\"", "\"hiden_size\"", "config.json: \"hidden_size\" is missing");
  expect_error("\"torch_dtype\"", "\"torch_type\"", "config.json: \"torch_dtype\" is missing");
  expect_error("\"max_position_embeddings\": 512", "\"max_position_embeddings\": null",
               "is missing");
}

Test(config, what_would_be_wrong_in_silence_is_refused) {
  expect_error("\"vocab_size\"", "\"num_local_experts\": 8, \"vocab_size\"", "num_local_experts");
  expect_error("\"vocab_size\"", "\"quantization_config\": {}, \"vocab_size\"",
               "quantization_config");
  expect_error("\"vocab_size\"", "\"attention_bias\": true, \"vocab_size\"", "attention_bias");
  expect_error("\"vocab_size\": 1000", "\"vocab_size\": 1000, \"vocab_size\": 2000", "uplicate");
  expect_error("\"num_hidden_layers\": 2,\n  \"num_attention_heads\": 4",
               "\"num_hidden_layers\": 16777216,\n  \"head_dim\": 16777216,\n"
               "  \"num_attention_heads\": 16777216",
               "together");
}

Test(config, malformed_json_has_its_line) {
  expect_error("  \"vocab_size\": 1000,", "  \"vocab_size\": 1000", "config.json:10: ");
  model_config c;
  cr_expect(eq(int, parse("", &c), TM_ERR_CORRUPT));
  cr_expect(strstr(tm_last_error()->message, "config.json:1: ") != NULL);
  cr_expect(eq(int, parse("[1, 2]", &c), TM_ERR_CORRUPT));
  cr_expect(strstr(tm_last_error()->message, "no object") != NULL);
  cr_expect(eq(int, model_config_parse("{\"a\": \"\0\"}", 10, "nul.json", &c), TM_ERR_CORRUPT));
}

Test(config, files_that_cannot_be_read_say_why) {
  model_config c;
  cr_expect(eq(int, model_config_read("/nowhere/config.json", &c), TM_ERR_NOT_FOUND));
  cr_expect(strstr(tm_last_error()->message, "/nowhere/config.json: No such file") != NULL);
  cr_expect(eq(int, model_config_read("/", &c), TM_ERR_IO));
}

Test(config, reads_a_file) {
  char path[] = "/tmp/config_test_XXXXXX";
  const int file = mkstemp(path);
  cr_assert(file >= 0);
  cr_assert(eq(int, (int)write(file, small, strlen(small)), (int)strlen(small)));
  close(file);
  model_config c;
  cr_expect(eq(int, model_config_read(path, &c), TM_OK));
  cr_expect(eq(i64, c.vocabulary, 1000));
  unlink(path);
}

// The parameters that each model's card, or its safetensors index, states.
static const struct {
  const char* name;
  int64_t parameters;
  int64_t layers;
  int64_t max_positions;
} published[] = {
    {"llama-2-7b", 6738415616, 32, 4096},   {"llama-3-8b", 8030261248, 32, 8192},
    {"llama-3-70b", 70553706496, 80, 8192}, {"mistral-7b", 7241732096, 32, 32768},
    {"qwen2.5-7b", 7615616512, 28, 131072},
};

Test(config, builtin_models_have_their_published_numbers) {
  const size_t count = sizeof(published) / sizeof(published[0]);
  cr_expect(eq(sz, builtin_model_count(), count));
  for (size_t i = 0; i < count; i++) {
    model_config c;
    cr_assert(builtin_model_find(published[i].name, &c), "%s", tm_last_error()->message);
    cr_expect(eq(i64, model_parameters(&c), published[i].parameters), "%s", published[i].name);
    cr_expect(eq(i64, model_weight_bytes(&c), 2 * published[i].parameters));
    cr_expect(eq(i64, c.layers, published[i].layers));
    cr_expect(eq(i64, c.max_positions, published[i].max_positions));
  }
}

Test(config, an_unknown_builtin_is_not_found) {
  model_config c;
  cr_expect(not(builtin_model_find("gpt-2", &c)));
}
