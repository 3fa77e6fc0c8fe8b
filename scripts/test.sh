#!/usr/bin/env bash
# Runs every check of the tree: ./scripts/test.sh [STEP...]
#
# Steps, in order (all of them when none is named):
#   build       all commands, CGO_ENABLED=0
#   format      gofumpt
#   vet         go vet, also with the tag invariants
#   lint        golangci-lint (staticcheck among its linters)
#   locks       gVisor's checklocks: fields are touched under their locks only
#   unit        go test -race of everything
#   invariants  the engine again with its internal assertions
#   sim         crash and fault simulation of the engine
#   fuzz        every fuzz target for a few seconds
#   quickstart  scripts/quickstart.sh
#
# and only when named, because it takes minutes:
#   mutants     the engine's rules, broken one at a time: the tests must notice
#
# As root the tests on loop devices run too and nothing may be skipped;
# otherwise what was skipped is listed. Environment:
#   MPOOL_FUZZ_TIME  seconds per fuzz target (3)
#   MPOOL_SIM_TIME   seconds per simulation test (10)
#   MPOOL_SIM_FIRST  first seed of the simulation (1); take others to search on
#   MPOOL_MUTANTS    how many mutants (4); all of them take about an hour on busy processors
#
# Whatever happens, no process, loop device, mount or file is left behind; if a
# test left one, it is removed and the run has failed.

set -euo pipefail

readonly golangci_version=v2.15.0
readonly gofumpt_version=v0.12.0
readonly checklocks_version=v0.0.0-20260905035102-160fafc42237

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
readonly tools=$root/bin/tools
all_steps="build format vet lint locks unit invariants sim fuzz quickstart"
steps=${*:-$all_steps}
all_steps="$all_steps mutants"
for s in $steps; do
	case " $all_steps " in
	*" $s "*) ;;
	*)
		echo "test.sh: no step '$s': there are $all_steps" >&2
		exit 2
		;;
	esac
done

# Everything that the tests make lies below $work, so that it can be found
# afterwards: files, the backing files of loop devices, mounts; and processes
# by their TMPDIR.
work=$(mktemp -d "${TMPDIR:-/tmp}/mpool-test.XXXXXX")
chmod 711 "$work" # tests that play another user reach what is theirs in it
export TMPDIR=$work XDG_RUNTIME_DIR=$work
unset MPOOL_SOCKET # no test is to meet a daemon that is not its own
counts=$work/counts
failures=$work/failures
touch "$counts" "$failures"

# leftovers prints what is left behind and, with the argument true, removes it.
leftovers() {
	local remove=$1 p name back target
	for p in /proc/[0-9]*; do
		[ "${p#/proc/}" = $$ ] && continue
		if grep -qzxF "TMPDIR=$work" "$p/environ" 2>/dev/null; then
			case "$(readlink "$p/exe")" in
			*/bash | */grep | */sed | */stat | */readlink) continue ;; # this function's own
			esac
			echo "process ${p#/proc/}: $(tr '\0' ' ' <"$p/cmdline")"
			if $remove; then kill -9 "${p#/proc/}" 2>/dev/null || true; fi
		fi
	done
	awk -v w="$work/" 'index($2, w) == 1 { print $2 }' /proc/mounts | sort -r | while read -r target; do
		echo "mount $target"
		if $remove; then umount "$target" || umount -l "$target" || true; fi
	done
	if command -v losetup >/dev/null; then
		losetup --list --noheadings --raw --output NAME,BACK-FILE 2>/dev/null |
			while read -r name back; do
				case $back in
				"$work"/*)
					echo "loop device $name on $back"
					if $remove; then losetup --detach "$name" || true; fi
					;;
				esac
			done
	fi
}

cleanup() {
	local code=$?
	trap - EXIT INT TERM HUP
	local i
	# What was killed or detached may take the kernel a moment to end.
	for ((i = 0; code == 0 && i < 40; i++)); do
		[ -n "$(leftovers false)" ] || break
		sleep 0.25
	done
	left=$(leftovers true)
	if [ -n "$left" ] && [ $code -eq 0 ]; then
		echo "left behind by the tests:" >&2
		echo "$left" >&2
		code=1
	fi
	chmod -R u+w "$work" 2>/dev/null || true
	rm -rf "$work"
	exit $code
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

is_root() { [ "$(id -u)" -eq 0 ]; }

# need installs Debian packages for a missing command, or says how.
need() {
	local command=$1
	shift
	command -v "$command" >/dev/null && return
	if is_root && command -v apt-get >/dev/null; then
		echo "installing $*"
		apt-get update -qq
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null
		return
	fi
	echo "test.sh: '$command' is missing; install it, on Debian with: sudo apt-get install -y $*" >&2
	exit 1
}

# tool installs a Go program at a fixed version, once, into bin/tools and
# prints its path. They are no dependency of the product.
tool() {
	local name=$1 package=$2 version=$3
	local path=$tools/$version/$name found
	if [ ! -x "$path" ]; then
		found=$(go env GOPATH)/bin/$name
		if [ -x "$found" ] && go version -m "$found" 2>/dev/null | grep -q "mod.*[[:space:]]${version}[[:space:]]" &&
			[ "$(go version "$found" | awk '{ print $NF }')" = "$(go env GOVERSION)" ]; then
			echo "$found"
			return
		fi
		GOBIN=$tools/$version go install "$package@$version" >&2
	fi
	echo "$path"
}

# report turns go test -json into a report and keeps the counts.
report() {
	local no_skip=
	is_root && no_skip=-no-skip
	"$work/testreport" -counts "$counts" $no_skip "$@"
}

# A package's time. Those who wait for what must happen give up after minutes.
readonly timeout=15m

# checked runs tests in a build that checks itself: go test with the arguments
# given. What such a build skips, because it allocates or is slow, is run again
# in a plain one, and counts as it does there.
checked() {
	local ok=true package tests
	go test -json -timeout "$timeout" "$@" </dev/null | report -skips "$work/skips" || ok=false
	while read -r package tests; do
		CGO_ENABLED=0 go test -json -timeout "$timeout" -run "$tests" "$package" </dev/null | report || ok=false
	done < <(sort -u "$work/skips" | awk '{ tests[$1] = tests[$1] "|" $2 }
		END { for (p in tests) print p, "^(" substr(tests[p], 2) ")$" }')
	$ok
}

# packages lists the packages with tests below the given folders that exist.
packages() {
	local d
	for d in "$@"; do
		if find "$d" -name '*_test.go' 2>/dev/null | grep -q .; then echo "./$d/..."; fi
	done
}

step_build() { CGO_ENABLED=0 go build ./... && CGO_ENABLED=0 go build -o bin/ ./cmd/...; }

step_format() {
	local gofumpt list
	gofumpt=$(tool gofumpt mvdan.cc/gofumpt "$gofumpt_version") || return
	list=$("$gofumpt" -l .) || return
	[ -z "$list" ] || { printf 'not formatted:\n%s\n' "$list"; return 1; }
}

step_vet() { go vet ./... && go vet -tags invariants ./...; }

step_lint() {
	local golangci
	golangci=$(tool golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint "$golangci_version") || return
	"$golangci" run --allow-parallel-runners
}

# Tests may look into what nobody else uses any more, so their files are masked;
# and package sched is what the others lock with, which a tool that looks at
# their locks cannot check.
step_locks() {
	local checklocks
	checklocks=$(tool checklocks gvisor.dev/gvisor/tools/checklocks/cmd/checklocks "$checklocks_version") || return
	find "$root" -name '*_test.go' -not -path '*/testdata/*' |
		awk 'BEGIN { printf "{\"Replace\":{" } { printf "%s\"%s\":\"\"", sep, $0; sep = "," } END { print "}}" }' >"$work/no-tests.json"
	go list -overlay "$work/no-tests.json" -f '{{if .GoFiles}}{{.ImportPath}}{{end}}' ./... | grep -v '/sched$' |
		xargs go vet -overlay "$work/no-tests.json" -vettool="$checklocks" -inferred=false
}

# The commands that many packages of tests drive are built once for all. Packages
# that take long come first; more run at a time than there are processors, for
# they wait as much as they work.
step_unit() {
	local built=$work/built first rest
	mkdir -p "$built"
	CGO_ENABLED=0 go build -o "$built" ./cmd/... || return
	CGO_ENABLED=1 go build -race -o "$built/mpoold.race" ./cmd/mpoold || return
	mapfile -t first < <(packages test/death test/hostile server test/restart test/misuse cmd mpool)
	mapfile -t rest < <(go list ./...)
	MPOOL_TEST_BUILT=$built CGO_ENABLED=1 checked -race -p "$(($(nproc) + 1))" "${first[@]}" "${rest[@]}"
}

step_invariants() {
	local list
	mapfile -t list < <(packages sched layout bdev space mblock mlog)
	CGO_ENABLED=0 checked -tags invariants "${list[@]}" ./mpool
}

step_sim() {
	CGO_ENABLED=0 go test -count=1 -tags invariants -json ./test/sim -sim.first="${MPOOL_SIM_FIRST:-1}" \
		-sim.for="${MPOOL_SIM_TIME:-10}s" | report
}

step_mutants() { go run ./test/mutants -for 20s -sample "${MPOOL_MUTANTS:-4}"; }

# fuzz runs the target of a line "file:func Target" as grep prints it. Go before
# 1.27 at times reports the end of -fuzztime as a failure (golang.org/issue/75804):
# without a failing input it is none.
fuzz() {
	local package target=${1##*func } log=$work/fuzz.${1##*func }
	package=$(dirname "${1%%:*}")
	if CGO_ENABLED=0 go test -run '^$' -fuzz "^$target\$" -fuzztime "${MPOOL_FUZZ_TIME:-3}s" -fuzzminimizetime 20x \
		"$package" >"$log" 2>&1 </dev/null ||
		{ grep -qx ' *context deadline exceeded' "$log" && ! grep -q 'Failing input' "$log"; }; then
		echo "$package $target"
		return
	fi
	echo "$package $target FAILED"
	cat "$log"
	return 1
}

# Two targets at a time: one builds while the other runs.
step_fuzz() {
	export -f fuzz
	export work
	grep -rHoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sort |
		xargs -d '\n' -P 2 -I '{}' bash -c 'fuzz "$1"' fuzz '{}'
}

step_quickstart() { ./scripts/quickstart.sh; }

# run does one step and counts it as one check beside the tests in it.
run() {
	local begin=$SECONDS
	printf '\n== %s\n' "$1"
	if "step_$1" </dev/null; then
		echo 1 0 0 >>"$counts"
	else
		echo 0 1 0 >>"$counts"
		echo "$1" >>"$failures"
		[ "$1" != build ] || exit 1
	fi
	echo "== $1: $((SECONDS - begin)) s"
}

if ! command -v go >/dev/null; then
	echo "test.sh: Go is missing; install Go $(awk '$1 == "go" { print $2 }' go.mod) or later" >&2
	exit 1
fi
need gcc gcc libc6-dev # the race detector
if is_root; then need losetup mount util-linux; fi # for the tests on loop devices
need diff diffutils
go build -o "$work/testreport" ./scripts/testreport

for s in $steps; do
	run "$s"
done

echo
if [ -s "$failures" ]; then
	echo "failed: $(paste -sd ' ' "$failures")"
fi
awk '{ p += $1; f += $2; s += $3 } END { printf "%d passed, %d failed, %d skipped\n", p, f, s }' "$counts"
[ ! -s "$failures" ]
