#!/usr/bin/env bash
# Measures mpool against what else one could use on the same devices:
#
#   ./scripts/bench.sh [ROW...] [--quick] [--turns N] [--wait SECONDS]
#                      [--json FILE] [--page PAGE] [--profile DIR] [--large]
#   ./scripts/bench.sh --tables FILE [PAGE]
#
# ROW is one of engine-read, client-read, client-read-qd1, client-seq,
# mblock-durable, commit-rate, mlog-sync, mlog-client, reclaim, reclaim-storm,
# churn, activate, memory, idle, scope, quota, credit, credit-data; all of them when
# none is named.
# docs/performance.md says what they measure.
#   --quick    short runs, one alternation: under two minutes, for a look only
#   --turns    how often the sides alternate (5)
#   --wait     wait so long before each turn until others are quiet, and take
#              turns again that they disturbed
#   --json     write every run's figures; row by row, as they come
#   --page     write the figures at the end as Markdown into PAGE, as --tables does
#   --profile  write CPU, mutex, block and allocation profiles of our processes
#   --large    activate also with ten million objects: a quarter of an hour, and
#              45 GB of disk
#   --tables   write the figures of a --json FILE as Markdown, to standard output
#              or into PAGE (docs/performance.md)
#
# Needs root, for loop devices and mounts. Missing anchors (fio, mkfs) are
# installed by apt, others built from the module proxy; what cannot be had is
# left out, and the table says so. Whatever happens, no process, loop device,
# mount or file is left behind. Nothing else should run meanwhile: each
# comparison alternates A B A B, so that ratios bear some noise, but absolute
# figures do not.

set -euo pipefail

readonly all_rows="engine-read client-read client-read-qd1 client-seq mblock-durable commit-rate mlog-sync mlog-client reclaim reclaim-storm churn activate memory idle scope quota credit credit-data"

usage() {
	sed -n '2,30s/^# \{0,1\}//p' "$0" >&2
	exit 2
}

rows=()
args=(-command "./scripts/bench.sh $*")
quick=false large=false json='' page=''
while [ $# -gt 0 ]; do
	case "$1" in
	--quick) quick=true ;;
	--large) large=true ;;
	--tables)
		[ $# -gt 1 ] || usage
		shift
		files=()
		for f in "$@"; do files+=("$(realpath -m "$f")"); done
		cd "$(dirname "$0")/.."
		exec go run ./test/bench tables "${files[@]}"
		;;
	--turns)
		[ $# -gt 1 ] || usage
		args+=(-turns "$2")
		shift
		;;
	--wait)
		[ $# -gt 1 ] || usage
		args+=(-wait "${2}s")
		shift
		;;
	--json | --page)
		[ $# -gt 1 ] || usage
		declare "${1#--}=$(realpath -m "$2")"
		shift
		;;
	--profile)
		[ $# -gt 1 ] || usage
		args+=(-profile "$(realpath -m "$2")")
		mkdir -p "$2"
		shift
		;;
	-*) usage ;;
	*)
		case " $all_rows " in
		*" $1 "*) rows+=("$1") ;;
		*) usage ;;
		esac
		;;
	esac
	shift
done
[ ${#rows[@]} -gt 0 ] || read -ra rows <<<"$all_rows"
$quick && args+=(-quick)
$large && args+=(-large)

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
[ "$(id -u)" = 0 ] || { echo "bench.sh: needs root, for loop devices" >&2; exit 1; }
command -v go >/dev/null || { echo "bench.sh: Go is missing" >&2; exit 1; }

# Sizes in MiB. The memory devices are sparse; the others are written before
# they are used, because a file system below them is slower on new blocks.
fast_size=4096 disk_size=5120 sparse_size=$((80 * 1024))
$quick && fast_size=2048 disk_size=1536 sparse_size=$((8 * 1024))
$large && sparse_size=$((800 * 1024))

[ -z "$page" ] || [ -w "$page" ] || { echo "bench.sh: $page cannot be written to" >&2; exit 1; }

work=$(mktemp -d "${TMPDIR:-/var/tmp}/mpool-bench.XXXXXX")
memory=$(mktemp -d /dev/shm/mpool-bench.XXXXXX)
loops=()
mounts=()
huge=0
bench=

cleanup() {
	local code=$? m l
	trap '' INT TERM HUP
	trap - EXIT
	set +e
	if [ -n "$bench" ]; then
		kill -TERM "$bench" 2>/dev/null # it ends its daemons and clients
		wait "$bench"
	fi
	for m in "${mounts[@]}"; do umount "$m"; done
	for l in "${loops[@]}"; do losetup --detach "$l"; done
	# Another run may have taken some meanwhile: what is given back is what was taken.
	[ "$huge" = 0 ] || echo $(($(cat /proc/sys/vm/nr_hugepages) - huge)) >/proc/sys/vm/nr_hugepages
	rm -rf "$work" "$memory"
	exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# install makes sure of a program, by its package.
install() {
	command -v "$1" >/dev/null && return
	DEBIAN_FRONTEND=noninteractive apt-get install -qq -y "$2" >/dev/null 2>&1 ||
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y "$2" >/dev/null; } 2>"$work/apt.log"
}

# missing says that an anchor cannot be had, here and beside the figures.
missing() {
	echo "bench.sh: no $1: $2" >&2
	args+=("-no-$1" "$2")
}

# attach makes a loop device over a file and sets the variable named first.
attach() {
	local -n device=$1
	for _ in 1 2 3 4 5; do
		if device=$(losetup --find --show --sector-size 4096 "${@:3}" "$2" 2>"$work/losetup.log"); then
			loops+=("$device")
			return
		fi
		sleep 0.2
	done
	cat "$work/losetup.log" >&2
	return 1
}

# fast_device makes a device over memory.
fast_device() {
	truncate --size "${fast_size}M" "$memory/$1"
	attach "$1" "$memory/$1"
}

# disk_device makes a device over a file that is written throughout.
disk_device() {
	dd if=/dev/zero of="$work/$1.img" bs=4M count=$((disk_size / 4)) oflag=direct status=none
	attach "$1" "$work/$1.img" --direct-io=on
}

# file_system makes a file system over a device like disk and mounts it.
file_system() {
	local kind=$1
	install "mkfs.$kind" "$2" || { missing "$kind" "mkfs.$kind is not here, and apt cannot install it"; return 0; }
	disk_device "$kind"
	local -n dev=$kind
	case $kind in
	ext4) mkfs.ext4 -q -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 -i 8192 "$dev" ;;
	xfs) mkfs.xfs -q -K "$dev" ;;
	esac
	mkdir "$work/$kind"
	if mount -t "$kind" -o noatime "$dev" "$work/$kind" 2>"$work/mount.log"; then
		mounts+=("$work/$kind")
		args+=("-$kind" "$work/$kind")
	else
		missing "$kind" "it cannot be mounted: $(head -1 "$work/mount.log")"
	fi
}

needs() {
	local r n
	for r in "${rows[@]}"; do
		for n in "${@}"; do [ "$r" = "$n" ] && return 0; done
	done
	return 1
}

readonly reading="engine-read client-read client-read-qd1"
readonly writing="client-seq mblock-durable"

install fio fio || missing fio "it is not here, and apt cannot install it"
go build -o "$work/bench" ./test/bench
CGO_ENABLED=0 go build -o "$work/mpoold" ./cmd/mpoold
args+=(-mpoold "$work/mpoold")
if needs mlog-sync scope; then
	if (cd test/bench/anchors && go build -o "$work/anchors" .) 2>"$work/build.log"; then
		args+=(-anchors "$work/anchors")
	else
		missing anchors "the module proxy does not give what they need: $(head -1 "$work/build.log")"
	fi
fi

# shellcheck disable=SC2086 # lists of rows
if needs $reading $writing churn idle reclaim reclaim-storm quota credit credit-data; then
	fast_device fast
	args+=(-fast "$fast")
fi
if needs churn; then
	fast_device fast2
	args+=(-fast2 "$fast2")
fi
# shellcheck disable=SC2086 # lists of rows
if needs $reading $writing commit-rate mlog-sync mlog-client quota; then
	disk_device disk
	args+=(-disk "$disk")
fi
if needs commit-rate mlog-sync; then file_system ext4 e2fsprogs; fi
if needs commit-rate; then file_system xfs xfsprogs; fi
if needs activate; then
	truncate --size "${sparse_size}M" "$work/sparse.img"
	attach sparse "$work/sparse.img" --direct-io=on
	args+=(-sparse "$sparse")
fi
# shellcheck disable=SC2086 # a list of rows
if needs $writing; then
	# For fio; the daemon needs none: what it shares is on transparent huge pages.
	before=$(cat /proc/sys/vm/nr_hugepages)
	echo $((before + 16)) >/proc/sys/vm/nr_hugepages
	huge=$(($(cat /proc/sys/vm/nr_hugepages) - before))
	if [ "$huge" = 16 ]; then args+=(-huge-pages); fi
fi

[ -z "$page" ] || json=${json:-$work/figures}
[ -z "$json" ] || args+=(-json "$json")

# In the background, so that a signal does not wait for it.
"$work/bench" run "${args[@]}" "${rows[@]}" &
bench=$!
wait "$bench" && code=0 || code=$?
bench=
# Also what was measured before a row failed.
[ -z "$page" ] || [ ! -s "$json" ] || "$work/bench" tables "$json" "$page" || code=1
exit "$code"
