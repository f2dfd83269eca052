"""@local_cuda: the CUDA toolkit of this machine, or a repository that says there is none.

The toolkit is looked for in $CUDA_HOME and then in /usr/local/cuda. `@local_cuda//:toolkit.bzl`
tells the rules what was found; `@local_cuda//:cudart` is the real runtime, linked statically, and
`@local_cuda//:cudart_shared` the same as a shared library, if the toolkit has it.
"""

_BUILD_WITH_TOOLKIT = """
load("@rules_cc//cc:defs.bzl", "cc_library")

package(default_visibility = ["//visibility:public"])

# Only what cuda_runtime_api.h reaches: all of include/ has thousands of files, and every one of
# them would be linked into every sandbox.
cc_library(
    name = "headers",
    hdrs = glob([
        "include/*.h",
        "include/*.hpp",
        "include/crt/**",
    ]),
    includes = ["include"],
)

cc_library(
    name = "cudart",
    srcs = ["lib/libcudart_static.a"],
    linkopts = [
        "-ldl",
        "-lpthread",
        "-lrt",
    ],
    deps = [":headers"],
)
"""

_BUILD_WITH_SHARED_RUNTIME = """
cc_library(
    name = "cudart_shared",
    srcs = ["lib/{name}"],
    deps = [":headers"],
)
"""

_BUILD_WITHOUT_SHARED_RUNTIME = """
alias(
    name = "cudart_shared",
    actual = ":cudart",
)
"""

_BUILD_WITHOUT_TOOLKIT = """
load("@rules_cc//cc:defs.bzl", "cc_library")

package(default_visibility = ["//visibility:public"])

constraint_setting(name = "toolkit")

# No platform has this value: what asks for it is skipped.
constraint_value(
    name = "missing",
    constraint_setting = ":toolkit",
)

cc_library(
    name = "headers",
    target_compatible_with = [":missing"],
)

cc_library(
    name = "cudart",
    target_compatible_with = [":missing"],
)

alias(
    name = "cudart_shared",
    actual = ":cudart",
)
"""

def _find(ctx, root, candidates):
    for candidate in candidates:
        path = ctx.path(root + "/" + candidate)
        if path.exists:
            return path
    return None

def _shared_runtime(cudart):
    """Returns the file of the shared runtime beside the static one, under its soname, or None."""
    for file in cudart.dirname.readdir():
        version = file.basename[len("libcudart.so."):]
        if file.basename.startswith("libcudart.so.") and version.isdigit():
            return file
    return None

def _architectures(ctx, nvcc):
    """Returns the numbers of the architectures that nvcc generates code for, e.g. ["80", "90"]."""
    result = ctx.execute([nvcc, "--list-gpu-code"])
    if result.return_code != 0:
        fail("%s --list-gpu-code failed: %s" % (nvcc, result.stderr))
    return [line[len("sm_"):] for line in result.stdout.splitlines() if line.startswith("sm_")]

def _local_cuda_impl(ctx):
    found = None
    for root in [ctx.os.environ.get("CUDA_HOME", ""), "/usr/local/cuda"]:
        if not root:
            continue
        nvcc = _find(ctx, root, ["bin/nvcc"])
        include = _find(ctx, root, ["targets/x86_64-linux/include", "targets/sbsa-linux/include", "include"])
        cudart = _find(ctx, root, [
            "targets/x86_64-linux/lib/libcudart_static.a",
            "targets/sbsa-linux/lib/libcudart_static.a",
            "lib64/libcudart_static.a",
            "lib/libcudart_static.a",
        ])
        if nvcc and include and cudart and ctx.path(str(include) + "/cuda_runtime_api.h").exists:
            found = struct(root = root, nvcc = nvcc, include = include, cudart = cudart)
            break
    if found:
        ctx.symlink(found.include, "include")
        ctx.symlink(found.cudart, "lib/libcudart_static.a")
        shared = _shared_runtime(found.cudart)
        if shared:
            ctx.symlink(shared, "lib/" + shared.basename)
            ctx.file("BUILD", _BUILD_WITH_TOOLKIT + _BUILD_WITH_SHARED_RUNTIME.format(name = shared.basename))
        else:
            ctx.file("BUILD", _BUILD_WITH_TOOLKIT + _BUILD_WITHOUT_SHARED_RUNTIME)
        architectures = _architectures(ctx, found.nvcc)
    else:
        ctx.file("BUILD", _BUILD_WITHOUT_TOOLKIT)
        architectures = []
    ctx.file("toolkit.bzl", """
TOOLKIT = struct(
    found = {found},
    root = {root},
    nvcc = {nvcc},
    architectures = {architectures},
)
""".format(
        found = found != None,
        root = repr(found.root if found else ""),
        nvcc = repr(str(found.nvcc) if found else ""),
        architectures = repr(architectures),
    ))

local_cuda_repository = repository_rule(
    implementation = _local_cuda_impl,
    environ = ["CUDA_HOME"],
    local = True,
    configure = True,
)
