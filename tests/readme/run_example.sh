#!/bin/bash
# Runs the README's example. Linked with the real CUDA runtime it may find no device: then it must say
# so in the driver's words, and the test is skipped.
set -uo pipefail
program=$1
backend=$2
output=$("$program" 2>&1)
status=$?
echo "$output"
if [[ $status -ne 0 && $backend == cuda && $output == TM_ERR_UNAVAILABLE:* ]]; then
  echo "skipped: there is no usable device"
  exit 0
fi
exit "$status"
