package sim

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/sched"
)

// What workers do in two halves, as an I/O loop does: begin, drive a queue, end.

// begunMost is how many operations a worker has under way at once.
const begunMost = 4

// loop is a worker's queue.
func (w *worker) loop() bdev.Queue {
	q, err := bdev.NewQueue(w.s, bdev.QueueOptions{})
	must(err)
	return q
}

// drive starts operations, in any order, and reaps them.
func (w *worker) drive(q bdev.Queue, ops []*bdev.Op) {
	w.rng.Shuffle(len(ops), func(i, j int) { ops[i], ops[j] = ops[j], ops[i] })
	for _, o := range ops {
		for !q.Put(o) {
			w.reap(q)
		}
	}
	for q.InFlight() > 0 {
		w.reap(q)
	}
}

func (w *worker) reap(q bdev.Queue) {
	_, err := q.Reap(1 + w.rng.IntN(2))
	must(err)
}

// writeBegun writes data to an mblock, several writes at once. Sometimes one is
// given up before it is started. It returns the first failed write's error.
func (w *worker) writeBegun(x api.Mblock, data []byte) error {
	b := x.(*mpool.Mblock)
	q := w.loop()
	var first error
	for off := 0; off < len(data) && first == nil; {
		var begun [begunMost]mpool.WriteOp
		var ops []*bdev.Op
		n := 0
		for ; n < 1+w.rng.IntN(begunMost) && off < len(data); n++ {
			size := min(4096*(1+w.rng.IntN(8)), len(data)-off)
			if w.rng.IntN(8) == 0 {
				if first = b.BeginWrite(&begun[n], data[off:off+size]); first != nil {
					break
				}
				begun[n].Cancel()
			}
			if first = b.BeginWrite(&begun[n], data[off:off+size]); first != nil {
				break
			}
			ops = append(ops, begun[n].Ops()...)
			off += size
		}
		w.drive(q, ops)
		for _, i := range w.rng.Perm(n) {
			if _, err := begun[i].End(); err != nil && first == nil {
				first = err
			}
		}
	}
	must(q.Close())
	return first
}

// commitUnderWay commits an mblock while its last write is under way: the commit
// waits for it.
func (w *worker) commitUnderWay(x api.Mblock, last []byte) error {
	var op mpool.WriteOp
	must(x.(*mpool.Mblock).BeginWrite(&op, last))
	var err error
	var done sched.Completion
	done.Init(w.s)
	w.s.Go("commit", func() {
		err = x.Commit(ctx)
		done.Done()
	})
	q := w.loop()
	w.drive(q, append([]*bdev.Op(nil), op.Ops()...))
	must(q.Close())
	_, failed := op.End()
	must(done.Wait(ctx))
	return errors.Join(failed, err)
}

// allocate allocates an mblock, sometimes by the call that does not wait.
func (w *worker) allocate(o api.AllocOptions) (api.Mblock, error) {
	if w.rng.IntN(2) == 0 {
		b, err := w.p.TryAllocMblock(o)
		if !errors.Is(err, mpool.ErrWouldBlock) {
			return b, err
		}
	}
	return w.p.AllocMblock(ctx, o)
}

// commitBegun is Commit in two halves, if that need not wait.
func (w *worker) commitBegun(x api.Mblock) (err error) {
	told := false
	var done sched.Completion
	done.Init(w.s)
	began := x.(*mpool.Mblock).BeginCommit(func(e error) {
		if told {
			must(errors.New("a begun commit is told twice (S12)"))
		}
		told, err = true, e
		done.Done()
	})
	switch {
	case errors.Is(began, mpool.ErrWouldBlock):
		return x.Commit(ctx)
	case began != nil:
		return began
	}
	must(done.Wait(ctx))
	return err
}

// compareBegun is compare in two halves; the handle's reference is given back
// between them.
func (w *worker) compareBegun(x api.Mblock, want []byte) error {
	b := x.(*mpool.Mblock)
	got := memory((len(want) + 4096) &^ 4095)
	got = append(got, 0)
	var op mpool.ReadOp
	if err := b.BeginRead(&op, got, 0); err != nil {
		return err
	}
	must(b.Put())
	return w.endRead(&op, b.ID(), got, want)
}

func (w *worker) endRead(op *mpool.ReadOp, id layout.ObjectID, got, want []byte) error {
	q := w.loop()
	w.drive(q, append([]*bdev.Op(nil), op.Ops()...))
	must(q.Close())
	end := op.End
	if w.rng.IntN(2) == 0 {
		end = op.EndQuiet
	}
	n, err := end()
	if !errors.Is(err, io.EOF) || n != len(want) {
		return fmt.Errorf("mblock %v: a begun read of %d of %d bytes: %w (S13)", id, n, len(want), err)
	}
	if !bytes.Equal(got[:n], want) {
		return fmt.Errorf("mblock %v of %d bytes: a begun read returned wrong bytes (S14)", id, len(want))
	}
	return nil
}

// deleteUnderRead deletes an mblock whose read has begun: the bytes stay what
// they are until the read has ended, whoever is short of space.
func (w *worker) deleteUnderRead() {
	id := pick(w, w.m.mblocks, func(o *mblockModel) bool { return o.fate == live })
	if id == 0 {
		return
	}
	x, err := w.p.Mblock(ctx, id)
	must(err)
	mm := w.m.mblocks[id]
	got := memory(len(mm.data) + 1)
	var op mpool.ReadOp
	must(x.(*mpool.Mblock).BeginRead(&op, got, 0))
	mm.fate = removing
	if w.rng.IntN(2) == 0 { // by another handle, found anew
		must(x.Put())
		x, err = w.p.Mblock(ctx, id)
		must(err)
	}
	must(w.deleteBusy(x))
	mm.fate = dead
	w.m.acks++
	// Others store meanwhile. Who has begun an operation must not wait for space
	// himself before he has ended it: it may be that operation's.
	for range w.rng.IntN(40) {
		w.s.Yield()
	}
	must(w.endRead(&op, id, got, mm.data))
}

// begunAppend is an append that nobody waits for.
type begunAppend struct {
	returned, told bool
	err            error
}

// appendBegun appends a record without waiting. settle, unless it is nil, is
// called once, when the record is durable or known not to be.
func (w *worker) appendBegun(a any, rec []byte, settle func(number uint64, err error)) (number uint64, err error) {
	var x begunAppend
	var done func(error)
	if settle != nil {
		done = func(err error) {
			if x.told {
				must(errors.New("a begun append is told twice (S21)"))
			}
			x.told, x.err = true, err
			if x.returned {
				settle(number, err)
			}
		}
	}
	number, err = a.(mpool.Beginner).BeginAppend(rec, settle != nil, done)
	if err != nil {
		return 0, err
	}
	if x.returned = true; x.told {
		settle(number, x.err)
	}
	return number, nil
}

// appendsBegun is appends in two halves; open is counted up and down.
func (w *worker) appendsBegun(id layout.ObjectID, lm *logModel, a api.Appender, who string, open *int) {
	for i := range 1 + w.rng.IntN(6) {
		n := w.rng.IntN(400)
		if w.rng.IntN(10) == 0 {
			n = w.rng.IntN(9000)
		}
		rec := fmt.Sprintf("%v %s %d %x", id, who, i, pattern(w.rng, 8+n/2))
		var settle func(uint64, error)
		if w.rng.IntN(3) == 0 {
			*open++
			settle = func(number uint64, err error) {
				must(err)
				*open--
				lm.synced = max(lm.synced, number+1)
				w.m.acks++
			}
		}
		lm.inflight[rec] = true
		number, err := w.appendBegun(a, []byte(rec), settle)
		if errors.Is(err, api.EFBIG) {
			if settle != nil {
				*open--
			}
			delete(lm.inflight, rec)
			return
		}
		must(err)
		delete(lm.inflight, rec)
		lm.records[number] = rec
		if w.rng.IntN(3) == 0 {
			w.s.Yield()
		}
	}
	if w.rng.IntN(3) == 0 {
		records, _ := a.Len()
		*open++
		must(a.(mpool.Beginner).BeginSync(func(err error) {
			must(err)
			*open--
			lm.synced = max(lm.synced, records)
		}))
	}
}

// containerBegun appends the newest change to a container in two halves. It is
// false if that would have to wait.
func (w *worker) containerBegun(c api.MDC, cm *containerModel, version uint64, sync bool) bool {
	var settle func(uint64, error)
	if sync {
		settle = func(_ uint64, err error) {
			must(err)
			cm.synced = max(cm.synced, version)
			w.m.acks++
		}
	}
	_, err := w.appendBegun(c, encodeChange(version, cm.history[version-1]), settle)
	switch {
	case errors.Is(err, mpool.ErrWouldBlock):
		return false
	case errors.Is(err, api.EFBIG):
		cm.history = cm.history[:version-1]
	default:
		must(err)
	}
	return true
}

// logBegun appends a record in two halves, of which either may fail.
func (u *unsure) logBegun(lm *logModel, a api.Appender, rec string, sync bool, open *int) {
	var settle func(uint64, error)
	if sync {
		*open++
		settle = func(number uint64, err error) {
			*open--
			if api.CodeOf(err) == api.EBADF && u.faults {
				err = nil // given up: the pool is read-only
			} else if err == nil {
				lm.synced = max(lm.synced, number+1)
				u.m.acks++
			}
			must(u.explain("begun append", err))
		}
	}
	number, err := u.appendBegun(a, []byte(rec), settle)
	if err == nil {
		// Durable or not: the model need not know which, as of an unsynced one.
		lm.records[number] = rec
	} else if sync {
		*open--
	}
	if !errors.Is(err, mpool.ErrWouldBlock) {
		must(u.explain("begun append", err))
	}
	delete(lm.inflight, rec)
}
