package uhandle

import (
	"encoding/binary"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Cause says how a client ended.
type Cause uint8

// The causes.
const (
	CauseUnknown Cause = iota
	CauseExit          // Death.Code has the exit code
	CauseSignal        // Death.Signal has the signal
	CauseClosed        // the process lives; it has left, or exec closed what it had
)

// Death tells how a client ended. The zero value is: unknown.
type Death struct {
	Cause      Cause
	Code       int    // exit code, 0 to 255
	Signal     int    // the signal's number
	Core       bool   // a core was dumped
	DetectedBy string // the name of the [Source] that noticed first; "" if none has
	At         int64  // when its last thread began to exit, as [Monotonic] is; 0: not known
}

// FromStatus makes a Death of what waitpid would give.
func FromStatus(status int) Death {
	w := unix.WaitStatus(status)
	switch {
	case w.Exited():
		return Death{Cause: CauseExit, Code: w.ExitStatus()}
	case w.Signaled():
		return Death{Cause: CauseSignal, Signal: int(w.Signal()), Core: w.CoreDump()}
	}
	return Death{}
}

// The status of a process that has died is asked for so often and so far apart,
// for 5 ms in all. The kernel says it from one place until the parent has taken
// note of the end, and from another after, and for an instant from neither.
const (
	statusTries = 20
	statusEvery = 250 * time.Microsecond
)

// status returns how a process that has died did so, if the kernel says it.
func (p *Process) status() Death {
	again := time.NewTicker(statusEvery)
	defer again.Stop()
	for range statusTries {
		if status, ok := p.statusOnce(); ok {
			return FromStatus(status)
		}
		<-again.C
	}
	return Death{}
}

func (p *Process) statusOnce() (int, bool) {
	if !p.Dead() { // a source was earlier than the kernel
		return 0, false
	}
	status, ok := 0, false
	p.control(func(fd int) { status, ok = infoStatus(fd) })
	if ok {
		return status, true
	}
	st, err := p.stat()
	if err != nil {
		return 0, false
	}
	return st.status, st.status != 0 || p.maySeeStatus()
}

// maySeeStatus says whether the status in /proc is what it says: to those who
// may not know, it is 0. A link that is for the same readers tells; a file would
// be root's once the process has given up its memory.
func (p *Process) maySeeStatus() bool {
	_, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", p.PID))
	return err == nil && p.named()
}

// The kernel's struct pidfd_info, its first version:
//
//	 0     8         16                        60          64
//	+-----+---------+-------------------------+-----------+
//	|mask |cgroup id|pid, tgid, ppid, 8 × id  |exit status|
//	+-----+---------+-------------------------+-----------+
const (
	infoSize     = 64
	infoAtStatus = 60
	// infoAsk is PIDFD_GET_INFO, _IOWR(0xff, 11, struct pidfd_info).
	infoAsk = 3<<30 | infoSize<<16 | 0xff<<8 | 11
)

// infoStatus asks a pidfd for the exit status of its process, which it has
// since Linux 6.15 once the parent has taken note of the end.
func infoStatus(pidfd int) (int, bool) {
	var b [infoSize]byte
	binary.NativeEndian.PutUint64(b[:], unix.PIDFD_INFO_EXIT)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(pidfd), infoAsk, uintptr(unsafe.Pointer(&b)))
	if errno != 0 || binary.NativeEndian.Uint64(b[:])&unix.PIDFD_INFO_EXIT == 0 {
		return 0, false
	}
	return int(binary.NativeEndian.Uint32(b[infoAtStatus:])), true
}
