#!/bin/bash
# tm trace: exit statuses, the line of what is not served or cannot be read, threads, streams.
set -uo pipefail

tm=$(realpath "$1")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
failures=0

fail() {
  echo "FAILED: $1"
  failures=$((failures + 1))
}

# run ARGUMENT...: fills `status`, out and err.
run() {
  "$tm" trace "$@" > out 2> err < /dev/null
  status=$?
}

# expect_error PATTERN ARGUMENT...: exit 2, nothing on stdout, and one line on stderr that matches.
expect_error() {
  local pattern=$1
  shift
  run "$@"
  [[ $status -eq 2 ]] || fail "tm trace $*: exit status $status"
  [[ ! -s out ]] || fail "tm trace $*: writes to stdout: $(head -n 1 out)"
  [[ $(wc -l < err) -eq 1 ]] || fail "tm trace $*: not one line on stderr: $(cat err)"
  grep -qE -- "$pattern" err || fail "tm trace $*: no '$pattern' in: $(cat err)"
}

# expect_row PATTERN: a line of what was printed last.
expect_row() {
  grep -qE -- "$1" out || fail "no '$1' in: $(cat out)"
}

# expect_served PATTERN ARGUMENT...: exit 0, nothing on stderr, and a line on stdout that matches.
expect_served() {
  local pattern=$1
  shift
  run "$@"
  [[ $status -eq 0 ]] || fail "tm trace $*: exit status $status: $(cat err)"
  [[ ! -s err ]] || fail "tm trace $*: writes to stderr: $(cat err)"
  expect_row "$pattern"
}

# expect_unserved PATTERN ARGUMENT...: exit 1, a report, and one line on stderr that matches.
expect_unserved() {
  local pattern=$1
  shift
  run "$@"
  [[ $status -eq 1 ]] || fail "tm trace $*: exit status $status: $(cat err)"
  [[ -s out ]] || fail "tm trace $*: no report"
  [[ $(wc -l < err) -eq 1 ]] || fail "tm trace $*: not one line on stderr: $(cat err)"
  grep -qE -- "$pattern" err || fail "tm trace $*: no '$pattern' in: $(cat err)"
}

finish() {
  [[ $failures -eq 0 ]] || echo "$failures failures"
  exit $((failures > 0))
}

#===-- Inputs --------------------------------------------------------------===#

cat > rmm.csv << 'END'
Thread,Time,Action,Pointer,Size,Stream
7,10:31:07.112233,allocate,0x7f0000,1000,0x0
7,10:31:07.112234,allocate,0x7f1000,3000,0x0
7,10:31:07.112235,allocate failure,(nil),500,0x0
7,10:31:07.112236,free,0x7f0000,1000,0x0
7,10:31:07.112237,allocate,0x7f0000,2000,0x0
END
cat > threads.csv << 'END'
Thread,Time,Action,Pointer,Size,Stream
7,10:31:07.112233,allocate,0x7f0000,1000,0x0
8,10:31:07.112234,allocate,0x7f1000,3000,0x55d0
9,10:31:07.112235,allocate,0x7f2000,2000,0x2
8,10:31:07.112236,free,0x7f0000,1000,0x55d0
7,10:31:07.112237,free,0x7f1000,3000,0x0
9,10:31:07.112238,free,0x7f2000,2000,0x2
END
printf 'id,lower,upper,size\na,0,2,1024\nb,1,3,1024\nc,2,3,1024\n' > plan.2048.csv
sed '4s/500/five/' rmm.csv > malformed.csv
head -c 250 rmm.csv > truncated.csv

#===-- The command line ----------------------------------------------------===#

expect_served "^Usage: tm trace FILE" --help
expect_row "^  stack +an arena: initial=SIZE, maximum=SIZE"
"$tm" --help | grep -qE "^  trace +replay a log" || fail "tm --help has no trace"
expect_error "^tm trace: a log is expected"
expect_error "^tm trace: 'plan.2048.csv' is one log too many" rmm.csv plan.2048.csv
expect_error "^tm trace: unrecognized option '--colour'$" rmm.csv --colour
expect_error "^tm trace: --allocators 'stack\(pol\)', column 7: 'pol' is no allocator; known" \
  rmm.csv --allocators 'stack(pol)'
expect_error "column 6: stack is over another allocator" rmm.csv --allocators host --allocators stack
expect_error "^tm trace: --format csv: rmm, umpire and minimalloc are known" rmm.csv --format csv
expect_error "^tm trace: --format any: rmm" rmm.csv --format any
expect_error "^tm trace: --repeat 0: an integer" rmm.csv --repeat 0
expect_error "^tm trace: --capacity lots: a size" rmm.csv --capacity lots
expect_error "^tm trace: --device-memory 0: a size" rmm.csv --device-memory 0
expect_error "^tm trace: --concurrent needs threads" rmm.csv --concurrent --one-thread
many=()
for _ in $(seq 17); do many+=(--allocators host); done
expect_error "more than 16 are not compared" rmm.csv "${many[@]}"

#===-- Logs that cannot be read --------------------------------------------===#

expect_error "^tm trace: nowhere.csv: No such file" nowhere.csv
expect_error "^tm trace: \.: Is a directory" .
expect_error "^tm trace: /dev/null:1: the file is empty" /dev/null
expect_error "^tm trace: malformed.csv:4: Size must be a number of bytes below 2\^63, not 'five'" \
  malformed.csv
expect_error "^tm trace: truncated.csv:6: 6 columns are expected, not 4" truncated.csv
expect_error "^tm trace: rmm.csv:1: column 6: " rmm.csv --format umpire
expect_error "^tm trace: rmm.csv:1: a column is not known" rmm.csv --format minimalloc
echo x > text
expect_error "^tm trace: text:1: neither RMM's header, nor" text

#===-- On the host ---------------------------------------------------------===#

expect_served "^allocations served +3 +3$" rmm.csv --allocators host --allocators 'stack(host)'
expect_row "^  not served +0 +0$"
expect_row "^events +3 allocations, 1 free, 1 failed; 1 thread, 1 stream$"
expect_row "^live +at most 4.88 KiB; at the end 4.88 KiB in 2 blocks$"
expect_row "^peak live +4.88 KiB +4.88 KiB$"
expect_row "^peak reserved +4.94 KiB +2.00 MiB$"
expect_row "^  fragmentation +1.11 % +99.76 %$"
expect_row "^operations +4 +4$"
expect_row "^upstream calls +6 +1$"
expect_row "^high-water mark of arenas +- +[0-9.]+ KiB$"
expect_served "^  in the last pass +6 +0$" rmm.csv --repeat 3 --allocators host \
  --allocators 'stack(host)'
expect_row "^operations +12 +12$"
expect_served "^  failed in the log, served +1$" rmm.csv --allocators host --try-failures
sed 's/,500,/,5000000,/' rmm.csv > refused.csv
expect_served "^  failed in the log, served +0$" refused.csv --allocators 'stack:maximum=1MiB(host)' \
  --try-failures

expect_unserved \
  "^tm trace: rmm.csv:3: 'stack:maximum=1KiB\(host\)' does not serve 3000 bytes: stack: .*; and 1 more$" \
  rmm.csv --allocators 'stack:maximum=1KiB(host)'
expect_row "^allocations served +1$"
expect_row "^  not served +2$"
expect_unserved "^tm trace: rmm.csv:6: 'stack:maximum=4KiB\(host\)' does not serve 2000 bytes: .* held" \
  rmm.csv --allocators host --allocators 'stack:maximum=4KiB(host)'
expect_error "^tm trace: 'stack:2KiB,maximum=1KiB\(host\)': " rmm.csv \
  --allocators 'stack:2KiB,maximum=1KiB(host)'

#===-- Adaptors ------------------------------------------------------------===#

expect_served "^allocations served +3 +3 +3$" rmm.csv --allocators 'cached(host)' \
  --allocators 'limit:5056(host)' --allocators 'guard(statistics(tracking(host)))'
expect_unserved "^tm trace: rmm.csv:6: 'limit:5055\(host\)' does not serve 2000 bytes: limit: " \
  rmm.csv --allocators 'limit:5055(host)'
expect_unserved "^tm trace: rmm.csv:3: 'fault:every=2\(host\)' does not serve 3000 bytes: fault: " \
  rmm.csv --allocators 'fault:every=2(host)'
expect_served "^peak reserved +5.00 KiB +2.00 MiB$" rmm.csv --allocators dry --allocators 'stack(dry)'
grep -q "^device" out && fail "dry memory is no device's: $(cat out)"
expect_error "^tm trace: 'locked\(stack\(host\)\)': locked: stack belongs to the thread" rmm.csv \
  --allocators 'locked(stack(host))'
expect_error "^tm trace: 'guard\(dry\)': guard: " rmm.csv --allocators 'guard(dry)'
expect_error "^tm trace: 'logging:nowhere/x.csv\(host\)': " rmm.csv \
  --allocators 'logging:nowhere/x.csv(host)'

# What tmcore logs of a replay is what was replayed; what the log never frees is freed at the end.
expect_served "^allocations served +3$" rmm.csv --allocators 'logging:again.csv(host)'
expect_served "^events +3 allocations, 3 frees, 0 failed; 1 thread, 1 stream$" again.csv \
  --allocators host
expect_row "^live +at most 4.88 KiB; at the end 0 B in 0 blocks$"
expect_unserved "does not serve" rmm.csv --allocators 'logging:again.csv(limit:4096(host))'
expect_served "^events +2 allocations, 2 frees, [12] failed; 1 thread" again.csv --allocators host

#===-- Planning problems ---------------------------------------------------===#

expect_served "^capacity +2.00 KiB$" plan.2048.csv --allocators host
expect_row "^  of the capacity +100.00 %$"
expect_served "^  of the capacity +50.00 %$" plan.2048.csv --allocators host --capacity 4KiB
cp plan.2048.csv plan.csv
expect_served "^peak reserved +2.00 KiB$" plan.csv --allocators host
grep -q capacity out && fail "a capacity of nowhere: $(cat out)"

#===-- Threads -------------------------------------------------------------===#

for order in "" --concurrent --one-thread; do
  expect_served "^allocations served +3 +3$" threads.csv ${order:+$order} --repeat 5 \
    --allocators host --allocators 'stack(host)'
done
expect_row "^order +the log's, on one thread; 5 timed passes$"
expect_served "3 threads, 3 streams$" threads.csv --allocators host
# Each thread has an arena with a maximum of its own.
expect_served "^allocations served +3$" threads.csv --allocators 'stack:maximum=3KiB(host)'
expect_unserved "^tm trace: threads.csv:[34]: .* does not serve" threads.csv --one-thread \
  --allocators 'stack:maximum=3KiB(host)'

expect_error "made for each of 3 threads, which would write one file" threads.csv \
  --allocators 'logging:x.csv(stack(host))'
for order in "" --concurrent; do
  expect_served "^allocations served +3$" threads.csv ${order:+$order} \
    --allocators 'stack(locked(logging:again.csv(host)))'
  expect_served "[34] threads, 1 stream$" again.csv --allocators host
done

#===-- On a device ---------------------------------------------------------===#

# The real runtime without a GPU can be asked no more.
if "$tm" info | grep '^devices *none'; then
  expect_error "^tm trace: cuda" rmm.csv
  echo "SKIPPED: what needs a device"
  finish
fi

expect_served "^allocations served +3 +3 +3$" rmm.csv
expect_row "^ +cuda +pool +stack\(pool\)$"
for order in "" --concurrent --one-thread; do
  expect_served "^allocations served +3 +3 +3 +3$" threads.csv ${order:+$order} --repeat 3 \
    --allocators cuda --allocators pool --allocators 'stack(pool)' --allocators pinned
  expect_served "^allocations served +3 +3 +3$" threads.csv ${order:+$order} --repeat 3 \
    --allocators 'limit:8GiB(cached(cuda))' --allocators 'stack(cached(cuda))' \
    --allocators 'guard(cached(pinned))'
done
sed 's/,3000,/,68719476736,/' rmm.csv > large.csv
expect_unserved "^tm trace: large.csv:3: 'cuda' does not serve 68719476736 bytes: " large.csv \
  --allocators cuda --device-memory 1GiB
expect_unserved "^tm trace: 'stack:64GiB\(cuda\)': .*68719476736" rmm.csv \
  --allocators 'stack:64GiB(cuda)' --device-memory 1GiB
expect_row "^ +stack:64GiB\(cuda\) FAILED$"

finish
