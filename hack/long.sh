#!/usr/bin/env bash
# Runs the tests that take too long for CI, part by part: chaos with many seeds (harm-N: ten each,
# with harmful events), whole clusters, long models, every drill, the soak test, and
# real Kubernetes clusters.
#
#   make long                              every part that is not done for this commit
#   make long ARGS="soak drill-*"          those parts
#   make long ARGS=--list                  the parts, and which are done
#
# A part that succeeds is recorded in .tandem/long/PART.done. Interrupt the run at any
# time: the next one continues with the parts that are not done. Another commit, or
# other changes that are not committed, start over; so does FRESH=1. A part that fails
# does not stop the others; its output is in .tandem/long/PART.log.
#
# Environment: SEEDS (default 20) and DURATION (2m) of chaos; MODELS (25), the parts of 200,000
# events of the reference model on each version of PostgreSQL; FRESH=1; EAST and WEST,
# two kubeconfigs for make e2e, which otherwise starts clusters of its own.
set -euo pipefail
cd "$(dirname "$0")/.."

unset MAKEFLAGS MFLAGS ARGS # of the calling make
seeds=${SEEDS:-20} duration=${DURATION:-2m} models=${MODELS:-25}
state=.tandem/long
mkdir -p "$state"
commit=$(git rev-parse --short=12 HEAD)
changes=$(git diff HEAD | git hash-object --stdin)
[ "$changes" = "$(git hash-object --stdin </dev/null)" ] || commit=$commit+${changes:0:12}

# parts prints the name of each part.
parts() {
	echo protocol inflight source clusters chaostest repeat func soak fuzz
	seq -f 'model-15-%g' 1 "$models"
	seq -f 'model-18-%g' 1 "$models"
	seq -f 'chaos-%g' 1 "$seeds"
	seq -f 'harm-%g' 1 10
	seq -f 'share-chaos-%g' 1 "$seeds"
	make --no-print-directory drill | sed -n 's/^  \([a-z][a-z-]*\)  .*/drill-\1/p' | grep . || return 1
	echo e2e
}

# fuzz lets each fuzz test search for a minute.
fuzz() {
	local file name
	git grep -o 'func Fuzz[A-Za-z0-9_]*' -- '*_test.go' | while IFS=: read -r file name; do
		go test -run '^$' -fuzz "^${name#func }\$" -fuzztime 1m "./$(dirname "$file")" </dev/null || return 1
	done
}

# model VERSION-N runs the reference model on that PostgreSQL: four runs of 30,000 events, and
# 80,000 of random tables, so that 25 parts of each of two versions are 10,000,000 events.
model() {
	local version=${1%-*} n=${1#*-} bin
	bin=$(go run ./hack/pgbin "$version") || return 1
	TANDEM_PG_BIN=$bin go test -count=1 -timeout 2h -run 'TestARandomRun' ./sinkwriter -seed "$((n * 1000))" -events 30000 &&
		TANDEM_PG_BIN=$bin go test -count=1 -timeout 2h -run 'TestEventsThatAreCommittedTogether' ./sinkwriter -seed "$((n * 100000 + version))" -events 80000
}

# run PART runs it; status 75 means that this machine cannot.
run() {
	case $1 in
	protocol) go test -count=1 -timeout 2h ./test/protocol -long ;;
	inflight) go test -count=1 -timeout 2h ./eventing/source/internal/inflight -share-seeds 100 ;;
	source) go test -race -count=1 -timeout 1h ./eventing/source ;;
	fuzz) fuzz ;;
	clusters) make clusters ARGS=-count=1 ;;
	chaostest) make chaostest ARGS=-count=1 ;;
	repeat) go test -race -short -p 2 -count=3 -shuffle=on -timeout 1h ./... ;;
	func) make func ARGS=-count=1 ;;
	soak) make soak ;;
	model-*) model "${1#model-}" ;;
	chaos-*) make chaos SEED="${1#chaos-}" DURATION="$duration" ;;
	share-chaos-*) make chaos SEED="${1#share-chaos-}" DURATION="$duration" ARGS="--hedge share" ;;
	harm-*) make chaos SEED="${1#harm-}1" DURATION=15s RUNS=10 ARGS="--only kill-event,hang-event,fail-type,big-output" ;;
	drill-source-replicas) make drill SCENARIO=source-replicas ARGS="--times 100" ;;
	drill-*) make drill SCENARIO="${1#drill-}" ;;
	e2e)
		if [ -z "${EAST:-}${WEST:-}" ] && { [ "$(id -u)" != 0 ] || ! command -v dpkg-query >/dev/null; }; then
			echo "skipped: without EAST and WEST it starts clusters, which needs root on Debian"
			return 75
		fi
		make e2e
		;;
	esac
}

is_done() { grep -qsx "commit $commit" "$state/$1.done"; }

wanted() { # wanted PART PATTERN...
	local part=$1 pattern
	shift
	[ "$#" -gt 0 ] || return 0
	for pattern in "$@"; do
		# shellcheck disable=SC2254 # it is a pattern
		case $part in $pattern) return 0 ;; esac
	done
	return 1
}

list=
if [ "${1:-}" = --list ]; then
	list=1
	shift
fi
case ${1:-} in -*)
	echo "long: unknown flag $1: the flag is --list" >&2
	exit 2
	;;
esac
all=$(parts) || {
	echo "long: make drill lists no scenarios" >&2
	exit 2
}
selected=
for part in $all; do
	wanted "$part" "$@" && selected="$selected $part"
done
[ -n "$selected" ] || {
	echo "long: no part is named $*: make long ARGS=--list lists them" >&2
	exit 2
}
if [ -n "$list" ]; then
	for part in $selected; do
		is_done "$part" && echo "$part	done" || echo "$part	open"
	done | expand -t 28
	exit
fi

if [ -n "${FRESH:-}" ]; then
	for part in $selected; do rm -f "$state/$part.done"; done
fi
summary=
running=
failed=0
finish() { summary+=$(printf 'long: %-28s %4s min  %s' "$running" "$1" "$2")$'\n' && running=; }
report() {
	[ -z "$running" ] || finish $(((SECONDS - begun) / 60)) interrupted
	printf '\n%s' "$summary"
}
trap report EXIT
trap 'exit 130' INT TERM

total=$(wc -w <<<"$selected")
number=0
for part in $selected; do
	number=$((number + 1)) running=$part begun=$SECONDS
	if is_done "$part"; then
		finish - "done before"
		continue
	fi
	echo "long: $(date +%H:%M:%S) $number of $total: $part, output in $state/$part.log"
	rm -f "$state/$part.done"
	status=0
	(run "$part") >"$state/$part.log" 2>&1 </dev/null || status=$?
	minutes=$(((SECONDS - begun) / 60))
	case $status in
	0)
		printf 'commit %s\nminutes %s\n' "$commit" "$minutes" >"$state/$part.done"
		finish "$minutes" ok
		;;
	75) finish - "$(tail -n 1 "$state/$part.log")" ;;
	*)
		failed=1
		finish "$minutes" "FAILED, see $state/$part.log"
		tail -n 15 "$state/$part.log" | sed 's/^/    /'
		;;
	esac
done
exit "$failed"
