#!/bin/bash
# Runs this bundle's tests. The last line is "N passed, N failed, N skipped".
#
#   run [OPTION...] [TEST...]
#
# A TEST is a program, as --list prints it, without its tests/, or without its folders, or a pattern of
# such names ('alloc/*'); without any, all run. A program of many cases counts once for each, any
# other once. A program that crashes, hangs or fails without a failed case counts as one failure.
# Programs that fill a device or measure what is free of it run last, and each alone.
#
#   --list                    prints the programs
#   --jobs N                  runs N programs at a time (1)
#   --timeout SECONDS         of each program (300)
#   --compute-sanitizer TOOL  runs them under compute-sanitizer: memcheck, initcheck, racecheck or
#                             synccheck. It is on the PATH, or $CS is its path.
#   --without-device          goes on where there is no device: its tests are skipped
#   --exec PROGRAM [ARG...]   runs one program of the bundle, such as tools/tm, and nothing else
#   --help                    prints this
#
# The exit status is 0 if something passed and nothing failed, 1 otherwise, and 2 if nothing was run:
# wrong usage, no device. Needed are glibc 2.34, /proc, and a writable /dev/shm and $TMPDIR or /tmp.
set -uo pipefail

self=run
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")

die() {
  echo "$self: $*" >&2
  exit 2
}

usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

is_count() { [[ $1 =~ ^[1-9][0-9]{0,5}$ ]]; }

#===-- Options -------------------------------------------------------------===#

jobs=1
limit=300  # seconds
list=false
without_device=false
tool=
patterns=()
with_libraries=(env "LD_LIBRARY_PATH=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}")

while [[ $# -gt 0 ]]; do
  case $1 in
    --help | -h) usage; exit 0 ;;
    --list) list=true ;;
    --without-device) without_device=true ;;
    --exec)
      [[ $# -ge 2 && -x $here/$2 ]] || die "--exec takes a program of the bundle, not '${2:-}'"
      exec "${with_libraries[@]}" "$here/$2" "${@:3}"
      ;;
    --jobs | --timeout | --compute-sanitizer)
      [[ $# -ge 2 ]] || die "$1 takes a value; --help says more"
      case $1 in
        --jobs) is_count "$2" || die "--jobs takes a number from 1, not '$2'"; jobs=$2 ;;
        --timeout) is_count "$2" || die "--timeout takes a number of seconds from 1, not '$2'"; limit=$2 ;;
        *) tool=$2 ;;
      esac
      shift
      ;;
    -*) die "'$1' is no option; --help lists them" ;;
    *) patterns+=("$1") ;;
  esac
  shift
done

#===-- Which programs ------------------------------------------------------===#

programs=()
declare -A is_alone=()
while read -r program mark; do
  programs+=("$program")
  [[ $mark != alone ]] || is_alone[$program]=1
done < "$here/test_programs" || die "the list $here/test_programs cannot be read"

matches() {  # PROGRAM PATTERN
  # shellcheck disable=SC2053  # it is a pattern
  [[ $1 == $2 || $1 == tests/$2 || ${1##*/} == $2 ]]
}

selected=()
select_matching() {
  local pattern program found
  local -A chosen=()
  for pattern in "$@"; do
    found=false
    for program in "${programs[@]}"; do
      ! matches "$program" "$pattern" || { found=true; chosen[$program]=1; }
    done
    $found || die "no program is called '$pattern'; --list prints them"
  done
  for program in "${programs[@]}"; do
    [[ -z ${chosen[$program]:-} ]] || selected+=("$program")
  done
}

if [[ ${#patterns[@]} -eq 0 ]]; then
  selected=("${programs[@]}")
else
  select_matching "${patterns[@]}"
fi
if $list; then
  printf '%s\n' "${selected[@]}"
  exit 0
fi

shared=()
alone=()
for program in "${selected[@]}"; do
  if [[ -n ${is_alone[$program]:-} ]]; then alone+=("$program"); else shared+=("$program"); fi
done
selected=("${shared[@]}" "${alone[@]}")

#===-- The machine ---------------------------------------------------------===#

under=()
case $tool in
  '') ;;
  memcheck | initcheck | racecheck | synccheck)
    sanitizer=${CS:-$(command -v compute-sanitizer)}
    [[ -x $sanitizer ]] || die "compute-sanitizer is not on the PATH, and \$CS is not its path: '$sanitizer'"
    # A Criterion case is a process of its own; many programs never reach CUDA; tests provoke errors.
    under=("$sanitizer" --tool "$tool" --error-exitcode 99 --target-processes all
      --require-cuda-init no)
    [[ $tool != memcheck ]] || under+=(--report-api-errors no)
    export TM_COMPUTE_SANITIZER=$tool  # for tests of calls that it lets wait
    ;;
  *) die "'$tool' is no tool of compute-sanitizer: memcheck, initcheck, racecheck or synccheck" ;;
esac

[[ -r /proc/self/exe ]] || die "there is no /proc"
[[ -w /dev/shm ]] || die "/dev/shm is not writable"
results=$(mktemp -d "${TMPDIR:-/tmp}/tmcore.XXXXXX") || die "set TMPDIR to a folder that is writable"
clean_up() {
  local started
  mapfile -t started < <(jobs -p)
  [[ ${#started[@]} -eq 0 ]] || kill "${started[@]}" 2> /dev/null
  wait
  rm -rf "$results"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
ulimit -c 0  # some tests abort on purpose

info=$("${with_libraries[@]}" "$here/tools/tm" info 2>&1) || die "tools/tm does not start: $info"
echo "$info"
driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2> /dev/null) && echo "driver     ${driver%%$'\n'*}"
if [[ $info =~ (^|$'\n')devices\ +none ]] && ! $without_device; then
  die "there is no device; --without-device runs what needs none"
fi

#===-- Running -------------------------------------------------------------===#

# start INDEX PROGRAM: runs a program, and leaves its output, report and exit status in a folder.
start() {
  local folder=$results/$1 child status began=$SECONDS
  mkdir -p "$folder/tmp"
  cd "$here" || exit 2  # where tests look for their data
  TEST_TMPDIR=$folder/tmp XML_OUTPUT_FILE=$folder/report.xml TEST_TIMEOUT=$limit \
    timeout --kill-after=10 "$limit" "${with_libraries[@]}" "${under[@]}" "$here/$2" &
  child=$!
  trap 'kill "$child"; wait "$child"; exit 143' TERM
  wait "$child" 2> /dev/null  # says which line of this script crashed
  status=$?
  rm -rf "$folder/tmp"
  echo "$status $((SECONDS - began))" > "$folder/status.new"
  mv "$folder/status.new" "$folder/status"
}

#===-- Judging -------------------------------------------------------------===#

passed=0 failed=0 skipped=0        # of one program
all_passed=0 all_failed=0 all_skipped=0
problem=
problems=()

fail_once() {
  failed=$((failed + 1))
  problem=$1
}

count_report() {
  local cases
  cases=$(grep -c '<testcase ' "$1")
  passed=$(grep -c '<testcase .* status="PASSED"' "$1")
  skipped=$(grep -c '<testcase .* status="SKIPPED"' "$1")
  failed=$((cases - passed - skipped))
}

# The program says so itself; without a device, so does one that is not meant for that. A case that
# says so is no reason why the rest of its program left no report.
says_skipped() {  # OUTPUT STATUS
  { [[ $2 -eq 0 ]] && grep -q '^skipped: ' "$1"; } ||
    { $without_device && grep -q '^TM_ERR_UNAVAILABLE: ' "$1"; }
}

judge() {  # FOLDER STATUS SECONDS
  local has_report=false
  passed=0 failed=0 skipped=0 problem=
  if [[ -e $1/report.xml ]]; then
    has_report=true
    count_report "$1/report.xml"
  fi
  if [[ $2 -eq 124 || ($2 -eq 137 && $3 -ge $limit) ]]; then
    fail_once "timed out after $limit s"
  elif [[ $2 -gt 128 && $2 -lt 193 ]]; then
    fail_once "ended by SIG$(kill -l $(($2 - 128)))"
  elif [[ -n $tool ]] && { [[ $2 -eq 99 ]] || grep -qE 'ERROR SUMMARY: [1-9]' "$1/output"; }; then
    fail_once "$tool found errors"
  elif $has_report; then
    [[ $2 -eq 0 || $failed -gt 0 ]] || fail_once "exit status $2, although no case failed"
  elif says_skipped "$1/output" "$2"; then
    skipped=1
  elif [[ $2 -eq 0 ]]; then
    passed=1
  else
    fail_once "exit status $2"
  fi
}

report() {  # INDEX
  local folder=$results/$1 program=${selected[$1]} status seconds word=ok
  read -r status seconds < "$folder/status"
  judge "$folder" "$status" "$seconds"
  if [[ $failed -gt 0 ]]; then
    word=FAILED
    problems+=("$program: ${problem:-$failed of its cases failed}")
    cat "$folder/output"
  fi
  printf '%-6s %-42s %d passed, %d failed, %d skipped, %d s%s\n' "$word" "$program" "$passed" "$failed" \
    "$skipped" "$seconds" "${problem:+: $problem}"
  all_passed=$((all_passed + passed))
  all_failed=$((all_failed + failed))
  all_skipped=$((all_skipped + skipped))
  rm -rf "$folder"
}

# Reports in the order of the list, as far as the programs have ended.
reported=0
report_ended() {
  while [[ $reported -lt ${#selected[@]} && -e $results/$reported/status ]]; do
    report "$reported"
    reported=$((reported + 1))
  done
}

running=0
wait_for_one() {
  wait -n
  running=$((running - 1))
  report_ended
}

for index in "${!selected[@]}"; do
  [[ $index -lt ${#shared[@]} ]] || jobs=1
  while [[ $running -ge $jobs ]]; do wait_for_one; done
  mkdir "$results/$index"
  start "$index" "${selected[$index]}" > "$results/$index/output" 2>&1 < /dev/null &
  running=$((running + 1))
done
while [[ $running -gt 0 ]]; do wait_for_one; done

echo
[[ $all_passed -gt 0 ]] || problems+=("nothing passed")
[[ ${#problems[@]} -eq 0 ]] || printf 'FAILED %s\n' "${problems[@]}"
echo "$all_passed passed, $all_failed failed, $all_skipped skipped"
[[ $all_failed -eq 0 && $all_passed -gt 0 && $reported -eq ${#selected[@]} ]]
