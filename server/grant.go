package server

import (
	"container/heap"
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/uhandle"
)

// How many objects of a pool are granted at one time.
const (
	maxGrantsSession = 256 // by one session
	maxGrants        = 4096
)

// grant offers a session's uncommitted object to whoever shows the token.
type grant struct {
	token   api.Token
	from    *session
	handle  uhandle.Handle // of from's; with it the grant ends
	id      layout.ObjectID
	owner   uint32
	created time.Time // of the object
	until   time.Time
	place   int // in grants.ends
}

// grants are a pool's, guarded by its mu. One that has expired goes when the next
// one is made or looked for; one whose handle has ended, when somebody shows its
// token, or it expires. The lookup by token tells nothing by its time: the map's
// hash is keyed at random, and a token has 128 random bits.
type grants struct {
	byToken   map[api.Token]*grant
	byObject  map[layout.ObjectID]*grant // an object has one at most
	bySession map[*session]int
	ends      grantHeap
}

func newGrants() grants {
	return grants{
		byToken: make(map[api.Token]*grant), byObject: make(map[layout.ObjectID]*grant),
		bySession: make(map[*session]int),
	}
}

// grantHeap has the grant that ends first at its top.
type grantHeap []*grant

// Len implements heap.Interface.
func (h *grantHeap) Len() int { return len(*h) }

// Less implements heap.Interface.
func (h *grantHeap) Less(i, j int) bool { return (*h)[i].until.Before((*h)[j].until) }

// Swap implements heap.Interface.
func (h *grantHeap) Swap(i, j int) {
	s := *h
	s[i], s[j] = s[j], s[i]
	s[i].place, s[j].place = i, j
}

// Push implements heap.Interface.
func (h *grantHeap) Push(x any) {
	g := x.(*grant)
	g.place = len(*h)
	*h = append(*h, g)
}

// Pop implements heap.Interface.
func (h *grantHeap) Pop() any {
	last := len(*h) - 1
	g := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return g
}

// expire drops what is over.
func (gs *grants) expire(now time.Time) {
	for len(gs.ends) > 0 && !now.Before(gs.ends[0].until) {
		gs.drop(gs.ends[0])
	}
}

// add adds a grant in place of the object's earlier one: EAGAIN if there are too
// many.
func (gs *grants) add(g *grant, now time.Time) error {
	gs.expire(now)
	if old := gs.byObject[g.id]; old != nil {
		gs.drop(old)
	}
	switch {
	case gs.bySession[g.from] >= maxGrantsSession:
		return api.Errorf(api.EAGAIN, "", "the session has granted %d objects of the pool, as many as it may", maxGrantsSession)
	case len(gs.byToken) >= maxGrants:
		return api.Errorf(api.EAGAIN, "", "%d objects of the pool are granted, as many as may be", maxGrants)
	}
	gs.byToken[g.token], gs.byObject[g.id] = g, g
	gs.bySession[g.from]++
	heap.Push(&gs.ends, g)
	return nil
}

// drop ends a grant that there is.
func (gs *grants) drop(g *grant) {
	delete(gs.byToken, g.token)
	delete(gs.byObject, g.id)
	if gs.bySession[g.from]--; gs.bySession[g.from] == 0 {
		delete(gs.bySession, g.from)
	}
	heap.Remove(&gs.ends, g.place)
}

// dropOf ends the grant of a session's object, if there is one.
func (gs *grants) dropOf(s *session, id layout.ObjectID) {
	if g := gs.byObject[id]; g != nil && g.from == s {
		gs.drop(g)
	}
}

// find returns the grant of a token, or nil.
func (gs *grants) find(t api.Token, now time.Time) *grant {
	gs.expire(now)
	return gs.byToken[t]
}

// noGrant is said of every token that is good for nothing, whyever.
func noGrant() error {
	return api.Errorf(api.ENOENT, "", "no such grant: it was never given, is used up, has expired, or its giver has ended it")
}

func objectGrant(r *request, m *ioctl.Grant) (ioctl.Message, error) {
	o, err := useObject(r, m.Object, true)
	if err != nil {
		return nil, err
	}
	if m.TTL < api.MinGrant || m.TTL > api.MaxGrant {
		return nil, api.Errorf(api.EINVAL, "", "a grant for %v: want %v to %v", m.TTL, api.MinGrant, api.MaxGrant)
	}
	info, err := o.obj.Info(r.ctx)
	if err != nil {
		return nil, err
	}
	a := o.ref.pool
	if err := a.pool.MayHandOver(o.obj); err != nil {
		return nil, r.withHolders(a, info.ID, err)
	}
	now := r.s.srv.grantClock()
	g := &grant{
		from: r.s, handle: uhandle.Handle(m.Object), id: info.ID, owner: info.Owner, created: info.Created,
		until: now.Add(m.TTL),
	}
	_, _ = rand.Read(g.token[:]) // it never fails
	if err := a.grant(g, now); err != nil {
		return nil, err
	}
	return &ioctl.Granted{Token: g.token}, nil
}

// grant offers an object that must be the session's own.
func (a *activePool) grant(g *grant, now time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, own := a.own[g.from][g.id]; !own {
		return noObject(g.id) // the session ends, or it was committed just now
	}
	return a.grants.add(g, now)
}

func objectRevoke(r *request, m *ioctl.Target) (ioctl.Message, error) {
	o, err := useObject(r, m.Handle, true)
	if err != nil {
		return nil, err
	}
	if r.ctx.Err() != nil {
		return nil, api.ContextError("", context.Cause(r.ctx))
	}
	a := o.ref.pool
	a.mu.Lock()
	defer a.mu.Unlock()
	a.grants.dropOf(r.s, o.obj.ID())
	return &ioctl.Empty{}, nil
}

func objectAccept(r *request, m *ioctl.Accept) (ioctl.Message, error) {
	p, err := usePool(r, m.Pool, true)
	if err != nil {
		return nil, err
	}
	if r.ctx.Err() != nil {
		return nil, api.ContextError("", context.Cause(r.ctx))
	}
	a := p.pool
	info, ok := a.granted(m.Token, r.s.srv.grantClock())
	if !ok {
		return nil, noGrant()
	}
	if err := r.mustReachInfo(a, &info); errors.Is(err, api.ENOENT) {
		return nil, noGrant()
	} else if err != nil {
		return nil, err
	}
	h, err := r.take(p, m.Token, info.ID.Kind())
	if err != nil {
		return nil, err
	}
	return &ioctl.Opened{Handle: h, ID: info.ID, Created: info.Created}, nil
}

// granted says what of the object of a token does not change.
func (a *activePool) granted(t api.Token, now time.Time) (api.ObjectInfo, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	g := a.grants.find(t, now)
	if g == nil {
		return api.ObjectInfo{}, false
	}
	return api.ObjectInfo{ID: g.id, Owner: g.owner, Created: g.created}, true
}

// take makes the object of a token the session's, if it can be had.
func (r *request) take(p *poolRef, t api.Token, kind layout.Kind) (ioctl.Handle, error) {
	of := kindMblock
	if kind == layout.KindMlog {
		of = kindMlog
	}
	if err := r.s.roomForHandle(); err != nil {
		return 0, err
	}
	h, err := r.s.table.Reserve(of)
	if err != nil {
		return 0, r.s.noHandle(err)
	}
	ref, err := p.pool.handOver(r.s, h, p, t)
	switch {
	case ref == nil:
		r.s.table.Unreserve(h)
		return 0, err
	case err != nil: // it ended just now, and the object with it
		r.s.release(ref)
		return 0, r.s.noHandle(err)
	}
	if err := r.claim(h, ref); err != nil { // others have its credit, and the giver has lost it: it is nobody's
		p.pool.orphan(r.s, ref.object())
		return 0, err
	}
	return ioctl.Handle(h), nil
}

// handOver moves a granted object from its giver to another session, all of it in
// one step under a.mu: the reference from the one handle table to the other's
// reserved handle, the ownership, and the end of the grant. Who ends meanwhile is
// either before it, as whoever's table is closed first says, or after it, as
// disown takes a.mu. With an error nothing was moved; but if there is a reference,
// too, the taker's table was closed in the last moment: the object is the taker's
// to abort, and the reference is the caller's to release.
func (a *activePool) handOver(to *session, h uhandle.Handle, into *poolRef, t api.Token) (*objectRef, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	g := a.grants.find(t, to.srv.grantClock())
	if g == nil {
		return nil, noGrant()
	}
	if a.credits.wantedByOthers(to, g.id) { // who waits would have it as soon as its giver has not
		return nil, &api.Error{Code: api.EBUSY, Object: g.id, Detail: "others than its taker have credits on it or wait for one: try again when they have given back"}
	}
	v, err := g.from.table.Take(g.handle, func(v resource) error {
		if v.isFenced() {
			return noGrant()
		}
		return a.pool.MayHandOver(v.(*objectRef).obj) // it does not wait, nor call back
	})
	switch {
	case errors.Is(err, uhandle.ErrInUse):
		return nil, &api.Error{Code: api.EBUSY, Object: g.id, Detail: "its giver is using it now; try again"}
	case errors.Is(err, api.EBUSY):
		return nil, &api.Error{Code: api.EBUSY, Object: g.id, Detail: "its giver has not let go of it", Err: err}
	case err != nil: // it was put, or is committed or aborted
		a.grants.drop(g)
		return nil, noGrant()
	}
	a.grants.drop(g)
	was := v.(*objectRef)
	was.closed.Store(true) // its reference moves
	a.credits.forget(was)
	was.ref.children.Add(-1)
	ref := newObjectRef(into, was.obj)
	into.children.Add(1)
	a.dropOwn(g.from, g.id)
	a.adoptLocked(to, g.id)
	if err := to.table.Fill(h, uint64(g.id), ref); err != nil {
		a.orphanLocked(to, g.id)
		return ref, err
	}
	return ref, nil
}

// isGranted says whether an object is granted by a session's handle.
func (a *activePool) isGranted(s *session, h uhandle.Handle, id layout.ObjectID, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.grants.expire(now)
	g := a.grants.byObject[id]
	return g != nil && g.from == s && g.handle == h
}
