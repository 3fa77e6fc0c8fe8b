#!/usr/bin/env bash
# Builds mpool, starts a daemon of its own, makes a pool, stores a real tree of
# files and a real log in it, kills the daemon in the middle of a put, and shows
# that nothing acknowledged was lost. Cleans up after itself.
#
#   ./scripts/quickstart.sh          as root on a loop device, else on a plain file
#   ./scripts/quickstart.sh --keep   leaves the daemon and the pool running

set -euo pipefail

keep=false
for option in "$@"; do
	case $option in
	--keep) keep=true ;;
	-h | --help)
		sed -n '2,8s/^# \{0,1\}//p' "$0"
		exit 0
		;;
	*)
		echo "quickstart.sh: no option '$option'; usage: ./scripts/quickstart.sh [--keep]" >&2
		exit 2
		;;
	esac
done

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
if ! command -v go >/dev/null; then
	echo "quickstart.sh: Go is missing; install Go $(awk '$1 == "go" { print $2 }' go.mod) or later" >&2
	exit 1
fi

work=
loop=
daemon=
putter=

# stop_daemon ends the daemon with a signal and waits until it is gone.
stop_daemon() {
	[ -n "$daemon" ] || return 0
	kill "-$1" "$daemon" 2>/dev/null || true
	wait "$daemon" 2>/dev/null || true
	daemon=
}

# attached lists the loop devices on the image.
attached() { losetup --noheadings --output NAME --associated "$image" 2>/dev/null; }

# detach detaches them and waits until they are: the kernel may still be ending
# the I/O of a daemon that was killed.
detach() {
	local device i
	for device in $(attached); do losetup --detach "$device" || true; done
	for ((i = 0; i < 100; i++)); do
		[ -n "$(attached)" ] || return 0
		sleep 0.05
	done
}

# cleanup ends what was started and removes what was made. A second interrupt
# does not stop it. The loop device is found by its file: an interrupt may come
# before its name is known.
cleanup() {
	local code=$?
	trap - EXIT
	trap '' INT TERM HUP PIPE
	if $keep && [ $code -eq 0 ]; then exit 0; fi
	# When a command has ended by itself at an interrupt, which goes to everybody,
	# the shell knows of its failure only. The daemon knows more.
	if [ $code -eq 1 ] && grep -qs signal=interrupt "$work/mpoold.log"; then code=130; fi
	if [ $code -gt 0 ] && [ $code -lt 128 ] && [ -s "$work/mpoold.log" ]; then
		echo "quickstart.sh: failed; the daemon's log ends with:" >&2
		tail -n 20 "$work/mpoold.log" >&2
	fi
	if [ -n "$putter" ]; then
		kill -KILL "$putter" 2>/dev/null || true
		wait "$putter" 2>/dev/null || true
	fi
	stop_daemon KILL
	if [ -n "$work" ] && [ "$(id -u)" -eq 0 ]; then
		detach
	fi
	[ -z "$work" ] || rm -rf "$work"
	exit $code
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP
work=$(mktemp -d "${TMPDIR:-/tmp}/mpool-quickstart.XXXXXX")
export MPOOL_SOCKET=$work/mpoold.sock
image=$work/drive.img
if [ ${#MPOOL_SOCKET} -gt 107 ]; then
	echo "quickstart.sh: $MPOOL_SOCKET is too long for a socket's path: set TMPDIR to a directory with a shorter one" >&2
	exit 1
fi

step() { printf '\n-- %s\n' "$*"; }

# show prints a command, also when its output goes elsewhere, and runs it.
exec 3>&1
show() {
	printf '$ %s\n' "$*" | sed "s#$work/##g" >&3
	"$@"
}

now() { date +%s.%N; }

# seconds prints the time since a moment.
seconds() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.2f", b - a }'; }

# rate prints a count per second.
rate() { awk -v n="$1" -v s="$2" 'BEGIN { printf "%.0f", n / (s > 0 ? s : 0.01) }'; }

mib() { awk -v n="$1" 'BEGIN { printf "%.1f MiB", n / 1048576 }'; }

# field prints a number of the pool as mpoolctl gives it in JSON.
field() { mpoolctl --json pool show demo | grep -o "\"$1\":[0-9]*" | head -n 1 | cut -d: -f2; }

# start_daemon starts mpoold and waits until it answers.
start_daemon() {
	local i
	mpoold --socket "$MPOOL_SOCKET" 2>>"$work/mpoold.log" &
	daemon=$!
	for ((i = 0; i < 200; i++)); do
		if mpoolctl pool list >/dev/null 2>&1; then return; fi
		kill -0 "$daemon" 2>/dev/null || break
		sleep 0.05
	done
	echo "quickstart.sh: mpoold did not start" >&2
	return 1
}

# same fails unless two numbers are the same.
same() {
	[ "$2" -eq "$3" ] || { echo "quickstart.sh: $1: $2, want $3" >&2; return 1; }
}

# check_space fails unless every byte of the drives is accounted for, at one
# moment: zones that were freed go from draining to free by themselves.
check_space() {
	local pool sum=0 part
	pool=$(mpoolctl --json pool show demo)
	part_of() { grep -o "\"$1_bytes\":[0-9]*" <<<"$pool" | head -n 1 | cut -d: -f2; }
	for part in free live uncommitted draining spare overhead remainder; do
		sum=$((sum + $(part_of $part)))
	done
	same "bytes accounted for" "$sum" "$(part_of total)"
}

# drained waits until no freed zone is on its way any more.
drained() {
	local i
	for ((i = 0; i < 200; i++)); do
		[ "$(field draining_bytes)" -ne 0 ] || return 0
		sleep 0.05
	done
	echo "quickstart.sh: freed zones are still draining" >&2
	return 1
}

step "Building"
GOTMPDIR=$work CGO_ENABLED=0 go build -o bin/ ./cmd/...
PATH=$root/bin:$PATH
show mpoolctl version 2>/dev/null || true

step "The input: the Go tool chain's own tree"
tree=$(go env GOROOT)
files=$(find "$tree" -type f | wc -l)
bytes=$(find "$tree" -type f -printf '%s\n' | awk '{ n += $1 } END { printf "%d", n }')
echo "$tree: $files files, $(mib "$bytes")"

# On disk: the drive's image with the tree twice, and the tree read back.
need=$((3 * (bytes + files * 4096)))
have=$(df --block-size=1 --output=avail "$work" | tail -n 1)
if [ "$have" -lt "$need" ]; then
	echo "quickstart.sh: $work is on a disk with $(mib "$have") free, and $(mib "$need") are needed: set TMPDIR to a directory with more" >&2
	exit 1
fi

step "A drive, a daemon and a pool"
# Each file takes a whole number of zones of 64 KiB; twice, and a gigabyte.
truncate --size $((2 * (bytes + files * 65536) + (1 << 30))) "$image"
device=$image
if [ "$(id -u)" -eq 0 ]; then
	if loop=$(losetup --find --show --sector-size 4096 --direct-io=on "$image" 2>/dev/null); then
		device=$loop
	else
		loop=
		echo "no loop device is to be had here; a plain file does"
	fi
fi
start_daemon
show mpoolctl pool create demo "$device" --label quickstart

step "Storing the tree, then its manifest under a named root"
begin=$(now)
show mpoolctl mblock put demo "$tree" --manifest "$work/tree.manifest" --tag 1 >/dev/null
put_time=$(seconds "$begin")
id=$(show mpoolctl --quiet mblock put demo "$work/tree.manifest" --tag 2)
show mpoolctl root set demo "tree=$id"
stored=$(mpoolctl --quiet mblock list demo --tag 1 | wc -l)
echo "$stored mblocks in $put_time s"
same "mblocks stored" "$stored" "$files"

step "Reading it back and comparing every byte"
begin=$(now)
show mpoolctl --quiet mblock get demo @tree -o "$work/manifest.back"
cmp "$work/tree.manifest" "$work/manifest.back"
show mpoolctl mblock get demo --manifest "$work/manifest.back" -o "$work/back"
get_time=$(seconds "$begin")
diff -r --no-dereference "$tree" "$work/back"
rm -rf "$work/back"
echo "the same, in $get_time s"

step "Appending a real log line by line, each line durable"
(cd "$tree" && find . -type f -printf '%T+ %8s %m %p\n' | sort | sed -n 1,5000p) >"$work/log"
lines=$(wc -l <"$work/log")
log=$(mpoolctl --quiet mlog create demo --capacity 8MiB)
mpoolctl root set demo "log=$log" >/dev/null
begin=$(now)
show mpoolctl mlog append demo "$log" --lines --sync "$work/log"
log_time=$(seconds "$begin")
mpoolctl mlog read demo "$log" | cmp - "$work/log"
echo "$lines lines read back the same"
check_space
show mpoolctl pool show demo
used=$(field used_bytes)

step "Killing the daemon in the middle of a put"
second=$work/second.manifest
mpoolctl mblock put demo "$tree" --manifest "$second" --tag 3 >/dev/null 2>"$work/put.err" &
putter=$!
while kill -0 "$putter" 2>/dev/null; do
	if [ -f "$second.partial" ] && [ "$(wc -l <"$second.partial")" -gt 1000 ]; then break; fi
	sleep 0.02
done
stop_daemon KILL
if wait "$putter"; then
	echo "the put ended before the daemon was killed" >&2
	exit 1
fi
putter=
sed "s#$work/##g" "$work/put.err"
acknowledged=$(($(wc -l <"$second.partial") - 1))
echo "killed with SIGKILL after $acknowledged files of the second put were acknowledged"

step "Restarting it, and looking for what is lost"
start_daemon
begin=$(now)
show mpoolctl --quiet pool activate demo "$device"
activate_time=$(seconds "$begin")
check_space
same "uncommitted bytes" "$(field uncommitted_bytes)" 0
show mpoolctl --quiet mblock get demo @tree -o "$work/manifest.again"
cmp "$work/tree.manifest" "$work/manifest.again"
show mpoolctl mblock get demo --manifest "$work/manifest.again" -o "$work/again"
diff -r --no-dereference "$tree" "$work/again"
rm -rf "$work/again"
show mpoolctl mblock get demo --manifest "$second.partial" -o "$work/partial"
same "acknowledged files" "$(find "$work/partial" -type f | wc -l)" "$acknowledged"
(cd "$work/partial" && find . -type f -print0 | xargs -0 -n 500 sha256sum) >"$work/sums"
(cd "$tree" && sha256sum --quiet --check "$work/sums")
rm -rf "$work/partial"
mpoolctl mlog read demo @log | cmp - "$work/log"
after=$(mpoolctl --quiet mblock list demo --tag 3 | wc -l)
same "mblocks of the second put that are listed" "$((after < acknowledged ? after : acknowledged))" "$acknowledged"
echo "everything acknowledged is there and the same"

step "Deleting what the second put left; its space comes back"
mpoolctl --quiet mblock list demo --tag 3 | xargs mpoolctl --quiet --yes mblock delete demo >/dev/null
check_space
drained
same "used bytes" "$(field used_bytes)" "$used"
echo "used: $(mib "$used"), as before it"

step "Checking the drive offline, all data too"
show mpoolctl --quiet pool deactivate demo
show mpoolctl pool check --data "$device"

data=$(printf '%s\n' \
	"files stored|$files" \
	"bytes stored|$(mib "$bytes")" \
	"bytes used|$(mib "$used") (zones of 64 KiB, metadata included)" \
	"put|$(rate "$files" "$put_time") files/s, $(mib "$(rate "$bytes" "$put_time")")/s, each file durable" \
	"get|$(rate "$files" "$get_time") files/s, $(mib "$(rate "$bytes" "$get_time")")/s, checksums verified" \
	"log|$(rate "$lines" "$log_time") lines/s, each line durable" \
	"killed|mpoold, by SIGKILL, $acknowledged files into a second put" \
	"restart|$activate_time s to activate the pool again" \
	"lost|nothing")
printf '\n'
printf '%s\n' "$data" | awk -F'|' '{ printf "%-14s %s\n", $1, $2 }'

if $keep; then
	mpoolctl --quiet pool activate demo "$device" >/dev/null
	cat <<-END

		The daemon (pid $daemon) goes on with pool demo on $device:

		  export MPOOL_SOCKET=$MPOOL_SOCKET PATH=$root/bin:\$PATH
		  mpoolctl pool show demo

		To stop it:

		  kill $daemon${loop:+ && sleep 1 && losetup --detach $loop}; rm -r $work
	END
	disown "$daemon"
fi
