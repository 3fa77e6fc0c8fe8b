// Package behave is one suite of behaviour tests for every implementation of
// api.Pool: in process on a simulated device, in process on a loop device, and
// the client library over a real daemon. What it asserts is the contract that
// users program against.
package behave

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/sched"
)

// Env is a fresh pool for one case.
type Env struct {
	T     *testing.T
	Ctx   context.Context
	Pool  api.Pool
	Sched *sched.Sched // nil in the real world
	// Reopen ends everything as a restart would (uncommitted objects are lost)
	// and returns the pool anew.
	Reopen func() api.Pool
}

// Backend gives cases their environment.
type Backend interface {
	// Run calls f with a fresh pool of about 64 MiB and cleans up.
	Run(t *testing.T, f func(e *Env))
}

// Run runs the suite.
func Run(t *testing.T, b Backend) {
	t.Helper()
	for _, c := range []struct {
		name string
		f    func(*Env)
	}{
		{"MblockLife", mblockLife},
		{"MblockSizes", mblockSizes},
		{"MblockPut", mblockPut},
		{"MblockMisuse", mblockMisuse},
		{"MblockConcurrentWrites", mblockConcurrentWrites},
		{"References", references},
		{"Realloc", realloc},
		{"CommitMany", commitMany},
		{"Roots", roots},
		{"Owners", owners},
		{"Listing", listing},
		{"LogLife", logLife},
		{"LogMisuse", logMisuse},
		{"LogFull", logFull},
		{"LogConcurrentAppends", logConcurrentAppends},
		{"LogErase", logErase},
		{"Container", container},
		{"Reopen", reopen},
		{"FullPool", fullPool},
		{"Deadlines", deadlines},
		{"HandOver", handOver},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.Run(t, func(e *Env) {
				c.f(e)
				e.space()
			})
		})
	}
}

// ok ends the case on an error.
func (e *Env) ok(err error) {
	e.T.Helper()
	if err != nil {
		e.T.Fatal(err)
	}
}

// want ends the case unless the error has the code.
func (e *Env) want(code api.Code, err error) {
	e.T.Helper()
	if !errors.Is(err, code) {
		e.T.Fatalf("error %v; want %v", err, code)
	}
}

func (e *Env) equal(what string, got, want any) {
	e.T.Helper()
	if got != want {
		e.T.Fatalf("%s is %v; want %v", what, got, want)
	}
}

// space checks that every byte of the drives is accounted for and that nothing
// is held by what no longer exists.
//
// proves S7
func (e *Env) space() {
	e.T.Helper()
	info, err := e.Pool.Info(e.Ctx)
	e.ok(err)
	s := info.Space
	sum := s.Free + s.Live + s.Uncommitted + s.Draining + s.Spare + s.Overhead + s.Remainder
	e.equal("the sum of the parts", sum, s.Total)
	var live, uncommitted int64
	for o, err := range e.Pool.Objects(e.Ctx, api.Filter{}) {
		e.ok(err)
		if o.State == api.StateCommitted {
			live += o.Used
		} else {
			uncommitted += o.Used
		}
	}
	e.equal("live space", s.Live, live)
	e.equal("uncommitted space", s.Uncommitted, uncommitted)
}

func data(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, 7))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// put writes and commits an mblock and gives its handle back.
func (e *Env) put(b []byte, o api.AllocOptions) layout.ObjectID {
	e.T.Helper()
	o.Capacity = int64(len(b))
	m, err := e.Pool.AllocMblock(e.Ctx, o)
	e.ok(err)
	if len(b) > 0 {
		_, err = m.Write(e.Ctx, b)
		e.ok(err)
	}
	e.ok(m.Commit(e.Ctx))
	e.ok(m.Put())
	return m.ID()
}

func (e *Env) has(id layout.ObjectID, want []byte) {
	e.T.Helper()
	m, err := e.Pool.Mblock(e.Ctx, id)
	e.ok(err)
	var got bytes.Buffer
	_, err = m.WriteTo(&got)
	e.ok(err)
	if !bytes.Equal(got.Bytes(), want) {
		e.T.Fatalf("mblock %v: %d bytes differ from the %d written", id, got.Len(), len(want))
	}
	e.ok(m.Put())
}

// many runs f in several tasks and waits for them.
func (e *Env) many(n int, f func(i int) error) {
	e.T.Helper()
	done := make([]sched.Completion, n)
	errs := make([]error, n)
	for i := range n {
		done[i].Init(e.Sched)
		e.Sched.Go("behave", func() {
			defer done[i].Done()
			errs[i] = f(i)
		})
	}
	for i := range n {
		e.ok(done[i].Wait(context.Background()))
	}
	e.ok(errors.Join(errs...))
}

// proves S15 S30
func references(e *Env) {
	id := e.put(data(3, 100), api.AllocOptions{})
	a, err := e.Pool.Mblock(e.Ctx, id)
	e.ok(err)
	b, err := e.Pool.Mblock(e.Ctx, id)
	e.ok(err)
	x, err := b.Get(e.Ctx)
	e.ok(err)
	info, err := a.Info(e.Ctx)
	e.ok(err)
	e.equal("references", info.Refs, uint32(3))
	err = a.Delete(e.Ctx)
	e.want(api.EBUSY, err)
	var known *api.Error
	if !errors.As(err, &known) || len(known.Holders) == 0 || known.Holders[0].References == 0 {
		e.T.Fatalf("%v does not name the holders", err)
	}
	e.ok(b.Put())
	e.want(api.EBUSY, a.Delete(e.Ctx))
	e.ok(x.Put())
	e.ok(a.Delete(e.Ctx))
	e.want(api.EBADF, a.Put())

	u, err := e.Pool.AllocMblock(e.Ctx, api.AllocOptions{Capacity: 4096})
	e.ok(err)
	y, err := u.Get(e.Ctx)
	e.ok(err)
	e.want(api.EBUSY, u.Abort(e.Ctx))
	e.ok(y.Put())
	e.ok(u.Abort(e.Ctx))
	_, err = e.Pool.Mblock(e.Ctx, u.ID())
	e.want(api.ENOENT, err)
}

// proves S10
func realloc(e *Env) {
	id := e.put(data(4, 100), api.AllocOptions{})
	_, err := e.Pool.ReallocMblock(e.Ctx, id, api.AllocOptions{Capacity: 100})
	e.want(api.EEXIST, err)
	m, err := e.Pool.Mblock(e.Ctx, id)
	e.ok(err)
	e.ok(m.Delete(e.Ctx))
	high := layout.NewObjectID(layout.KindMblock, 100_000)
	for _, id := range []layout.ObjectID{id, high} {
		m, err := e.Pool.ReallocMblock(e.Ctx, id, api.AllocOptions{Capacity: 100})
		e.ok(err)
		_, err = m.Write(e.Ctx, []byte("anew"))
		e.ok(err)
		e.ok(m.Commit(e.Ctx))
		e.ok(m.Put())
		e.has(id, []byte("anew"))
	}
	next := e.put(nil, api.AllocOptions{})
	if next.Counter() <= high.Counter() {
		e.T.Fatalf("id %v was given after %v was restored", next, high)
	}
	_, err = e.Pool.ReallocMblock(e.Ctx, layout.NewObjectID(layout.KindMlog, 7), api.AllocOptions{})
	e.want(api.EINVAL, err)
}

// proves S9 S12
func commitMany(e *Env) {
	var objects []api.Object
	for i := range 5 {
		m, err := e.Pool.AllocMblock(e.Ctx, api.AllocOptions{Capacity: 5000})
		e.ok(err)
		_, err = m.Write(e.Ctx, data(uint64(i), 5000))
		e.ok(err)
		objects = append(objects, m)
	}
	l, err := e.Pool.AllocMlog(e.Ctx, api.AllocOptions{Capacity: 5000})
	e.ok(err)
	objects = append(objects, l)
	bad := []api.Root{{Name: "nobody", ID: layout.NewObjectID(layout.KindMblock, 777777)}}
	e.want(api.ENOENT, e.Pool.CommitMany(e.Ctx, objects, bad))
	for _, o := range objects {
		info, err := o.Info(e.Ctx)
		e.ok(err)
		e.equal("after a failed commit the state", info.State, api.StateUncommitted)
	}
	e.want(api.EINVAL, e.Pool.CommitMany(e.Ctx, []api.Object{objects[0], objects[0]}, nil))
	e.ok(e.Pool.CommitMany(e.Ctx, objects, []api.Root{{Name: "first", ID: objects[0].ID()}}))
	list, err := e.Pool.Roots(e.Ctx)
	e.ok(err)
	e.equal("the root", fmt.Sprint(list), fmt.Sprint([]api.Root{{Name: "first", ID: objects[0].ID()}}))
	for i, o := range objects {
		e.ok(o.Put())
		if i < 5 {
			e.has(o.ID(), data(uint64(i), 5000))
		}
	}
}

// proves S9
func roots(e *Env) {
	id := e.put(data(5, 10), api.AllocOptions{})
	set := func(name string, id layout.ObjectID) error {
		return e.Pool.SetRoots(e.Ctx, []api.Root{{Name: name, ID: id}})
	}
	e.want(api.EINVAL, set("", id))
	e.want(api.EINVAL, set(string(data(1, 65)), id))
	e.want(api.EINVAL, set("a\nb", id))
	e.want(api.EPERM, set(".system", id))
	e.want(api.ENOENT, set("x", id+1000))
	e.want(api.ENOENT, set("x", 0))
	e.ok(set("b", id))
	e.ok(set("a", id))
	e.ok(set("b", 0))
	// All or nothing.
	e.want(api.ENOENT, e.Pool.SetRoots(e.Ctx, []api.Root{{Name: "c", ID: id}, {Name: "d", ID: id + 1000}}))
	list, err := e.Pool.Roots(e.Ctx)
	e.ok(err)
	e.equal("roots", fmt.Sprint(list), fmt.Sprint([]api.Root{{Name: "a", ID: id}}))
	all := make([]api.Root, api.MaxRoots)
	for i := range all {
		all[i] = api.Root{Name: fmt.Sprintf("root%d", i), ID: id}
	}
	e.want(api.ENOSPC, e.Pool.SetRoots(e.Ctx, all))
	e.ok(e.Pool.SetRoots(e.Ctx, all[1:]))
	list, err = e.Pool.Roots(e.Ctx)
	e.ok(err)
	e.equal("number of roots", len(list), api.MaxRoots)
}

func owners(e *Env) {
	a, err := e.Pool.AddOwner(e.Ctx, "tenant", 0)
	e.ok(err)
	b, err := e.Pool.AddOwner(e.Ctx, "sub", a)
	e.ok(err)
	_, err = e.Pool.AddOwner(e.Ctx, "tenant", 0)
	e.want(api.EEXIST, err)
	_, err = e.Pool.AddOwner(e.Ctx, "x", 99)
	e.want(api.ENOENT, err)
	_, err = e.Pool.AddOwner(e.Ctx, "", 0)
	e.want(api.EINVAL, err)
	list, err := e.Pool.Owners(e.Ctx)
	e.ok(err)
	e.equal("owners", fmt.Sprint(list), fmt.Sprint([]api.Owner{{}, {Index: a, Name: "tenant"}, {Index: b, Parent: a, Name: "sub"}}))
	id := e.put(nil, api.AllocOptions{Owner: b})
	m, err := e.Pool.Mblock(e.Ctx, id)
	e.ok(err)
	info, err := m.Info(e.Ctx)
	e.ok(err)
	e.equal("owner", info.Owner, b)
	e.ok(m.Put())
}

// proves S9: iteration by owner, tag, kind.
func listing(e *Env) {
	owner, err := e.Pool.AddOwner(e.Ctx, "t", 0)
	e.ok(err)
	for i := range 20 {
		e.put(data(1, 10), api.AllocOptions{Tag: uint64(i % 4), Owner: owner * uint32(i%2)})
	}
	l, err := e.Pool.AllocMlog(e.Ctx, api.AllocOptions{Capacity: 100, Tag: 3})
	e.ok(err)
	count := func(f api.Filter) int {
		n := 0
		for _, err := range e.Pool.Objects(e.Ctx, f) {
			e.ok(err)
			n++
		}
		return n
	}
	tag := uint64(3)
	e.equal("all objects", count(api.Filter{}), 21)
	e.equal("mblocks", count(api.Filter{Kind: layout.KindMblock}), 20)
	e.equal("objects of the owner", count(api.Filter{Owner: &owner}), 10)
	e.equal("objects of the tag", count(api.Filter{Tag: &tag}), 6)
	e.equal("committed ones of the tag", count(api.Filter{Tag: &tag, State: api.StateCommitted}), 5)
	e.equal("uncommitted ones", count(api.Filter{State: api.StateUncommitted}), 1)
	e.ok(l.Abort(e.Ctx))
}
