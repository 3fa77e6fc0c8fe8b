package server

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/uhandle"
)

// shown returns the sessions that the asker may know of, in the order of their
// numbers: an administrator all, others those of their own user. pid chooses a
// process; 0: any. One that is over is not there, even if a stalled drive still
// holds up what it left.
func (r *request) shown(pid int32) []*session {
	return slices.DeleteFunc(r.s.srv.greeted(), func(s *session) bool {
		return !r.s.peer.admin && s.peer.uid != r.s.peer.uid || pid != 0 && s.peer.pid != pid || s.over()
	})
}

// over says whether the session has ended and no request of it can change
// anything any more: clients that lost a connection wait for that before they
// look what became of their requests.
func (s *session) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deaf && s.ended && len(s.tags) == 0
}

// greeted returns the sessions that have said hello, in the order of their
// numbers.
func (s *Server) greeted() []*session {
	list := slices.DeleteFunc(s.all(), func(sess *session) bool { return !sess.greeted.Load() })
	slices.SortFunc(list, func(a, b *session) int { return cmp.Compare(a.id, b.id) })
	return list
}

func clientList(r *request, m *ioctl.ClientList) (ioctl.Message, error) {
	reply := &ioctl.ClientsReply{}
	for _, s := range r.shown(m.PID) {
		if s.id <= m.After {
			continue
		}
		if len(reply.Clients) == ioctl.ClientsPerPage {
			reply.More = true
			break
		}
		reply.Clients = append(reply.Clients, s.info())
	}
	return reply, nil
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

// handlesAfter returns a session's handles above a number, in order.
func (s *session) handlesAfter(after ioctl.Handle, pool string) []heldHandle {
	var list []heldHandle
	s.table.Each(func(h uhandle.Handle, v resource) {
		if ioctl.Handle(h) > after && (pool == "" || v.home().title() == pool) {
			list = append(list, heldHandle{h, v})
		}
	})
	slices.SortFunc(list, func(a, b heldHandle) int { return cmp.Compare(a.h, b.h) })
	return list
}

func handleList(r *request, m *ioctl.HandlesAsk) (ioctl.Message, error) {
	if m.Pool != "" {
		if _, err := r.visible(m.Pool); err != nil {
			return nil, err
		}
	}
	reply := &ioctl.HandlesReply{}
	for _, s := range r.shown(m.PID) {
		if s.id < m.AfterSession {
			continue
		}
		var after ioctl.Handle
		if s.id == m.AfterSession {
			after = m.AfterHandle
		}
		for _, x := range s.handlesAfter(after, m.Pool) {
			if len(reply.Handles) == ioctl.HandlesPerPage {
				reply.More = true
				return reply, nil
			}
			reply.Handles = append(reply.Handles, s.handleInfo(r.ctx, x))
		}
	}
	return reply, nil
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
