"""The repositories that tmcore's build refers to, every one of them made from the local machine."""

load("//tools/bazel:builtin_rules.bzl", "coverage_tools_repository", "rules_cc_repository", "rules_java_repository")
load("//tools/bazel:local_cuda.bzl", "local_cuda_repository")
load("//tools/bazel:local_packages.bzl", "local_package_repository")

def tmcore_repositories():
    """Declares them all; a workspace that uses tmcore calls this too."""
    declared = native.existing_rules()
    if "rules_cc" not in declared:
        rules_cc_repository(name = "rules_cc")
    if "rules_java" not in declared:
        rules_java_repository(name = "rules_java")
    if "remote_coverage_tools" not in declared:
        coverage_tools_repository(name = "remote_coverage_tools")
    local_cuda_repository(name = "local_cuda")
    local_package_repository(
        name = "criterion",
        header = "criterion/criterion.h",
        linkopts = ["-lcriterion"],
        package = "libcriterion-dev",
    )
    local_package_repository(
        name = "jansson",
        header = "jansson.h",
        linkopts = ["-ljansson"],
        package = "libjansson-dev",
    )
    local_package_repository(
        name = "uthash",
        header = "uthash.h",
        linkopts = [],  # a header alone
        package = "uthash-dev",
    )
    local_package_repository(
        name = "google_benchmark",
        header = "benchmark/benchmark.h",
        linkopts = ["-lbenchmark", "-lpthread"],
        package = "libbenchmark-dev",
    )

    # Peers in the benchmarks.
    local_package_repository(
        name = "talloc",
        header = "talloc.h",
        linkopts = ["-ltalloc"],
        optional = True,
        package = "libtalloc-dev",
    )
    local_package_repository(
        name = "torch",
        header = "ATen/ATen.h",
        linkopts = ["-ltorch_cpu", "-lc10"],
        optional = True,
        package = "libtorch-dev",
    )
