"""C and C++ targets with tmcore's warnings, language standards and include paths."""

load("@rules_cc//cc:defs.bzl", "cc_binary", "cc_library", "cc_test")
load("//tools/bazel:bundle.bzl", "check_test_program")
load("//tools/bazel:compatibility.bzl", "ANY_BACKEND", "NEEDS_CUDA")

_COPTS = [
    "-Wall",
    "-Wextra",
    "-Wshadow",
    # Public symbols are marked TM_API; everything else stays inside a shared library.
    "-fvisibility=hidden",
]

_C_COPTS = _COPTS + [
    "-std=gnu11",
    "-Wstrict-prototypes",
    # A C++ exception that crosses a C frame closes the scopes in it only with unwind tables.
    "-fexceptions",
] + select({
    "//tools/bazel:clang": [],
    "//conditions:default": ["-Wjump-misses-init"],
})

_CXX_COPTS = _COPTS + ["-std=c++17"]

_CXX_EXTENSIONS = (".cc", ".cpp", ".cxx")

def _copts(name, srcs):
    """Returns the flags for the language of `srcs`, which must be one language."""
    if type(srcs) != type([]):
        return _C_COPTS  # a select(): C, since C++ is written out in the few places that have it
    cxx = [src for src in srcs if src.endswith(_CXX_EXTENSIONS)]
    c = [src for src in srcs if src.endswith(".c")]
    if c and cxx:
        fail("%s mixes C (%s) and C++ (%s): make two targets, the flags differ" % (name, c[0], cxx[0]))
    return _CXX_COPTS if cxx else _C_COPTS

def _compatible(needs_cuda):
    return NEEDS_CUDA if needs_cuda else ANY_BACKEND

def tm_cc_library(
        name,
        hdrs = [],
        srcs = [],
        deps = [],
        include_prefix = None,
        copts = [],
        needs_cuda = False,
        **kwargs):
    """A library whose headers are included as "tm/<package>/<header>".

    Args:
      name: the target
      hdrs: public headers
      srcs: sources and private headers, all C or all C++
      deps: libraries
      include_prefix: another folder for the headers, e.g. "tm" for tm/check.h
      copts: further compiler flags
      needs_cuda: exists only under --config=cuda
      **kwargs: as for cc_library
    """
    if include_prefix == None:
        include_prefix = "tm/" + native.package_name() if native.package_name() else "tm"
    cc_library(
        name = name,
        hdrs = hdrs,
        srcs = srcs,
        include_prefix = include_prefix,
        copts = _copts(name, srcs) + copts,
        # Hidden symbols are shared between our libraries, so each cannot be a .so of its own.
        linkstatic = True,
        target_compatible_with = _compatible(needs_cuda),
        deps = deps,
        **kwargs
    )

def tm_cc_binary(name, srcs, deps = [], copts = [], needs_cuda = False, **kwargs):
    """A program. Arguments as for cc_binary, and `needs_cuda` as for tm_cc_library."""
    cc_binary(
        name = name,
        srcs = srcs,
        copts = _copts(name, srcs) + copts,
        target_compatible_with = _compatible(needs_cuda),
        deps = deps,
        **kwargs
    )

def tm_plain_test(name, srcs, deps = [], copts = [], tags = [], needs_cuda = False, **kwargs):
    """A test with a main of its own that says by its exit status whether it passed."""
    check_test_program(name, tags)
    cc_test(
        name = name,
        srcs = srcs,
        copts = _copts(name, srcs) + copts,
        linkstatic = True,
        tags = tags + (["needs_cuda"] if needs_cuda else []),
        target_compatible_with = _compatible(needs_cuda),
        deps = deps,
        **kwargs
    )

def tm_cc_test(name, srcs, deps = [], copts = [], linkopts = [], needs_cuda = False, **kwargs):
    """A Criterion test: the main, the XML report and the test filter come with it."""
    tm_plain_test(
        name = name,
        srcs = srcs,
        copts = copts,
        # Nothing refers to the section in which Criterion registers its tests: garbage collection,
        # which is on in optimized builds, would drop them all and the program would pass.
        linkopts = linkopts + ["-Wl,--no-gc-sections"],
        needs_cuda = needs_cuda,
        deps = deps + ["//tests/support:criterion_main"],
        **kwargs
    )

def tm_fuzz_test(name, srcs, corpus, deps = [], copts = [], linkopts = [], **kwargs):
    """A fuzz target (LLVMFuzzerTestOneInput) that is a test of its corpus unless --config=fuzz.

    Args:
      name: the target; under --config=fuzz it looks for new inputs for half a minute, starting from
        the corpus, and `bazel run` takes libFuzzer's flags and a folder to keep the inputs in
      srcs: the sources
      corpus: files that the test replays, each once; at least one
      deps: libraries
      copts: further compiler flags
      linkopts: further linker flags
      **kwargs: as for cc_test
    """
    paths = ["$(rootpath %s)" % file for file in corpus]
    tm_plain_test(
        name = name,
        srcs = srcs,
        args = select({
            "//tools/bazel:with_libfuzzer": [
                "-max_total_time=30",
                # Given as files, they would be all that it runs.
                "-seed_inputs=" + ",".join(paths),
            ],
            "//conditions:default": paths,
        }),
        data = corpus,
        copts = copts,
        linkopts = linkopts + select({
            "//tools/bazel:with_libfuzzer": ["-fsanitize=fuzzer"],
            "//conditions:default": [],
        }),
        deps = deps + select({
            "//tools/bazel:with_libfuzzer": [],
            "//conditions:default": ["//tests/support:replay_main"],
        }),
        **kwargs
    )
