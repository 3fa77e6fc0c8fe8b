package ring

import (
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The futex operations, for words shared between processes; see futex(2).
const (
	futexWait = 0
	futexWake = 1
)

func raw(w *atomic.Uint32) *uint32 { return (*uint32)(unsafe.Pointer(w)) }

// wake wakes up to n who wait for a word.
func wake(w *atomic.Uint32, n int) {
	// It fails only for memory that is not there.
	_, _, _ = unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(w)), futexWake, uintptr(n), 0, 0, 0) //nolint:errcheck // see above
}

// wait waits while a word holds a value: until woken, interrupted, or the time is
// up (negative: never), which it then says.
func wait(w *atomic.Uint32, value uint32, d time.Duration) (late bool) {
	var at *unix.Timespec
	if d >= 0 {
		t := unix.NsecToTimespec(int64(d))
		at = &t
	}
	_, _, errno := unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(w)), futexWait, uintptr(value), uintptr(unsafe.Pointer(at)), 0, 0)
	return errno == unix.ETIMEDOUT
}
