package server

import (
	"context"
	"slices"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/uhandle"
)

// taken ends a handle whose claim was taken. It is called with the root's lock held,
// before anybody has what conflicts: from now on nothing is begun with the handle;
// its reference is given back apart.
func (c *creditor) taken(s *session, id layout.ObjectID, v resource) {
	v.fence()
	c.fenced.Add(1)
	c.srv.tellEvent(c.event(s, id, "the credit of a handle was taken: its holder did not give it back in time"))
	c.leaf.Lock()
	defer c.leaf.Unlock()
	if c.closed {
		return
	}
	e := c.ending[id]
	if e == nil {
		e = &ending{over: make(chan struct{})}
		c.ending[id] = e
	}
	e.n++
	c.fences.Go(func() {
		s.endFenced(v)
		if c.pool.adopter(id) == s { // nobody can commit it any more
			c.pool.orphan(s, id)
			c.awaitFate(c.srv.hard, s, id) // unless that was under way
		}
		c.leaf.Lock()
		defer c.leaf.Unlock()
		if e.n--; e.n == 0 {
			close(e.over)
			delete(c.ending, id)
		}
	})
}

// awaitFate waits until an uncommitted object of a session that has lost it is aborted or
// committed, which it is when who used it has let go of it.
func (c *creditor) awaitFate(ctx context.Context, s *session, id layout.ObjectID) {
	fate := c.pool.fate(s, id)
	if fate == nil {
		return
	}
	patience := time.NewTimer(closeTimeout)
	defer patience.Stop()
	select {
	case <-fate:
	case <-patience.C:
	case <-c.quit:
	case <-ctx.Done():
	}
}

// event is one of type revoked.
func (c *creditor) event(s *session, id layout.ObjectID, text string) ioctl.Event {
	return ioctl.Event{
		Type: ioctl.EventRevoked, Pool: c.pool.feed.title(), Object: id, Session: s.id, PID: s.peer.pid,
		UID: s.peer.uid, Comm: s.peer.comm, Text: text,
	}
}

// tellFenced is the root's Fenced.
func (c *creditor) tellFenced(debtor credit.OwnerID, r credit.Resource, k credit.Credit) {
	c.leaf.Lock()
	l := c.links[debtor]
	c.leaf.Unlock()
	c.fenced.Add(1)
	if l != nil {
		c.srv.tellEvent(c.event(l.s, layout.ObjectID(r.ID),
			r.Type.Format(k)+" was taken from its holder, who did not give it back in time"))
	}
}

// tellEvicted is the root's Evicted: it is told while the link's own message is received,
// which looks at it then.
func (c *creditor) tellEvicted(debtor credit.OwnerID, r credit.Resource) {
	c.leaf.Lock()
	defer c.leaf.Unlock()
	if l := c.links[debtor]; l != nil {
		c.evicted[debtor] = append(c.evicted[debtor], r)
		l.evicted.Store(true)
	}
}

// settled waits until the handles that were fenced on objects have given up their
// references, but for those that operations use, and what they had not committed is
// aborted or committed after all. It says whether there were any.
func (c *creditor) settled(ctx context.Context, ids []layout.ObjectID) (some bool) {
	patience := time.NewTimer(closeTimeout)
	defer patience.Stop()
	for _, id := range ids {
		c.leaf.Lock()
		e := c.ending[id]
		c.leaf.Unlock()
		if e == nil {
			continue
		}
		some = true
		select {
		case <-e.over:
		case <-ctx.Done():
		case <-patience.C:
			return some
		}
	}
	return some
}

// lentTo says whether a session has a credit on an object.
func (c *creditor) lentTo(s *session, id layout.ObjectID) bool {
	return c.watching.Load() != 0 && slices.ContainsFunc(c.root.Loans(objectOf(id)), func(l credit.Loan) bool {
		return l.Debtor != 0 && l.Group == s.id && !l.Waits
	})
}

// wantedByOthers says whether other sessions have a credit on an object or wait for one.
func (c *creditor) wantedByOthers(s *session, id layout.ObjectID) bool {
	return c.watching.Load() != 0 && slices.ContainsFunc(c.root.Loans(objectOf(id)), func(l credit.Loan) bool {
		return l.Debtor != 0 && l.Group != s.id
	})
}

// isEnding says whether handles on an object are being ended.
func (c *creditor) isEnding(id layout.ObjectID) bool {
	c.leaf.Lock()
	defer c.leaf.Unlock()
	return c.ending[id] != nil
}

// endFenced ends the handle of what was fenced.
func (s *session) endFenced(v resource) {
	var handles []uhandle.Handle
	s.table.EachOf(uint64(v.object()), func(h uhandle.Handle, x resource) {
		if x == v {
			handles = append(handles, h)
		}
	})
	for _, h := range handles {
		e, err := s.table.Use(h, h.Kind())
		if err != nil {
			continue // it was given up
		}
		s.bury(h)
		s.table.End(e)
		if s.table.Done(e) {
			s.release(v)
		}
	}
}

// bury notes that a handle was fenced: it is stale, not bad. There are no more of
// them than handles; who leaves more of them forgets some.
func (s *session) bury(h uhandle.Handle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.buried == nil {
		s.buried = make(map[uhandle.Handle]struct{})
	}
	for old := range s.buried { // any
		if len(s.buried) < s.srv.limits.Handles {
			break
		}
		delete(s.buried, old)
	}
	s.buried[h] = struct{}{}
}

// badHandle is the error for a handle that is in the table no more. One that is
// given up is forgotten.
func (s *session) badHandle(op ioctl.Op, h ioctl.Handle) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, fenced := s.buried[uhandle.Handle(h)]; !fenced {
		return badHandle(h)
	}
	if op == ioctl.OpClose {
		delete(s.buried, uhandle.Handle(h))
	}
	return staleHandle(h)
}

func staleHandle(h ioctl.Handle) error {
	return api.Errorf(api.ESTALE, "", "the credit of handle %#x was taken while others waited for it: open the object anew", uint64(h))
}
