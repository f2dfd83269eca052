"""Tests of the code base itself: which layers see which, and what compiles without a warning."""

load("@local_cuda//:toolkit.bzl", "TOOLKIT")
load("//tools/bazel:compatibility.bzl", "ANY_BACKEND")

# These tests come out the same in every configuration, so that one is enough for .ci/run.
_TAGS = ["config_independent"]

def assert_no_dependency(name, target, dependency, tags = [], **kwargs):
    """A test that `target` depends on nothing in the package of `dependency`, however indirectly.

    Args:
      name: the test
      target: a label, e.g. "//alloc"
      dependency: a label, e.g. "//context"; it must exist, so that a typing error is noticed. All
        targets of its package, and of those below it, are meant.
      tags: as for every test
      **kwargs: as for sh_test
    """
    package = dependency.split(":")[0]
    if not package.startswith("//") or package == "//":
        fail("dependency is %r, but must be a label with a package, such as //context" % dependency)
    native.genquery(
        name = name + "_path",
        testonly = True,
        expression = "somepath({target}, filter('^{package}[:/]', deps({target})))".format(
            package = package,
            target = target,
        ),
        opts = ["--noimplicit_deps"],
        scope = [
            target,
            dependency,
        ],
        # Under --config=cuda without a toolkit this must be skipped like everything else.
        target_compatible_with = ANY_BACKEND,
    )
    native.sh_test(
        name = name,
        size = "small",
        srcs = ["//tools/bazel:assert_empty.sh"],
        args = [
            "$(rootpath :%s_path)" % name,
            target,
            package,
        ],
        data = [":%s_path" % name],
        tags = tags + _TAGS,
        target_compatible_with = ANY_BACKEND,
        **kwargs
    )

def _include_folders(ctx, compilation):
    """Returns the folders a user has on the include path, relative to the runfiles."""
    roots = [ctx.bin_dir.path + "/", ctx.genfiles_dir.path + "/"]
    result = []
    for folder in compilation.includes.to_list():
        for root in roots:
            if folder.startswith(root):
                folder = folder[len(root):]
        result.append(folder)
    return result

def _public_headers(folders, deps):
    """Returns how the public headers of `deps` themselves are included, e.g. "<tm/alloc/stack.h>"."""
    result = {}
    for dep in deps:
        for header in dep[CcInfo].compilation_context.direct_public_headers:
            for folder in folders:
                if header.short_path.startswith(folder + "/"):
                    result["<%s>" % header.short_path[len(folder) + 1:]] = True
    return result.keys()

def _compiles_clean_test_impl(ctx):
    compilation = cc_common.merge_cc_infos(
        cc_infos = [dep[CcInfo] for dep in ctx.attr.deps],
    ).compilation_context
    folders = _include_folders(ctx, compilation)
    if ctx.file.src:
        files = [ctx.file.src.short_path]
    else:
        files = _public_headers(folders, ctx.attr.deps)
        if not files:
            fail("%s: deps have no public headers, and there is no src" % ctx.label)

    # What is compiled is what a user gets: no path but those that hold public headers.
    arguments = [",".join(ctx.attr.compilers)] + ["-I" + folder for folder in folders] + ["--"] + files
    script = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.write(
        output = script,
        is_executable = True,
        content = "#!/bin/bash\nNVCC='{nvcc}' exec {runner} {arguments}\n".format(
            arguments = " ".join(["'%s'" % argument for argument in arguments]),
            nvcc = TOOLKIT.nvcc,
            runner = ctx.executable._runner.short_path,
        ),
    )
    sources = [ctx.file.src] if ctx.file.src else []
    return [DefaultInfo(
        executable = script,
        runfiles = ctx.runfiles(
            files = sources + [ctx.executable._runner] + ctx.files.data,
            transitive_files = compilation.headers,
        ),
    )]

_compiles_clean_test = rule(
    implementation = _compiles_clean_test_impl,
    attrs = {
        "compilers": attr.string_list(),
        "data": attr.label_list(allow_files = True),
        "deps": attr.label_list(providers = [CcInfo]),
        "src": attr.label(allow_single_file = True),
        "_runner": attr.label(
            default = "//tools/bazel:compiles_clean.sh",
            allow_single_file = True,
            cfg = "exec",
            executable = True,
        ),
    },
    test = True,
)

_COMPILERS = [
    "gcc",
    "g++",
    "clang",
    "clang++",
    "nvcc",
]

def compiles_clean(name, deps, src = None, compilers = _COMPILERS, tags = [], **kwargs):
    """A test that something compiles without a warning the way a user compiles it.

    Flags are -O2 -Wall -Wextra -Wshadow -Werror, and C++17 where the compiler is one of C++. The
    only include paths are those of the public headers of `deps`. A compiler that is not installed
    is named as skipped, except gcc and g++, which every machine that builds tmcore has.

    Args:
      name: the test
      deps: libraries whose public headers are on the include path
      src: a source; without it, every public header of the `deps` themselves, each on its own
      compilers: some of gcc, g++, clang, clang++, nvcc
      tags: as for every test
      **kwargs: size, data
    """
    for compiler in compilers:
        if compiler not in _COMPILERS:
            fail("%s: no such compiler: %r" % (name, compiler))
    _compiles_clean_test(
        name = name,
        src = src,
        compilers = compilers,
        tags = tags + _TAGS,
        target_compatible_with = ANY_BACKEND,
        deps = deps,
        **kwargs
    )
