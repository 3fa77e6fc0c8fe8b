package death

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/layout"
)

// log is the life of a log, or a part of it.
func (v *victim) log(ctx context.Context, rng *rand.Rand) error {
	t := v.next()
	l, err := v.p.AllocMlog(ctx, api.AllocOptions{Capacity: 512 << 10, Tag: uint64(t)})
	if err != nil {
		return err
	}
	if rng.IntN(8) == 0 {
		return l.Abort(ctx)
	}
	if err := v.commit(ctx, t, l); err != nil {
		return err
	}
	a, err := l.OpenAppend(ctx)
	if err != nil {
		return err
	}
	n := uint64(0)
	for range rng.IntN(12) {
		if _, err := a.Append(ctx, t.record(n), rng.IntN(3) == 0); err != nil {
			return err
		}
		n++
		v.tell("a %x %d", uint64(t), n)
	}
	r, err := l.OpenRead(ctx)
	if err != nil {
		return err
	}
	if k, err := t.count(ctx, r); err != nil {
		return err
	} else if k != n {
		return fmt.Errorf("%w: log of tag %x has %d records, %d were appended", errWrong, t, k, n)
	}
	if rng.IntN(3) == 0 {
		return nil // all left open
	}
	if err := errors.Join(a.Sync(ctx), r.Close(), a.Close(ctx)); err != nil {
		return err
	}
	if rng.IntN(2) == 0 {
		return l.Put()
	}
	return v.delete(ctx, t, l)
}

// mdc is the life of a metadata container, or a part of it.
func (v *victim) mdc(ctx context.Context, rng *rand.Rand) error {
	t := v.next()
	v.tell("c %x 1", uint64(t))
	id, err := v.p.CreateMDC(ctx, api.AllocOptions{Capacity: 256 << 10, Tag: uint64(t)})
	if err != nil {
		return err
	}
	v.tell("C %x", uint64(t))
	m, err := v.p.OpenMDC(ctx, id)
	if err != nil {
		return err
	}
	n := uint64(0)
	more := func() error {
		err := m.Append(ctx, t.record(n), rng.IntN(3) == 0)
		if err == nil {
			n++
			v.tell("a %x %d", uint64(t), n)
		}
		return err
	}
	for range 1 + rng.IntN(3) {
		for range rng.IntN(5) {
			if err := more(); err != nil {
				return err
			}
		}
		if err := m.CompactStart(ctx); err != nil {
			return err
		}
		if err := errors.Join(m.CompactAppend(ctx, t.compact(n)), more()); err != nil {
			return err
		}
		if rng.IntN(4) == 0 {
			err = m.CompactAbort(ctx)
		} else {
			err = m.CompactEnd(ctx)
		}
		if err != nil {
			return err
		}
	}
	if rng.IntN(3) == 0 {
		return nil // left open
	}
	if err := m.Close(ctx); err != nil || rng.IntN(2) == 0 {
		return err
	}
	v.tell("x %x", uint64(t))
	if err := v.p.DeleteMDC(ctx, id); err != nil {
		return err
	}
	v.tell("X %x", uint64(t))
	return nil
}

// look finds, reads and lists what the test keeps for all.
func (v *victim) look(ctx context.Context, rng *rand.Rand) error {
	b, err := v.p.Mblock(ctx, v.shared[0])
	if err != nil {
		return err
	}
	if err := sharedTag.matches(ctx, b); err != nil {
		return err
	}
	l, err := v.p.Mlog(ctx, v.shared[1])
	if err != nil {
		return err
	}
	r, err := l.OpenRead(ctx)
	if err != nil {
		return err
	}
	if n, err := sharedTag.count(ctx, r); err != nil {
		return err
	} else if n != sharedRecords {
		return fmt.Errorf("%w: the log for all has %d records", errWrong, n)
	}
	if again, err := b.Get(ctx); err != nil || rng.IntN(2) == 0 {
		return err
	} else if err := again.Put(); err != nil {
		return err
	}
	left := rng.IntN(100)
	for _, err := range v.p.Objects(ctx, api.Filter{Kind: layout.Kind(rng.IntN(3))}) {
		if left--; err != nil || left < 0 {
			return err
		}
	}
	return errors.Join(r.Close(), l.Put(), b.Put())
}

// another makes one more connection, with an arena, and forgets it or not.
func (v *victim) another(ctx context.Context, rng *rand.Rand) error {
	v.tell("d")
	c, err := client.Dial(ctx, client.Options{Socket: os.Getenv(envSocket)})
	if err != nil {
		return err
	}
	v.tell("D")
	p, err := c.OpenPool(ctx, poolName)
	if err != nil {
		return err
	}
	b, err := p.AllocMblock(ctx, api.AllocOptions{Capacity: 1 << 20})
	if err != nil {
		return err
	}
	if _, err := b.Write(ctx, make([]byte, 4096*(1+rng.IntN(40)))); err != nil {
		return err
	}
	if v.others.Add(1) <= 2 {
		return nil
	}
	return c.Close()
}
