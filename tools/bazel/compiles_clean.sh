#!/bin/bash
# Compiles sources, or headers one by one, with every compiler asked for; a warning fails:
#
#   compiles_clean.sh COMPILER,COMPILER,... FLAG... -- SOURCE...
#   compiles_clean.sh COMPILER,COMPILER,... FLAG... -- '<tm/header.h>'...
#
# $NVCC is the nvcc to use; empty: there is no CUDA toolkit.
set -euo pipefail

IFS=, read -ra compilers <<< "$1"
shift
flags=()
while [[ $1 != -- ]]; do
  flags+=("$1")
  shift
done
shift

warnings=(-Wall -Wextra -Wshadow)
failed=0
compiled=0

# compile COMPILER SOURCE: a whole compilation, as some warnings come from the optimizer.
compile() {
  local compiler=$1 host_warnings
  case $compiler in
    gcc | clang) set -- "$compiler" -x c -std=gnu11 "${warnings[@]}" -Werror "$2" ;;
    g++ | clang++) set -- "$compiler" -x c++ -std=c++17 "${warnings[@]}" -Werror "$2" ;;
    nvcc)
      host_warnings=$(IFS=,; echo "${warnings[*]}")
      set -- "$NVCC" -x cu -std=c++17 -ccbin=g++ --Werror=all-warnings \
        -Xcompiler "$host_warnings,-Werror" "$2"
      ;;
  esac
  "${@:1:$#-1}" "${flags[@]}" -O2 -c "${!#}" -o "$TEST_TMPDIR/object.o"
}

# probes FILE...: what to compile, into `sources`. A header is compiled in a file that includes it:
# as a file of its own it would get warnings about everything in it that is not used.
probes() {
  local compiler=$1 file probe
  shift
  sources=()
  for file in "$@"; do
    if [[ $file != '<'*'>' ]]; then
      sources+=("$file")
      continue
    fi
    if [[ $compiler == nvcc ]]; then
      # nvcc takes seconds for each file, and the others have shown that no header needs another.
      probe=$TEST_TMPDIR/all_headers.c
      [[ ${#sources[@]} -gt 0 ]] || : > "$probe"
      sources=("$probe")
    else
      probe=${file//[<>]/}
      probe=$TEST_TMPDIR/${probe//\//_}.c
      : > "$probe"
      sources+=("$probe")
    fi
    echo "#include $file" >> "$probe"
  done
}

for compiler in "${compilers[@]}"; do
  case $compiler in
    gcc | g++ | clang | clang++) command=$compiler ;;
    nvcc) command=${NVCC:-} ;;
    *)
      echo "compiles_clean: unknown compiler $compiler" >&2
      exit 2
      ;;
  esac
  if [[ -z $command ]] || ! command -v "$command" > /dev/null; then
    if [[ $compiler == gcc || $compiler == g++ ]]; then
      echo "FAILED   $compiler: not installed, and it is mandatory"
      failed=1
    else
      echo "skipped  $compiler: not installed"
    fi
    continue
  fi
  probes "$compiler" "$@"
  for source_file in "${sources[@]}"; do
    if compile "$compiler" "$source_file"; then
      echo "clean    $compiler ${source_file##*/}"
      compiled=$((compiled + 1))
    else
      echo "FAILED   $compiler ${source_file##*/}"
      failed=1
    fi
  done
done

if [[ $compiled -eq 0 ]]; then
  echo "FAILED   nothing was compiled"
  failed=1
fi
exit "$failed"
