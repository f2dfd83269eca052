#!/usr/bin/env python3
"""Looks whether the tests made every allocation of the library's own fail.

  tools/allocation_sites.py [FOLDER]

The library takes memory for itself by tm_bookkeeping_alloc, and each call says what for. The tests
that let allocations fail one after another (tests/support/failing.h) print which one it was; FOLDER
has their logs, bazel-testlogs unless said otherwise. Prints the calls that no test made fail, and
those whose words another call has as well; fails where there is one.
"""

import collections
import pathlib
import re
import sys

FOLDERS = ("base", "alloc", "context", "tensor")
CALL = re.compile(r'tm_bookkeeping_alloc\((?:[^;"])*?"([^"]*)"')
PRINTED = re.compile(r"allocation made to fail: (.*)")


def sites(root):
    """The words of each call, with the files it stands in."""
    found = collections.defaultdict(list)
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.[ch]")):
            for words in CALL.findall(path.read_text(encoding="utf-8")):
                found[words].append(str(path.relative_to(root)))
    return found


def made_to_fail(logs):
    """The words of the calls that a test has made fail."""
    found = set()
    for path in logs.rglob("test.log"):
        found.update(PRINTED.findall(path.read_text(encoding="utf-8", errors="replace")))
    return found


def main():
    if len(sys.argv) > 2 or (len(sys.argv) == 2 and sys.argv[1].startswith("-")):
        print(__doc__, file=sys.stderr)
        return 2
    root = pathlib.Path(__file__).resolve().parent.parent
    logs = pathlib.Path(sys.argv[1]) if len(sys.argv) == 2 else root / "bazel-testlogs"
    if not logs.is_dir():
        print(f"{logs}: there are no logs of tests; run ./bazelw test //... first", file=sys.stderr)
        return 2
    calls = sites(root)
    failed = made_to_fail(logs.resolve())
    missing = [words for words in calls if words not in failed]
    shared = [words for words, files in calls.items() if len(files) > 1]
    for words in missing:
        print(f'{calls[words][0]}: no test made "{words}" fail')
    for words in shared:
        print(f'{" and ".join(calls[words])}: two calls say "{words}"')
    print(f"allocations of the library made to fail: {len(calls) - len(missing)} of {len(calls)}")
    return 1 if missing or shared or not calls else 0


if __name__ == "__main__":
    sys.exit(main())
