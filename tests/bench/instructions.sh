#!/bin/bash
# Instructions per hot operation, counted by callgrind: repeatable where nanoseconds are not.
#
#   ./bazelw run -c opt //tests/bench:instructions
#   ./bazelw test -c opt //tests/bench:cpp_costs_no_more
#
# With a second program it prints C beside C++, and fails where C++ needs more.
set -euo pipefail
command -v valgrind > /dev/null || {
  echo "instructions: valgrind is not installed" >&2
  exit 2
}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# total PROGRAM OPERATION COUNT: instructions of the whole process.
total() {
  valgrind --tool=callgrind --callgrind-out-file=/dev/null --log-file="$log" \
    "$1" "$2" "$3" > /dev/null
  sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$log"
}

# per_operation PROGRAM OPERATION: start-up cancels out between two counts, and rounding takes care
# of what the time costs to print.
per_operation() {
  echo $((($(total "$1" "$2" 11000) - $(total "$1" "$2" 1000) + 5000) / 10000))
}

# net PROGRAM OPERATION: without the loop around it.
net() {
  echo $(($(per_operation "$1" "$2") - $(per_operation "$1" nothing)))
}

c=$(readlink -f "$1")
if [[ $# -eq 1 ]]; then
  for operation in push_pop ideal_tensor scope two_scopes guard_of_two named_scope lookup \
    stack_tensor checked_tensor ten_stack_tensors slice; do
    printf '%-20s %6d\n' "$operation" "$(net "$c" "$operation")"
  done
  exit 0
fi

cpp=$(readlink -f "$2")
worse=0
printf '%-20s %6s %6s\n' '' C C++
for operation in scope two_scopes guard_of_two named_scope lookup stack_tensor checked_tensor \
  ten_stack_tensors slice; do
  in_c=$(net "$c" "$operation")
  in_cpp=$(net "$cpp" "$operation")
  printf '%-20s %6d %6d\n' "$operation" "$in_c" "$in_cpp"
  if ((in_cpp > in_c)); then
    worse=1
  fi
done
exit "$worse"
