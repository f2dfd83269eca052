#!/bin/bash
# The bundle for GPU machines has the test programs of every package that belongs into it, and no other.
set -uo pipefail
labels=$1
shift
failed=0
for package in "$@"; do
  grep -q "^//$package:" "$labels" || { echo "no test of $package is in the bundle"; failed=1; }
done
for label in //tests/alloc:conformance_test //tests/tensor:accessor_kernel_test //tests/stress:fork_test; do
  grep -qxF "$label" "$labels" || { echo "$label is not in the bundle"; failed=1; }
done
if others=$(grep -vE "^//($(IFS='|'; echo "$*")):" "$labels"); then
  echo "these do not belong into the bundle: $others"
  failed=1
fi
exit "$failed"
