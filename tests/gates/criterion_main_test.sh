#!/bin/bash
# A Criterion program fails when it should, and reports what Bazel and .ci/run add up.
set -uo pipefail

cd tests/gates || exit 1
sanitizer=$(./planted_sanitizer) || exit 1
log=$TEST_TMPDIR/log
export XML_OUTPUT_FILE=$TEST_TMPDIR/report.xml
unset TESTBRIDGE_TEST_ONLY
failed=0

# expect STATUS PROGRAM: STATUS is passes or fails. The report is that of this program.
expect() {
  rm -f "$XML_OUTPUT_FILE"
  local status=fails
  "./planted_$2" > "$log" 2>&1 && status=passes
  if [[ $status != "$1" ]]; then
    echo "planted_$2 $status under the sanitizer '$sanitizer', but should not. Its output:"
    cat "$log"
    failed=1
  fi
}

# expect_cases COUNT PATTERN: so many test cases of the report match.
expect_cases() {
  local count
  count=$(grep -cE "$2" "$XML_OUTPUT_FILE")
  if [[ $count -ne $1 ]]; then
    echo "$count lines of the report match $2, but should be $1:"
    cat "$XML_OUTPUT_FILE"
    failed=1
  fi
}

expect passes passing
expect_cases 4 'testcase .*status="PASSED"'

expect fails failing
expect_cases 1 'testcase name="passes" .*"PASSED"'
expect_cases 1 'testcase name="fails" .*"FAILED"'
expect_cases 1 'testcase name="is_skipped" .*"SKIPPED"'
expect_cases 1 'testcase name="crashes" .*"ERRORED"'

# The filter takes suite/name, or a name.
TESTBRIDGE_TEST_ONLY='planted/pass*' expect passes failing
expect_cases 1 'testcase .*status="PASSED"'
TESTBRIDGE_TEST_ONLY=fails expect fails failing
TESTBRIDGE_TEST_ONLY=nothing_is_called_so expect passes failing

expect fails empty
TEST_TIMEOUT=1 expect fails hanging
grep -q 'planted::hangs' "$log" || { echo "the test that hangs is not named"; cat "$log"; failed=1; }

case $sanitizer in
  address) expect fails leaking ;;
  thread) expect fails racing ;;
  *) expect passes leaking ;;
esac
exit "$failed"
