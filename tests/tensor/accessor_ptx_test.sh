#!/bin/bash
# An index costs what it should: with 32-bit offsets a kernel multiplies nothing of 64 bits, and
# only checked indices bring checks.
#
#   accessor_ptx_test.sh PTX
set -uo pipefail
ptx=$1
failed=0

# kernel NAME: the instructions of a kernel.
kernel() {
  sed -n "/^\.visible \.entry $1(/,/^}/p" "$ptx"
}

# expect NAME yes|no PATTERN: whether an instruction of the kernel matches.
expect() {
  local found=no
  if grep -qE "^[[:space:]]*(@!?%p[0-9]+ )?($3)" <<< "$(kernel "$1")"; then
    found=yes
  fi
  if [[ $found != "$2" ]]; then
    echo "$1: has $3: $found, expected $2"
    failed=1
  fi
}

for name in unchecked_32 unchecked_64 checked_32 macro_unchecked macro_checked; do
  expect "$name" yes 'st\.global' # it was found, and does its work
done

multiply='(mul|mad)(\.lo|\.hi)?\.[su]64'
expect unchecked_32 no "$multiply"
expect checked_32 no "$multiply"
expect unchecked_64 yes "$multiply"

check='trap|call|setp'
expect unchecked_32 no "$check"
expect unchecked_64 no "$check"
expect macro_unchecked no "$check"
for name in checked_32 macro_checked; do
  expect "$name" yes 'trap'
  expect "$name" yes 'call'
  expect "$name" yes 'setp'
done
# A check that fails names its file; nvcc writes strings as bytes.
bytes=$(printf 'accessor_ptx.cu' | od -An -v -tu1 | xargs | sed 's/ /, /g')
if ! grep -q "$bytes" "$ptx"; then
  echo "no file name in what a check prints"
  failed=1
fi
exit "$failed"
