#!/bin/bash
# The command line of tm: exit statuses, one clear line for what is wrong, nothing for people in pipes.
set -uo pipefail

tm=$(realpath "$1")
model=$(realpath "$2")
trace=$(realpath "$3")
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
  "$tm" "$@" > out 2> err < /dev/null
  status=$?
}

# expect_error PATTERN ARGUMENT...: exit 2, nothing on stdout, and one line on stderr that matches.
expect_error() {
  local pattern=$1
  shift
  run "$@"
  [[ $status -eq 2 ]] || fail "tm $*: exit status $status"
  [[ ! -s out ]] || fail "tm $*: writes to stdout: $(head -n 1 out)"
  [[ $(wc -l < err) -eq 1 ]] || fail "tm $*: not one line on stderr: $(cat err)"
  grep -qE -- "$pattern" err || fail "tm $*: no '$pattern' in: $(cat err)"
}

# expect_success PATTERN ARGUMENT...: exit 0, nothing on stderr, and a line on stdout that matches.
expect_success() {
  local pattern=$1
  shift
  run "$@"
  [[ $status -eq 0 ]] || fail "tm $*: exit status $status: $(cat err)"
  [[ ! -s err ]] || fail "tm $*: writes to stderr: $(cat err)"
  grep -qE -- "$pattern" out || fail "tm $*: no '$pattern' in: $(cat out)"
}

#===-- Inputs --------------------------------------------------------------===#

cp "$trace" trace.csv
sed '3s/396/many/' trace.csv > malformed.csv
sed '4s/51\.22/41.22/' trace.csv > disordered.csv

cp "$model" config.json
sed '3s/256/-256/' config.json > negative.json
sed '9s/,$//' config.json > unparsable.json

small=(--model config.json --trace trace.csv --max-batch 4 --max-tokens 512)

#===-- tm ------------------------------------------------------------------===#

expect_error "a command is expected"
expect_error "'plot' is no command" plot
expect_success "Usage: tm COMMAND" --help
expect_success "^tm \(tmcore\) [0-9]+\.[0-9]+\.[0-9]+$" --version
expect_success "^devices? " info
expect_error "'--all' is no option" info --all

# expect_incomplete ARGUMENT...: where stdout takes nothing, exit 2 and one line on stderr.
expect_incomplete() {
  "$tm" "$@" > /dev/full 2> err < /dev/null
  status=$?
  [[ $status -eq 2 ]] || fail "tm $* > /dev/full: exit status $status"
  [[ $(wc -l < err) -eq 1 ]] || fail "tm $* > /dev/full: not one line on stderr: $(cat err)"
  grep -q "^tm: stdout: No space left on device$" err || fail "tm $* > /dev/full: $(cat err)"
}

printf 'Thread,Time,Action,Pointer,Size,Stream\n1,1,allocate,0x100,64,0x0\n' > log.csv
expect_incomplete --help
expect_incomplete --version
expect_incomplete info
expect_incomplete plan --help
expect_incomplete trace log.csv --allocators host
expect_incomplete trace log.csv --allocators host --json

#===-- Options -------------------------------------------------------------===#

expect_success "^Usage: tm replay" replay --help
expect_success "llama-3-8b" replay --help
expect_error "^tm replay: unrecognized option '--colour'$" replay --colour
expect_error "option '--trace' requires an argument" replay --trace
expect_error "option '--max' is ambiguous" replay --max 3
expect_error "'trace.csv' is no option" replay trace.csv
expect_error "--requests 0: an integer from 1 to 10000000" replay --requests 0
expect_error "--requests ten: an integer" replay --requests ten
expect_error "--max-batch -1: an integer from 1 to" replay --max-batch -1
expect_error "--max-tokens 99999999999: an integer" replay --max-tokens 99999999999
expect_error "--seed x: an integer" replay --seed x
expect_error "--allocators best: cuda, cached, pool and stack are known" replay --allocators best
expect_error "--allocators cuda,: cuda, cached, pool and stack" replay --allocators cuda,
expect_error "--allocators stack,stack: one is named twice" replay --allocators stack,stack

expect_success "^Usage: tm plan" plan --help
expect_error "^tm plan: unrecognized option '--colour'$" plan --colour
expect_error "'config.json' is no option" plan config.json
expect_error "--batch 0: an integer from 1 to 65536" plan --batch 0
expect_error "--sequence many: an integer from 1 to" plan --sequence many
expect_error "--max-tokens 99999999999: an integer" plan --max-tokens 99999999999
expect_error "--device-memory 0: a size such as" plan --device-memory 0

#===-- Files ---------------------------------------------------------------===#

expect_error "^tm replay: nowhere.csv: No such file" replay --trace nowhere.csv
expect_error "^tm replay: \.: Is a directory" replay --trace .
expect_error "^tm replay: malformed.csv:3: ContextTokens" replay --trace malformed.csv
expect_error "^tm replay: disordered.csv:4: the timestamp is before" replay --trace disordered.csv
expect_error "^tm replay: /dev/null:1: the first line must be" replay --trace /dev/null
expect_error "^tm replay: gpt-2: No such file" replay --model gpt-2
expect_error "^tm replay: negative.json:3: \"hidden_size\" must be" replay --model negative.json
expect_error "^tm replay: unparsable.json:10: " replay --model unparsable.json

expect_error "^tm plan: gpt-2: No such file" plan --model gpt-2
expect_error "^tm plan: negative.json:3: \"hidden_size\" must be" plan --model negative.json

#===-- Sizes ---------------------------------------------------------------===#

expect_error "--device-memory lots: a size such as 80GiB" replay --device-memory lots
expect_error "--device-memory 0: a size such as" replay --device-memory 0
expect_error "--prefix-cache many: a size such as" replay --prefix-cache many
for share in -0.1 1.01 nan 1% ''; do
  expect_error "--fail-rate $share: a share from 0 to 1 is expected" replay --fail-rate "$share"
done
expect_error "--device-memory -5GiB: a size such as" replay --device-memory -5GiB

finish() {
  [[ $failures -eq 0 ]] || echo "$failures failures"
  exit $((failures > 0))
}

# The real runtime without a GPU can be asked no more.
if "$tm" info | grep '^devices *none'; then
  expect_error "^tm replay: cuda" replay
  echo "SKIPPED: what needs a device"
  finish
fi

expect_error "memory|device" replay --device-memory 1KiB
expect_error "memory|device" replay --device-memory 4096TiB
expect_error "llama-3-8b has 14.96 GiB of weights, the device 8.00 GiB" replay --device-memory 8GiB
expect_error "does not fit in 15.00 GiB: " replay --device-memory 15GiB
expect_error "does not fit in 16.00 GiB: " replay --device-memory 16GiB --max-tokens 16777216

#===-- Plans ---------------------------------------------------------------===#

expect_error "sequences of 20000 tokens asked; the model takes 8192" plan --sequence 20000
expect_success "^fits +yes: " plan --device-memory 80GiB
expect_success "^weights +16,060,522,496 B +16,060,522,496 B$" plan --device-memory 80GiB
expect_success "^longest context +8192 tokens in 16 sequences, all" plan --device-memory 80GiB
expect_success '"fits": true' plan --device-memory 80GiB --json
run plan --device-memory 16GiB
[[ $status -eq 1 ]] || fail "a plan that does not fit: exit status $status"
grep -qE "^fits +NO: [0-9.]+ GiB are missing$" out || fail "what is missing: $(cat out)"

expect_incomplete plan --device-memory 80GiB
expect_incomplete plan --device-memory 80GiB --json
expect_incomplete replay "${small[@]}" --allocators stack
expect_incomplete replay "${small[@]}" --allocators stack --json

# The largest batch is the largest that fits.
"$tm" plan --device-memory 40GiB > out
batch=$(sed -n 's/^largest batch *\([0-9]*\) .*/\1/p' out)
expect_success "^fits +yes" plan --device-memory 40GiB --batch "$batch"
run plan --device-memory 40GiB --batch $((batch + 1))
[[ $status -eq 1 ]] || fail "more than the largest batch: exit status $status"

#===-- Replays -------------------------------------------------------------===#

expect_success "^requests finished +4 +4 +4 +4$" replay "${small[@]}"
grep -qE "^  after the profile step +[1-9][0-9,]+ +[0-9]+ +[1-9][0-9,]+ +0$" out || fail "upstream calls: $(cat out)"
expect_success "^requests finished +2$" replay "${small[@]}" --requests 2 --allocators pool
expect_success "^verified +yes +yes +yes +yes$" replay "${small[@]}" --verify
expect_success "generated, 20 requests" replay --model config.json --requests 20 --max-tokens 512
expect_success "longer than the model takes +1$" \
  replay "${small[@]}" --allocators stack --trace <(sed '2s/374/4000/' trace.csv)

expect_success "^  steps failed after admission +- +- +- +0$" replay "${small[@]}"
expect_success "^  steps refused admission +0$" replay "${small[@]}" --allocators stack
expect_success "^faults +0.2 of the allocations, at random from seed 7$" \
  replay "${small[@]}" --fail-rate 0.2 --seed 7
grep -qE "^outstanding at the end +0 +0 +0 +0$" out || fail "outstanding: $(cat out)"
expect_success "^requests finished +0$" replay "${small[@]}" --allocators stack --fail-rate 1
grep -qE "^    no memory, even alone +4$" out || fail "all is refused: $(cat out)"
expect_success "^  prompt tokens saved +[0-9]" replay "${small[@]}" --allocators stack --prefix-cache 1MiB

# Little memory for the KV cache: what does not fit at once is pre-empted and finishes later.
expect_success "^  pre-empted +[1-9]" replay "${small[@]}" --device-memory 44MiB --allocators cuda
expect_success "^requests finished +4$" replay "${small[@]}" --device-memory 44MiB --allocators cuda
# Where `bazel run` was called from is where file names begin.
mkdir elsewhere
(
  cd elsewhere || exit 1
  BUILD_WORKING_DIRECTORY=$folder "$tm" replay --allocators stack --model config.json \
    --trace trace.csv > out 2> err || { cat err; exit 1; }
) || fail "relative paths under bazel run"

finish
