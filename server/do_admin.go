package server

import (
	"cmp"
	"context"
	"iter"
	"math"
	"runtime"
	"slices"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/uhandle"
)

// lookedAt is how many sessions are looked at at one time: who makes or ends a
// session does not wait for a list to be made.
const lookedAt = 256

// shown iterates over the sessions that the asker may know of, in the order of
// their numbers, from one number on: an administrator all, others those of their
// own user. pid chooses a process; 0: any. One that is over is not there, even if a
// stalled drive still holds up what it left. A session that lives all the while is
// there once.
func (r *request) shown(from uint64, pid int32) iter.Seq[*session] {
	return func(yield func(*session) bool) {
		for {
			part := r.s.srv.sessionsFrom(from, lookedAt)
			for _, s := range part {
				// Who has not said hello has no peer yet.
				if !s.greeted.Load() || !r.s.peer.admin && s.peer.uid != r.s.peer.uid ||
					pid != 0 && s.peer.pid != pid || s.over() {
					continue
				}
				if !yield(s) {
					return
				}
			}
			if len(part) < lookedAt || r.ctx.Err() != nil {
				return
			}
			from = part[len(part)-1].id + 1
			runtime.Gosched() // a list of thousands is not to keep others from running
		}
	}
}

// over says whether the session has ended and no request of it can change
// anything any more: clients that lost a connection wait for that before they
// look what became of their requests.
func (s *session) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deaf && s.ended && len(s.tags) == 0 && s.lasting.Load() == 0
}

func clientList(r *request, m *ioctl.ClientList) (ioctl.Message, error) {
	reply := &ioctl.ClientsReply{}
	if m.After == math.MaxUint64 {
		return reply, nil
	}
	for s := range r.shown(m.After+1, m.PID) {
		if len(reply.Clients) == ioctl.ClientsPerPage {
			reply.More = true
			break
		}
		reply.Clients = append(reply.Clients, s.info())
	}
	return whole(r, reply)
}

// whole returns a page, unless it was cut short because nobody waits for it.
func whole(r *request, page ioctl.Message) (ioctl.Message, error) {
	if r.ctx.Err() != nil {
		return nil, api.ContextError("", context.Cause(r.ctx))
	}
	return page, nil
}

// info describes a session that has said hello.
func (s *session) info() ioctl.ClientInfo {
	i := ioctl.ClientInfo{
		Session: s.id, PID: s.peer.pid, UID: s.peer.uid, GID: s.peer.gid, Comm: s.peer.comm, Connected: s.connected,
		Handles: uint32(s.table.Len()), Requests: s.taken.Load(),
		Memory: uint64(max(s.memory.Load(), 0)),
	}
	s.mu.Lock()
	i.InFlight = uint32(len(s.tags))
	s.mu.Unlock()
	for _, a := range s.opened() {
		mblocks, mlogs := a.uncommitted(s)
		i.Mblocks += mblocks
		i.Uncommitted += mblocks + mlogs
	}
	return i
}

// uncommitted counts a session's uncommitted objects.
func (a *activePool) uncommitted(s *session) (mblocks, mlogs uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id := range a.own[s] {
		if id.Kind() == layout.KindMblock {
			mblocks++
		} else {
			mlogs++
		}
	}
	return mblocks, mlogs
}

// heldHandle is a handle of a session.
type heldHandle struct {
	h uhandle.Handle
	v resource
}

// handlesAfter returns the first of a session's handles above a number, in order:
// no more than most.
func (s *session) handlesAfter(after ioctl.Handle, pool string, most int) []heldHandle {
	var list []heldHandle
	first := func() {
		slices.SortFunc(list, func(a, b heldHandle) int { return cmp.Compare(a.h, b.h) })
		list = list[:min(len(list), most)]
	}
	s.table.Each(func(h uhandle.Handle, v resource) {
		if ioctl.Handle(h) <= after || pool != "" && v.home().title() != pool {
			return
		}
		if list = append(list, heldHandle{h, v}); len(list) >= 8*most {
			first()
		}
	})
	first()
	return list
}

func handleList(r *request, m *ioctl.HandlesAsk) (ioctl.Message, error) {
	if m.Pool != "" {
		if _, err := r.visible(m.Pool); err != nil {
			return nil, err
		}
	}
	reply := &ioctl.HandlesReply{}
	for s := range r.shown(m.AfterSession, m.PID) {
		var after ioctl.Handle
		if s.id == m.AfterSession {
			after = m.AfterHandle
		}
		room := ioctl.HandlesPerPage - len(reply.Handles)
		for _, x := range s.handlesAfter(after, m.Pool, room+1) {
			if len(reply.Handles) == ioctl.HandlesPerPage {
				reply.More = true
				return reply, nil
			}
			reply.Handles = append(reply.Handles, s.handleInfo(r.ctx, x))
		}
	}
	return whole(r, reply)
}

// handleInfo describes a handle. What it is on may end at the same time.
func (s *session) handleInfo(ctx context.Context, x heldHandle) ioctl.HandleInfo {
	a := x.v.home()
	i := ioctl.HandleInfo{
		Session: s.id, PID: s.peer.pid, Handle: ioctl.Handle(x.h), Kind: ioctl.HandleKind(x.h.Kind()),
		Pool: a.title(), Object: x.v.object(),
	}
	if i.Object == 0 {
		return i
	}
	if o, err := a.pool.Describe(ctx, i.Object); err == nil {
		i.Refs, i.State = o.Refs, o.State
	}
	i.Granted = a.isGranted(s, x.h, i.Object, s.srv.grantClock())
	return i
}

// eventNext answers with events as soon as there are some. It holds its slot
// meanwhile and nothing else.
func eventNext(r *request, m *ioctl.EventNext) (ioctl.Message, error) {
	over := time.NewTimer(time.Duration(m.Wait) * time.Millisecond)
	defer over.Stop()
	may := func(e *ioctl.Event) bool {
		return r.s.peer.admin || e.Session != 0 && e.UID == r.s.peer.uid
	}
	for missed := uint64(0); ; {
		reply, more := r.s.srv.events.page(m.After, m.Since, may)
		missed += reply.Missed
		reply.Missed = missed
		if len(reply.Events) > 0 || missed > 0 || m.Wait == 0 {
			return reply, nil
		}
		m.After = reply.Last
		select {
		case <-more:
		case <-over.C:
			return reply, nil
		case <-r.s.srv.quiet:
			return reply, nil
		case <-r.ctx.Done():
			return nil, api.ContextError("", context.Cause(r.ctx))
		}
	}
}
