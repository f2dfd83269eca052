#!/bin/bash
# Runs a program that is linked with the toolkit's library on the stand-in, which says once what it
# does not have:
#
#   run_test.sh LIBRARY PROGRAM
set -euo pipefail

# Relative to the root of the runfiles, from which tests are started.
LD_LIBRARY_PATH=$PWD/$(dirname "$1")
export LD_LIBRARY_PATH
said=${TEST_TMPDIR:-$(mktemp -d)}/stderr
"$2" 2> "$said" || { cat "$said"; exit 1; }
diff <(echo 'cudasim: there is no cudaDestroySurfaceObject: it returns cudaErrorNotSupported') "$said"
