package exitwatch

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// How the thread that reads records is to be scheduled: it seldom has to do, for some
// 10 µs a death, and then a processor at once. The kernel lets who runs go on for a few
// milliseconds before it lets another one run that is no more urgent; a dying process
// that frees its memory is one that runs. A short time slice is what makes the other
// one run at once, and the niceness what keeps it from being behind all others after
// that. Neither lets it hold up others for long, as a real-time policy would: the Go
// runtime's threads wait for each other in ways that do not go with those.
const (
	firstNice  = -20
	firstSlice = 100 * time.Microsecond // the shortest that there is; before Linux 6.12 without effect
)

// goFirst gives the calling goroutine a thread of its own that the kernel runs before
// others, if it may, and says whether it does. Threads that the runtime starts are as
// others are: it does not start them from this one. Who has given the process another
// policy than the usual one is left to it. goOn takes all of it back.
func goFirst() (first bool, goOn func()) {
	runtime.LockOSThread()
	usual, err := unix.SchedGetAttr(0, 0)
	if err == nil && usual.Policy == unix.SCHED_NORMAL {
		err = unix.SchedSetAttr(0, &unix.SchedAttr{Nice: firstNice, Runtime: uint64(firstSlice)}, 0)
		first = err == nil
	}
	return first, func() {
		if first {
			if err := unix.SchedSetAttr(0, &unix.SchedAttr{Nice: usual.Nice}, 0); err != nil {
				return // the thread stays this goroutine's, and ends with it
			}
		}
		runtime.UnlockOSThread()
	}
}
