"""CUDA sources, compiled by the nvcc of @local_cuda with gcc as host compiler."""

load("@local_cuda//:toolkit.bzl", "TOOLKIT")
load("@rules_cc//cc:defs.bzl", "cc_binary", "cc_library")
load("//tools/bazel:compatibility.bzl", "NEEDS_CUDA", "NEEDS_TOOLKIT")
load("//tools/bazel:flags.bzl", "StringFlagInfo")

_DEFAULT_ARCHITECTURES = ["80", "86", "89", "90", "100"]

_HOST_COPTS = [
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-fPIC",
]

def _architectures(flag):
    """Turns the flag's value into nvcc's, e.g. "80,ptx90"."""
    if flag == "default":
        known = [a for a in _DEFAULT_ARCHITECTURES if a in TOOLKIT.architectures]
        if not known:
            fail("nvcc knows none of sm_%s" % ", sm_".join(_DEFAULT_ARCHITECTURES))
        wanted = known + ["ptx" + known[-1]]
    else:
        wanted = flag.split(",")
    result = []
    for item in wanted:
        ptx = item.startswith("ptx")
        number = item[len("ptx"):] if ptx else item
        if number not in TOOLKIT.architectures:
            fail("//tools/bazel:cuda_architectures: %r, but %s knows %s" %
                 (item, TOOLKIT.nvcc, ", ".join(TOOLKIT.architectures)))
        kind = "compute" if ptx else "sm"
        result.append("-gencode=arch=compute_%s,code=%s_%s" % (number, kind, number))
    return result

def _is_simulator(folder):
    return ("/" + folder).endswith("/cudasim/include")

def _oldest_architecture(flag):
    """Returns the flag's first architecture, as nvcc's for PTX."""
    number = _DEFAULT_ARCHITECTURES[0] if flag == "default" else flag.split(",")[0]
    if number.startswith("ptx"):
        number = number[len("ptx"):]
    if number not in TOOLKIT.architectures:
        number = TOOLKIT.architectures[0]
    return "-arch=compute_" + number

def _compile(ctx, what, out):
    """Declares the action that makes `out` of ctx.file.src; `what` are the flags that say what it is."""
    compilation = cc_common.merge_cc_infos(
        cc_infos = [dep[CcInfo] for dep in ctx.attr.deps],
    ).compilation_context
    args = ctx.actions.args()
    args.add_all(what)
    args.add_all(["-x", "cu", "-std=c++17", "-ccbin=g++", "--Werror=all-warnings"])
    args.add_joined("-Xcompiler", _HOST_COPTS, join_with = ",")
    mode = ctx.var["COMPILATION_MODE"]
    args.add_all(["-O2", "-DNDEBUG"] if mode == "opt" else ["-O1"])
    if mode == "dbg":
        args.add("-g")
    args.add_all(ctx.attr.copts)
    args.add("-I.")
    args.add_all(compilation.defines, before_each = "-D")
    args.add_all(compilation.quote_includes, before_each = "-I")
    args.add_all(compilation.includes, before_each = "-I")

    # nvcc's own cuda_runtime.h includes <cuda_runtime_api.h>, which must be the toolkit's here,
    # whatever the libraries below are built with.
    args.add_all(
        [folder for folder in compilation.system_includes.to_list() if not _is_simulator(folder)],
        before_each = "-isystem",
    )
    args.add("-o", out)
    args.add(ctx.file.src)
    ctx.actions.run(
        executable = TOOLKIT.nvcc,
        arguments = [args],
        inputs = depset([ctx.file.src] + ctx.files.hdrs, transitive = [compilation.headers]),
        outputs = [out],
        mnemonic = "CudaCompile",
        progress_message = "Compiling %s" % ctx.file.src.short_path,
        use_default_shell_env = True,
    )

def _tm_cuda_object_impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name + ".o")
    _compile(ctx, ["-c"] + _architectures(ctx.attr._architectures[StringFlagInfo].value), out)
    return [DefaultInfo(files = depset([out]))]

def _tm_cuda_ptx_impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name + ".ptx")
    _compile(ctx, ["-ptx", _oldest_architecture(ctx.attr._architectures[StringFlagInfo].value)], out)
    return [DefaultInfo(
        files = depset([out]),
        runfiles = ctx.runfiles(files = [out]),
    )]

_ATTRIBUTES = {
    "copts": attr.string_list(),
    "deps": attr.label_list(providers = [CcInfo]),
    "hdrs": attr.label_list(allow_files = True),
    "src": attr.label(allow_single_file = [".cu"], mandatory = True),
    "_architectures": attr.label(default = "//tools/bazel:cuda_architectures"),
}

_tm_cuda_object = rule(
    implementation = _tm_cuda_object_impl,
    attrs = _ATTRIBUTES,
)

_tm_cuda_ptx = rule(
    implementation = _tm_cuda_ptx_impl,
    attrs = _ATTRIBUTES,
)

# What nvcc compiles takes it a while, and is the same under flags for the host's compiler:
# --build_tag_filters=-cuda_source leaves it out of a build of everything.
_TAG = "cuda_source"

def tm_cuda_object(name, src, hdrs = [], deps = [], copts = [], tags = [], **kwargs):
    """The object file of one `.cu` source; skipped where there is no toolkit.

    It is compiled for both backends, but only --config=cuda can link it: kernels are registered
    with the real runtime.

    Args:
      name: the target
      src: the source
      hdrs: private headers
      deps: libraries
      copts: further flags for nvcc
      tags: as for any rule
      **kwargs: visibility, testonly
    """
    _tm_cuda_object(
        name = name,
        src = src,
        hdrs = hdrs,
        copts = copts,
        tags = tags + [_TAG],
        target_compatible_with = NEEDS_TOOLKIT,
        deps = deps,
        **kwargs
    )

def tm_cuda_ptx(name, src, hdrs = [], deps = [], copts = [], **kwargs):
    """The PTX of one `.cu` source, NAME.ptx, for tests that look at it; skipped without a toolkit.

    Args:
      name: the target
      src: the source
      hdrs: private headers
      deps: libraries
      copts: further flags for nvcc
      **kwargs: visibility, tags, testonly
    """
    _tm_cuda_ptx(
        name = name,
        src = src,
        hdrs = hdrs,
        copts = copts,
        target_compatible_with = NEEDS_TOOLKIT,
        deps = deps,
        **kwargs
    )

def tm_cuda_library(name, srcs, hdrs = [], private_hdrs = [], deps = [], copts = [], tags = [], include_prefix = None, **kwargs):
    """A library of `.cu` sources, its headers included as "tm/<package>/<header>".

    Args:
      name: the target
      srcs: the sources
      hdrs: public headers
      private_hdrs: headers that only the sources include
      deps: libraries
      copts: further flags for nvcc
      tags: as for any rule
      include_prefix: as for tm_cc_library
      **kwargs: visibility, testonly
    """
    if include_prefix == None:
        include_prefix = "tm/" + native.package_name() if native.package_name() else "tm"
    headers = name + "_headers"
    cc_library(
        name = headers,
        hdrs = hdrs,
        include_prefix = include_prefix,
        target_compatible_with = NEEDS_TOOLKIT,
        deps = deps,
        **kwargs
    )
    objects = []
    for src in srcs:
        objects.append("%s_%s" % (name, src.replace("/", "_").replace(".", "_")))
        tm_cuda_object(
            name = objects[-1],
            src = src,
            hdrs = private_hdrs,
            copts = copts,
            tags = tags,
            deps = [headers],
            **kwargs
        )
    shared = "lib%s_shared.so" % name
    cc_binary(
        name = shared,
        srcs = objects,
        linkshared = True,
        linkopts = ["-lstdc++"],
        tags = tags + [
            "manual",
            _TAG,
        ],
        target_compatible_with = NEEDS_CUDA,
        deps = ["//tools/bazel:cuda_backend"],
        **kwargs
    )
    cc_library(
        name = name,
        srcs = select({
            "//tools/bazel:with_shared_cuda": [shared],
            "//conditions:default": objects,
        }),
        linkstatic = True,
        tags = tags + [_TAG],
        target_compatible_with = NEEDS_TOOLKIT,
        # nvcc's host code is C++.
        linkopts = ["-lstdc++"],
        deps = [
            headers,
            "//tools/bazel:cuda_backend",
        ],
        **kwargs
    )

def _require_cuda_toolkit_impl(ctx):
    stamp = ctx.actions.declare_file(ctx.label.name + ".stamp")
    if ctx.attr.backend == "cuda" and not TOOLKIT.found:
        command = ("echo 'No CUDA toolkit in $CUDA_HOME or /usr/local/cuda: " +
                   "--config=cuda has nothing to build.' >&2; exit 1")
    else:
        command = "touch " + stamp.path
    ctx.actions.run_shell(outputs = [stamp], command = command, mnemonic = "CudaToolkit")
    return [DefaultInfo(files = depset([stamp]))]

_require_cuda_toolkit = rule(
    implementation = _require_cuda_toolkit_impl,
    attrs = {"backend": attr.string(mandatory = True)},
)

def require_cuda_toolkit(name):
    """A target that fails to build under --config=cuda where there is no toolkit."""
    _require_cuda_toolkit(
        name = name,
        backend = select({
            "//tools/bazel:with_cuda": "cuda",
            "//conditions:default": "cudasim",
        }),
    )
