#!/bin/bash
# Shows that every test in tests/turbomind can fail: for each, a patch in tests/mutations undoes what
# it tests, and the test has to notice.
#
#   tests/mutations.sh           all of them, some minutes
#   tests/mutations.sh ROW...    those tests only, by their names
#
# Works on a copy of the tree, uncommitted changes included. Prints a line for each row, "caught",
# "NOT CAUGHT", "patch does not apply" or "does not build", and fails unless all are caught. A patch
# that begins with the line "caught by the compiler" undoes what makes its test compile.
set -uo pipefail

root=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
if [[ ${1:-} == -* ]]; then
  sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi

work=$(mktemp -d)
copy=$work/tree
log=$work/log
mkdir "$copy"

bazel() {
  (cd "$copy" && ./bazelw --output_base="$work/output" "$@") > "$log" 2>&1 < /dev/null
}

apply() {
  (cd "$copy" && GIT_CEILING_DIRECTORIES=$work git apply "$@")  # the copy is no repository
}

clean_up() {
  bazel shutdown
  chmod -R u+w "$work"
  rm -rf "$work"
}
trap clean_up EXIT

# The user's Bazel settings come along where there are any: they may name a cache.
(
  cd "$root" || exit 1
  git -c safe.directory='*' ls-files --cached --others --exclude-standard -z
  [[ ! -f user.bazelrc ]] || printf 'user.bazelrc\0'
) | (cd "$root" && tar --create --null --files-from=- --ignore-failed-read) | tar --extract --directory="$copy"

# file_of ROW: the source that has the row's test.
file_of() {
  grep -l "^Test(turbomind, $1)" "$copy"/tests/turbomind/*.c
}

# target_of FILE: its target.
target_of() {
  echo "//tests/turbomind:$(basename "$1" .c)"
}

# Whether FILE, the test, is all that does not compile.
only_the_test_does_not_compile() {
  [[ $(grep -oE 'Compiling [^ ]+ failed' "$log" | sort -u) == "Compiling ${1#"$copy/"} failed" ]]
}

# What becomes of the test when the patch is applied.
verdict() {
  local row=$1 patch=$2 source=$3 target
  target=$(target_of "$source")
  if ! bazel build "$target"; then
    if head -n 1 "$patch" | grep -qx 'caught by the compiler' && only_the_test_does_not_compile "$source"; then
      echo "caught"
    else
      echo "does not build"
    fi
  elif bazel test "$target" --test_filter="turbomind/$row" --test_output=errors; then
    echo "NOT CAUGHT"
  elif grep -q "^\[FAIL\] turbomind::$row:" "$log"; then
    echo "caught"
  else
    echo "does not run"
  fi
}

# mutate ROW: applies its patch, tries its test, and puts things back.
mutate() {
  local row=$1 patch=$root/tests/mutations/$1.patch source result
  source=$(file_of "$row")
  if [[ -z $source || ! -f $patch ]]; then
    echo "no such row"
    return
  fi
  if ! apply --check "$patch" 2> "$log"; then
    echo "patch does not apply"
    return
  fi
  apply "$patch"
  result=$(verdict "$row" "$patch" "$source")
  apply --reverse "$patch"
  echo "$result"
}

if [[ $# -gt 0 ]]; then
  rows=("$@")
else
  mapfile -t rows < <(cd "$root/tests/mutations" && printf '%s\n' *.patch | sed 's/\.patch$//')
fi

if ! bazel test //tests/turbomind/...; then
  tail -n 40 "$log"
  echo "the tests fail without a mutation"
  exit 1
fi

missed=0
for row in "${rows[@]}"; do
  result=$(mutate "$row")
  echo "$row: $result"
  if [[ $result != caught ]]; then
    missed=$((missed + 1))
    [[ $result == 'NOT CAUGHT' || $result == 'no such row' ]] || tail -n 20 "$log" | sed 's/^/    /'
  fi
done
echo "${#rows[@]} mutations, $missed not caught"
[[ $missed -eq 0 ]]
