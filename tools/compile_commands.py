#!/usr/bin/python3
"""Writes compile_commands.json, for clang-tidy and editors, from what Bazel would run.

    tools/compile_commands.py [--output FILE] [BAZEL FLAG...]

The paths in it are relative to the workspace; those under bazel-out exist after a build.
"""

import argparse
import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))

# gcc's own; clang-tidy and clangd stumble over them.
UNKNOWN_TO_CLANG = {
    "-fno-canonical-system-headers",
    "-Wjump-misses-init",
    "-Wno-free-nonheap-object",
    "-Wunused-but-set-parameter",
}


def compile_actions(bazel_flags):
    command = [
        os.path.join(ROOT, "bazelw"),
        "aquery",
        "--output=jsonproto",
        "--ui_event_filters=-info,-warning",
        "--noshow_progress",
        *bazel_flags,
        'mnemonic("CppCompile", //...)',
    ]
    result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=False)
    if result.returncode != 0:
        sys.exit(result.returncode)
    return json.loads(result.stdout).get("actions", [])


def entry(action):
    arguments = [a for a in action["arguments"] if a not in UNKNOWN_TO_CLANG]
    # The repositories beside ours stay there, whatever was built last; bazel-out is a link.
    arguments = ["bazel-out/../../../" + a if a.startswith("external/") else a for a in arguments]
    source = arguments[arguments.index("-c") + 1]
    return {"directory": ROOT, "file": source, "arguments": arguments}


def main():
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__.splitlines()[0])
    parser.add_argument("--output", default=os.path.join(ROOT, "compile_commands.json"))
    options, bazel_flags = parser.parse_known_args()

    entries = [entry(action) for action in compile_actions(bazel_flags)]
    # A source that two targets compile is listed once for each: they may differ in flags.
    unique = {json.dumps(e, sort_keys=True): e for e in entries}
    with open(options.output, "w", encoding="utf-8") as out:
        json.dump(list(unique.values()), out, indent=1)
        out.write("\n")
    print(f"{options.output}: {len(unique)} compilations", file=sys.stderr)


if __name__ == "__main__":
    main()
