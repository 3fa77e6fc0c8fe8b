package death

import (
	"context"
	"testing"
	"time"

	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/ioctl"
)

// events are what the daemon has told of the ends of clients.
type events struct {
	after    uint64
	sessions map[uint64]bool // that have ended, of all batches
	causes   map[string]int
	by       map[string]int
	inexact  int // ends by signal or exit of which it was not known how
	mistaken int // such ends that were taken for a closed connection
	longest  time.Duration
}

func newEvents() events {
	return events{sessions: map[uint64]bool{}, causes: map[string]int{}, by: map[string]int{}}
}

// take reads the events since the last time and compares them with how the
// victims of a batch ended. All their sessions have.
func (s *events) take(t *testing.T, c *client.Conn, plans map[int32]*victimPlan) {
	t.Helper()
	told, ended := map[int32]int{}, map[int32]bool{}
	for e, err := range c.Events(context.Background(), client.EventOptions{After: s.after}) {
		if err != nil {
			t.Fatal(err)
		}
		s.after = e.Seq
		if e.Type != ioctl.EventClientReaped {
			continue
		}
		if s.sessions[e.Session] {
			t.Errorf("the end of session %d was told twice: %+v", e.Session, e)
		}
		s.sessions[e.Session] = true
		s.causes[e.Cause.String()]++
		s.by[e.DetectedBy.String()]++
		s.longest = max(s.longest, e.Latency)
		told[e.PID]++
		ended[e.PID] = ended[e.PID] || e.Cause != ioctl.CauseClosed
		if v := plans[e.PID]; v != nil {
			s.judge(t, v, &e)
		}
	}
	for pid, v := range plans {
		if told[pid] == 0 {
			t.Errorf("victim %d, process %d, ended by %v: nothing was told", v.args.serial, pid, v.way)
		}
		if signal, code := v.way.fate(); (signal != 0 || code != 0) && !ended[pid] {
			s.mistaken++
		}
	}
}

// judge compares an event with how its client ended. A client that was at work
// may close a connection before it ends; and how a process ended, the kernel
// may tell too late.
func (s *events) judge(t *testing.T, v *victimPlan, e *client.Event) {
	t.Helper()
	signal, code := v.way.fate()
	switch {
	case e.Cause == ioctl.CauseUnknown:
		s.inexact++
	case e.Cause == ioctl.CauseClosed:
	case e.Cause == ioctl.CauseSignal && signal != 0 && e.Signal == int32(signal) && e.Code == 0:
	case e.Cause == ioctl.CauseExit && signal == 0 && e.Code == int32(code) && e.Signal == 0:
	default:
		t.Errorf("victim %d, ended by %v: %+v", v.args.serial, v.way, e)
	}
}
