package client

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/mpool-go/mpool/ioctl"
)

type (
	// ClientInfo is what the daemon knows of a session.
	ClientInfo = ioctl.ClientInfo //nolint:revive // of a client of the daemon's, not of this package
	// HandleInfo is what the daemon knows of a handle.
	HandleInfo = ioctl.HandleInfo
	// Event is something that an administrator should know of.
	Event = ioctl.Event
)

// Clients returns the daemon's sessions, in the order of their numbers: of one
// process, or, with pid 0, of all. Who does not administer the daemon gets
// those of the same user only.
func (c *Conn) Clients(ctx context.Context, pid int32) (clients []ClientInfo, err error) {
	const op = ioctl.OpClientList
	err = c.run(ctx, op, again, func(l *link) error {
		clients = nil // another daemon has other sessions: all of them anew
		for ask := (&ioctl.ClientList{PID: pid}); ; {
			reply := &ioctl.ClientsReply{}
			if err := l.do(ctx, op, ask, reply); err != nil {
				return err
			}
			clients = append(clients, reply.Clients...)
			if !reply.More || len(reply.Clients) == 0 {
				return nil
			}
			ask.After = clients[len(clients)-1].Session
		}
	})
	if err != nil {
		return nil, err
	}
	return clients, nil
}

// EachClient iterates over the daemon's sessions as Clients returns them, without
// keeping them: those of one process, or, with pid 0, of all. A session that lives
// all the while is there once; those that come or go meanwhile may be missed or not.
// An error is the last that the loop gets: ECONNRESET when the connection breaks
// after the first session was given.
func (c *Conn) EachClient(ctx context.Context, pid int32) iter.Seq2[ClientInfo, error] {
	const op = ioctl.OpClientList
	return func(yield func(ClientInfo, error) bool) {
		var s stream[ClientInfo]
		s.yield = yield
		err := c.run(ctx, op, again, func(l *link) error {
			for ask := (&ioctl.ClientList{PID: pid}); ; {
				reply := &ioctl.ClientsReply{}
				if err := l.do(ctx, op, ask, reply); err != nil {
					return s.broken(op, err)
				}
				if !s.give(reply.Clients) || !reply.More || len(reply.Clients) == 0 {
					return nil
				}
				ask.After = reply.Clients[len(reply.Clients)-1].Session
			}
		})
		s.end(err)
	}
}

// Handles iterates over the handles that sessions hold, in the order of
// sessions, then of handles: those of one pool, or, with "", of all; of one
// process, or, with pid 0, of all. Handles that come or go meanwhile may be
// missed or not. An error is the last that the loop gets: ECONNRESET when the
// connection breaks after the first handle was given.
func (c *Conn) Handles(ctx context.Context, pool string, pid int32) iter.Seq2[HandleInfo, error] {
	const op = ioctl.OpHandleList
	return func(yield func(HandleInfo, error) bool) {
		var s stream[HandleInfo]
		s.yield = yield
		err := c.run(ctx, op, again, func(l *link) error {
			for ask := (&ioctl.HandlesAsk{Pool: pool, PID: pid}); ; {
				reply := &ioctl.HandlesReply{}
				if err := l.do(ctx, op, ask, reply); err != nil {
					return s.broken(op, err)
				}
				if !s.give(reply.Handles) || !reply.More || len(reply.Handles) == 0 {
					return nil
				}
				last := &reply.Handles[len(reply.Handles)-1]
				ask.AfterSession, ask.AfterHandle = last.Session, last.Handle
			}
		})
		s.end(err)
	}
}

// EventOptions choose events. The zero value: all that the daemon still has.
type EventOptions struct {
	After  uint64    // only events with higher numbers
	Since  time.Time // and not before this; the zero time: any
	Follow bool      // wait for more until the context ends
}

// EventGap is the error that [Conn.Events] gives in the place of events that
// are lost: the daemon keeps the last ones only, and none across a restart.
// What comes after it follows.
type EventGap struct {
	After     uint64 // they had higher numbers than this
	Missed    uint64 // how many; 0: not known
	Restarted bool   // the daemon was restarted: numbers begin anew
}

// Error says how many events are lost.
func (g *EventGap) Error() string {
	if g.Restarted {
		return "the daemon was restarted; what happened just before may be missing"
	}
	return fmt.Sprintf("%d events after number %d are missing: the daemon did not keep them", g.Missed, g.After)
}

// eventWait is how long the daemon holds a request for events that follow.
const eventWait = 30 * time.Second

// Events iterates over what happened, in the order of numbers. Without Follow
// it ends with the last event that the daemon has. With Follow it waits for
// more, also across restarts of the daemon, and ends when ctx does: with the
// context's error.
//
// An error that is an [*EventGap] says that events are missing; the loop may go
// on and gets those after them. Any other error is the last that it gets.
func (c *Conn) Events(ctx context.Context, o EventOptions) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		ask := &ioctl.EventNext{After: o.After, Since: o.Since}
		var instance uint64 // of the daemon; 0: not known yet
		for {
			after := ask.After
			restarted := false
			reply, err := c.events(ctx, ask, func(l *link) {
				if instance != 0 && instance != l.limits.Instance {
					restarted, ask.After, ask.Wait = true, 0, 0
				}
				instance = l.limits.Instance
			})
			if err != nil {
				yield(Event{}, err)
				return
			}
			if restarted && !yield(Event{}, &EventGap{After: after, Restarted: true}) {
				return
			}
			if reply.Missed > 0 && !yield(Event{}, &EventGap{After: ask.After, Missed: reply.Missed}) {
				return
			}
			for i := range reply.Events {
				if !yield(reply.Events[i], nil) {
					return
				}
			}
			progress := reply.Last > ask.After
			ask.After = max(ask.After, reply.Last)
			if progress {
				continue // there may be more already
			}
			if !o.Follow {
				return
			}
			ask.Wait = uint32(eventWait / time.Millisecond)
		}
	}
}

// events asks for a page of events. It calls on with each connection before the
// request is made on it.
func (c *Conn) events(ctx context.Context, ask *ioctl.EventNext, on func(l *link)) (*ioctl.EventsReply, error) {
	const op = ioctl.OpEventNext
	var reply *ioctl.EventsReply
	err := c.run(ctx, op, again, func(l *link) error {
		on(l)
		reply = &ioctl.EventsReply{}
		return l.do(ctx, op, ask, reply)
	})
	return reply, err
}
