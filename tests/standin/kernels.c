// What stands in for the kernels of kernel_program.cu: loaded by the stand-in library, and linked
// with nothing.
#include <cudasim.h>

static size_t reach(const cudasim_launch* launch, cudasim_range* ranges) {
  float* const* p = launch->arguments[0];
  const int* count = launch->arguments[1];
  ranges[0] = (cudasim_range){.pointer = *p, .bytes = (size_t)*count * sizeof(float)};
  return 1;
}

static void run(const cudasim_launch* launch, dim3 index) {
  const int* count = launch->arguments[1];
  const float* by = launch->arguments[2];
  float* p = launch->memory[0];
  for (unsigned thread = 0; thread < launch->block.x; ++thread) {
    unsigned i = index.x * launch->block.x + thread;
    if (i < (unsigned)*count) p[i] *= *by;
  }
}

static const size_t parameters[] = {sizeof(float*), sizeof(int), sizeof(float)};

const cudasim_kernel cudasim_kernels[] = {
    {"_Z5scalePfif", parameters, 3, reach, run},
    {0},
};
