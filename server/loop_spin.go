package server

import (
	"runtime"
	"time"
)

// How long a loop looks for work before it sleeps, and how little it has to have
// under way for that: else what it waits for is a device.
const (
	spinTime     = 20 * time.Microsecond
	spinInFlight = 2
	spinRings    = 2
	// spinCores: with fewer, the client needs the one that would be spinning.
	spinCores = 3
)

// spinMost bounds what is believed of spinning that has paid, and spinAgain says
// after how many sleeps one that has not is tried again.
const (
	spinMost  = 8
	spinAgain = 64
)

// spinner decides whether it pays to look for work for a moment before sleeping,
// which takes longer to wake from than many a client to ask again.
type spinner struct {
	never  bool
	trust  int // it has paid lately
	sleeps int // since it was tried last
	until  time.Time
}

// init finds out whether there are cores for it, unless it is to be done always.
// procs is how many the process may use.
func (s *spinner) init(always bool, procs int) {
	s.never = !always && (procs < spinCores || runtime.NumCPU() < spinCores)
}

// worked says that there was work.
func (s *spinner) worked() {
	if !s.until.IsZero() {
		s.until = time.Time{}
		s.trust = min(s.trust+1, spinMost)
	}
}

// again says whether to look for work once more before sleeping.
func (s *spinner) again(l *ioLoop) bool {
	if s.never || len(l.hot) == 0 || len(l.hot) > spinRings || l.queue.InFlight() > spinInFlight {
		s.until = time.Time{}
		return false
	}
	l.stale = true
	now := l.clock()
	if s.until.IsZero() {
		if s.trust <= 0 {
			if s.sleeps++; s.sleeps < spinAgain {
				return false
			}
		}
		s.sleeps, s.until = 0, now.Add(spinTime)
		return true
	}
	if now.Before(s.until) {
		return true
	}
	s.until = time.Time{}
	s.trust = max(s.trust-2, 0)
	return false
}
