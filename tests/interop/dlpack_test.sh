#!/bin/bash
# Runs dlpack_test.py with the system's Python, for which Debian has the libraries.
#
#   dlpack_test.sh TEST LIBRARY SHIM
set -euo pipefail

# A sanitizer's runtime has to be in the program from its start, and Python's is not ours.
if grep -qE '__(asan|tsan)_init' "$3"; then
  echo "SKIPPED, the shim is built with a sanitizer"
  exit 0
fi
# The error record and the first context are thread-local: with them the shim takes more than the
# loader keeps free for libraries that come late.
export GLIBC_TUNABLES=glibc.rtld.optional_static_tls=16384
exec /usr/bin/python3 -B "$1" "$2" "$PWD/$3"
