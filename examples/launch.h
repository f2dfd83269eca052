// What the example kernels share: where they may run, and how a launch is queued.
#ifndef TM_EXAMPLES_LAUNCH_H_
#define TM_EXAMPLES_LAUNCH_H_

#include <tm/tm.h>

#include <initializer_list>

// A function that is compiled for kernels and for the host.
#ifdef __CUDACC__
#define HOST_DEVICE __host__ __device__
#else
#define HOST_DEVICE
#endif

// That all tensors lie on the stream's device.
inline tm_status check_device(const char* who, std::initializer_list<const tm_tensor*> tensors,
                              const tm_stream* stream) {
  if (!tm_stream_handle(stream)) {  // a launch would take that for the default stream
    return TM_RAISE(TM_ERR_INVALID, "%s: no stream to launch on%s", who,
                    stream ? ": it was disowned" : "");
  }
  const tm_device there = tm_stream_device(stream);
  for (const tm_tensor* tensor : tensors) {
    if (!tm_device_equal(tm_device_of(tensor), there)) {
      char here_text[TM_DEVICE_TEXT_SIZE];
      char there_text[TM_DEVICE_TEXT_SIZE];
      tm_device_text(tm_device_of(tensor), here_text, sizeof here_text);
      tm_device_text(there, there_text, sizeof there_text);
      return TM_RAISE(TM_ERR_INVALID, "%s: a tensor on %s, the stream is on %s", who, here_text,
                      there_text);
    }
  }
  return TM_OK;
}

// That two tensors have one shape.
inline tm_status check_same_shape(const char* who, const tm_tensor* a, const tm_tensor* b) {
  const tm_shape left = tm_shape_of(a);
  const tm_shape right = tm_shape_of(b);
  if (tm_shape_equal(&left, &right)) {
    return TM_OK;
  }
  char left_text[TM_SHAPE_TEXT_SIZE];
  char right_text[TM_SHAPE_TEXT_SIZE];
  tm_shape_text(&left, left_text, sizeof left_text);
  tm_shape_text(&right, right_text, sizeof right_text);
  return TM_RAISE(TM_ERR_INVALID, "%s: shapes differ: %s and %s", who, left_text, right_text);
}

// That no two elements share memory: threads write them in any order.
inline tm_status check_written(const char* who, const tm_tensor* out) {
  if (tm_layout_is_injective(&out->layout)) {
    return TM_OK;
  }
  char text[TM_LAYOUT_TEXT_SIZE];
  tm_layout_text(&out->layout, text, sizeof text);
  return TM_RAISE(TM_ERR_INVALID, "%s: elements of the output %s share memory", who, text);
}

// Whether one of them is in dry memory, which no kernel may touch.
inline bool any_is_dry(std::initializer_list<const tm_tensor*> tensors) {
  for (const tm_tensor* tensor : tensors) {
    if (tm_is_dry(tensor)) {
      return true;
    }
  }
  return false;
}

// Whether kernels may use 32-bit offsets into all of them.
inline bool fit_int32(std::initializer_list<const tm_tensor*> tensors) {
  for (const tm_tensor* tensor : tensors) {
    tm_accessor accessor;
    if (tm_accessor_make(tensor, tm_dtype_of(tensor), tm_rank(tensor), &accessor) != TM_OK ||
        !tm_fits_int32(&accessor)) {
      return false;
    }
  }
  return true;
}

#ifdef __CUDACC__

// Makes a stream's device the thread's current one, as a launch needs it, and puts it back.
class on_device_of {
 public:
  explicit on_device_of(const tm_stream* stream) {
    if (cudaGetDevice(&before_) != cudaSuccess ||
        cudaSetDevice(tm_stream_device(stream).id) != cudaSuccess) {
      before_ = -1;
    }
  }
  on_device_of(const on_device_of&) = delete;
  on_device_of& operator=(const on_device_of&) = delete;
  ~on_device_of() {
    if (before_ >= 0) {
      (void)cudaSetDevice(before_);
    }
  }

 private:
  int before_ = -1;
};

// What has become of a launch; clears CUDA's record of it.
inline tm_status launched(const char* who) {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? TM_OK
                              : TM_RAISE(TM_ERR_CUDA, "%s: %s", who, cudaGetErrorString(error));
}

#endif

#endif  // TM_EXAMPLES_LAUNCH_H_
