#!/bin/bash
# tools/test_summary.py counts what there is, and is red whenever anything is wrong.
set -uo pipefail

cd "$TEST_TMPDIR" || exit 1
summary=$TEST_SRCDIR/$TEST_WORKSPACE/tools/test_summary.py
failed=0

event_result() {  # LABEL STATUS REPORT
  echo '{"id":{"testResult":{"label":"'"$1"'","run":1,"shard":1,"attempt":1}},' \
    '"testResult":{"status":"'"$2"'","testActionOutput":[{"name":"test.xml","uri":"file://'"$3"'"}]}}'
}

event_finished() {  # EXIT CODE
  echo '{"id":{"buildFinished":{}},"finished":{"exitCode":{"name":"'"$1"'"}}}'
}

# expect STATUS LINE ARGUMENT...: the exit status and the last line.
expect() {
  local status=$1 line=$2 actual_status actual
  shift 2
  actual=$(/usr/bin/python3 "$summary" "$@")
  actual_status=$?
  if [[ $actual_status -ne $status || ${actual##*$'\n'} != "$line" ]]; then
    echo "test_summary.py $* should end with $status and '$line', but ended with $actual_status:"
    echo "$actual"
    failed=1
  fi
}

cat > mixed.xml << 'XML'
<testsuites><testsuite name="s">
  <testcase name="a" status="PASSED"></testcase>
  <testcase name="b" status="SKIPPED"><skipped/></testcase>
  <testcase name="c" status="FAILED"><failure type="assert"/></testcase>
  <testcase name="d" status="ERRORED"><error type="crash"/></testcase>
</testsuite></testsuites>
XML
echo '<testsuites><testsuite><testcase name="p"/><testcase name="q"/></testsuite></testsuites>' > good.xml
echo '<testsuites/>' > none.xml
echo '<testsuites><testsuite>' > broken.xml

good() { event_result //t:good PASSED "$PWD/good.xml"; }

{ good; event_finished SUCCESS; } > good.json
expect 0 "2 passed, 0 failed, 0 skipped" a=good.json
expect 0 "4 passed, 0 failed, 0 skipped" a=good.json b=good.json
expect 1 "2 passed, 1 failed, 0 skipped" a=good.json --failed lint

{ good; event_result //t:mixed FAILED "$PWD/mixed.xml"; event_finished TESTS_FAILED; } > mixed.json
expect 1 "3 passed, 2 failed, 1 skipped" a=mixed.json
expect 1 "5 passed, 2 failed, 1 skipped" a=mixed.json b=good.json

# A program that failed, though its cases did not: a leak at its exit, or no test in it.
{ event_result //t:good FAILED "$PWD/good.xml"; event_finished TESTS_FAILED; } > exit.json
expect 1 "2 passed, 1 failed, 0 skipped" a=exit.json

# The build did not get through, or Bazel did not start.
{ good; event_finished BUILD_FAILURE; } > build.json
expect 1 "2 passed, 1 failed, 0 skipped" a=build.json
good > killed.json
expect 1 "2 passed, 1 failed, 0 skipped" a=killed.json
expect 1 "0 passed, 1 failed, 0 skipped" a=absent.json

# A report that is not there, or not XML.
{ event_result //t:gone PASSED "$PWD/gone.xml"; event_result //t:broken PASSED "$PWD/broken.xml"
  event_finished SUCCESS; } > reports.json
expect 1 "0 passed, 2 failed, 0 skipped" a=reports.json

# Nothing ran.
{ event_result //t:none PASSED "$PWD/none.xml"; event_finished SUCCESS; } > none.json
expect 1 "0 passed, 0 failed, 0 skipped" a=none.json
expect 1 "0 passed, 0 failed, 0 skipped"

# A test that this configuration cannot have; a library of the kind does not count.
{
  good
  for name in cu_test cu_library; do
    echo '{"id":{"targetConfigured":{"label":"//t:'$name'"}},"configured":{"targetKind":"cc_'${name#cu_}' rule"}}'
    echo '{"id":{"targetCompleted":{"label":"//t:'$name'"}},"aborted":{"reason":"SKIPPED"}}'
  done
  event_finished SUCCESS
} > skipped.json
expect 0 "2 passed, 0 failed, 1 skipped" a=skipped.json

exit "$failed"
