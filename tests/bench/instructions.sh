#!/bin/bash
# Instructions per hot operation, counted by callgrind: repeatable where nanoseconds are not.
#
#   ./bazelw run -c opt //tests/bench:instructions
set -euo pipefail
program=$(readlink -f "$1")
command -v valgrind > /dev/null || {
  echo "instructions: valgrind is not installed" >&2
  exit 2
}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# total OPERATION COUNT: instructions of the whole process.
total() {
  valgrind --tool=callgrind --callgrind-out-file=/dev/null --log-file="$log" \
    "$program" "$1" "$2" > /dev/null
  sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$log"
}

# per_operation OPERATION: start-up cancels out between two counts.
per_operation() {
  echo $((($(total "$1" 2000) - $(total "$1" 1000)) / 1000))
}

loop=$(per_operation nothing)
for operation in push_pop ideal_tensor scope two_scopes named_scope lookup stack_tensor \
  ten_stack_tensors; do
  printf '%-20s %6d\n' "$operation" $(($(per_operation "$operation") - loop))
done
