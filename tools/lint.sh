#!/bin/bash
# Checks, or repairs, how everything in this repository is written.
#
#   tools/lint.sh --check [FILE...]    says what is wrong, and fails if anything is
#   tools/lint.sh --fix [FILE...]      formats, and applies what the linters can repair themselves
#
# Without FILEs it takes every file that git knows or would add. The linters of C need a build first:
# they read the compiler's flags from it. What is not installed is installed, as bazelw does it.
set -euo pipefail

root=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
# shellcheck source=tools/packages.sh
source "$root/tools/packages.sh"

# The newest buildifier that runs without a network once it is here.
buildifier_version=8.2.1
buildifier_folder=${XDG_CACHE_HOME:-$HOME/.cache}/tmcore/buildifier-$buildifier_version
buildifier=$buildifier_folder/node_modules/.bin/buildifier

failed=()
skipped=()

usage() {
  sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
}

case ${1:-} in
  --check) mode=check ;;
  --fix) mode=fix ;;
  *) usage ;;
esac
shift

# gate NAME COMMAND...: runs one check and remembers if it failed.
gate() {
  local name=$1
  shift
  echo "lint: $name"
  if ! "$@"; then
    failed+=("$name")
  fi
}

#===-- The files -----------------------------------------------------------===#

# What a container mounts often belongs to somebody else, at which git balks.
git_files() {
  git -C "$root" -c safe.directory='*' ls-files --cached --others --exclude-standard -z
}

files=()
if [[ $# -gt 0 ]]; then
  for file in "$@"; do
    files+=("$(realpath --relative-to="$root" "$file")")
  done
else
  while IFS= read -r -d '' file; do
    [[ ! -f $root/$file ]] || files+=("$file")
  done < <(git_files)
fi
cd "$root"

# matching PATTERN...: the files whose names fit one of the patterns, into `matched`.
matching() {
  matched=()
  local file pattern
  for file in "${files[@]}"; do
    for pattern in "$@"; do
      # shellcheck disable=SC2053  # it is a pattern
      if [[ $file == $pattern ]]; then
        matched+=("$file")
        break
      fi
    done
  done
}

#===-- The gates -----------------------------------------------------------===#

format_c() {
  if [[ $mode == fix ]]; then
    "$clang_format" -i "$@"
  else
    local file clean=0
    for file in "$@"; do
      diff --unified=1 --label "$file" --label "$file, formatted" "$file" <("$clang_format" "$file") || clean=1
    done
    return "$clean"
  fi
}

# Newer Bazels load these from repositories that Bazel 4 has not.
not_in_bazel_4=-native-cc-common,-native-cc-info,-native-sh-test

format_build() {
  if [[ $mode == fix ]]; then
    "$buildifier" -mode=fix -lint=fix -warnings="$not_in_bazel_4" "$@"
  else
    "$buildifier" -mode=check -lint=warn -warnings="$not_in_bazel_4" "$@"
  fi
}

# clang-tidy is the slow one: one file on each core at a time.
tidy() {
  local flags=(--quiet -p "$root")
  local jobs
  jobs=$(nproc)
  if [[ $mode == fix ]]; then
    flags+=(--fix)
    jobs=1  # two processes would repair one header twice
  fi
  printf '%s\0' "$@" | xargs -0 -n 1 -P "$jobs" "$clang_tidy" "${flags[@]}" 2> >(grep -v 'warnings\? generated' >&2)
}

# Only sources that some target compiles have flags.
tidy_compiled() {
  /usr/bin/python3 tools/compile_commands.py || return 1
  local compiled=() file
  for file in "$@"; do
    ! grep -qF "\"file\": \"$file\"" compile_commands.json || compiled+=("$file")
  done
  [[ ${#compiled[@]} -eq 0 ]] || tidy "${compiled[@]}"
}

text() {
  ! grep -nE '[[:space:]]+$' "$@" || { echo "lint: trailing white space"; return 1; }
  ! grep -nE '\b(TO''DO|FIX''ME|XX''X)\b' "$@" || { echo "lint: unfinished work"; return 1; }
}

#===-- Tools ---------------------------------------------------------------===#

# The formatter's output depends on its version, so the one that .clang-format is made for goes first.
newest_of() {
  local command
  for command in "$1-14" "$1"; do
    if have_command "$command"; then
      return
    fi
  done
  return 1
}

need clang-format "formats C, C++ and CUDA" newest_of clang-format
need clang-tidy "finds bugs in C" newest_of clang-tidy
need shellcheck "finds bugs in shell scripts" have_command shellcheck
need python3 "lists the compiler's flags" test -x /usr/bin/python3
need git "lists the files" have_command git
install_missing
clang_format=$(newest_of clang-format)
clang_tidy=$(newest_of clang-tidy)

if [[ ! -x $buildifier ]]; then
  need npm "installs buildifier" have_command npm
  if install_missing; then
    mkdir -p "$buildifier_folder"
    npm install --prefix "$buildifier_folder" --no-audit --no-fund --loglevel=error \
      "@bazel/buildifier@$buildifier_version" >&2 < /dev/null || true
  fi
fi

matching '*.c' '*.h' '*.cc' '*.hpp' '*.cu' '*.cuh'
[[ ${#matched[@]} -eq 0 ]] || gate clang-format format_c "${matched[@]}"

matching BUILD '*/BUILD' WORKSPACE '*.bzl'
if [[ ${#matched[@]} -gt 0 ]]; then
  if "$buildifier" --version > /dev/null 2>&1; then
    gate buildifier format_build "${matched[@]}"
  else
    skipped+=("buildifier (npm could not install it)")
  fi
fi

scripts=()
for file in "${files[@]}"; do
  if [[ $file == *.sh ]] || head -c 64 "$file" | head -n 1 | grep -qaE '^#!.*\b(ba)?sh\b'; then
    scripts+=("$file")
  fi
done
[[ ${#scripts[@]} -eq 0 ]] || gate shellcheck shellcheck --external-sources "${scripts[@]}"

# An empty line of a patch is one space; inputs of fuzz targets are what they are.
texts=()
while IFS= read -r -d '' file; do
  [[ $file == *.patch || $file == tests/fuzz/*/* ]] || texts+=("$file")
done < <(printf '%s\0' "${files[@]}" | xargs -0 grep -lIZ '' --)
[[ ${#texts[@]} -eq 0 ]] || gate text text "${texts[@]}"

matching '*.c' '*.cc'
[[ ${#matched[@]} -eq 0 ]] || gate clang-tidy tidy_compiled "${matched[@]}"

for gate in "${skipped[@]}"; do
  echo "lint: skipped $gate"
done
if [[ ${#failed[@]} -gt 0 ]]; then
  echo "lint: FAILED: ${failed[*]}"
  exit 1
fi
echo "lint: clean"
