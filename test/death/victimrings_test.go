package death

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
)

// train is a queue of the victim's own, with buffers, that it keeps full.
type train struct {
	q     *client.Queue
	free  []*client.Buffer
	under map[uint64]ride // by what the completion says
	last  uint64
}

// ride is one operation under way.
type ride struct {
	b   *client.Buffer
	off int // of a read
}

// trainBytes is the size of its buffers.
const trainBytes = 16 << 10

// newTrain makes one, or returns nil if the daemon has no rings.
func (v *victim) newTrain(ctx context.Context, rng *rand.Rand) (*train, error) {
	depth := 2 << rng.IntN(6)
	q, err := v.c.NewQueue(ctx, client.QueueOptions{Depth: depth})
	if errors.Is(err, api.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	tr := &train{q: q, under: map[uint64]ride{}}
	for range min(depth, 16) {
		b, err := v.c.Borrow(ctx, trainBytes)
		if err != nil {
			return nil, errors.Join(err, tr.end())
		}
		tr.free = append(tr.free, b)
	}
	return tr, nil
}

// give puts one operation into the queue, if there is a buffer for it.
func (tr *train) give(n, off int, do func(b *client.Buffer, user uint64) error) (bool, error) {
	if len(tr.free) == 0 {
		return false, nil
	}
	b := tr.free[len(tr.free)-1]
	if err := b.SetLen(n); err != nil {
		return false, err
	}
	tr.last++
	if err := do(b, tr.last); err != nil {
		return false, err
	}
	tr.free = tr.free[:len(tr.free)-1]
	tr.under[tr.last] = ride{b, off}
	return true, nil
}

// reap takes at least so many completions.
func (tr *train) reap(ctx context.Context, least int, each func(r ride, c *client.Completion) error) error {
	tr.q.Submit()
	var out [16]client.Completion
	n, err := tr.q.Reap(ctx, min(least, tr.q.Flight()), out[:])
	if err != nil {
		return err
	}
	for i := range out[:n] {
		c := &out[i]
		r, ok := tr.under[c.User]
		if !ok {
			return fmt.Errorf("%w: a completion of what was not asked: %d", errWrong, c.User)
		}
		delete(tr.under, c.User)
		if c.Err != nil {
			err = errors.Join(err, c.Err)
		} else {
			err = errors.Join(err, each(r, c))
		}
		tr.free = append(tr.free, r.b)
	}
	return err
}

func (tr *train) end() error {
	err := tr.q.Close()
	for _, r := range tr.under {
		err = errors.Join(err, r.b.Release())
	}
	for _, b := range tr.free {
		err = errors.Join(err, b.Release())
	}
	return err
}

// ride keeps a ring full of reads, writes or appends for a while.
func (v *victim) ride(ctx context.Context, rng *rand.Rand) error {
	return onRing([]func(v *victim, ctx context.Context, rng *rand.Rand, tr *train) error{
		(*victim).rideReads, (*victim).rideWrites, (*victim).rideAppends, (*victim).ridePuts,
	}[rng.IntN(4)])(v, ctx, rng)
}

// ridePuts keeps the queue full of puts of mblocks.
func (v *victim) ridePuts(ctx context.Context, rng *rand.Rand, tr *train) error {
	puts := make(map[uint64]tag)
	each := func(_ ride, c *client.Completion) error {
		v.tell("C %x", uint64(puts[c.User]))
		if rng.IntN(2) == 0 {
			return c.Mblock.Put()
		}
		return v.delete(ctx, puts[c.User], c.Mblock)
	}
	for range rng.IntN(40) {
		t := v.next()
		data := t.content()
		if len(data) > trainBytes {
			continue
		}
		given, err := tr.give(len(data), 0, func(from *client.Buffer, user uint64) error {
			copy(from.Bytes(), data)
			puts[user] = t
			v.tell("c %x 1", uint64(t))
			return tr.q.PutMblock(v.p, api.AllocOptions{Tag: uint64(t)}, from, user)
		})
		if err == nil && !given {
			err = tr.reap(ctx, 1, each)
		}
		if err != nil {
			return err
		}
	}
	for tr.q.Flight() > 0 {
		if err := tr.reap(ctx, 1, each); err != nil {
			return err
		}
	}
	return nil
}

// giveRead puts a read into the queue, if there is a buffer for it.
func (tr *train) giveRead(b api.Mblock, n, off int) (bool, error) {
	return tr.give(n, off, func(to *client.Buffer, user uint64) error { return tr.q.Read(b, to, int64(off), user) })
}

func (v *victim) rideReads(ctx context.Context, rng *rand.Rand, tr *train) error {
	want := sharedTag.content()
	b, err := v.p.Mblock(ctx, v.shared[0])
	if err != nil {
		return err
	}
	check := func(r ride, c *client.Completion) error {
		end := min(r.off+r.b.Len(), len(want))
		if c.N != end-r.off || !bytes.Equal(r.b.Bytes()[:c.N], want[r.off:end]) {
			return fmt.Errorf("%w: %d bytes at %d", errWrong, c.N, r.off)
		}
		return nil
	}
	for range rng.IntN(400) {
		off := rng.IntN(len(want) + 1)
		given, err := tr.giveRead(b, rng.IntN(trainBytes+1), off)
		if err == nil && !given {
			err = tr.reap(ctx, 1, check)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (v *victim) rideWrites(ctx context.Context, rng *rand.Rand, tr *train) error {
	t := v.next()
	left := t.content()
	b, err := v.p.AllocMblock(ctx, api.AllocOptions{Capacity: int64(len(left)), Tag: uint64(t)})
	if err != nil {
		return err
	}
	none := func(ride, *client.Completion) error { return nil }
	for len(left) > 0 {
		n := min(len(left), 4096*(1+rng.IntN(trainBytes/4096)))
		given, err := tr.give(n, 0, func(from *client.Buffer, user uint64) error {
			copy(from.Bytes(), left[:n])
			return tr.q.Write(b, from, user)
		})
		switch {
		case err != nil:
			return err
		case given:
			left = left[n:]
			continue
		}
		if err := tr.reap(ctx, 1, none); err != nil {
			return err
		}
	}
	for tr.q.Flight() > 0 {
		if err := tr.reap(ctx, 1, none); err != nil {
			return err
		}
	}
	if rng.IntN(4) == 0 {
		return b.Abort(ctx)
	}
	if err := v.commit(ctx, t, b); err != nil {
		return err
	}
	return v.after(ctx, rng, t, b)
}

func (v *victim) rideAppends(ctx context.Context, rng *rand.Rand, tr *train) error {
	t := v.next()
	l, err := v.p.AllocMlog(ctx, api.AllocOptions{Capacity: 512 << 10, Tag: uint64(t)})
	if err != nil {
		return err
	}
	if err := v.commit(ctx, t, l); err != nil {
		return err
	}
	a, err := l.OpenAppend(ctx)
	if err != nil {
		return err
	}
	there := uint64(0)
	told := func(_ ride, c *client.Completion) error {
		if c.Record >= there { // they may come in any order
			there = c.Record + 1
			v.tell("a %x %d", uint64(t), there)
		}
		return nil
	}
	most := uint64(rng.IntN(60))
	v.tell("q %x %d", uint64(t), most)
	for n := uint64(0); n < most; {
		rec := t.record(n)
		given, err := false, error(nil)
		if len(rec) <= trainBytes {
			given, err = tr.give(len(rec), 0, func(from *client.Buffer, user uint64) error {
				copy(from.Bytes(), rec)
				return tr.q.Append(a, from, rng.IntN(3) == 0, user)
			})
		}
		switch {
		case err != nil:
			return err
		case given:
			n++
			continue
		case tr.q.Flight() == 0: // a record that no buffer holds
			if _, err := a.Append(ctx, rec, false); err != nil {
				return err
			}
			n++
			continue
		}
		if err := tr.reap(ctx, 1, told); err != nil {
			return err
		}
	}
	for tr.q.Flight() > 0 {
		if err := tr.reap(ctx, 1, told); err != nil {
			return err
		}
	}
	if rng.IntN(3) == 0 {
		return nil
	}
	return errors.Join(a.Close(ctx), l.Put())
}
