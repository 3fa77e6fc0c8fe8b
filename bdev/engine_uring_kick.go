package bdev

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/bdev/uring"
)

// Commands of membarrier(2).
const (
	membarrierPrivateExpedited         = 1 << 3
	membarrierRegisterPrivateExpedited = 1 << 4
)

// canKick says whether kick works, and prepares it.
func canKick() bool { return membarrier(membarrierRegisterPrivateExpedited) }

// kick interrupts all threads of this process that compute: each goes through
// the kernel, and so makes the completions of a ring that were left to it. It
// costs some microseconds.
func kick() { membarrier(membarrierPrivateExpedited) }

func membarrier(command uintptr) bool {
	_, _, errno := unix.RawSyscall(unix.SYS_MEMBARRIER, command, 0, 0)
	return errno == 0
}

// wait submits and waits for a completion; many are under way or not. The leader
// calls it.
func (e *uringEngine) wait(submit uint32, many bool) {
	if !e.lazy {
		e.enter(submit, 1, uring.EnterGetEvents)
		return
	}
	if many {
		if now := e.sched.Now(); now.Sub(e.kicked) > kickEvery {
			kick()
			e.kicked = now
		}
		e.enter(submit, 1, uring.EnterGetEvents)
		return
	}
	timeout := kickAfter
	for range kickTurns {
		_, err := e.ring.EnterTimed(submit, 1, timeout)
		if !errors.Is(err, syscall.ETIME) {
			e.mustEnter(err)
			return
		}
		kick()
		timeout *= 2
	}
	e.enter(0, 1, uring.EnterGetEvents)
}
