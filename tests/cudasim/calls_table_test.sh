#!/bin/bash
# Checks that what cudasim says it has is what it has:
#
#   calls_table_test.sh DOCS CALLS_HEADER CUDASIM_INCLUDE_FOLDER [TOOLKIT_INCLUDE_FOLDER]
#
# - the functions that the headers declare, those of CUDASIM_CALLS and those in the table of the docs
#   are the same, each once, and each row says full, partial or not;
# - where there is a toolkit, they are all in its headers, and its other functions are those that the
#   docs list as missing.
set -euo pipefail

docs=$1
calls=$2
ours=$3
theirs=${4:-}
work=${TEST_TMPDIR:-$(mktemp -d)}
failed=0

# Those that no fault can hit: they tell what went wrong.
cat > "$work/infallible" << 'NAMES'
cudaGetErrorName
cudaGetErrorString
cudaGetLastError
cudaPeekAtLastError
NAMES

fail() {
  echo "$*" >&2
  failed=1
}

# the lines of the docs from the heading $1 to the next one
section() {
  awk -v heading="$1" '/^## / { inside = $0 == heading } inside' "$docs"
}

# "names state" of each row of the table
rows() {
  section "## Calls" | sed -nE 's/^\| (cuda[A-Za-z0-9, ]+) \| ([^|]*) \|.*/\2 \1/p'
}

words() {
  { grep -oE '\bcuda[A-Z][A-Za-z0-9]*' || true; } | sort
}

# expects that the sorted lists $2 and $3 agree
compare() {
  diff "$work/$2" "$work/$3" > "$work/diff" && return
  fail "$1: only in $2 (<), only in $3 (>):"
  grep '^[<>]' "$work/diff" >&2
}

tr '\n' ' ' < "$ours/cuda_runtime_api.h" | sed 's/CUDASIM_EXPORT_/\n&/g' |
  sed -nE 's/^CUDASIM_EXPORT_ [a-z_A-Z *]*[ *](cuda[A-Za-z0-9]+)\(.*/\1/p' | sort > "$work/declared"
sed -nE 's/^  X\((cuda[A-Za-z0-9]+)\).*/\1/p' "$calls" | sort > "$work/calls"
rows | cut -d' ' -f2- | words > "$work/table"
section "## Calls that are missing" | sed -nE 's/^\|[^|]*\|(.*)\|$/\1/p' | words > "$work/missing"

sort "$work/calls" "$work/infallible" > "$work/calls_and_infallible"
compare "the headers and calls.h" declared calls_and_infallible
compare "the headers and the table" declared table
for list in declared calls table missing; do
  twice=$(uniq -d "$work/$list")
  [[ -z $twice ]] || fail "twice in $list: $twice"
done
rows | cut -d' ' -f1 | grep -vxE 'full|partial|not' && fail "a row that is neither full, partial nor not"

if [[ -n $theirs ]]; then
  echo '#include <cuda_runtime_api.h>' | cc -E -P -I"$theirs" -xc - | tr '\n' ' ' |
    grep -oE 'extern [^;{}=]*;' | grep -oE '\bcuda[A-Z][A-Za-z0-9]*\(' | tr -d '(' |
    sort -u > "$work/toolkit"
  sort "$work/table" "$work/missing" > "$work/docs"
  compare "the toolkit and the docs" toolkit docs
fi

counts=$(cd "$work" && wc -l < table) && missing=$(wc -l < "$work/missing")
echo "$counts calls in the table, $missing missing"
if ((counts < 95)) || { [[ -n $theirs ]] && (($(wc -l < "$work/toolkit") < 200)); }; then
  fail "that is less than there was: the files are not read as they should be"
fi
exit "$failed"
