#!/bin/bash
# tools/bench_compare: what it calls slower, and its exit statuses.
set -uo pipefail

bench_compare=$(realpath "$1")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
failures=0

fail() {
  echo "FAILED: $1"
  failures=$((failures + 1))
}

# run ARGUMENT...: fills `status`, out and err.
run() {
  "$bench_compare" "$@" > out 2> err < /dev/null
  status=$?
}

# expect STATUS PATTERN ARGUMENT...: that exit status, nothing on stderr, a line on stdout that matches.
expect() {
  local wanted=$1 pattern=$2
  shift 2
  run "$@"
  [[ $status -eq $wanted ]] || fail "$*: exit status $status, not $wanted: $(cat out err)"
  [[ ! -s err ]] || fail "$*: writes to stderr: $(cat err)"
  grep -qE -- "$pattern" out || fail "$*: no '$pattern' in: $(cat out)"
}

expect_not() {
  ! grep -qE -- "$1" out || fail "'$1' in: $(cat out)"
}

# expect_bad PATTERN ARGUMENT...: exit status 2, nothing on stdout, and a line on stderr that matches.
expect_bad() {
  local pattern=$1
  shift
  run "$@"
  [[ $status -eq 2 ]] || fail "$*: exit status $status"
  [[ ! -s out ]] || fail "$*: writes to stdout: $(cat out)"
  grep -qE -- "$pattern" err || fail "$*: no '$pattern' in: $(cat err)"
}

# entry NAME CPU_TIME [REAL_TIME [UNIT]]: one repetition.
entry() {
  echo "{\"name\": \"$1\", \"run_name\": \"$1\", \"run_type\": \"iteration\", \"cpu_time\": $2," \
    "\"real_time\": ${3:-999}, \"time_unit\": \"${4:-ns}\"}"
}

# document ENTRY...: a file of google-benchmark.
document() {
  local IFS=,
  echo "{\"context\": {}, \"benchmarks\": [$*]}"
}

#===-- Medians -------------------------------------------------------------===#

document "$(entry a 10)" "$(entry a 11)" "$(entry a 500)" "$(entry b 20)" "$(entry c 5)" > old.json
document "$(entry a 11.5)" "$(entry a 1)" "$(entry a 12)" "$(entry b 20)" "$(entry c 5)" > same.json
document "$(entry a 11)" "$(entry b 22.5)" "$(entry c 4)" > mixed.json
document "$(entry a 11)" "$(entry b 17)" "$(entry d 1)" > faster.json

expect 0 "^3 compared: 0 slower, 0 faster by more than 10 %; 0 gone, 0 new$" old.json old.json
expect 0 "^3 compared: 0 slower, 0 faster" old.json same.json
expect 1 "^  b +20\.00 -> +22\.50 ns +\+12\.5 %$" old.json mixed.json
grep -qE "^  c +5\.00 -> +4\.00 ns +-20\.0 %$" out || fail "c is not faster: $(cat out)"
expect_not "^  a "
expect 0 "^2 compared: 0 slower, 1 faster by more than 10 %; 1 gone, 1 new$" old.json faster.json

#===-- The threshold -------------------------------------------------------===#

expect 0 "3 compared: 0 slower, 1 faster by more than 13 %" old.json mixed.json --threshold 13
expect 1 "3 compared: 1 slower, 1 faster by more than 12 %" --threshold=12% old.json mixed.json
expect 1 "^  a " old.json same.json --threshold 0
expect_bad "invalid percent value: 'much'" old.json same.json --threshold much
expect_bad "invalid percent value: '-1'" old.json same.json --threshold=-1
expect_bad "invalid percent value: 'nan'" old.json same.json --threshold nan

#===-- Which time ----------------------------------------------------------===#

document "$(entry a/manual_time 1 100)" "$(entry b 2 100 us)" > by_hand.json
document "$(entry a/manual_time 1 150)" "$(entry b 2000 900)" > by_hand_slower.json
expect 1 "^  a/manual_time +100\.00 -> +150\.00 ns" by_hand.json by_hand_slower.json
expect_not "^  b "

median='{"run_name": "a", "run_type": "aggregate", "aggregate_name": "median", "cpu_time": 30}'
mean='{"run_name": "a", "run_type": "aggregate", "aggregate_name": "mean", "cpu_time": 1}'
document "$median" "$mean" > aggregates.json
expect 1 "^  a +11\.00 -> +30\.00 ns" old.json aggregates.json
document "$(entry a 11)" "$median" > both.json  # what the repetitions say counts
expect 0 "^1 compared: 0 slower" old.json both.json

error='{"run_name": "b", "run_type": "iteration", "error_occurred": true, "cpu_time": 0}'
document "$(entry a 11)" "$error" > with_error.json
expect 0 "^1 compared: .* 2 gone" old.json with_error.json

#===-- Bad files -----------------------------------------------------------===#

document "$(entry z 1)" > other.json
document "$(entry a 0)" > zero.json
document "$(entry a '"quick"')" > text.json
echo '{"benchmarks": [' > cut.json
echo '[1, 2]' > list.json
echo '{"benchmarks": [{"cpu_time": 1}]}' > nameless.json
expect_bad "nowhere.json: No such file" old.json nowhere.json
expect_bad "nowhere.json: No such file" nowhere.json old.json
expect_bad "^bench_compare: \.: Is a directory$" . old.json
expect_bad "^bench_compare: cut.json: no JSON" old.json cut.json
expect_bad "/dev/null: no JSON" /dev/null old.json
expect_bad "list.json: not what google-benchmark writes" old.json list.json
expect_bad "nameless.json: not what google-benchmark writes" old.json nameless.json
expect_bad "zero.json: not what google-benchmark writes: a takes 0.0 ns" old.json zero.json
expect_bad "text.json: not what google-benchmark writes" old.json text.json
expect_bad "old.json and other.json have no benchmark in common" old.json other.json
expect_bad "required: NEW" old.json
expect_bad "unrecognized arguments" old.json old.json --colour

if [[ $failures -gt 0 ]]; then
  echo "$failures failed"
  exit 1
fi
