#!/bin/bash
# The README's example is the program that the tests compile and run.
set -euo pipefail
readme=$1
example=$2
# shellcheck disable=SC2016  # the backticks are the fence of the README
if ! diff <(sed -n '/^```c$/,/^```$/{/^```/d;p}' "$readme") "$example"; then
  echo "README.md's example differs from $example" >&2
  exit 1
fi
