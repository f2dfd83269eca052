#!/usr/bin/python3
"""Instructions per operation, counted by callgrind: repeatable where nanoseconds are not.

    instructions.py PROGRAM --committed FILE      fails where one grew by more than 10 % over FILE
    instructions.py PROGRAM --committed FILE --update       writes FILE
    instructions.py PROGRAM --committed FILE --cpp          fails where C++ needs more than C
    instructions.py PROGRAM --all                 prints them all, C beside C++
    instructions.py PROGRAM --profile OPERATION   prints which functions they are in

PROGRAM is count_instructions. Counts hold for one compiler: under another, with a sanitizer, or
without valgrind, the checks say so and pass. The exit status is 1 where a check fails, 2 where the
program cannot be counted.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

# What an engine does thousands of times per step, and is watched for.
HOT = (
    "scope",
    "two_scopes",
    "lookup",
    "named_scope",
    "stack_tensor",
    "layer",
    "share",
    "slice",
    "view",
    "transpose",
)
COUNT = 10000  # start-up and the call of the loop do not show
MOST_GROWTH = 1.10
ROUNDING = 0.05  # counts are printed with one decimal
ALIGNMENT = 1.02  # how far memcpy differs with where the thread's stack is


def skip(reason):
    print(f"instructions: SKIPPED: {reason}")
    sys.exit(0)


def fail(reason):
    print(f"instructions: {reason}", file=sys.stderr)
    sys.exit(2)


def costs_of(profile):
    """Returns what a profile of callgrind says: {function: instructions} of the functions' own, and
    {number: instructions} of the functions measured<number> with all that they call."""
    names = {}
    own = {}
    inclusive = {}
    function = called = None
    is_call = False
    for line in profile.splitlines():
        match = re.match(r"(c?fn)=\((\d+)\)(?: (.*))?$", line)
        if match:
            kind, number, name = match.groups()
            if name:
                names[number] = name
            if kind == "fn":
                function = names[number]
            else:
                called = re.search(r"\bmeasured<(\d+)", names[number])
        elif line.startswith("calls="):
            is_call = True
        elif re.match(r"[+*\d-]\S* \d+$", line):
            cost = int(line.split()[1])
            if not is_call:
                own[function] = own.get(function, 0) + cost
            elif called:
                inclusive[int(called[1])] = inclusive.get(int(called[1]), 0) + cost
            is_call = False
    return own, inclusive


def run(command):
    """Returns what it prints."""
    # valgrind leaves no room for the simulated device's usual 80 GiB of addresses.
    environment = {**os.environ, "CUDASIM_MEMORY": "256MiB"}
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment
        )
    except OSError as error:
        fail(f"{command[0]}: {error.strerror}")
    if result.returncode != 0:
        last = "\n".join(result.stderr.splitlines()[-20:])
        fail(f"{' '.join(command)}: exit status {result.returncode}\n{last}")
    return result.stdout


def describe(program):
    """Returns what it was compiled with, and its operations as {(set, operation): number}."""
    compiler, *lines = run([program, "1"]).splitlines()
    rows = [line.split("\t") for line in lines]
    return compiler, {(name, operation): int(number) for number, name, operation in rows}


def profile_of(program, *options):
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "callgrind.out"
        tool = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", *options]
        run([*tool, program, str(COUNT)])
        return out.read_text()


def count(program, numbers):
    """Returns {set: {operation: instructions}}, without those of the loop."""
    _, costs = costs_of(profile_of(program))
    loop = costs[numbers["yardstick", "nothing"]]
    sets = {}
    for (name, operation), number in numbers.items():
        sets.setdefault(name, {})[operation] = round((costs[number] - loop) / COUNT, 1)
    return sets


def print_profile(program, numbers, operation):
    """Prints in which functions the instructions of an operation are."""
    if ("tmcore", operation) not in numbers:
        fail(f"{operation} is none of " + ", ".join(o for name, o in numbers if name == "tmcore"))
    measured = f"*measured<{numbers['tmcore', operation]}*"
    own, _ = costs_of(profile_of(program, f"--toggle-collect={measured}"))
    for function, cost in sorted(own.items(), key=lambda item: -item[1]):
        if cost >= COUNT:
            print(f"{cost / COUNT:9.1f}  {function}")


def read_committed(path):
    """Returns the compiler and {operation: instructions}."""
    compiler = None
    counts = {}
    for line in path.read_text().splitlines():
        if line.startswith("compiler: "):
            compiler = line[len("compiler: ") :]
        elif line and not line.startswith("#"):
            operation, instructions = line.split()
            counts[operation] = float(instructions)
    if compiler is None or set(counts) != set(HOT):
        fail(f"{path}: not the compiler and the {len(HOT)} operations that --update writes")
    return compiler, counts


def write_committed(path, compiler, ours):
    # Under `bazel run` the file is a link into the source tree, or beside it.
    workspace = os.environ.get("BUILD_WORKSPACE_DIRECTORY")
    target = pathlib.Path(workspace) / path if workspace else path
    lines = [
        "# Instructions per operation, at -O2. An operation of `layer` is one of its ten tensors.",
        "# A test fails where one grows by more than 10 % under this compiler. To write it again:",
        "# ./bazelw run //tests/bench:instructions -- --update",
        f"compiler: {compiler}",
    ]
    lines += [f"{operation:<16}{ours[operation]:8.1f}" for operation in HOT]
    target.write_text("\n".join(lines) + "\n")
    print(f"instructions: wrote {target}")


def print_counts(sets):
    cpp = sets["tmcore.hpp"]
    print(f"{'':<22}{'C':>9}{'C++':>9}")
    for name in ("yardstick", "tmcore"):
        for operation, instructions in sets[name].items():
            beside = cpp.get(operation, "") if name == "tmcore" else ""
            print(f"{operation:<22}{instructions:9.1f}{beside:>9}")


def check_growth(committed, ours):
    """Prints both; returns whether none grew."""
    grown = []
    print(f"{'':<22}{'committed':>10}{'now':>9}")
    for operation in HOT:
        print(f"{operation:<22}{committed[operation]:10.1f}{ours[operation]:9.1f}")
        if ours[operation] > committed[operation] * MOST_GROWTH + ROUNDING:
            grown.append(operation)
    for operation in grown:
        print(f"instructions: FAILED: {operation} grew by more than 10 %")
    if any(ours[operation] * MOST_GROWTH < committed[operation] for operation in HOT):
        print("instructions: some shrank: ./bazelw run //tests/bench:instructions -- --update")
    return not grown


def check_threads(ours, on_thread):
    """Returns whether a second thread, in its own context, needs the same."""
    differ = [
        name
        for name in HOT
        if on_thread[name] > ours[name] * ALIGNMENT + 2 * ROUNDING
        or ours[name] > on_thread[name] * ALIGNMENT + 2 * ROUNDING
    ]
    for name in differ:
        print(
            f"instructions: FAILED: {name} needs {ours[name]} instructions on the first thread "
            f"and {on_thread[name]} on a second"
        )
    return not differ


def check_cpp(ours, cpp):
    """Prints both; returns whether C++ needs no more."""
    worse = []
    print(f"{'':<22}{'C':>9}{'C++':>9}")
    for operation, instructions in cpp.items():
        print(f"{operation:<22}{ours[operation]:9.1f}{instructions:9.1f}")
        # The compiler gives registers as it likes: one instruction in fifty is its own.
        if instructions > 1.02 * ours[operation] + ROUNDING:
            worse.append(operation)
    for operation in worse:
        print(f"instructions: FAILED: C++ needs more for {operation}")
    return not worse


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--committed", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--cpp", action="store_true")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--profile", metavar="OPERATION")
    arguments = parser.parse_args()
    checks = not (arguments.update or arguments.all or arguments.profile)
    if not (arguments.committed or arguments.all or arguments.profile):
        parser.error("one of --committed, --all and --profile is needed")
    if not shutil.which("valgrind"):
        (skip if checks else fail)("valgrind is not installed")
    if os.environ.get("COVERAGE_DIR"):
        skip("what coverage adds would be counted")
    compiler, numbers = describe(arguments.program)
    if "sanitizer" in compiler:
        (skip if checks else fail)(f"it was compiled by {compiler}")
    if arguments.profile:
        print_profile(arguments.program, numbers, arguments.profile)
        return
    sets = count(arguments.program, numbers)
    ours = sets["tmcore"]
    if arguments.all:
        print(compiler)
        print_counts(sets)
        return
    if arguments.update:
        write_committed(arguments.committed, compiler, ours)
        return
    holds_for, committed = read_committed(arguments.committed)
    if not arguments.cpp and not check_threads(ours, sets["tmcore (thread)"]):
        sys.exit(1)
    if compiler != holds_for:
        skip(f"the counts hold for {holds_for}, and this is {compiler}")
    passed = check_cpp(ours, sets["tmcore.hpp"]) if arguments.cpp else check_growth(committed, ours)
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
