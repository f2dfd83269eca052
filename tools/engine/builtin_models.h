// The configs of models/, by name, inside the program.
#ifndef ENGINE_BUILTIN_MODELS_H_
#define ENGINE_BUILTIN_MODELS_H_

#include <stddef.h>

#include "engine/config.h"

// How many there are, and the name of each, from 0.
size_t builtin_model_count(void);
const char* builtin_model_name(size_t index);

// Whether `name` is one of them; then `*out` is its config.
bool builtin_model_find(const char* name, model_config* out);

#endif  // ENGINE_BUILTIN_MODELS_H_
