package server

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/mpool"
)

// How many events are kept for those who ask later: as many as there may be
// sessions, so that the end of all of them at once displaces none of itself, but
// within these.
const (
	minEvents = 4096
	maxEvents = 65536 // 16 MiB
)

// eventRing keeps the last events. Safe for concurrent use.
type eventRing struct {
	most uint64 // how many

	mu sync.Mutex
	// +checklocks:mu
	kept []ioctl.Event // the event of number n is at (n-1) % most
	// +checklocks:mu
	last uint64 // the newest event's number
	// +checklocks:mu
	grown chan struct{} // closed when an event comes
}

func (r *eventRing) init(sessions int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.most = uint64(min(max(minEvents, sessions), maxEvents))
	r.grown = make(chan struct{})
}

// add gives an event its number and wakes those who wait.
func (r *eventRing) add(e ioctl.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last++
	e.Seq = r.last
	if uint64(len(r.kept)) < r.most {
		r.kept = append(r.kept, e)
	} else {
		r.kept[(e.Seq-1)%r.most] = e
	}
	close(r.grown)
	r.grown = make(chan struct{})
}

// page returns the events after a number that are not before since and that the
// asker may see, and a channel that is closed when there are more. A number
// that was never given is an earlier daemon's: it starts from the beginning.
func (r *eventRing) page(after uint64, since time.Time, may func(*ioctl.Event) bool) (*ioctl.EventsReply, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	reply := &ioctl.EventsReply{Last: after}
	if after > r.last {
		after, reply.Last = 0, 0
	}
	oldest := r.last - uint64(len(r.kept)) + 1
	if first := after + 1; first < oldest {
		// Those before an event that is too old were too old as well.
		if !r.kept[(oldest-1)%r.most].Time.Before(since) {
			reply.Missed = oldest - first
		}
		reply.Last = oldest - 1
	}
	for reply.Last < r.last && len(reply.Events) < ioctl.EventsPerPage {
		e := &r.kept[reply.Last%r.most]
		reply.Last++
		if !e.Time.Before(since) && may(e) {
			reply.Events = append(reply.Events, *e)
		}
	}
	return reply, r.grown
}

// tellEvent keeps an event. Its time is now.
func (s *Server) tellEvent(e ioctl.Event) {
	e.Time = s.clock.Now()
	s.tally.add(&e)
	s.events.add(e)
}

// feed takes the events of one pool. Of equal ones it passes one on in a while,
// and no more than so many different ones.
type feed struct {
	srv *Server

	mu sync.Mutex
	// +checklocks:mu
	name string // what the pool is called
	// +checklocks:mu
	begun time.Time // of the while
	// +checklocks:mu
	told map[mpool.Event]struct{} // in it: type, object and device
	// +checklocks:mu
	held int // events of it that were not passed on
}

// A while, and how many different events of one pool it has.
const (
	feedWhile = 10 * time.Second
	feedMost  = 256
)

func (s *Server) newFeed(name string) *feed {
	return &feed{srv: s, name: name, told: make(map[mpool.Event]struct{})}
}

func (f *feed) rename(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.name = name
}

func (f *feed) title() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.name
}

// watch is what a pool that is being activated is given.
func (f *feed) watch() Watch { return Watch{Event: f.event, Admit: f.admit} }

// admit is the pool's Watch.Admit.
func (f *feed) admit(ctx context.Context, p mpool.Priority) (done func(), err error) {
	f.mu.Lock()
	name := f.name
	f.mu.Unlock()
	return f.srv.reserver.Admit(ctx, name, p)
}

// pass says whether an event is passed on, how many were not since the last
// that was, and the pool's name.
func (f *feed) pass(e mpool.Event) (ok bool, held int, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e.Offset, e.Err = 0, nil
	if now := f.srv.clock.Now(); now.Sub(f.begun) >= feedWhile {
		f.begun = now
		clear(f.told)
	}
	if _, again := f.told[e]; again || len(f.told) >= feedMost {
		f.held++
		return false, 0, ""
	}
	f.told[e] = struct{}{}
	held, f.held = f.held, 0
	return true, held, f.name
}

// event is the pool's Watch.Event. It may be called under the engine's locks:
// it does not write to the log, which may wait.
func (f *feed) event(e mpool.Event) {
	ok, held, name := f.pass(e)
	if !ok {
		return
	}
	out := ioctl.Event{Pool: name, Object: e.Object, Device: e.Device, Offset: e.Offset}
	switch e.Type {
	case mpool.EventCorruption:
		out.Type = ioctl.EventCorruption
	case mpool.EventPoisoned:
		out.Type = ioctl.EventPoisoned
	case mpool.EventDriveFailed:
		out.Type = ioctl.EventDriveFailed
	case mpool.EventReadOnly:
		out.Type = ioctl.EventPoolReadOnly
	case mpool.EventCommitCut:
		out.Type = ioctl.EventCommitCut
	}
	if e.Err != nil {
		out.Text = e.Err.Error()
	}
	if held > 0 {
		out.Text = fmt.Sprintf("%s (%d more events like the last ones were not told)", out.Text, held)
	}
	f.srv.tellEvent(out)
}

// logEvents writes pools' troubles to the log until stop is closed, those that
// are there by then too.
func (s *Server) logEvents(stop <-chan struct{}) {
	trouble := func(e *ioctl.Event) bool {
		switch e.Type {
		case ioctl.EventCorruption, ioctl.EventPoisoned, ioctl.EventDriveFailed, ioctl.EventPoolReadOnly:
			return true
		case ioctl.EventPoolActivated, ioctl.EventPoolDeactivated, ioctl.EventClientReaped, ioctl.EventOverQuota,
			ioctl.EventRevoked, ioctl.EventCommitCut:
		}
		return false
	}
	for after := uint64(0); ; {
		reply, more := s.events.page(after, time.Time{}, trouble)
		if reply.Missed > 0 {
			s.log.Warn("events came faster than they could be logged", slog.Uint64("events", reply.Missed))
		}
		for i := range reply.Events {
			e := &reply.Events[i]
			s.log.Error("pool in trouble", slog.String("event", e.Type.String()), slog.String("pool", e.Pool),
				slog.String("object", e.Object.String()), slog.String("device", e.Device), slog.Int64("offset", e.Offset),
				slog.String("seen", e.Text))
		}
		if reply.Last > after {
			after = reply.Last
			continue
		}
		select {
		case <-more:
		case <-stop:
			return
		}
	}
}
