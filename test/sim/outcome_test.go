package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mpool-go/mpool/api"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
)

// trouble is how a run of a pool is disturbed.
type trouble struct {
	faults    bool  // the disk fails operations
	deadlines bool  // contexts end while operations are under way
	site      *site // what fails is this, and nothing else
}

// site is an I/O that fails.
type site struct {
	disk  int
	fault devsim.Fault
}

// unsure is a worker whose operations may fail. It acts on what the errors say:
// nil is done, EUNKNOWN may be either, anything else is not done.
type unsure struct {
	worker
	trouble
}

// overrun is how much later than its context an operation may end.
const overrun = 1 * time.Millisecond

// with calls f with a context that may end while f is at work, and checks that
// f ends with it.
func (u *unsure) with(op string, f func(ctx context.Context) error) error {
	end := ctx
	var until time.Time
	if u.deadlines && u.rng.IntN(3) > 0 {
		var d time.Duration
		switch u.rng.IntN(8) {
		case 0:
		case 1:
			d = 50 * time.Millisecond
		default:
			d = time.Duration(u.rng.Int64N(int64(4 * time.Millisecond)))
		}
		until = u.s.Now().Add(d)
		var cancel context.CancelFunc
		if u.rng.IntN(2) == 0 {
			end, cancel = u.s.WithTimeout(ctx, d)
		} else {
			end, cancel = u.s.WithCancel(ctx)
			u.s.Post(d, cancel)
		}
		defer cancel()
	}
	err := f(end)
	if late := u.s.Now().Sub(until); !until.IsZero() && late > overrun {
		must(fmt.Errorf("%s ended %v after its context, with %w (S46)", op, late, errOr(err)))
	}
	must(u.explain(op, err))
	return err
}

var errNone = errors.New("no error")

func errOr(err error) error {
	if err == nil {
		return errNone
	}
	return err
}

// explain says whether the trouble explains an error.
func (u *unsure) explain(op string, err error) error {
	switch code := api.CodeOf(err); code { //nolint:exhaustive // the others are below
	case 0, api.ENOSPC, api.EFBIG:
		return nil
	case api.ETIMEDOUT, api.ECANCELED:
		if u.deadlines {
			return nil
		}
	case api.EUNKNOWN:
		return nil
	case api.EIO, api.EROFS:
		if u.faults {
			return nil
		}
	}
	return fmt.Errorf("%s: %w", op, err)
}

// unknown says whether an operation may have been done.
func unknown(err error) bool { return errors.Is(err, api.EUNKNOWN) }

func (u *unsure) run(n int) {
	for range n {
		switch u.rng.IntN(20) {
		case 0, 1, 2, 3, 4:
			u.put()
		case 5, 6:
			u.putMany()
		case 7, 8:
			u.deleteMblock()
		case 9:
			u.readBack()
		case 10:
			u.createLog()
		case 11, 12, 13:
			u.appendLog()
		case 14:
			u.eraseLog()
		case 15:
			u.setRoot()
		case 16, 17:
			u.container()
		case 18:
			u.deleteLog()
		case 19:
			u.deleteContainer()
		}
	}
}

// alloc allocates and writes an mblock. It is nil if that failed, and then
// there is none.
func (u *unsure) alloc() (api.Mblock, *mblockModel) {
	data := pattern(u.rng, u.size())
	tag := u.rng.Uint64()
	var b api.Mblock
	err := u.with("alloc", func(ctx context.Context) (err error) {
		b, err = u.p.AllocMblock(ctx, u.options(int64(len(data))+int64(u.rng.IntN(100000)), tag))
		return err
	})
	if err != nil {
		return nil, nil
	}
	must(u.m.given(b.ID()))
	if !u.deadlines && u.rng.IntN(2) == 0 {
		if err := u.writeBegun(b, data); err != nil {
			must(u.explain("begun write", err))
			must(b.Abort(ctx))
			return nil, nil
		}
		return b, &mblockModel{fate: creating, data: data, tag: tag}
	}
	for off := 0; off < len(data); {
		n := min(4096*(1+u.rng.IntN(8)), len(data)-off)
		if err := u.with("write", func(ctx context.Context) error { _, err := b.Write(ctx, data[off:off+n]); return err }); err != nil {
			must(b.Abort(ctx))
			return nil, nil
		}
		off += n
	}
	return b, &mblockModel{fate: creating, data: data, tag: tag}
}

func (u *unsure) put() {
	b, mm := u.alloc()
	if b == nil {
		return
	}
	u.m.mblocks[b.ID()] = mm
	commit := b.Commit
	if !u.deadlines && u.rng.IntN(2) == 0 {
		commit = func(context.Context) error { return u.commitBegun(b) }
	}
	err := u.with("commit", commit)
	if err != nil && !unknown(err) && u.rng.IntN(3) == 0 {
		err = u.with("commit again", b.Commit)
	}
	switch {
	case err == nil:
		must(b.Put())
		mm.fate = live // and whoever picks it may have it
		u.m.acks++
	case unknown(err):
		must(b.Put())
		if u.rng.IntN(2) == 0 {
			u.look(b.ID(), mm)
		}
	default:
		mm.fate = dead
		must(b.Abort(ctx))
	}
}

// look finds out about an mblock whose commit is unknown: what is committed in
// memory is durable.
func (u *unsure) look(id layout.ObjectID, mm *mblockModel) {
	b, err := u.p.Mblock(ctx, id)
	must(err) // it stays until the next activation
	info, err := b.Info(ctx)
	must(err)
	must(b.Put())
	if info.State == api.StateCommitted {
		mm.fate = live
	}
}

func (u *unsure) putMany() {
	g := &group{root: fmt.Sprintf("w%d", u.n)}
	var objects []api.Object
	for range 1 + u.rng.IntN(4) {
		if b, mm := u.alloc(); b != nil {
			mm.with = g
			u.m.mblocks[b.ID()] = mm
			objects = append(objects, b)
			g.objects = append(g.objects, b.ID())
		}
	}
	if len(objects) == 0 {
		return
	}
	g.id = g.objects[0]
	before := u.m.rootMaybe[g.root]
	u.m.rootMaybe[g.root] = append(slices.Clip(before), g.id)
	err := u.with("commit many", func(ctx context.Context) error {
		return u.p.CommitMany(ctx, objects, []api.Root{{Name: g.root, ID: g.id}})
	})
	switch {
	case err == nil:
		u.m.roots[g.root], u.m.rootMaybe[g.root] = g.id, nil
		u.m.acks++
	case !unknown(err):
		u.m.rootMaybe[g.root] = before
	}
	for _, o := range objects {
		if err != nil && !unknown(err) {
			must(o.Abort(ctx))
		} else {
			must(o.Put())
		}
	}
	for _, o := range objects {
		mm := u.m.mblocks[o.ID()]
		switch {
		case err == nil:
			mm.with, mm.fate = nil, live
		case !unknown(err):
			mm.with, mm.fate = nil, dead
		}
	}
}

func (u *unsure) deleteMblock() {
	id := pick(&u.worker, u.m.mblocks, func(o *mblockModel) bool { return o.fate == live })
	if id == 0 {
		return
	}
	b, err := u.p.Mblock(ctx, id)
	must(err)
	mm := u.m.mblocks[id]
	mm.fate = removing
	if u.remove("delete", b, b.Delete) {
		mm.fate = live
	}
}

// remove deletes by a handle; it returns true when the object is as before. The
// fate of one that is gone for sure is the caller's removing.
func (u *unsure) remove(op string, o api.Object, f func(context.Context) error) (still bool) {
	err := u.with(op, f)
	if err == nil {
		u.gone(o.ID())
		return false
	}
	if !unknown(err) {
		_, ierr := o.Info(ctx)
		must(ierr)
	}
	must(o.Put())
	return !unknown(err)
}

// gone settles an object whose delete was acknowledged.
func (u *unsure) gone(id layout.ObjectID) {
	u.m.acks++
	if mm := u.m.mblocks[id]; mm != nil {
		mm.fate = dead
	}
	if lm := u.m.logs[id]; lm != nil {
		lm.fate = dead
	}
}

func (u *unsure) readBack() {
	id := pick(&u.worker, u.m.mblocks, func(o *mblockModel) bool { return o.fate == live })
	if id == 0 {
		return
	}
	b, err := u.p.Mblock(ctx, id)
	must(err)
	want := u.m.mblocks[id].data
	got := memory(len(want))
	var n int
	err = u.with("read", func(ctx context.Context) (err error) {
		n, err = b.ReadAtContext(ctx, got, 0)
		return err
	})
	if err == nil && n != len(want) {
		must(fmt.Errorf("mblock %v: read %d of %d bytes (S13)", id, n, len(want)))
	}
	if string(got[:n]) != string(want[:n]) {
		must(fmt.Errorf("mblock %v: wrong bytes were returned (S14)", id))
	}
	must(b.Put())
}

func (u *unsure) setRoot() {
	name := fmt.Sprintf("w%d", u.n)
	id := pick(&u.worker, u.m.mblocks, func(o *mblockModel) bool { return o.fate == live })
	if id == 0 {
		return
	}
	before := u.m.rootMaybe[name]
	u.m.rootMaybe[name] = append(slices.Clip(before), id)
	err := u.with("set root", func(ctx context.Context) error { return u.p.SetRoots(ctx, []api.Root{{Name: name, ID: id}}) })
	switch {
	case err == nil:
		u.m.roots[name], u.m.rootMaybe[name] = id, nil
		u.m.acks++
	case !unknown(err):
		u.m.rootMaybe[name] = before
	}
}
