package bdev

import (
	"sync/atomic"

	"github.com/mpool-go/mpool/sched"
)

// How long, and for how many waits in the kernel, Go's scheduler is kept out at
// least: it is let in when both are over.
const (
	breathTime  = yieldAfter / 2
	breathWaits = 4
)

// breath lets Go's scheduler in, now and then, where the same goroutine goes from
// one system call to the next: see yieldAfter. Such a goroutine is not bound to its
// thread, so that a yield costs little, but it may wake a thread for nothing: that
// is why it is seldom done. Any goroutine may use it.
type breath struct {
	waits atomic.Uint32 // in the kernel, since the last one
	last  atomic.Int64  // when that was, in nanoseconds since 1970
}

// take yields if it is time. It is called after a wait in the kernel, with no
// lock held.
func (b *breath) take(s *sched.Sched) {
	if b.waits.Add(1) < breathWaits {
		return
	}
	now, last := s.Now().UnixNano(), b.last.Load()
	if d := now - last; d >= 0 && d < int64(breathTime) || !b.last.CompareAndSwap(last, now) {
		return
	}
	b.waits.Store(0)
	s.Yield()
}
