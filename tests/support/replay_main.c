// Runs a fuzz target once on each file it is given, so that a corpus is a test on every machine.

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

// C as well as C++ fuzz targets declare it so; libFuzzer has no header for it.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

static int replay(const char* path) {
  FILE* file = fopen(path, "rb");
  if (!file || fseek(file, 0, SEEK_END) != 0) {
    perror(path);
    if (file) fclose(file);
    return 1;
  }
  long size = ftell(file);
  rewind(file);
  // Exactly as large as the input, so that ASan sees a read behind its end.
  uint8_t* data = size < 0 ? NULL : malloc((size_t)size);
  int failed = !data || fread(data, 1, (size_t)size, file) != (size_t)size;
  fclose(file);
  if (failed) {
    fprintf(stderr, "%s: cannot be read\n", path);
  } else {
    printf("%s: %ld bytes\n", path, size);
    LLVMFuzzerTestOneInput(data, (size_t)size);
  }
  free(data);
  return failed;
}

int main(int argc, char** argv) {
  if (argc < 2) {
    fprintf(stderr, "No corpus: %s FILE...\n", argc ? argv[0] : "replay");
    return 1;
  }
  int failed = 0;
  for (int i = 1; i < argc; i++) failed |= replay(argv[i]);
  return failed;
}
