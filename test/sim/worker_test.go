package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/sched"
)

// worker is one task of a workload. Workers own different objects and roots, so
// that the model knows what each answer means.
type worker struct {
	n   int
	s   *sched.Sched
	rng *rand.Rand
	p   *mpool.Pool
	m   *model

	staging bool       // the pool has that class
	only    *api.Class // if set, objects of this class only are made and used
}

// options draws those of an allocation.
func (w *worker) options(capacity int64, tag uint64) api.AllocOptions {
	o := api.AllocOptions{Capacity: capacity, Tag: tag}
	if w.only != nil {
		o.Class = *w.only
		return o
	}
	if w.staging && w.rng.IntN(2) == 0 {
		o.Class, o.Fallback = api.ClassStaging, w.rng.IntN(2) == 0
	}
	return o
}

// fatal is an error that no fault explains.
type fatal struct{ err error }

// must turns an unexpected error into the end of the run.
func must(err error) {
	if err != nil {
		panic(fatal{err})
	}
}

// begin begins what a worker does. A [fatal] that it raises becomes failed.
func begin(s *sched.Sched, done *sched.Completion, failed *error, f func()) {
	done.Init(s)
	s.Go("worker", func() {
		defer done.Done()
		defer func() {
			if r := recover(); r != nil {
				fe, ok := r.(fatal)
				if !ok {
					panic(r)
				}
				*failed = fe.err
			}
		}()
		f()
	})
}

var ctx = context.Background()

// run does n operations.
func (w *worker) run(n int) {
	for range n {
		switch w.rng.IntN(16) {
		case 0, 1, 2:
			w.put()
		case 4, 5:
			w.putMany()
		case 6:
			if w.rng.IntN(2) == 0 {
				w.deleteUnderRead()
			} else {
				w.deleteMblock()
			}
		case 7:
			w.readBack()
		case 8:
			w.createLog()
		case 9, 10, 11:
			w.appendLog()
		case 12:
			w.eraseLog()
		case 13:
			w.setRoot()
		case 3, 14:
			w.container()
		case 15:
			w.abortOrDeleteLog()
		}
	}
}

// size draws a length with the interesting ones more often than chance.
func (w *worker) size() int {
	switch w.rng.IntN(12) {
	case 0:
		return 0
	case 1, 2, 3, 4:
		return 1 + w.rng.IntN(4096)
	case 5, 6:
		return 4096 * (1 + w.rng.IntN(3))
	case 7: // about where the checksums move out of the metadata record
		return 4096*16 + w.rng.IntN(3)*4096 - w.rng.IntN(2)*100
	default:
		return w.rng.IntN(20000)
	}
}

// write allocates and writes an mblock that is not committed yet.
func (w *worker) write() (api.Mblock, *mblockModel) {
	data := pattern(w.rng, w.size())
	tag := w.rng.Uint64()
	b, err := w.allocate(w.options(int64(len(data))+int64(w.rng.IntN(100000)), tag))
	if errors.Is(err, api.ENOSPC) {
		return nil, nil
	}
	must(err)
	must(w.m.given(b.ID()))
	if w.rng.IntN(2) == 0 {
		must(w.writeBegun(b, data))
		return b, &mblockModel{fate: creating, data: data, tag: tag}
	}
	for off := 0; off < len(data); {
		n := min(4096*(1+w.rng.IntN(8)), len(data)-off)
		_, err := b.Write(ctx, data[off:off+n])
		must(err)
		off += n
	}
	return b, &mblockModel{fate: creating, data: data, tag: tag}
}

func (w *worker) put() {
	b, mm := w.write()
	if b == nil {
		return
	}
	if w.rng.IntN(8) == 0 {
		must(b.Abort(ctx))
		return
	}
	w.m.mblocks[b.ID()] = mm
	commit := func() error { return b.Commit(ctx) }
	if w.rng.IntN(2) == 0 {
		commit = func() error { return w.commitBegun(b) }
	}
	if info, err := b.Info(ctx); err == nil && len(mm.data)%4096 == 0 && info.Capacity-int64(len(mm.data)) >= 8192 && w.rng.IntN(2) == 0 {
		last := pattern(w.rng, 1+w.rng.IntN(8192))
		mm.data = append(slices.Clip(mm.data), last...)
		commit = func() error { return w.commitUnderWay(b, last) }
	}
	err := commit()
	if errors.Is(err, api.ENOSPC) {
		mm.fate = dead
		must(b.Abort(ctx))
		return
	}
	must(err)
	mm.fate = live
	w.m.acks++
	must(b.Put())
}

// putMany commits several objects and a root in one transaction.
func (w *worker) putMany() {
	g := &group{root: fmt.Sprintf("w%d", w.n)}
	var objects []api.Object
	for range 1 + w.rng.IntN(4) {
		if b, mm := w.write(); b != nil {
			mm.with = g
			w.m.mblocks[b.ID()] = mm
			objects = append(objects, b)
			g.objects = append(g.objects, b.ID())
		}
	}
	if len(objects) == 0 {
		return
	}
	g.id = g.objects[0]
	w.m.rootMaybe[g.root] = append(w.m.rootMaybe[g.root], g.id)
	err := w.p.CommitMany(ctx, objects, []api.Root{{Name: g.root, ID: g.id}})
	ok := err == nil
	if !errors.Is(err, api.ENOSPC) {
		must(err)
	}
	w.m.rootMaybe[g.root] = nil
	if ok {
		w.m.roots[g.root] = g.id
		w.m.acks++
	}
	for _, o := range objects {
		mm := w.m.mblocks[o.ID()]
		mm.with, mm.fate = nil, dead
		if ok {
			mm.fate = live
		}
	}
	for _, o := range objects {
		if ok {
			must(o.Put())
		} else {
			must(o.Abort(ctx))
		}
	}
}

// pick returns one of the worker's own live objects: ids are dealt by number.
func pick[T any](w *worker, objects map[layout.ObjectID]T, ok func(T) bool) layout.ObjectID {
	var ids []layout.ObjectID
	for id, o := range objects { // order does not matter: sorted below
		if int(id.Counter())%workers == w.n && ok(o) && w.mine(id) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return 0
	}
	slices.Sort(ids)
	return ids[w.rng.IntN(len(ids))]
}

// mine says whether the worker uses an object of this class.
func (w *worker) mine(id layout.ObjectID) bool {
	if w.only == nil {
		return true
	}
	info, err := w.p.Describe(ctx, id)
	return err == nil && info.Class == *w.only
}

func (w *worker) deleteMblock() {
	id := pick(w, w.m.mblocks, func(o *mblockModel) bool { return o.fate == live })
	if id == 0 {
		return
	}
	b, err := w.p.Mblock(ctx, id)
	must(err)
	mm := w.m.mblocks[id]
	mm.fate = removing
	must(w.deleteBusy(b))
	mm.fate = dead
	w.m.acks++
}

// deleteBusy deletes; a reader of the same object may hold it meanwhile.
func (w *worker) deleteBusy(o api.Object) error {
	for {
		err := o.Delete(ctx)
		if !errors.Is(err, api.EBUSY) {
			return err
		}
		must(w.s.Sleep(ctx, time.Millisecond))
	}
}

func (w *worker) readBack() {
	id := pick(w, w.m.mblocks, func(o *mblockModel) bool { return o.fate == live })
	if id == 0 {
		return
	}
	b, err := w.p.Mblock(ctx, id)
	must(err)
	if w.rng.IntN(2) == 0 {
		must(w.compareBegun(b, w.m.mblocks[id].data))
		return
	}
	must(compare(b, w.m.mblocks[id].data))
	must(b.Put())
}

// compare reads an mblock whole, and asks for more.
func compare(b api.Mblock, want []byte) error { return compareIn(b, want, memory(len(want)+1)) }

// compareIn is compare by way of memory for one byte more than is wanted.
func compareIn(b api.Mblock, want, got []byte) error {
	n, err := b.ReadAtContext(ctx, got, 0)
	if !errors.Is(err, io.EOF) || n != len(want) {
		return fmt.Errorf("mblock %v: read %d of %d bytes: %w (S13)", b.ID(), n, len(want), err)
	}
	if !bytes.Equal(got[:n], want) {
		return fmt.Errorf("mblock %v of %d bytes: wrong bytes were returned (S14)", b.ID(), len(want))
	}
	return nil
}

func (w *worker) setRoot() {
	name := fmt.Sprintf("w%d", w.n)
	var id layout.ObjectID
	if w.rng.IntN(3) > 0 {
		if id = pick(w, w.m.mblocks, func(o *mblockModel) bool { return o.fate == live }); id == 0 {
			return
		}
	} else if w.m.roots[name] == 0 {
		return
	}
	w.m.rootMaybe[name] = []layout.ObjectID{id}
	err := w.p.SetRoots(ctx, []api.Root{{Name: name, ID: id}})
	w.m.rootMaybe[name] = nil
	if errors.Is(err, api.ENOSPC) {
		return
	}
	must(err)
	w.m.roots[name] = id
	w.m.acks++
}
