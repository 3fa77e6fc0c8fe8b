package death

import (
	"context"
	"os"
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
func (s *events) take(t *testing.T, c *client.Conn, plans map[int32]*victimPlan, ledgers map[uint32]*ledger) {
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
		if e.PID == int32(os.Getpid()) {
			t.Errorf("the end of who lives on is told: %+v", e)
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
		l := ledgers[v.args.serial]
		if n := told[pid]; n < l.dialed || n > l.dialing && !v.args.way.cuts() { // who is cut off connects anew
			t.Errorf("victim %d, process %d, at %v, ended by %v: %d ends were told, of %d to %d connections", v.args.serial, pid,
				v.args.state, v.args.way, n, l.dialed, l.dialing)
		}
		if l.dialed > 0 && !v.args.way.leaves() && !ended[pid] {
			s.mistaken++
		}
	}
}

// judge compares an event with how its client ended. A client that was at work
// may close a connection before it ends; and how a process ended, the kernel
// may tell too late.
func (s *events) judge(t *testing.T, v *victimPlan, e *client.Event) {
	t.Helper()
	got := e.Cause == ioctl.CauseSignal && v.end.Signaled() && e.Signal == int32(v.end.Signal()) && e.Code == 0 && e.Core == v.end.CoreDump() ||
		e.Cause == ioctl.CauseExit && v.end.Exited() && e.Code == int32(v.end.ExitStatus()) && e.Signal == 0 && !e.Core
	switch {
	case v.end.CoreDump() && !e.Core && e.Cause == ioctl.CauseSignal && e.Signal == int32(v.end.Signal()) && e.DetectedBy != ioctl.SourceBPF:
		s.inexact++ // once its parent has taken note, a pidfd does not tell of a core that another thread than the first has dumped
	case e.Cause == ioctl.CauseUnknown:
		s.inexact++
		t.Logf("victim %d, at work: %v, at %v, ended by %v, %#x: it is not known how: noticed by %v, released after %v", v.args.serial,
			v.atWork, v.args.state, v.args.way, int(v.end), e.DetectedBy, e.Latency)
	case e.Cause != ioctl.CauseClosed && !got:
		t.Errorf("victim %d, ended by %v, %#x: %+v", v.args.serial, v.args.way, int(v.end), e)
	}
}
