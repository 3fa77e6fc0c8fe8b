package server

import (
	"context"
	"maps"
	"slices"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/uhandle"
)

// modesOf returns what a handle does to an object, whose committed content nobody
// changes.
func modesOf(v resource) credit.Modes {
	switch v := v.(type) {
	case *objectRef:
		if info, err := v.obj.Info(context.Background()); err == nil && info.State == api.StateUncommitted {
			return credit.Write
		}
		return credit.Read
	case *appenderRef, *mdcRef:
		return credit.Append
	case *readerRef:
		return credit.Read
	}
	return 0
}

// opened claims what a new handle does, if its object is watched. It waits no
// longer than ctx for others to give back what they have cached.
func (c *creditor) opened(ctx context.Context, s *session, v resource) error {
	if c.watching.Load() == 0 || v.object() == 0 {
		return nil
	}
	for _, id := range c.logsOf(v.object()) {
		c.mu.Lock()
		w := c.watched[id]
		c.mu.Unlock()
		if w == nil {
			continue
		}
		c.relax(id)
		err := c.claim(ctx, s, id, v)
		c.review(id) // what was in the way may have been taken from the last link
		if err != nil {
			return err
		}
	}
	return nil
}

// logsOf returns the objects that a handle on an object is on: of a container's log
// both logs.
func (c *creditor) logsOf(id layout.ObjectID) []layout.ObjectID {
	ids := []layout.ObjectID{id}
	if id.Kind() == layout.KindMlog {
		if info, err := c.pool.pool.Describe(context.Background(), id); err == nil && info.Partner != 0 {
			ids = append(ids, info.Partner)
		}
	}
	return ids
}

// over returns a context that has ended: under it nothing is waited for.
func over() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// claim enters what a handle does to a watched object.
func (c *creditor) claim(ctx context.Context, s *session, id layout.ObjectID, v resource) error {
	m := modesOf(v)
	if m == 0 {
		return nil
	}
	hold, err := c.acquire(ctx, s, id, m, func() { c.taken(s, id, v) })
	if err != nil {
		return err
	}
	x := &claim{id: id, s: s, v: v, hold: hold}
	c.mu.Lock()
	w := c.watched[id]
	kept := w != nil && !v.wasTaken()
	if kept {
		c.claims[v] = append(c.claims[v], x)
		w.add(x)
	}
	c.mu.Unlock()
	if !kept { // it has ended meanwhile, or nobody asks for the object any more
		_ = hold.Release(credit.Version{}) //nolint:errcheck // lost or not, it is over
	}
	return nil
}

// forget gives up what a handle has claimed, which has ended.
func (c *creditor) forget(v resource) {
	if c.watching.Load() == 0 {
		return
	}
	c.mu.Lock()
	list := c.claims[v]
	delete(c.claims, v)
	for _, x := range list {
		if w := c.watched[x.id]; w != nil {
			w.drop(x)
		}
	}
	c.mu.Unlock()
	release(list)
}

func release(list []*claim) {
	for _, x := range list {
		_ = x.hold.Release(credit.Version{}) //nolint:errcheck // lost or not, it is over
	}
}

// watch has an object watched until unpin, and after it while a link has something
// of it. It fails while an object is being deleted that nobody knew was watched.
func (c *creditor) watch(id layout.ObjectID) error {
	c.mu.Lock()
	w := c.watched[id]
	first := w == nil
	if first {
		w = &watch{ready: make(chan struct{})}
		c.watched[id] = w
		c.watching.Add(1)
	}
	w.pins++
	c.mu.Unlock()
	if first {
		if !c.claimAll(id) {
			w.failed = true
			c.unwatch(id, w) // who comes next tries it himself
		}
		close(w.ready)
	}
	<-w.ready
	if w.failed {
		return &api.Error{Code: api.EBUSY, Object: id, Detail: "it is being deleted; try again"}
	}
	return nil
}

// claimAll makes the claims of all handles that there are on an object. Nobody
// else has anything of it, so that nothing is waited for.
func (c *creditor) claimAll(id layout.ObjectID) bool {
	if id.Kind() == layout.KindMblock {
		// Whoever gets a reference from now on sees that it is watched, and to look through
		// thousands of handles takes time.
		if info, err := c.pool.pool.Describe(context.Background(), id); err == nil && info.Refs == 0 {
			return true
		}
	}
	ok := true
	for _, s := range c.srv.all() {
		for _, key := range c.logsOf(id) {
			s.table.EachOf(uint64(key), func(_ uhandle.Handle, v resource) {
				if v.home() == c.pool && c.claim(c.atOnce, s, id, v) != nil {
					ok = false
				}
			})
		}
	}
	return ok
}

// unpin ends one watch.
func (c *creditor) unpin(id layout.ObjectID) {
	c.mu.Lock()
	if w := c.watched[id]; w != nil {
		w.pins--
	}
	c.mu.Unlock()
	c.review(id)
}

// review ends the watch of an object that no link has anything of.
func (c *creditor) review(id layout.ObjectID) {
	c.mu.Lock()
	w := c.watched[id]
	if w == nil || w.pins > 0 || c.root.Lent(objectOf(id)) {
		c.mu.Unlock()
		return
	}
	claims := c.unwatchLocked(id, w)
	c.mu.Unlock()
	release(claims)
}

// unwatch ends a watch.
func (c *creditor) unwatch(id layout.ObjectID, w *watch) {
	c.mu.Lock()
	claims := c.unwatchLocked(id, w)
	c.mu.Unlock()
	release(claims)
}

// unwatchLocked ends a watch, which is that of the object, and returns its claims, which
// are to be released.
//
// +checklocks:c.mu
func (c *creditor) unwatchLocked(id layout.ObjectID, w *watch) []*claim {
	delete(c.watched, id)
	c.watching.Add(-1)
	claims := slices.Collect(maps.Keys(w.claims)) // in no order: all are given up
	for _, x := range claims {
		c.dropLocked(x)
	}
	return claims
}

// dropLocked takes a claim from its handle.
//
// +checklocks:c.mu
func (c *creditor) dropLocked(x *claim) {
	c.claims[x.v] = slices.DeleteFunc(c.claims[x.v], func(y *claim) bool { return y == x })
	if len(c.claims[x.v]) == 0 {
		delete(c.claims, x.v)
	}
}

// relax has those who claim to write an object that is committed by now claim to read
// it, which others may, too. While somebody waits who does more than that they claim what
// they did.
func (c *creditor) relax(id layout.ObjectID) {
	c.mu.Lock()
	var list []*claim
	if w := c.watched[id]; w != nil && w.writes > 0 { // there are few, and others may be many
		for x := range w.claims { // order does not matter
			if x.writes() {
				list = append(list, x)
			}
		}
	}
	c.mu.Unlock()
	for _, x := range list {
		// Nothing is waited for: a loop may be asking.
		if !x.v.isFenced() && modesOf(x.v) != credit.Write && c.claim(c.atOnce, x.s, id, x.v) == nil {
			c.dropClaim(x)
		}
	}
}

// committed says that an object is committed: what a handle on it does is reading.
func (c *creditor) committed(id layout.ObjectID) {
	if c.watching.Load() != 0 {
		c.relax(id)
	}
}

func (c *creditor) dropClaim(x *claim) {
	c.mu.Lock()
	c.dropLocked(x)
	if w := c.watched[x.id]; w != nil {
		w.drop(x)
	}
	c.mu.Unlock()
	release([]*claim{x})
}
