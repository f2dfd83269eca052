#include "engine/builtin_models.h"

#include <string.h>

static const struct {
  const char* name;
  const char* text;
} models[] = {
#include "tools/engine/builtin_model_texts.inc"
};

size_t builtin_model_count(void) { return sizeof(models) / sizeof(models[0]); }

const char* builtin_model_name(size_t index) { return models[index].name; }

bool builtin_model_find(const char* name, model_config* out) {
  for (size_t i = 0; i < builtin_model_count(); i++) {
    if (strcmp(models[i].name, name) == 0) {
      return model_config_parse(models[i].text, strlen(models[i].text), name, out) == TM_OK;
    }
  }
  return false;
}
