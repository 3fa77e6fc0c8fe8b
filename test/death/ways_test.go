package death

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// way is a way for a client to end.
type way int

// By the test, with a signal.
const (
	bySIGKILL way = iota
	bySIGSEGV
	bySIGABRT
	bySIGTERM
	// By itself.
	byExit
	byOwnSIGKILL
	byExec    // becomes another program, which lives on a little
	closeAll  // closes its connections and lives on a little
	shutWrite // shuts one direction of them down
	shutRead
	numWays
)

var wayNames = [numWays]string{
	"SIGKILL", "SIGSEGV", "SIGABRT", "SIGTERM", "exit", "own SIGKILL", "exec", "close", "shut write", "shut read",
}

func (w way) String() string { return wayNames[w] }

// signal is the test's, or 0.
func (w way) signal() syscall.Signal {
	switch w {
	case bySIGKILL:
		return syscall.SIGKILL
	case bySIGSEGV:
		return syscall.SIGSEGV
	case bySIGABRT:
		return syscall.SIGABRT
	case bySIGTERM:
		return syscall.SIGTERM
	case byExit, byOwnSIGKILL, byExec, closeAll, shutWrite, shutRead, numWays:
	}
	return 0
}

// check says whether a victim ended as it was to, by what os/exec says. One that
// was not at work yet may not have been mortal either.
func (w way) check(err error, atWork bool) error {
	var e *exec.ExitError
	if err != nil && !errors.As(err, &e) {
		return err
	}
	signal, code := w.fate()
	if e == nil {
		if signal == 0 && code == 0 {
			return nil
		}
		return fmt.Errorf("by %v: it ended well", w)
	}
	st, ok := e.Sys().(syscall.WaitStatus)
	if ok && (signal != 0 && st.Signaled() && st.Signal() == signal || signal == 0 && st.Exited() && st.ExitStatus() == code) {
		return nil
	}
	if ok && !atWork && signal != 0 && st.ExitStatus() == 2 {
		return nil // the runtime's answer to a signal
	}
	return fmt.Errorf("by %v: it ended by %w", w, e)
}

// fate is how the process ends: by a signal, or with an exit code.
func (w way) fate() (syscall.Signal, int) {
	switch w {
	case byExit:
		return 0, exitCode
	case byOwnSIGKILL:
		return syscall.SIGKILL, 0
	case bySIGKILL, bySIGSEGV, bySIGABRT, bySIGTERM, byExec, closeAll, shutWrite, shutRead, numWays:
	}
	return w.signal(), 0
}

// exitCode is byExit's.
const exitCode = 41

// afterlife is how long a client lives on without its connections.
const afterlife = 30 * time.Millisecond

// end ends the process, or its connections, after a time. It runs in the
// victim, beside its workers.
func (w way) end(after time.Duration) {
	time.Sleep(after) // the moment of its death; any will do
	switch w {
	case byExit:
		os.Exit(exitCode)
	case byOwnSIGKILL:
		check(unix.Kill(os.Getpid(), unix.SIGKILL))
	case byExec:
		check(unix.Exec("/bin/sleep", []string{"sleep", fmt.Sprint(afterlife.Seconds())}, nil))
	case closeAll:
		sockets(unix.Close)
	case shutWrite:
		sockets(func(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) })
	case shutRead:
		sockets(func(fd int) error { return unix.Shutdown(fd, unix.SHUT_RD) })
	case bySIGKILL, bySIGSEGV, bySIGABRT, bySIGTERM, numWays:
		panic("no way for a client to take")
	}
	time.Sleep(afterlife)
	os.Exit(0)
}

// sockets does something to all the process's sockets, behind the library's
// back.
func sockets(do func(fd int) error) {
	for _, e := range try(os.ReadDir("/proc/self/fd")) {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || !strings.HasPrefix(to, "socket:") {
			continue
		}
		var fd int
		try(fmt.Sscan(e.Name(), &fd))
		_ = do(fd) // the library may have closed it
	}
}
