#!/bin/bash
# cudasim's README: its commands, run in a folder that has cudasim's sources and nothing else of this
# repository, print what it says.
set -euo pipefail
readme=$(readlink -f "$1")
sources=$(readlink -f "$(dirname "$1")")

# block LANGUAGE: the README's block in that language.
block() {
  sed -n "/^\`\`\`$1\$/,/^\`\`\`\$/{/^\`\`\`/d;p}" "$readme"
}

cd "$(mktemp -d -p "$TEST_TMPDIR")"
mkdir -p cudasim/include
cp "$sources"/*.[ch] cudasim/
cp "$sources"/include/*.h cudasim/include/
block c > example.c
block text > expected

unset "${!CUDASIM_@}"
# The last commands fail on purpose: their output is what counts.
bash -c "$(block sh)" > printed 2>&1 || true
if ! diff expected printed; then
  echo "cudasim/README.md: its commands print something else" >&2
  exit 1
fi
