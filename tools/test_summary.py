#!/usr/bin/python3
"""Adds up the test cases of several `bazel test` runs and prints one closing line.

    tools/test_summary.py NAME=EVENTS... [--failed WHAT]...

NAME is what to call the run, EVENTS the file that its --build_event_json_file wrote. The events say
which reports belong to the run, so reports of earlier ones, which Bazel leaves lying, count nothing.

A Criterion test program counts once for each of its cases, any other once. A test that this
configuration cannot have (no GPU toolkit, say) counts as skipped. A program that failed without a
failed case, and a run that did not get through its build, count as one failure each, as does each
WHAT. The exit status is 0 if nothing failed and something passed.
"""

import argparse
import json
import sys
import urllib.parse
import urllib.request
import xml.etree.ElementTree

# Exit codes of Bazel whose run is fully told by its tests.
TOLD_BY_TESTS = ("SUCCESS", "TESTS_FAILED")


class Count:
    def __init__(self):
        self.passed = 0
        self.failed = 0
        self.skipped = 0
        self.problems = []

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.problems += other.problems

    def fail(self, problem):
        self.failed += 1
        self.problems.append(problem)

    def __str__(self):
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def count_report(label, path, program_passed):
    """Counts the cases of one test program."""
    count = Count()
    try:
        cases = list(xml.etree.ElementTree.parse(path).iter("testcase"))
    except (OSError, xml.etree.ElementTree.ParseError) as error:
        count.fail(f"{label}: its report cannot be read: {error}")
        return count
    for case in cases:
        if case.find("failure") is not None or case.find("error") is not None:
            count.fail(f"{label}: {case.get('name')}")
        elif case.find("skipped") is not None or case.get("status") == "SKIPPED":
            count.skipped += 1
        else:
            count.passed += 1
    if not program_passed and count.failed == 0:
        count.fail(f"{label}: failed, although none of its cases did")
    return count


def count_run(name, path):
    """Counts one run of Bazel."""
    tests = set()
    attempts = {}  # of each shard of each test, the last one
    count = Count()
    exit_code = None
    try:
        with open(path, encoding="utf-8") as lines:
            events = [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        count.fail(f"{name}: Bazel did not say what it did: {error}")
        return count
    for event in events:
        identity = event["id"]
        if "configured" in event and event["configured"]["targetKind"].endswith("_test rule"):
            tests.add(identity["targetConfigured"]["label"])
        elif "testResult" in event:
            result = identity["testResult"]
            attempts[result["label"], result["run"], result["shard"]] = event["testResult"]
        elif "aborted" in event and "targetCompleted" in identity:
            label = identity["targetCompleted"]["label"]
            if label in tests and event["aborted"]["reason"] == "SKIPPED":
                count.skipped += 1
        elif "finished" in event:
            exit_code = event["finished"]["exitCode"]["name"]
    for (label, _, _), result in sorted(attempts.items()):
        status = result["status"]
        report = [o["uri"] for o in result.get("testActionOutput", []) if o["name"] == "test.xml"]
        if report:
            path = urllib.request.url2pathname(urllib.parse.urlparse(report[0]).path)
            count.add(count_report(f"{name}: {label}", path, status == "PASSED"))
        else:
            count.fail(f"{name}: {label}: {status}, without a report")
    if exit_code not in TOLD_BY_TESTS:
        count.fail(f"{name}: Bazel ended with {exit_code}")
    elif exit_code == "TESTS_FAILED" and count.failed == 0:
        count.fail(f"{name}: Bazel says that tests failed")
    return count


def main():
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", metavar="NAME=EVENTS")
    parser.add_argument("--failed", action="append", default=[], metavar="WHAT")
    options = parser.parse_args()

    total = Count()
    for run in options.runs:
        name, _, path = run.partition("=")
        count = count_run(name, path)
        print(f"{name + ':':24}{count}")
        total.add(count)
    for what in options.failed:
        total.fail(what)
    if total.passed == 0:
        total.problems.append("nothing passed")
    for problem in total.problems:
        print(f"FAILED {problem}")
    print(total)
    return 0 if total.failed == 0 and total.passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
