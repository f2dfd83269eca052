"""Libraries that the system's package manager installed, as repositories."""

# /usr/local comes first, as it does for the compilers.
_PREFIXES = ["/usr/local/include", "/usr/include"]

def _local_package_impl(ctx):
    found = False
    for prefix in _PREFIXES:
        if ctx.path(prefix + "/" + ctx.attr.header).exists:
            found = True
            break
    if not found and not ctx.attr.optional:
        fail("\n".join([
            "",
            "<%s> is not on this machine: install the package %s." % (ctx.attr.header, ctx.attr.package),
            "On Debian and Ubuntu: apt-get install %s, or build with ./bazelw, which does it." % ctx.attr.package,
        ]))
    ctx.file("BUILD", """
load("@rules_cc//cc:defs.bzl", "cc_library")

# The headers lie on the compilers' own search path, so there is nothing to declare but the library.
cc_library(
    name = "{name}",
    linkopts = {linkopts},
    visibility = ["//visibility:public"],
)
""".format(name = ctx.name, linkopts = repr(ctx.attr.linkopts if found else [])))

local_package_repository = repository_rule(
    implementation = _local_package_impl,
    attrs = {
        "header": attr.string(mandatory = True, doc = "a header that shows that the package is installed"),
        "linkopts": attr.string_list(mandatory = True),
        "optional": attr.bool(doc = "where it is not installed, the library is empty: sources ask __has_include"),
        "package": attr.string(mandatory = True, doc = "its name in Debian and Ubuntu"),
    },
    # Looked at again in every invocation's server start, so that installing the package is enough.
    local = True,
    configure = True,
)
