package uhandle

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// ErrGone is returned for a process that is not there any more.
var ErrGone = errors.New("the process is gone")

// Process is one process, whatever its number comes to mean: the pidfd holds
// on to it, and with the time of its start the number names it for those who
// see no pidfd.
type Process struct {
	PID   int32  // in the caller's pid namespace
	Start uint64 // clock ticks from boot; 0: it could not be read

	pidfd *os.File
}

// Open returns the process that has the number now. ErrGone if none has.
// Close it.
func Open(pid int32) (*Process, error) {
	fd, err := unix.PidfdOpen(int(pid), 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrGone, err)
	}
	return FromPidfd(pid, fd)
}

// FromPidfd returns the process of a pidfd, which is the Process's from then
// on, also when it fails. Close it.
func FromPidfd(pid int32, fd int) (*Process, error) {
	unix.CloseOnExec(fd)
	// Only then does the runtime's poller watch it.
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd) // a pidfd has nothing to lose
		return nil, fmt.Errorf("watch process: %w", err)
	}
	p := &Process{PID: pid, pidfd: os.NewFile(uintptr(fd), "pidfd")}
	if st, err := p.stat(); err == nil {
		p.Start = st.start
	}
	return p, nil
}

// Close lets go of the process. Nothing may watch it any more.
func (p *Process) Close() {
	_ = p.pidfd.Close() // a pidfd has nothing to lose
}

// Dead says whether the process has died: all of its threads, not only the
// first.
func (p *Process) Dead() bool {
	dead := false
	p.control(func(fd int) { dead = readable(fd) })
	return dead
}

// control calls f with the pidfd unless that is closed.
func (p *Process) control(f func(fd int)) {
	raw, err := p.pidfd.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) { f(int(fd)) }) //nolint:errcheck // it is closed: f is not called
	}
}

// Inode returns the inode number of the process's pidfd, which no other process
// has had since boot, in whatever pid namespace. 0 if the kernel does not number
// pidfds (before Linux 6.9), or the Process is closed.
func (p *Process) Inode() uint64 {
	ino := uint64(0)
	p.control(func(fd int) { ino = pidfdInode(fd) })
	return ino
}

func pidfdInode(fd int) uint64 {
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Fstatfs(fd, &fs) != nil || fs.Type != unix.PID_FS_MAGIC || unix.Fstat(fd, &st) != nil {
		return 0
	}
	return st.Ino
}

func readable(pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1 && fds[0].Revents&(unix.POLLIN|unix.POLLHUP) != 0
}

// named says whether the number is still the process's: it is until its parent
// has taken note of its end.
func (p *Process) named() bool {
	err := error(unix.EBADF)
	p.control(func(fd int) { err = unix.PidfdSendSignal(fd, 0, nil, 0) })
	return err == nil || errors.Is(err, unix.EPERM)
}

// stat reads what /proc says of the process. ErrGone once its number may be
// another's.
func (p *Process) stat() (procStat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID))
	if err != nil {
		return procStat{}, fmt.Errorf("%w: %w", ErrGone, err)
	}
	if !p.named() {
		return procStat{}, ErrGone
	}
	return parseStat(b)
}

// threadsLookedAt is how many threads dying looks at: of those that have exited
// only the first one stays, so that a living one is among the first few.
const threadsLookedAt = 16

// dying says whether all threads of the process have begun to exit, or are gone.
// It takes a few file reads.
func (p *Process) dying() bool {
	dir := fmt.Sprintf("/proc/%d/task", p.PID)
	tasks, err := os.Open(dir)
	if err != nil {
		return !p.named()
	}
	names, _ := tasks.Readdirnames(threadsLookedAt) //nolint:errcheck // none are left, or it is gone
	_ = tasks.Close()                               // only read from
	for _, name := range names {
		b, err := os.ReadFile(dir + "/" + name + "/stat")
		if err != nil {
			continue // it has ended
		}
		if st, err := parseStat(b); err == nil && !st.exiting() {
			return !p.named() // or the number is another's
		}
	}
	return true
}

// procStat is what is wanted of /proc/PID/stat.
type procStat struct {
	flags  uint64
	start  uint64 // clock ticks from boot
	status int    // as waitpid gives it; 0 also if the reader may not know it
}

// exiting says whether the first thread has begun to exit. In a process that is
// dying all have, before its files are closed.
func (s procStat) exiting() bool { return s.flags&pfExiting != 0 }

// pfExiting is the kernel's PF_EXITING.
const pfExiting = 0x4

// Fields of /proc/PID/stat by their number in proc(5).
const (
	statFirst  = 3 // the first behind the name
	statFlags  = 9
	statStart  = 22
	statStatus = 52
)

// parseStat takes /proc/PID/stat apart. The name in it is the process's own
// choice, parentheses, spaces and line feeds included.
func parseStat(b []byte) (procStat, error) {
	i := bytes.LastIndexByte(b, ')')
	fields := bytes.Fields(b[i+1:])
	if i < 0 || len(fields) <= statStatus-statFirst {
		return procStat{}, fmt.Errorf("/proc/PID/stat: %d fields behind the name", len(fields))
	}
	field := func(n int) string { return string(fields[n-statFirst]) }
	flags, ferr := strconv.ParseUint(field(statFlags), 10, 64)
	start, serr := strconv.ParseUint(field(statStart), 10, 64)
	status, eerr := strconv.ParseUint(field(statStatus), 10, 16)
	if err := errors.Join(ferr, serr, eerr); err != nil {
		return procStat{}, fmt.Errorf("/proc/PID/stat: %w", err)
	}
	return procStat{flags: flags, start: start, status: int(status)}, nil
}

// Monotonic returns the ns of CLOCK_MONOTONIC, which all processes of the machine
// and its kernel have in common.
func Monotonic() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic("uhandle: no clock: " + err.Error())
	}
	return t.Nano()
}

// ticksPerSecond is the kernel's USER_HZ, the same on all of Go's platforms.
const ticksPerSecond = 100

// Ticks returns the clock ticks from boot until now, to compare with
// [Process.Start].
func Ticks() uint64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic("uhandle: no clock: " + err.Error())
	}
	return uint64(t.Sec)*ticksPerSecond + uint64(t.Nsec)/(1e9/ticksPerSecond)
}
