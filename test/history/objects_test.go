package history

import (
	"context"
	"math/rand/v2"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// object is the state of an mblock's id, which is given again and again.
type object struct {
	phase   phase
	conn    int    // of an uncommitted one: whose it is
	tag     uint64 // which of those that had the id
	handles set
	by      uint64 // the handle by which it is being committed, or 0
	ending  uint64 // the handle by which it is being deleted or aborted, or 0
	hidden  bool   // its id is taken, and its session does not know it yet
	killed  bool
	begun   set // handles by which that, or a look, has begun and is not told yet
}

type phase uint8

const (
	absent phase = iota
	uncommitted
	committed
)

// objectMachine is the model of handles and references (S15, S30, S31).
func objectMachine() machine {
	return newMachine(object{}, object.next, func(c *call) []part {
		var more []part
		if c.Code == 0 && (c.Do == doAlloc || c.Do == doCommit || c.Do == doAbort || c.Do == doDelete) ||
			(c.Do == doCommit || c.Do == doDelete) && c.Torn && (c.lost() || c.Code == api.ECONNRESET) {
			more = append(more, second)
		}
		if c.Torn && c.Do != doKill {
			more = append(more, looking, looked)
		}
		return more
	})
}

// look is the client library's, once it has another daemon: for a moment it may have a
// reference of its own.
func (o object) look(s step) []object {
	own := s.own()
	if s.part == looked {
		can := o.begun.has(own)
		o.handles, o.begun = o.handles.without(own), o.begun.without(own)
		return only(o, can)
	}
	o.begun = o.begun.with(own)
	with := o
	with.handles = o.handles.with(own)
	return append(only(with, o.phase == committed && o.ending == 0), o)
}

// gone is the state of an id that is free.
func (o object) gone() object { return object{begun: o.begun, killed: o.killed} }

// born is the state of an id that an allocation takes. Its connection sees it a moment
// later.
func (o object) born(c *call) object {
	return object{
		phase: uncommitted, conn: c.Conn, tag: c.Record, handles: set{}.with(c.Given),
		hidden: true, begun: o.begun, killed: o.killed,
	}
}

// seen says whether the object of a tag is there, committed.
func (o object) seen(c *call) bool { return o.phase == committed && o.tag == c.Record }

func (o object) next(s step) []object {
	c := s.call
	has := o.handles.has(c.Handle)
	if s.part >= looking {
		return o.look(s)
	}
	switch c.Do {
	case doKill:
		return o.kill()
	case doDelete, doAbort:
		if s.part == second {
			return o.ended(c)
		}
		return o.end(c, has)
	case doCommit:
		return o.commit(s, has)
	case doPut:
		if c.Code != 0 {
			return only(o, !has)
		}
		o.handles = o.handles.without(c.Handle)
		return []object{o}
	}
	switch {
	case c.Code == api.EBADF:
		return only(o, !has)
	case c.undone():
		// The kill may have taken the answer only: until then it was allocated.
		can := c.Do == doAlloc && c.Torn && !o.killed && o.phase == absent
		hidden := o.born(c)
		shown := hidden
		shown.hidden = false
		return append(append(only(hidden, can), only(shown, can)...), o)
	}
	switch c.Do {
	case doAlloc:
		if c.Code == api.EEXIST {
			return only(o, o.phase != absent)
		}
		if s.part == second {
			is := o.hidden && o.phase == uncommitted && o.tag == c.Record
			o.hidden = false
			return only(o, is)
		}
		return only(o.born(c), c.Code == 0 && o.phase == absent)
	case doFind:
		visible := o.ending == 0 && (o.phase == committed || o.phase == uncommitted && o.conn == c.Conn && !o.hidden)
		if c.Code == api.ENOENT {
			return only(o, !visible)
		}
		o.handles = o.handles.with(c.Given)
		return only(o, c.Code == 0 && visible)
	case doGet:
		can := c.Code == 0 && o.ending == 0 && (has || c.Torn && o.seen(c))
		o.handles = o.handles.with(c.Given)
		return only(o, can)
	case doInfo:
		return only(o, c.Code == 0 && o.tag == c.Record && (has && c.N == uint64(o.phase)|uint64(o.handles.n)<<8 ||
			c.Torn && o.phase == committed))
	}
	return nil
}

// commit is begun, then nobody else can, and done; or there is nothing to do.
func (o object) commit(s step, has bool) []object {
	c := s.call
	began := o
	began.by = c.Handle
	can := o.phase == uncommitted && o.by == 0 && o.ending == 0 && has
	cut := c.lost() || c.Code == api.ECONNRESET // by the kill, before or after it was published
	switch {
	case s.part == second && o.phase == uncommitted && o.by == c.Handle:
		done := o
		done.phase, done.by = committed, 0
		return append([]object{done}, only(o, cut)...)
	case s.part == second && cut:
		return []object{o}
	case c.Code == 0 && o.seen(c):
		return []object{o}
	case s.part == second:
		return nil
	case c.Code == api.EBADF:
		return only(o, !has)
	case c.Code == api.ESTATE:
		return only(o, o.by != 0 || o.ending != 0)
	case c.lost(), c.undone():
		// It is looked for after the kill: others may have deleted it meanwhile.
		return append(only(began, can && c.Torn), o)
	}
	return only(began, c.Code == 0 && can)
}

// kill: what is durable stays, and a delete under way was durable or not.
func (o object) kill() []object {
	o.killed = true
	after := o
	after.handles, after.ending, after.conn, after.by = set{}, 0, 0, 0
	switch {
	case o.by != 0:
		after.phase = committed
		return []object{after, o.gone()}
	case o.phase != committed:
		return []object{o.gone()}
	case o.ending != 0:
		return []object{after, o.gone()}
	}
	return []object{after}
}

// end is the first step of a delete or an abort: nobody gets a reference any more.
func (o object) end(c *call, has bool) []object {
	of := committed
	if c.Do == doAbort {
		of = uncommitted
	}
	began := o
	began.ending, began.begun = c.Handle, o.begun.with(c.Handle)
	vain := o
	vain.begun = began.begun
	can := o.phase == of && o.handles.alone(c.Handle) && o.ending == 0 && o.by == 0
	switch {
	case c.Torn && (c.Code == 0 || c.lost() || c.Code == api.ECONNRESET):
		return append(only(began, can), vain) // it may not have got that far
	case c.Code == 0:
		return only(began, can)
	case c.Code == api.EBADF:
		return only(o, !has)
	case c.Code == api.EBUSY:
		return only(o, o.phase == of && has && o.handles.n > 1)
	case c.Code == api.ESTATE:
		return only(o, o.phase != of || o.by != 0)
	}
	return nil
}

// ended is the second step.
func (o object) ended(c *call) []object {
	if !o.begun.has(c.Handle) {
		return nil
	}
	o.begun = o.begun.without(c.Handle)
	mine := o.ending == c.Handle
	switch {
	case c.Code == api.ECONNRESET: // it is looked for, and there
		return only(o, !mine && o.seen(c))
	case c.lost() && mine:
		return []object{o.gone()} // as a kill that follows decides
	case c.lost():
		return []object{o}
	case mine:
		return []object{o.gone()}
	}
	// A kill has ended it; or it is looked for, and not there.
	return only(o, !o.seen(c) && (c.Do == doDelete || o.tag != c.Record))
}

// held is a handle of a worker's.
type held struct {
	m   api.Mblock
	h   uint64
	key uint64
	tag uint64
	ph  phase
}

// most is how many handles a worker holds at most.
const most = 2

// objects takes, uses and gives back handles of a round's ids.
func (a *actor) objects(rng *rand.Rand) {
	ctx := context.Background()
	var have []held
	for range a.Steps {
		key := a.Objects + rng.Uint64N(objectsPerRound)
		if len(have) < most && rng.IntN(2) == 0 {
			have = a.acquire(ctx, rng, key, have)
			continue
		}
		if len(have) == 0 {
			continue
		}
		n := rng.IntN(len(have))
		if kept, over := a.use(ctx, rng, &have[n], len(have) < most); over {
			have = append(have[:n], have[n+1:]...)
		} else if kept != nil {
			have = append(have, *kept)
		}
	}
	for i := range have {
		x := &have[i]
		if x.ph != uncommitted || a.call(&call{Do: doAbort, Key: x.key, Handle: x.h, Record: x.tag}, func(*call) error { return x.m.Abort(ctx) }) != nil {
			_ = a.call(&call{Do: doPut, Key: x.key, Handle: x.h}, func(*call) error { return x.m.Put() }) // recorded
		}
	}
}

// acquire allocates an id or finds what has it.
func (a *actor) acquire(ctx context.Context, rng *rand.Rand, key uint64, have []held) []held {
	id := layout.NewObjectID(layout.KindMblock, key)
	x := held{key: key, h: a.fresh()}
	if rng.IntN(3) == 0 {
		x.tag, x.ph = x.h, uncommitted
		err := a.call(&call{Do: doAlloc, Key: key, Given: x.h, Record: x.tag}, func(*call) (err error) {
			x.m, err = a.pool.ReallocMblock(ctx, id, api.AllocOptions{Capacity: 4096, Tag: x.tag})
			return err
		})
		if err != nil {
			return have
		}
		return append(have, x)
	}
	if a.call(&call{Do: doFind, Key: key, Given: x.h}, func(*call) (err error) {
		x.m, err = a.pool.Mblock(ctx, id)
		return err
	}) != nil {
		return have
	}
	if a.look(ctx, &x) != nil {
		_ = a.call(&call{Do: doPut, Key: key, Handle: x.h}, func(*call) error { return x.m.Put() }) // recorded
		return have
	}
	return append(have, x)
}

// look asks what a handle is of.
func (a *actor) look(ctx context.Context, x *held) error {
	return a.call(&call{Do: doInfo, Key: x.key, Handle: x.h, Record: x.tag}, func(c *call) error {
		info, err := x.m.Info(ctx)
		if err != nil {
			return err
		}
		x.ph = uncommitted
		if info.State != api.StateUncommitted {
			x.ph = committed
		}
		x.tag, c.Record, c.N = info.Tag, info.Tag, uint64(x.ph)|uint64(info.Refs)<<8
		return nil
	})
}

// use does something with a handle. It returns another one, or that this one is over.
func (a *actor) use(ctx context.Context, rng *rand.Rand, x *held, more bool) (*held, bool) {
	c := &call{Key: x.key, Handle: x.h, Record: x.tag}
	var err error
	switch n := rng.IntN(10); {
	case n < 2:
		c.Do = doPut
		_ = a.call(c, func(*call) error { return x.m.Put() }) // recorded
		return nil, true
	case n < 4:
		err = a.look(ctx, x)
		c.Code = api.CodeOf(err)
	case n == 4 && more:
		y := *x
		y.h, c.Do = a.fresh(), doGet
		c.Given = y.h
		err = a.call(c, func(*call) error {
			again, err := x.m.Get(ctx)
			if err == nil {
				y.m = again.(api.Mblock)
			}
			return err
		})
		if err == nil {
			return &y, false
		}
	case x.ph == uncommitted && n < 8:
		c.Do = doCommit
		if err = a.call(c, func(*call) error { return x.m.Commit(ctx) }); err == nil {
			x.ph = committed
		}
	case x.ph == uncommitted:
		c.Do = doAbort
		err = a.call(c, func(*call) error { return x.m.Abort(ctx) })
		return nil, err == nil || c.undone() || c.lost()
	default:
		c.Do = doDelete
		err = a.call(c, func(*call) error { return x.m.Delete(ctx) })
		return nil, err == nil || c.undone() || c.lost()
	}
	return nil, c.undone() || c.lost()
}
