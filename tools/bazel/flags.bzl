"""Build settings of our own."""

def _string_flag_impl(ctx):
    value = ctx.build_setting_value
    if ctx.attr.values and value not in ctx.attr.values:
        fail("%s is %r, but must be one of %s" % (ctx.label, value, ", ".join(ctx.attr.values)))
    return [StringFlagInfo(value = value)]

StringFlagInfo = provider(
    doc = "The value of a string_flag, for rules that read it.",
    fields = ["value"],
)

string_flag = rule(
    implementation = _string_flag_impl,
    attrs = {"values": attr.string_list(doc = "what is allowed; empty: anything")},
    build_setting = config.string(flag = True),
)
