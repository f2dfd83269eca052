#!/bin/bash
# Compares what the stand-in library is and exports with the list, and the list with the toolkit's
# library where there is one:
#
#   exports_test.sh LIBRARY LIST TOOLKIT
set -euo pipefail

library=$1
list=$2
real=$3/lib64/libcudart.so.13
work=${TEST_TMPDIR:-$(mktemp -d)}
failed=0

# The functions of a library with their versions, one a line.
functions() {
  nm -D --defined-only --with-symbol-versions "$1" | awk '$2 ~ /^[TW]$/ { print $3 }' | LC_ALL=C sort
}

# expect WHAT COMMAND...: the command succeeds.
expect() {
  local what=$1
  shift
  if ! "$@"; then
    echo "FAILED: $what"
    failed=1
  fi
}

# shellcheck disable=SC2317  # expect calls it
lacks() { ! grep "$@"; }

functions "$library" | grep -v '^cudasim_.*@@cudasim$' > "$work/ours"
sed -n '/^[^#]/s/$/@@libcudart.so.13/p' "$list" | LC_ALL=C sort > "$work/listed"
expect "the library exports what is listed, and cudasim's controls" diff "$work/listed" "$work/ours"

readelf -d "$library" > "$work/dynamic"
expect "its name is libcudart.so.13" grep -q 'SONAME.*\[libcudart\.so\.13\]' "$work/dynamic"
expect "it is never unloaded" grep -q NODELETE "$work/dynamic"
expect "it can be loaded late" lacks STATIC_TLS "$work/dynamic"
nm -D "$library" > "$work/all"
# The sanitizers' are no part of it.
if ! grep -qE '__(asan|tsan)_init' "$work/all"; then
  grep NEEDED "$work/dynamic" > "$work/needed"
  sed -i -E '/\[(libc|libgcc_s|ld-linux[-a-z0-9_]*)\.so\.[0-9]+\]/d' "$work/needed"
  expect "it needs nothing but the libraries of C and of gcc" lacks NEEDED "$work/needed"
fi

if [[ -e $real ]]; then
  functions "$real" > "$work/real"
  expect "the list is what the toolkit's library exports" diff "$work/listed" "$work/real"
else
  echo "SKIPPED in part: there is no $real to compare the list with"
fi
exit $failed
