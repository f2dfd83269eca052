"""Optimized programs in any build; the parts of libraries that a shared library is made of and used by."""

def _optimize_impl(_settings, _attr):
    return {"//command_line_option:compilation_mode": "opt"}

_optimize = transition(
    implementation = _optimize_impl,
    inputs = [],
    outputs = ["//command_line_option:compilation_mode"],
)

def _optimized_binary_impl(ctx):
    program = ctx.attr.binary[0]
    out = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.symlink(
        output = out,
        target_file = program[DefaultInfo].files_to_run.executable,
        is_executable = True,
    )
    return [DefaultInfo(
        executable = out,
        runfiles = ctx.runfiles([out]).merge(program[DefaultInfo].default_runfiles),
    )]

optimized_binary = rule(
    doc = "`binary` as -c opt builds it, for tests that count what an optimized program does.",
    implementation = _optimized_binary_impl,
    executable = True,
    attrs = {
        "binary": attr.label(cfg = _optimize, executable = True, mandatory = True),
        "_allowlist_function_transition": attr.label(
            default = "@bazel_tools//tools/allowlists/function_transition_allowlist",
        ),
    },
)

def _headers_only_impl(ctx):
    return [CcInfo(compilation_context = ctx.attr.target[CcInfo].compilation_context)]

headers_only = rule(
    doc = "What `target` is compiled with, for programs that are linked with a shared library of it.",
    implementation = _headers_only_impl,
    attrs = {"target": attr.label(mandatory = True, providers = [CcInfo])},
)

def _all_objects_impl(ctx):
    objects = []
    for linked in ctx.attr.target[CcInfo].linking_context.linker_inputs.to_list():
        for library in linked.libraries:
            objects += library.pic_objects
    if not objects:
        fail("%s: %s has no position-independent objects" % (ctx.label, ctx.attr.target.label))
    return [DefaultInfo(files = depset(objects))]

all_objects = rule(
    doc = "The objects of `target` and all below it, as sources of a shared library: all of them are " +
          "linked, not only those that something refers to.",
    implementation = _all_objects_impl,
    attrs = {"target": attr.label(mandatory = True, providers = [CcInfo])},
)
