package server

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// What a process may cost the daemon beside the turns of its requests: sessions
// made and ended, messages that the reader itself answers. It is a share of one
// processor, of which it may save up some.
const (
	paceShare = 10                     // one part of so many of a processor
	paceSaved = 200 * time.Millisecond // of a processor's time
)

// What things cost, about.
const (
	sessionCost = 300 * time.Microsecond
	messageCost = 10 * time.Microsecond
	// creditCost is less than what a credit message costs, so that who uses credits
	// much is not held up as who asks for what is refused.
	creditCost = time.Microsecond
)

// pace is how much a process has spent.
type pace struct {
	debt time.Duration // of a processor's time, when looked at last; less than 0 if saved
	at   time.Time
}

// look pays what the time has brought.
func (p *pace) look(now time.Time) {
	if p.at.IsZero() {
		p.debt = -paceSaved
	} else if d := now.Sub(p.at); d > 0 {
		p.debt = max(p.debt-min(d, time.Hour)/paceShare, -paceSaved)
	}
	p.at = now
}

// spend adds to the debt, and returns after how long it is paid.
func (p *pace) spend(now time.Time, cost time.Duration) time.Duration {
	p.look(now)
	p.debt += cost
	return max(p.debt, 0) * paceShare
}

// full says that nothing is owed and nothing more can be saved.
func (p *pace) full(now time.Time) bool {
	p.look(now)
	return p.debt == -paceSaved
}

// connector returns the process that has made a connection, or 0 if the kernel
// does not say.
func connector(conn *net.UnixConn) (pid int32) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) { //nolint:errcheck // then it is nobody
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = cred.Pid
		}
	})
	return pid
}

// enter lets the session's process wait until it may have another session. It
// returns false if the session has ended.
func (s *session) enter() bool {
	defer s.srv.fair.entered(s.flow)
	return s.dawdle(sessionCost)
}

// dawdle lets the process wait that has caused the daemon more work than it may
// beside its requests. It returns false if the session has ended.
func (s *session) dawdle(cost time.Duration) bool {
	wait := s.srv.fair.spend(s.flow, cost)
	if wait == 0 {
		return true
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.ctx.Done():
		return false
	}
}
