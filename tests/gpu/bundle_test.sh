#!/bin/bash
# A bundle runs where there is nothing of ours, counts what there is, and is red when anything is wrong.
#
#   bundle_test.sh ARCHIVE BACKEND
set -uo pipefail

archive=$1
backend=$2
log=$TEST_TMPDIR/log
failed=0

tar -C "$TEST_TMPDIR" -xzf "$archive" || exit 1
bundle=$TEST_TMPDIR/small_bundle
planted=$TEST_TMPDIR/planted_bundle
cp -r "$bundle" "$planted" || exit 1
chmod -R a-w "$bundle"
mkdir "$TEST_TMPDIR/elsewhere" "$TEST_TMPDIR/tmp"
cd "$TEST_TMPDIR/elsewhere" || exit 1

# A runtime that finds no device is no reason to run nothing here.
flags=()
[[ $backend != cuda ]] || flags=(--without-device)

# run BUNDLE ARGUMENT...: in an environment of which nothing but what sanitizers are told is left.
run() {
  env -i PATH=/usr/bin:/bin TMPDIR="$TEST_TMPDIR/tmp" "CS=${CS:-}" "TOOL_FINDS=${TOOL_FINDS:-}" \
    "TESTBRIDGE_TEST_ONLY=${TESTBRIDGE_TEST_ONLY:-}" \
    "ASAN_OPTIONS=${ASAN_OPTIONS:-}" "LSAN_OPTIONS=${LSAN_OPTIONS:-}" "TSAN_OPTIONS=${TSAN_OPTIONS:-}" \
    "$1/run" "${@:2}" > "$log" 2>&1
}

complain() {
  echo "$*"
  sed 's/^/    /' "$log"
  failed=1
}

# expect STATUS LAST-LINE BUNDLE ARGUMENT...
expect() {
  local status=$1 line=$2 actual
  shift 2
  run "$@"
  actual=$?
  if [[ $actual -ne $status || $(tail -n 1 "$log") != "$line" ]]; then
    complain "run ${*:2} should end with $status and '$line', but ended with $actual:"
  fi
}

# and_says TEXT: so did what ran last.
and_says() { grep -qF -- "$1" "$log" || complain "it does not say '$1':"; }

plant() {  # NAME [MARK], and the script without its first line on stdin
  mkdir -p "$planted/tests/planted"
  { echo '#!/bin/bash'; cat; } > "$planted/tests/planted/$1"
  chmod +x "$planted/tests/planted/$1"
  echo "tests/planted/$1${2:+ $2}" >> "$planted/test_programs"
}

#===-- Libraries -----------------------------------------------------------===#

# What is loaded from elsewhere is glibc.
mapfile -t elves < <(find "$bundle" -type f -exec grep -LI '' {} +)
LD_LIBRARY_PATH=$bundle/lib ldd "${elves[@]}" > "$log" || complain "ldd failed:"
others=$(awk -v own="$bundle/lib/" '$2 == "=>" && index($0, own) == 0 { print $1 }' "$log" |
  grep -vE '^lib(c|m|dl|rt|pthread|resolv)\.so\.[0-9]$' | sort -u)
[[ -z $others ]] || { echo "these libraries are not in the bundle:" "$others"; failed=1; }
[[ -e $bundle/lib/libcriterion.so.3 ]] || { echo "Criterion is not in the bundle"; failed=1; }

# shellcheck disable=SC2016  # it is for the planted script to expand
plant loads_from_the_bundle <<< '[[ -e ${LD_LIBRARY_PATH%%:*}/libcriterion.so.3 ]]'
expect 0 "1 passed, 0 failed, 0 skipped" "$planted" "${flags[@]}" loads_from_the_bundle

#===-- Which programs ------------------------------------------------------===#

expect 0 tests/tools/trace_test "$bundle" --list
and_says tests/base/status_test
! grep -q '^tools/tm$' "$log" || complain "tm is no test:"
expect 0 tests/base/status_test "$bundle" --list base/status_test
expect 0 tests/tools/size_text_test "$bundle" --list size_text_test 'tests/base/*'
[[ $(wc -l < "$log") -eq $(($(find "$bundle/tests/base" -name '*_test' | wc -l) + 1)) ]] ||
  complain "these should be one program and all of tests/base:"

expect 2 "run: no program is called 'base/status'; --list prints them" "$bundle" base/status
expect 2 "run: '--lst' is no option; --help lists them" "$bundle" --lst
expect 2 "run: --jobs takes a number from 1, not '0'" "$bundle" --jobs 0
expect 2 "run: --timeout takes a value; --help says more" "$bundle" --timeout
expect 2 "run: --exec takes a program of the bundle, not 'tools/t'" "$bundle" --exec tools/t

#===-- What they did -------------------------------------------------------===#

expect 0 "5 passed, 0 failed, 0 skipped" "$bundle" "${flags[@]}" planted_passing check_cpp_test
expect 1 "5 passed, 2 failed, 1 skipped" "$bundle" "${flags[@]}" --jobs 3 planted_passing planted_failing
and_says "FAILED tests/gates/planted_failing: 2 of its cases failed"
and_says "The expression 0 is false"
expect 1 "0 passed, 1 failed, 0 skipped" "$bundle" "${flags[@]}" planted_empty
and_says "No test was linked into"
expect 1 "0 passed, 1 failed, 0 skipped" "$bundle" "${flags[@]}" --timeout 2 planted_hanging

# One case, which reads its data and starts tm; without a device it is skipped.
export TESTBRIDGE_TEST_ONLY='replay/a_cache_holds_*'
run "$bundle" "${flags[@]}" replay_test
case $backend in
  cuda) and_says " passed, 0 failed, " ;;
  *) and_says "1 passed, 0 failed, " ;;
esac
unset TESTBRIDGE_TEST_ONLY

plant exits <<< 'exit 1'
plant crashes <<< 'kill -SEGV $$'
plant hangs <<< 'sleep 60'
plant is_skipped <<< 'echo "skipped: not here"'
plant ends_midway <<< 'echo "skipped: a case"; exit 3'
expect 1 "0 passed, 1 failed, 0 skipped" "$planted" "${flags[@]}" exits
and_says "FAILED tests/planted/exits: exit status 1"
expect 1 "0 passed, 1 failed, 0 skipped" "$planted" "${flags[@]}" crashes
and_says "FAILED tests/planted/crashes: ended by SIGSEGV"
expect 1 "0 passed, 1 failed, 0 skipped" "$planted" "${flags[@]}" --timeout 1 hangs
and_says "FAILED tests/planted/hangs: timed out after 1 s"
expect 1 "0 passed, 0 failed, 1 skipped" "$planted" "${flags[@]}" is_skipped
and_says "FAILED nothing passed"
expect 1 "4 passed, 2 failed, 1 skipped" "$planted" "${flags[@]}" exits crashes is_skipped planted_passing

expect 1 "0 passed, 1 failed, 0 skipped" "$planted" "${flags[@]}" ends_midway
and_says "FAILED tests/planted/ends_midway: exit status 3"

# Some run together, those that are marked one by one and after them.
grep -qx 'tests/tools/replay_test alone' "$bundle/test_programs" || { echo "replay_test is not alone"; failed=1; }
plant is_alone alone << 'END'
touch alone
[[ $(wc -l < running) == 2 ]] && mkdir busy && sleep 0.5 && rmdir busy
END
plant is_alone_too alone < <(tail -n +2 "$planted/tests/planted/is_alone")
for name in meets_b meets_a; do  # each waits for the other
  plant "$name" << 'END'
echo "$0" >> running
until [[ $(wc -l < running) == 2 ]]; do sleep 0.05; done
sleep 0.5
[[ ! -e alone ]]
END
done
expect 0 "4 passed, 0 failed, 0 skipped" "$planted" "${flags[@]}" --jobs 4 'planted/meets_*' 'planted/is_alone*'
and_says "tests/planted/is_alone_too"

# Stopped, it stops what it runs and leaves nothing behind, which is seen at the end.
plant writes_its_id <<< 'echo "$$" > id; sleep infinity'
TMPDIR=$TEST_TMPDIR/tmp "$planted/run" "${flags[@]}" --timeout 100000 writes_its_id > "$log" 2>&1 &
runner=$!
until [[ -s $planted/id ]]; do sleep 0.1; done
kill "$runner"
wait "$runner"
[[ $? -eq 143 ]] || complain "stopped, it should exit with 143:"
! kill -0 "$(< "$planted/id")" 2> /dev/null || complain "stopped, it should stop its programs:"

# All cases pass, and the program fails at its end.
plant fails_at_exit << 'END'
echo '<testcase name="a" assertions="1" status="PASSED" time="0">' > "$XML_OUTPUT_FILE"
exit 3
END
expect 1 "1 passed, 1 failed, 0 skipped" "$planted" "${flags[@]}" fails_at_exit
and_says "exit status 3, although no case failed"

#===-- compute-sanitizer ---------------------------------------------------===#

cat > "$TEST_TMPDIR/sanitizer" << 'END'
#!/bin/bash
[[ "$1 $2" == "--tool racecheck" ]] || exit 255
"${@: -1}"
status=$?
echo "========= ERROR SUMMARY: ${TOOL_FINDS:-0} errors"
[[ ${TOOL_FINDS:-0} -eq 0 ]] || exit 99
exit "$status"
END
chmod +x "$TEST_TMPDIR/sanitizer"
export CS=$TEST_TMPDIR/sanitizer
tool=(--compute-sanitizer racecheck)
expect 0 "5 passed, 0 failed, 0 skipped" "$bundle" "${flags[@]}" "${tool[@]}" planted_passing check_cpp_test
TOOL_FINDS=2 expect 1 "4 passed, 1 failed, 0 skipped" "$bundle" "${flags[@]}" "${tool[@]}" planted_passing
and_says "racecheck found errors"
expect 2 "run: 'leakcheck' is no tool of compute-sanitizer: memcheck, initcheck, racecheck or synccheck" \
  "$bundle" --compute-sanitizer leakcheck
CS=/nowhere expect 2 \
  "run: compute-sanitizer is not on the PATH, and \$CS is not its path: '/nowhere'" "$bundle" "${tool[@]}"
unset CS

#===-- The machine ---------------------------------------------------------===#

run "$bundle" --exec tools/tm info || complain "tm should run:"
if grep -q '^devices  *none' "$log"; then
  expect 2 "run: there is no device; --without-device runs what needs none" "$bundle" check_cpp_test
fi
[[ -z $(ls "$TEST_TMPDIR/tmp") ]] || { echo "left behind: $(ls "$TEST_TMPDIR/tmp")"; failed=1; }
[[ -z $(ls) ]] || { echo "written to the folder it was called from: $(ls)"; failed=1; }
chmod -R u+w "$bundle"
exit "$failed"
