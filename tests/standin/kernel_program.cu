// A program with kernels and variables of the device, as nvcc compiles it. It prints what becomes
// of them.
#include <cuda_runtime.h>

#include <cstdio>
#include <vector>

__device__ int offset[2];
__constant__ float factor;
__managed__ int shared_with_host;

__global__ void scale(float* p, int count, float by) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) p[i] = p[i] * by * factor + offset[0] + shared_with_host;
}

template <typename T>
__global__ void unknown(T* p) {
  *p = T();
}

static float* on_device(const std::vector<float>& values) {
  float* p = nullptr;
  size_t bytes = values.size() * sizeof(float);
  if (cudaMalloc(&p, bytes) != cudaSuccess) return nullptr;
  cudaMemcpy(p, values.data(), bytes, cudaMemcpyHostToDevice);
  return p;
}

static void say(const char* what, cudaError_t error) {
  std::printf("%s: %s\n", what, cudaGetErrorName(error));
}

int main() {
  std::vector<float> values(1000, 2.F);
  float* p = on_device(values);
  scale<<<16, 64>>>(p, 1000, 3.F);
  say("scale", cudaGetLastError());
  unknown<<<1, 1>>>(p);
  say("unknown", cudaGetLastError());
  cudaMemcpy(values.data(), p, values.size() * sizeof(float), cudaMemcpyDeviceToHost);
  std::printf("values: %g %g\n", values[0], values[999]);

  const int given[2] = {3, 4};
  int taken[2] = {0, 0};
  void* address = nullptr;
  size_t size = 0;
  say("to symbol", cudaMemcpyToSymbol(offset, given, sizeof(given)));
  say("from symbol", cudaMemcpyFromSymbol(taken, offset, sizeof(int), sizeof(int)));
  say("beyond symbol", cudaMemcpyToSymbol(offset, given, sizeof(given), 1));
  say("address", cudaGetSymbolAddress(&address, factor));
  say("size", cudaGetSymbolSize(&size, offset));
  shared_with_host = 5;
  std::printf("taken: %d, size: %zu, address: %d, managed: %d\n", taken[0], size,
              address != nullptr, shared_with_host);
  cudaFree(p);
  return 0;
}
