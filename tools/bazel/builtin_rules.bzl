"""Stand-ins for repositories that Bazel 4 downloads at its first build.

A repository of the same name declared in WORKSPACE wins over Bazel's own declaration, so these few
lines are what makes a build without network possible.
"""

def _reexport(names):
    return "\n".join(["%s = native.%s" % (name, name) for name in names]) + "\n"

def _rules_cc_impl(ctx):
    ctx.file("BUILD", "")
    ctx.file("cc/BUILD", """
alias(
    name = "toolchain_type",
    actual = "@bazel_tools//tools/cpp:toolchain_type",
    visibility = ["//visibility:public"],
)
""")
    ctx.file("cc/defs.bzl", _reexport([
        "cc_binary",
        "cc_import",
        "cc_library",
        "cc_proto_library",
        "cc_test",
        "cc_toolchain",
        "cc_toolchain_suite",
        "objc_library",
    ]))

rules_cc_repository = repository_rule(
    implementation = _rules_cc_impl,
    doc = "@rules_cc: the C++ rules that are built into Bazel 4, under the name newer Bazels load.",
)

def _rules_java_impl(ctx):
    ctx.file("BUILD", "")
    ctx.file("java/BUILD", "")
    ctx.file("java/defs.bzl", _reexport([
        "java_binary",
        "java_import",
        "java_runtime",
        "java_toolchain",
    ]))

rules_java_repository = repository_rule(
    implementation = _rules_java_impl,
    doc = "@rules_java: @bazel_tools loads it, although nothing here is written in Java.",
)

def _coverage_tools_impl(ctx):
    ctx.symlink(ctx.path(Label("//tools/bazel:lcov_merger.py")), "lcov_merger.py")
    ctx.file("BUILD", """
package(default_visibility = ["//visibility:public"])

filegroup(
    name = "coverage_report_generator",
    srcs = ["lcov_merger.py"],
)

filegroup(
    name = "lcov_merger",
    srcs = ["lcov_merger.py"],
)
""")

coverage_tools_repository = repository_rule(
    implementation = _coverage_tools_impl,
    doc = "@remote_coverage_tools: what `bazel coverage` runs to gather and merge line counts.",
)
