#!/bin/bash
# Runs a program that nvcc compiled on the stand-in: kernels for which there is nothing, skipped ones,
# and one that a library plays.
#
#   kernel_program_test.sh LIBRARY PROGRAM KERNELS
set -euo pipefail

program=$PWD/$2
kernels=$PWD/$3
LD_LIBRARY_PATH=$PWD/$(dirname "$1")
export LD_LIBRARY_PATH
work=${TEST_TMPDIR:-$(mktemp -d)}
unknown=_Z7unknownIfEvPT_
symbols='to symbol: cudaSuccess
from symbol: cudaSuccess
beyond symbol: cudaErrorInvalidValue
address: cudaSuccess
size: cudaSuccess
taken: 4, size: 8, address: 1, managed: 5'
failed=0

# expect WHAT EXPECTED ACTUAL
expect() {
  if ! diff <(echo "$2") <(echo "$3"); then
    echo "FAILED: $1"
    failed=1
  fi
}

# run SETTING...: what the program prints, and in $work/stderr what the library says of kernels.
run() {
  env "$@" "$program" 2> "$work/all"
  { grep kernel "$work/all" || true; } | sort > "$work/stderr"
}

output=$(run CUDASIM_UNKNOWN_KERNELS=error)
expect "launches are refused" "scale: cudaErrorInvalidDeviceFunction
unknown: cudaErrorInvalidDeviceFunction
values: 2 2
$symbols" "$output"
expect "and named" "cudasim: nothing stands in for kernel _Z5scalePfif: launching it is cudaErrorInvalidDeviceFunction
cudasim: nothing stands in for kernel $unknown: launching it is cudaErrorInvalidDeviceFunction" "$(cat "$work/stderr")"

output=$(run CUDASIM_UNKNOWN_KERNELS=skip)
expect "launches are skipped" "scale: cudaSuccess
unknown: cudaSuccess
values: 2 2
$symbols" "$output"
expect "and named" "cudasim: nothing stands in for kernel _Z5scalePfif: its launches are skipped
cudasim: nothing stands in for kernel $unknown: its launches are skipped" "$(cat "$work/stderr")"

output=$(run CUDASIM_KERNELS="$kernels")
expect "a kernel is played" "scale: cudaSuccess
unknown: cudaErrorInvalidDeviceFunction
values: 6 6
$symbols" "$output"
expect "the other is named" \
  "cudasim: nothing stands in for kernel $unknown: launching it is cudaErrorInvalidDeviceFunction" "$(cat "$work/stderr")"

CUDASIM_UNKNOWN_KERNELS=maybe CUDASIM_KERNELS=/nowhere.so "$program" 2> "$work/all" > "$work/output"
expect "settings that are not allowed are named" 2 \
  "$(grep -cE '"maybe"; allowed: error, skip|CUDASIM_KERNELS: .*/nowhere\.so' "$work/all")"
exit $failed
