"""Archives of test programs that run on a machine with neither Bazel nor our packages."""

load("//tools/bazel:compatibility.bzl", "ANY_BACKEND")

# Packages whose test programs go into the bundle; each ends in test_programs.
BUNDLED_PACKAGES = [
    "tests/alloc",
    "tests/base",
    "tests/context",
    "tests/cpp",
    "tests/engine",
    "tests/examples",
    "tests/stress",
    "tests/tensor",
    "tests/tools",
    "tests/trace",
    "tests/turbomind",
]

# And those whose do not, with the reason.
_UNBUNDLED_PACKAGES = {
    "tests/cudasim": "they test the simulator",
    "tests/fuzz": "they replay a corpus, which is the same on every machine",
    "tests/gates": "they have planted bugs",
    "tests/layers": "what they test is their compilation",
    "tests/standin": "they run on the simulator",
}

_TARGET = "test_programs"

TestProgramsInfo = provider(
    doc = "The test programs of a package.",
    fields = {
        "alone": "of these, those that run alone on a device",
        "programs": "their files, a list",
    },
)

def check_test_program(name, tags):
    """Fails where the test program `name`, which is about to be declared, would be left out.

    Args:
      name: the target
      tags: its tags
    """
    package = native.package_name()
    if native.repository_name() != "@" + Label("//tools/bazel:defs.bzl").workspace_name:
        return  # somebody else's workspace
    if package in _UNBUNDLED_PACKAGES or "manual" in tags:
        return
    if package not in BUNDLED_PACKAGES:
        fail(("//%s:%s: does it belong on a GPU machine? Add the package to BUNDLED_PACKAGES or to " +
              "_UNBUNDLED_PACKAGES in //tools/bazel:bundle.bzl.") % (package, name))
    if native.existing_rule(_TARGET):
        fail("//%s:%s must be above test_programs, which would not see it" % (package, name))

def _test_programs_impl(ctx):
    runfiles = ctx.runfiles()
    for test in ctx.attr.tests + ctx.attr.alone:
        runfiles = runfiles.merge(test[DefaultInfo].default_runfiles)
    alone = [test[DefaultInfo].files_to_run.executable for test in ctx.attr.alone]
    programs = [test[DefaultInfo].files_to_run.executable for test in ctx.attr.tests] + alone
    return [
        DefaultInfo(files = depset(programs), runfiles = runfiles),
        TestProgramsInfo(programs = programs, alone = alone),
    ]

_test_programs = rule(
    implementation = _test_programs_impl,
    attrs = {
        "alone": attr.label_list(),
        "tests": attr.label_list(),
    },
)

def test_programs(name):
    """The test programs of the package for the bundle: at the end of its BUILD file.

    A test that fills a device or measures its free memory has the tag "alone_on_device": the bundle
    runs nothing beside it.

    Args:
      name: "test_programs"
    """
    package = native.package_name()
    if name != _TARGET:
        fail("//%s: the bundle looks for %s, not for %s" % (package, _TARGET, name))
    if package not in BUNDLED_PACKAGES:
        fail("//%s is not in BUNDLED_PACKAGES of //tools/bazel:bundle.bzl" % package)
    everywhere = []
    with_cuda = []
    alone = []
    for test, rule in native.existing_rules().items():
        if rule["kind"] != "cc_test" or "manual" in rule["tags"]:
            continue
        if rule["args"]:
            fail("//%s:%s: the bundle runs programs without arguments" % (package, test))
        if "alone_on_device" in rule["tags"]:
            if "needs_cuda" in rule["tags"]:
                fail("//%s:%s: alone_on_device is for tests of every backend" % (package, test))
            alone.append(test)
        elif "needs_cuda" in rule["tags"]:
            with_cuda.append(test)
        else:
            everywhere.append(test)
    if not everywhere + alone:
        fail("//%s has no test program" % package)
    _test_programs(
        name = name,
        testonly = True,
        alone = sorted(alone),
        tags = ["manual"],
        target_compatible_with = ANY_BACKEND,
        tests = sorted(everywhere) + select({
            "//tools/bazel:with_cuda": sorted(with_cuda),
            "//conditions:default": [],
        }),
        visibility = ["//tests:__subpackages__"],
    )

def _share_cuda_impl(_settings, _attr):
    return {"//tools/bazel:cuda_linkage": "shared"}

# The runtime and the kernels weigh several MiB, and would be in every program.
_share_cuda = transition(
    implementation = _share_cuda_impl,
    inputs = [],
    outputs = ["//tools/bazel:cuda_linkage"],
)

def _programs(dep):
    if TestProgramsInfo in dep:
        return dep[TestProgramsInfo].programs
    return [dep[DefaultInfo].files_to_run.executable]

def _bundle_impl(ctx):
    kinds = {}  # of each file: test, alone, program or data
    runfiles = []
    for kind, deps in [
        ("test", ctx.attr.tests + ctx.attr.tests_sharing_cuda),
        ("program", ctx.attr.programs + ctx.attr.programs_sharing_cuda),
    ]:
        for dep in deps:
            runfiles.append(dep[DefaultInfo].default_runfiles.files)
            for program in _programs(dep):
                kinds[program] = kind
            if TestProgramsInfo in dep:
                for program in dep[TestProgramsInfo].alone:
                    kinds[program] = "alone"
    for file in depset(transitive = runfiles).to_list():
        if file not in kinds:
            kinds[file] = "data"

    manifest = ctx.actions.declare_file(ctx.label.name + ".manifest")
    ctx.actions.write(
        output = manifest,
        content = "".join([
            "%s\t%s\t%s\n" % (kind, file.short_path, file.path)
            for file, kind in kinds.items()
        ]),
    )
    archive = ctx.actions.declare_file(ctx.label.name + ".tar.gz")
    ctx.actions.run(
        executable = ctx.executable._packer,
        arguments = [archive.path, ctx.label.name, ctx.file.run.path, manifest.path],
        inputs = kinds.keys() + [ctx.file.run, manifest],
        outputs = [archive],
        mnemonic = "Bundle",
        progress_message = "Packing %s" % archive.short_path,
        use_default_shell_env = True,
        # It is large, made in seconds, and has libraries of this machine in it.
        execution_requirements = {"no-cache": "1"},
    )
    return [DefaultInfo(
        files = depset([archive]),
        runfiles = ctx.runfiles(files = [archive]),
    )]

_bundle = rule(
    implementation = _bundle_impl,
    attrs = {
        "programs": attr.label_list(),
        "programs_sharing_cuda": attr.label_list(cfg = _share_cuda),
        "run": attr.label(allow_single_file = True, mandatory = True),
        "tests": attr.label_list(),
        "tests_sharing_cuda": attr.label_list(cfg = _share_cuda),
        "_allowlist_function_transition": attr.label(
            default = "@bazel_tools//tools/allowlists/function_transition_allowlist",
        ),
        "_packer": attr.label(
            default = "//tools/bazel:bundle.sh",
            allow_single_file = True,
            cfg = "exec",
            executable = True,
        ),
    },
)

def _split(deps, share_cuda):
    """Returns the value of an attribute without the transition, and of the one with it."""
    if not share_cuda:
        return deps, []
    return select({
        "//tools/bazel:with_cuda": [],
        "//conditions:default": deps,
    }), select({
        "//tools/bazel:with_cuda": deps,
        "//conditions:default": [],
    })

def bundle(name, run, tests, programs = [], share_cuda = True, **kwargs):
    """NAME.tar.gz: programs, stripped, with their data and every shared library but glibc's.

    Its one folder, NAME, is laid out like this repository, with the libraries in lib/ and the names of
    the tests in test_programs, where "alone" stands behind those that must run alone.

    Args:
      name: the target
      run: the script that becomes NAME/run
      tests: test_programs of packages, and programs that are tests
      programs: programs that are none
      share_cuda: under --config=cuda, whether all share the CUDA runtime and our kernels; everything
        is then compiled for this bundle alone
      **kwargs: tags, visibility
    """
    own_tests, sharing_tests = _split(tests, share_cuda)
    own_programs, sharing_programs = _split(programs, share_cuda)
    _bundle(
        name = name,
        testonly = True,
        run = run,
        tests = own_tests,
        tests_sharing_cuda = sharing_tests,
        programs = own_programs,
        programs_sharing_cuda = sharing_programs,
        target_compatible_with = ANY_BACKEND,
        **kwargs
    )
