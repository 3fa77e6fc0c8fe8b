package client

import (
	"context"
	"os"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

// The daemon calls back what others have of an object that a connection deletes,
// erases or appends to, and not what that connection has itself. So the connection
// does that: while it changes an object nobody is told its version, and when it has, its
// credits go back, so that who asks next hears the new one.

// change notes that the connection itself begins to change an object. over is called
// once, when it is known what became of that, which may be nothing.
func (s *linkCredits) change(k cacheKey) (over func(changed bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changing == nil {
		s.changing = make(map[cacheKey]int)
	}
	s.changing[k]++
	s.changes.Add(1)
	return func(changed bool) {
		if changed {
			for _, c := range s.all() {
				if c.of.uuid == k.pool {
					c.spoil(k.id)
				}
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.changes.Add(-1)
		if s.changing[k]--; s.changing[k] == 0 {
			delete(s.changing, k)
		}
	}
}

// isChanging says whether the connection changes an object just now.
func (s *linkCredits) isChanging(k cacheKey) bool {
	if s.changes.Load() == 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changing[k] > 0
}

// opens returns how many handles are open on an object under credits, of which the
// daemon need not know.
func (s *linkCredits) opens(k cacheKey) (n int) {
	for _, c := range s.all() {
		if c.of.uuid == k.pool {
			n += c.opens(k.id)
		}
	}
	return n
}

// change is that of the object's connection, if it takes credits.
func (o *object) change() (over func(changed bool)) {
	if o.p.c.credits == nil {
		return func(bool) {}
	}
	return o.l.credits.change(o.key())
}

func (o *object) key() cacheKey { return cacheKey{o.p.uuid, o.id} }

// delete deletes the object for a handle that is itself one of own that are open
// under credits, or none. The daemon does not know of all that are.
func (o *object) delete(ctx context.Context, own int) (err error) {
	const op = ioctl.OpObjectDelete
	over := o.change()
	defer func() { over(err == nil || api.CodeOf(err) != api.EBUSY) }()
	if n := o.l.credits.opens(o.key()) - own; n > 0 {
		return &api.Error{
			Code: api.EBUSY, Op: op.Name(), Object: o.id, Detail: "it is open under credits of this connection: give up the other handles and views",
			Holders: []api.Holder{{PID: int32(os.Getpid()), References: uint32(n + 1)}},
		}
	}
	return o.end(ctx, op, undone(op, "the object is as it was"))
}

// opens returns how many holds are those of open handles.
func (c *credits) opens(id layout.ObjectID) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := c.known[id]; k != nil {
		return k.opens
	}
	return 0
}

// spoil has what is cached of an object, credits and bytes, given back as soon as
// nobody holds it. Until then nobody is told a version.
func (c *credits) spoil(id layout.ObjectID) {
	k := c.enter(id)
	k.spoiled.Store(true)
	c.leave(k, false)
}

// renew gives back what there is of a spoiled object, for who has the last hold, and
// ends that: what was asked for meanwhile goes, too.
func (c *credits) renew(k *known) {
	for again := true; again; {
		c.giveBack(k.id)
		again = c.renewed(k)
	}
}

// renewed says whether more is to be given back.
func (c *credits) renewed(k *known) (again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	again, k.used = k.used && k.holds == 1, false
	if again {
		return true
	}
	if k.holds--; k.holds == 0 {
		delete(c.known, k.id)
	}
	return false
}
