#!/bin/bash
# Makes what the stand-in library is linked with of the list of the names that it exports:
#
#   generate.sh stubs EXPORTS SOURCE...   C: a function for each name that the sources do not have
#   generate.sh versions EXPORTS          the linker's version script
set -euo pipefail

what=$1
mapfile -t names < <(sed '/^#/d; /^$/d' "$2")
sources=("${@:3}")

# Those of which cudasim itself has a definition are weak, and not linked.
stubs() {
  echo '#include "cudasim/standin/missing.h"'
  printf '%s\n' "${names[@]}" | grep -vxFf <(grep -ohE '\b(__)?cuda[A-Za-z0-9_]+' "${sources[@]}") |
    sed 's/.*/MISSING(&)/'
}

versions() {
  echo 'libcudart.so.13 {'
  echo '  global:'
  printf '    %s;\n' "${names[@]}"
  echo '  local: *;'
  echo '};'
  echo 'cudasim {'
  echo '  global: cudasim_*;'
  echo '};'
}

case $what in
  stubs | versions) "$what" ;;
  *) exit 2 ;;
esac
