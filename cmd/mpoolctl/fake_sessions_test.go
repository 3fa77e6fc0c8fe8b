package main

import (
	"context"
	"iter"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

// fakeEvent is what a stream of events gives: an event or a gap.
type fakeEvent struct {
	event client.Event
	gap   *client.EventGap
}

func (d *fakeDaemon) EachClient(_ context.Context, pid int32) iter.Seq2[client.ClientInfo, error] {
	return func(yield func(client.ClientInfo, error) bool) {
		for _, c := range d.clients {
			if (pid == 0 || c.PID == pid) && !yield(c, nil) {
				return
			}
		}
		if d.err != nil {
			yield(client.ClientInfo{}, d.err)
		}
	}
}

func (d *fakeDaemon) Handles(_ context.Context, pool string, pid int32) iter.Seq2[client.HandleInfo, error] {
	return func(yield func(client.HandleInfo, error) bool) {
		for _, h := range d.handles {
			if (pid == 0 || h.PID == pid) && (pool == "" || h.Pool == pool) && !yield(h, nil) {
				return
			}
		}
		if d.err != nil {
			yield(client.HandleInfo{}, d.err)
		}
	}
}

// Events gives the daemon's events and then waits for the context's end.
func (d *fakeDaemon) Events(ctx context.Context, o client.EventOptions) iter.Seq2[client.Event, error] {
	return func(yield func(client.Event, error) bool) {
		for _, e := range d.events {
			if e.gap != nil {
				if !yield(client.Event{}, e.gap) {
					return
				}
			} else if !e.event.Time.Before(o.Since) && !yield(e.event, nil) {
				return
			}
		}
		if d.err != nil {
			yield(client.Event{}, d.err)
			return
		}
		d.idle()
		<-ctx.Done()
		yield(client.Event{}, api.ContextError("event next", context.Cause(ctx)))
	}
}

// newFakeSessions makes a daemon with two processes, of which one has two
// sessions, and what they hold.
func newFakeSessions() *fakeDaemon {
	d := newFakeDaemon("data")
	at := time.Date(2026, 11, 21, 9, 30, 0, 5e8, time.UTC)
	id := layout.NewObjectID(layout.KindMblock, 7)
	d.clients = []client.ClientInfo{
		{
			Session: 1, PID: 4711, UID: 1000, GID: 100, Comm: "kv\x1b[2J", Connected: at, Handles: 2, Uncommitted: 2,
			Mblocks: 1, InFlight: 3, Requests: 12, Memory: 4 << 20,
		},
		{Session: 2, PID: 4711, UID: 1000, GID: 100, Comm: "kv", Connected: at.Add(time.Second)},
		{Session: 3, PID: 9, Comm: "mpoolctl", Connected: at.Add(time.Minute)},
	}
	d.handles = []client.HandleInfo{
		{Session: 1, PID: 4711, Handle: 0x10000000000001, Kind: ioctl.HandlePool, Pool: "data"},
		{
			Session: 1, PID: 4711, Handle: 0x20000000000002, Kind: ioctl.HandleMblock, Pool: "data", Object: id,
			Refs: 3, State: api.StateCommitted,
		},
		{Session: 3, PID: 9, Handle: 0x10000000000001, Kind: ioctl.HandlePool, Pool: "logs"},
	}
	return d
}
