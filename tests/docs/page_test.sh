#!/bin/bash
# A page's example is the program that the tests compile, and its output is what the page shows.
#
#   page_test.sh PAGE EXAMPLE PROGRAM
set -euo pipefail
page=$1
example=$2
program=$3

# block NAME: the lines of the page's first block of that name.
block() {
  sed -n "/^\`\`\`$1\$/,/^\`\`\`\$/{/^\`\`\`/d;p}" "$page"
}

if ! diff <(block c) "$example"; then
  echo "$page's example differs from $example" >&2
  exit 1
fi
if ! diff <(block text) <("$program"); then
  echo "$page's output differs from what $example prints" >&2
  exit 1
fi
