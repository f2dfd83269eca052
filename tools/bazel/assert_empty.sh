#!/bin/bash
# Fails when a genquery found a dependency path: assert_empty.sh RESULT TARGET PACKAGE
set -euo pipefail
if [[ -s $1 ]]; then
  echo "$2 must not depend on $3, but does by this path:"
  sed 's/^/  /' "$1"
  exit 1
fi
echo "$2 does not depend on $3"
