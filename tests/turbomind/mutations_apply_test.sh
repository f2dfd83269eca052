#!/bin/bash
# Every test in tests/turbomind has a patch in tests/mutations that undoes what it tests, every patch
# has a test, and every patch still applies. That the tests notice is what tests/mutations.sh shows.
set -uo pipefail

failed=0
complain() {
  echo "$*"
  failed=1
}

# git does not patch through the symbolic links of a runfiles tree.
copy=$(mktemp -d "$TEST_TMPDIR/tree.XXXXXX")
cp --dereference --recursive alloc base context tensor "$copy"

tests=$(sed -n 's/^Test(turbomind, \([a-z0-9_]*\)).*/\1/p' tests/turbomind/*.c)
[[ -n $tests ]] || complain "no tests were found"
for test in $tests; do
  [[ -f tests/mutations/$test.patch ]] || complain "$test: tests/mutations has no patch for it"
done
[[ -z $(sort <<< "$tests" | uniq -d) ]] || complain "two tests have one name: $(sort <<< "$tests" | uniq -d)"

for patch in tests/mutations/*.patch; do
  name=$(basename "$patch" .patch)
  grep -qx "$name" <<< "$tests" || complain "$name: tests/turbomind has no test of that name"
  (cd "$copy" && GIT_CEILING_DIRECTORIES=$TEST_TMPDIR git apply --check "$OLDPWD/$patch") ||
    complain "$name: its patch does not apply"
done
exit "$failed"
