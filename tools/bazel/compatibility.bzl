"""Which targets exist under which backend, as values for target_compatible_with."""

load("@local_cuda//:toolkit.bzl", "TOOLKIT")

_NEVER = ["//tools/bazel:incompatible"]

# --config=cuda on a machine without a toolkit: nothing can be built.
ANY_BACKEND = select({
    "//tools/bazel:with_cuda": [] if TOOLKIT.found else _NEVER,
    "//conditions:default": [],
})

# Needs nvcc, and is compiled for either backend.
NEEDS_TOOLKIT = [] if TOOLKIT.found else _NEVER

# Needs the real runtime: launches kernels, or tests the device itself.
NEEDS_CUDA = select({
    "//tools/bazel:with_cuda": [] if TOOLKIT.found else _NEVER,
    "//conditions:default": _NEVER,
})

# Prints what a program does on the simulated device.
NEEDS_CUDASIM = select({
    "//tools/bazel:with_cuda": _NEVER,
    "//conditions:default": [],
})
