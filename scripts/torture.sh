#!/usr/bin/env bash
# Searches for lost or wrong bytes: ./scripts/torture.sh --minutes N [PART...]
#
# Parts, each with an equal share of the time (all of them when none is named):
#   simulate  crashes, failing I/Os and ended contexts, simulated
#   cut       power cuts under the real daemon; needs root
#   kill      the real daemon killed under load, and inside every operation, for
#             which it needs root
#   rot       flipped bits and lying writes
#   fuzz      every decoder of what lies on a drive, and the checker
#
# Seeds are new each time; a failure prints how to replay it and ends the run
# with 1. See docs/reliability.md.

set -euo pipefail

cd "$(dirname "$0")/.."
readonly all="simulate cut kill rot fuzz"
minutes=
parts=()

usage() {
	echo "torture.sh: $1; usage: torture.sh --minutes N [$all]" >&2
	exit 2
}

while [ $# -gt 0 ]; do
	case $1 in
	--minutes)
		minutes=${2:-}
		shift
		[ $# -eq 0 ] || shift
		;;
	--minutes=*)
		minutes=${1#*=}
		shift
		;;
	-h | --help)
		sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
		exit 0
		;;
	*)
		case " $all " in
		*" $1 "*) parts+=("$1") ;;
		*) usage "no part '$1'" ;;
		esac
		shift
		;;
	esac
done
[[ $minutes =~ ^[1-9][0-9]*$ ]] || usage "--minutes wants a number"
if [ ${#parts[@]} -eq 0 ]; then
	read -ra parts <<<"$all"
fi
share=$((minutes * 60 / ${#parts[@]}))

if ! command -v go >/dev/null; then
	echo "torture.sh: Go is missing; install Go $(awk '$1 == "go" { print $2 }' go.mod) or later" >&2
	exit 1
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/mpool-torture.XXXXXX")
# What a test that is interrupted leaves behind lies here.
export TMPDIR=$work

# cleanup removes all that. Drives that a test had mounted go a moment after it.
cleanup() {
	local code=$? i
	trap - EXIT
	trap '' INT TERM HUP PIPE
	for ((i = 0; i < 100; i++)); do
		if ! grep -qF " $work/" /proc/self/mountinfo && rm -rf "$work" 2>/dev/null; then break; fi
		sleep 0.1
	done
	exit $code
}
trap cleanup EXIT
trap 'echo "torture.sh: interrupted" >&2; exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP
if [ ${#work} -gt 40 ]; then # a socket's path has 103 bytes
	echo "torture.sh: $work is too long for the paths of sockets in it: set TMPDIR to a directory with a shorter one" >&2
	exit 1
fi

seed() { echo $((RANDOM * 32768 + RANDOM + 1)); }

# tests PACKAGE ARGUMENTS... runs tests and shows what they say.
tests() {
	local package=$1
	shift
	go test -count=1 -timeout 24h -v "./$package" "$@" 2>&1 | grep -v '^=== RUN'
}

# until_end END COMMAND... repeats a command until the time has come.
until_end() {
	local end=$1
	shift
	while [ "$SECONDS" -lt "$end" ]; do "$@" || return; done
}

part_simulate() {
	# The last six take a quarter of the time each.
	local each=$((share / 8 > 0 ? share / 8 : 1)) t
	for t in TestCrashRandom TestCrashEveryBoundary TestEverySite TestFaults TestDeadlines TestFaultsAndDeadlines \
		TestEachCallFailsAnywhere TestNoFalseAcknowledgement TestEachCallCutAnywhere TestEachCallRefused \
		TestEachWriteTorn TestLyingFlushes; do
		CGO_ENABLED=0 tests test/sim -tags invariants -run "^$t\$" "-sim.for=${each}s" "-sim.first=$(seed)" || return
	done
}

part_cut() {
	if [ "$(id -u)" -ne 0 ]; then
		echo "cut: left out: it needs root" >&2
		return
	fi
	until_end $((SECONDS + share)) tests test/powercut -powercut.cuts=100 -powercut.pools=4
}

part_kill() { until_end $((SECONDS + share)) tests test/kill -kill.rounds=20 -kill.inside=2; }

part_rot() { until_end $((SECONDS + share)) tests test/rot -rot.flips=2000 -rot.lies=80; }

part_fuzz() {
	local list line file target each
	list=$(grep -rHoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' mpool mlog mblock | sort)
	each=$((share / $(wc -l <<<"$list")))
	while read -r line; do
		file=${line%%:*} target=${line##*func }
		echo "$target"
		# Go before 1.27 at times reports the end of -fuzztime as a failure
		# (golang.org/issue/75804): without a failing input it is none.
		CGO_ENABLED=0 go test -run '^$' -fuzz "^$target\$" -fuzztime "$((each > 0 ? each : 1))s" \
			"./$(dirname "$file")" >"$work/log" 2>&1 </dev/null ||
			{ grep -qx ' *context deadline exceeded' "$work/log" && ! grep -q 'Failing input' "$work/log"; } ||
			{
				cat "$work/log"
				return 1
			}
	done <<<"$list"
}

for p in "${parts[@]}"; do
	printf '\n== %s, %d s\n' "$p" "$share"
	"part_$p" || {
		echo "torture.sh: $p failed" >&2
		exit 1
	}
done
