"""The build rules of tmcore. BUILD files load them from here and from nowhere else."""

load("//tools/bazel:bundle.bzl", _bundle = "bundle", _test_programs = "test_programs")
load("//tools/bazel:cc.bzl", _tm_cc_binary = "tm_cc_binary", _tm_cc_library = "tm_cc_library", _tm_cc_test = "tm_cc_test", _tm_fuzz_test = "tm_fuzz_test", _tm_plain_test = "tm_plain_test")
load("//tools/bazel:checks.bzl", _assert_no_dependency = "assert_no_dependency", _compiles_clean = "compiles_clean")
load("//tools/bazel:cuda.bzl", _tm_cuda_library = "tm_cuda_library", _tm_cuda_object = "tm_cuda_object", _tm_cuda_ptx = "tm_cuda_ptx")
load("//tools/bazel:optimized.bzl", _all_objects = "all_objects", _headers_only = "headers_only", _optimized_binary = "optimized_binary")

all_objects = _all_objects
assert_no_dependency = _assert_no_dependency
bundle = _bundle
compiles_clean = _compiles_clean
headers_only = _headers_only
optimized_binary = _optimized_binary
test_programs = _test_programs
tm_cc_binary = _tm_cc_binary
tm_cc_library = _tm_cc_library
tm_cc_test = _tm_cc_test
tm_cuda_library = _tm_cuda_library
tm_cuda_object = _tm_cuda_object
tm_cuda_ptx = _tm_cuda_ptx
tm_fuzz_test = _tm_fuzz_test
tm_plain_test = _tm_plain_test
