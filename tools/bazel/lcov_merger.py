#!/usr/bin/python3
"""What `bazel coverage` runs: turns one test's gcov data into lcov, and merges the tests' reports.

After each test:  lcov_merger.py --coverage_dir=DIR --output_file=FILE ...
At the end:       lcov_merger.py --reports_file=LIST --output_file=FILE

Bazel's own tool for this is a Java program that it would download.
"""

import argparse
import collections
import json
import os
import re
import subprocess
import sys

VIRTUAL_INCLUDE = re.compile(r"^bazel-out/[^/]+/bin/(.*?)/?_virtual_includes/[^/]+/tm/(.*)$")


class Report:
    """Execution counts: of each line, function and branch of each source."""

    def __init__(self):
        self.lines = collections.defaultdict(collections.Counter)
        self.functions = collections.defaultdict(collections.Counter)
        self.function_lines = {}
        self.branches = collections.defaultdict(collections.Counter)

    def add_gcov(self, document):
        for entry in document["files"]:
            source = source_path(entry["file"])
            if source is None:
                continue
            for function in entry["functions"]:
                name = function["name"]
                self.functions[source][name] += function["execution_count"]
                self.function_lines[source, name] = function["start_line"]
            for line in entry["lines"]:
                number = line["line_number"]
                self.lines[source][number] += line["count"]
                for index, branch in enumerate(line["branches"]):
                    self.branches[source][number, index] += branch["count"]

    def add_lcov(self, lines):
        source = None
        for line in lines:
            key, _, value = line.rstrip("\n").partition(":")
            if key == "SF":
                source = value
            elif key == "DA":
                number, count = value.split(",")[:2]
                self.lines[source][int(number)] += int(count)
            elif key == "FN":
                number, name = value.split(",", 1)
                self.function_lines[source, name] = int(number)
            elif key == "FNDA":
                count, name = value.split(",", 1)
                self.functions[source][name] += int(count)
            elif key == "BRDA":
                number, _, index, count = value.split(",")
                self.branches[source][int(number), int(index)] += 0 if count == "-" else int(count)

    def write(self, out):
        for source in sorted(self.lines):
            lines = self.lines[source]
            functions = self.functions[source]
            branches = self.branches[source]
            print(f"SF:{source}", file=out)
            for name in sorted(functions):
                print(f"FN:{self.function_lines[source, name]},{name}", file=out)
            for name in sorted(functions):
                print(f"FNDA:{functions[name]},{name}", file=out)
            print(f"FNF:{len(functions)}\nFNH:{hit(functions)}", file=out)
            for number, index in sorted(branches):
                print(f"BRDA:{number},0,{index},{branches[number, index]}", file=out)
            print(f"BRF:{len(branches)}\nBRH:{hit(branches)}", file=out)
            for number in sorted(lines):
                print(f"DA:{number},{lines[number]}", file=out)
            print(f"LH:{hit(lines)}\nLF:{len(lines)}\nend_of_record", file=out)


def hit(counts):
    return sum(1 for count in counts.values() if count > 0)


def source_path(path):
    """Returns the path in the repository, or None for what is not ours."""
    path = os.path.normpath(path)
    match = VIRTUAL_INCLUDE.match(path)
    if match:
        package, header = match.groups()
        in_package = header.startswith(package + "/")
        path = header if in_package else os.path.join(package, os.path.basename(header))
    if path.startswith(("/", "external/", "bazel-out/")):
        return None
    return path


def gcov_documents(coverage_dir):
    gcov = os.environ.get("COVERAGE_GCOV_PATH", "gcov")
    for folder, _, names in os.walk(coverage_dir):
        for name in names:
            data = os.path.join(folder, name)
            if not name.endswith(".gcda") or not os.path.exists(data[: -len("gcda")] + "gcno"):
                continue
            # Not the files that Bazel's script made: those of two sources with one name overwrite
            # each other.
            result = subprocess.run(
                [gcov, "--json-format", "--stdout", "--branch-probabilities", data],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                check=False,
            )
            if result.returncode != 0:
                sys.exit(f"{gcov} {data}: {result.stderr.decode(errors='replace')}")
            for line in result.stdout.splitlines():
                yield json.loads(line)


def main():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--coverage_dir")
    parser.add_argument("--reports_file")
    parser.add_argument("--output_file", required=True)
    options, _ = parser.parse_known_args()

    report = Report()
    if options.coverage_dir:
        for document in gcov_documents(options.coverage_dir):
            report.add_gcov(document)
    if options.reports_file:
        with open(options.reports_file, encoding="utf-8") as paths:
            for path in paths.read().split():
                # Bazel lists its own baseline files too: sources, without a count.
                with open(path, encoding="utf-8") as lines:
                    report.add_lcov(lines)
    with open(options.output_file, "w", encoding="utf-8") as out:
        report.write(out)


if __name__ == "__main__":
    main()
