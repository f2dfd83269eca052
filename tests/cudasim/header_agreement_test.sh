#!/bin/bash
# Compares cudasim's headers with the toolkit's:
#
#   header_agreement_test.sh CUDASIM_INCLUDE_FOLDER TOOLKIT_INCLUDE_FOLDER
#
# - every enumerator and flag has the same value, every struct the same size and the same fields at
#   the same places: a program that prints them all is compiled against each and the output compared;
# - no enum lacks an enumerator of the toolkit's;
# - every function has the same signature: C refuses to see it declared in two ways.
set -euo pipefail

ours=$1
theirs=$2
work=${TEST_TMPDIR:-$(mktemp -d)}
types=$ours/driver_types.h

# enumerators and flags, one a line
names() {
  sed -nE 's/^  (cuda[A-Za-z0-9_]+)( = [^,]*)?,( *\/\/.*)?$/\1/p' "$types"
  sed -nE 's/^#define (cuda[A-Za-z0-9_]+) (0x|\(\(int\)).*/\1/p' "$types"
}

# "struct.field", one a line
fields() {
  awk '/^(typedef )?struct [A-Za-z_0-9]+ \{$/ { sub(/^typedef /, ""); type = $2 }
       /^\}/ { type = "" }
       type && /;/ { sub(/;.*/, ""); sub(/\[.*/, ""); print type "." $NF }' "$types"
}

printer() {
  echo '#include <cuda_runtime_api.h>'
  echo '#include <stddef.h>'
  echo '#include <stdio.h>'
  echo 'int main(void) {'
  names | sed -E 's/.*/  printf("%s %lld\\n", "&", (long long)&);/'
  fields | sed -E 's/(.*)\.(.*)/  printf("%s %zu %zu\\n", "&", offsetof(struct \1, \2), sizeof(((struct \1*)0)->\2));/'
  fields | sed -E 's/\..*//' | sort -u | sed -E 's/.*/  printf("%s %zu\\n", "&", sizeof(struct &));/'
  echo '}'
}

# enumerators of the enum $2 as the headers in the folder $1 declare it
enumerators() {
  echo '#include <cuda_runtime_api.h>' | cc -E -P -I"$1" -xc - | tr '\n' ' ' |
    grep -oE "enum ([a-z_A-Z0-9]+\(\([^)]*\)\) *)*$2 *\{[^}]*\}" | head -n 1 |
    sed -E 's/.*\{//' | tr ',' '\n' | sed -nE 's/^ *([A-Za-z0-9_]+).*/\1/p' | sort
}

failed=0

printer > "$work/printer.c"
cc -I"$ours" "$work/printer.c" -o "$work/ours"
cc -I"$theirs" "$work/printer.c" -o "$work/theirs"
"$work/ours" > "$work/ours.txt"
"$work/theirs" > "$work/theirs.txt"
diff "$work/ours.txt" "$work/theirs.txt" || failed=1

enums=0
mapfile -t names < <(sed -nE 's/^enum ([A-Za-z0-9_]+) \{$/\1/p' "$types")
for enum in "${names[@]}"; do
  enums=$((enums + 1))
  diff <(enumerators "$ours" "$enum") <(enumerators "$theirs" "$enum") > "$work/diff" && continue
  echo "enum $enum: ours (<) and the toolkit's (>):"
  cat "$work/diff"
  failed=1
done

cat > "$work/signatures.c" << 'C'
#include <cuda_runtime_api.h>
#undef CUDART_VERSION
#undef CUDARTAPI
#define CUDASIM_DRIVER_TYPES_H_
#define CUDASIM_DRIVER_FUNCTIONS_H_
C
grep -v "^#include" "$ours/cuda_runtime_api.h" >> "$work/signatures.c"
cc -I"$theirs" -I"$ours" -fsyntax-only "$work/signatures.c" || failed=1
functions=$(grep -cE '^CUDASIM_EXPORT_ ' "$ours/cuda_runtime_api.h")

values=$(wc -l < "$work/ours.txt")
echo "$values values, sizes and places, $enums enums, $functions signatures compared"
if ((values < 500 || enums < 14 || functions < 90)); then
  echo "that is less than there was: the headers are not read as they should be" >&2
  failed=1
fi
exit "$failed"
