package sched

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// pauseTime is how long a Pause takes in a simulation.
const pauseTime = 5 * time.Microsecond

// Pause lets whoever else can run on this processor do so, other programs too; if
// there is nobody, it returns at once. It is for waits of some microseconds, for
// which timers are too coarse; the caller bounds them.
func (s *Sched) Pause() {
	if s != nil {
		_ = s.sim.sleep(context.Background(), pauseTime) //nolint:errcheck // this context never ends
		return
	}
	_, _, _ = unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0) //nolint:errcheck // it cannot fail
}
