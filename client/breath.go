package client

import (
	"runtime"
	"time"
)

// breath lets Go's scheduler in, now and then, where one goroutine sleeps in the
// kernel again and again: the scheduler takes the processor of a goroutine that has
// not yielded for 10 ms from it, at each look at it while it sleeps, and wakes
// threads to run there for nothing. A yield wakes one too, so it is seldom done.
type breath struct {
	sleeps int // since the last one
	last   time.Time
}

// How long, and for how many sleeps, Go's scheduler is kept out at least: it is let
// in when both are over.
const (
	breathTime   = 4 * time.Millisecond
	breathSleeps = 4
)

// take yields if it is time. It is called after a sleep, with no lock held.
func (b *breath) take() {
	if b.sleeps++; b.sleeps < breathSleeps {
		return
	}
	now := time.Now() //nolint:forbidigo // how long Go's scheduler was kept out is a matter of real time
	if now.Sub(b.last) < breathTime {
		return
	}
	b.sleeps, b.last = 0, now
	runtime.Gosched()
}
