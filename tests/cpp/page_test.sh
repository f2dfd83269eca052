#!/bin/bash
# The example of docs/cpp.md is the program that the tests compile and run.
set -euo pipefail
page=$1
example=$2
# shellcheck disable=SC2016  # the backticks are the fence of the page
if ! diff <(sed -n '/^```c++$/,/^```$/{/^```/d;p}' "$page") "$example"; then
  echo "docs/cpp.md's example differs from $example" >&2
  exit 1
fi
