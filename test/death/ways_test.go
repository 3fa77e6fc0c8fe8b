package death

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// way is a way for a client to end.
type way int

// The ways. The number of a plan says more: the signal, or the exit code.
const (
	// By the test.
	bySignal    way = iota // any that is fatal
	stopped                // stopped first, and killed as it is
	resumed                // stopped, let go, still a client, and then killed
	traced                 // killed while a tracer has it stopped
	released               // traced, let go, still a client, and then killed
	lastThread             // every thread ends by itself, and so the last one
	firstThread            // its first thread ends and it is still a client; then killed
	starved                // by the kernel, for want of memory in its cgroup
	innerInit              // with the first process of its pid namespace
	ownInit                // itself the first process of a pid namespace
	inUserNS               // in a user namespace
	// By itself.
	byExit
	byOwnSignal
	byCore    // a signal, and its core is written
	heir      // a forked child keeps its sockets and its memory, and lives on
	byExec    // becomes another program, which lives on a little
	closeAll  // closes its connections and lives on a little
	shutWrite // shuts one direction of them down
	shutRead
	numWays
)

var wayNames = [numWays]string{
	"signal", "SIGSTOP, SIGKILL", "SIGSTOP, SIGCONT, killed", "killed while traced", "traced, let go, killed", "last thread", "first thread, killed",
	"cgroup out of memory", "init of its pid namespace killed", "killed as init of a pid namespace", "killed in a user namespace",
	"exit", "own signal", "core dump", "killed, a child lives on", "exec", "close", "shut write", "shut read",
}

func (w way) String() string { return wayNames[w] }

// needsRoot says whether only root can make a client end that way.
func (w way) needsRoot() bool {
	return w == starved || w == innerInit || w == ownInit
}

// leaves says whether a client lives on without its connections.
func (w way) leaves() bool { return w >= byExec && w < numWays }

// cuts says whether a client ends its connections behind the library's back and
// lives on.
func (w way) cuts() bool { return w >= closeAll && w < numWays }

// fatal are the signals that end a process which does nothing about them.
func fatal() []int {
	var list []int
	for s := 1; s <= 64; s++ {
		switch unix.Signal(s) { //nolint:exhaustive // the others are fatal
		case unix.SIGCHLD, unix.SIGCONT, unix.SIGURG, unix.SIGWINCH, // ignored
			unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU: // stop
		default:
			list = append(list, s)
		}
	}
	return list
}

// dumping are those that write a core.
var dumping = [...]syscall.Signal{
	unix.SIGQUIT, unix.SIGILL, unix.SIGTRAP, unix.SIGABRT, unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV, unix.SIGXCPU, unix.SIGXFSZ, unix.SIGSYS,
}

// number chooses the signal or the exit code of a way.
func (w way) number(rng *rand.Rand) int {
	switch w {
	case bySignal, byOwnSignal:
		if rng.IntN(2) == 0 {
			return int(unix.SIGKILL)
		}
		list := fatal()
		return list[rng.IntN(len(list))]
	case byCore:
		return int(dumping[rng.IntN(len(dumping))])
	case byExit:
		return rng.IntN(256)
	case lastThread:
		return threadCode
	case stopped, resumed, traced, released, firstThread, starved, innerInit, ownInit, inUserNS, heir:
		return int(unix.SIGKILL)
	case byExec, closeAll, shutWrite, shutRead, numWays:
	}
	return 0
}

// signals says whether the number is a signal's.
func (w way) signals() bool {
	return w != byExit && w != lastThread && w < byExec
}

// check says whether a victim ended as it was to, by what os/exec says, and
// returns how it ended.
func (v *victimPlan) check(err error) (syscall.WaitStatus, error) {
	var e *exec.ExitError
	if err != nil && !errors.As(err, &e) {
		return 0, err
	}
	st, ok := v.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok {
		return 0, errors.New("no wait status")
	}
	want := v.args.number
	dumped := v.args.way == byCore
	switch {
	case v.args.way.signals() && st.Signaled() && int(st.Signal()) == want && st.CoreDump() == dumped:
		return st, nil
	case !v.args.way.signals() && st.Exited() && st.ExitStatus() == want:
		return st, nil
	}
	return st, fmt.Errorf("by %v, %d: it ended by %#x (%w)", v.args.way, want, int(st), errors.Join(err))
}
