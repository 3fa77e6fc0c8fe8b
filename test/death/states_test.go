package death

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"os/exec"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
)

// state is what a client is at when it dies: something that it holds, and does
// nothing, or something that it does again and again.
type state int

// stateOf has what there is for a state.
type stateOf struct {
	name string
	// do brings the victim there if it holds still then, else it is done for
	// ever.
	do    func(v *victim, ctx context.Context, rng *rand.Rand) error
	still bool
}

// states are all that a client may be at.
var states = [...]stateOf{
	{"anything", (*victim).anything, false},

	{"uncommitted mblock", (*victim).holdUncommitted, true},
	{"written mblock", (*victim).holdWritten, true},
	{"committed mblock", (*victim).holdCommitted, true},
	{"many references", (*victim).holdReferences, true},
	{"uncommitted log", (*victim).holdLog, true},
	{"log open for append", (*victim).holdAppender, true},
	{"log open for read", (*victim).holdReader, true},
	{"container", (*victim).holdContainer, true},
	{"container in compaction", (*victim).holdCompaction, true},
	{"list begun", (*victim).holdList, true},
	{"completions not reaped", (*victim).holdRing, true},

	{"mid-alloc", (*victim).allocs, false},
	{"mid-write", (*victim).writes, false},
	{"mid-commit", (*victim).commits, false},
	{"mid-commit of many", (*victim).many, false},
	{"mid-read", (*victim).look, false},
	{"mid-append", (*victim).appends, false},
	{"mid-sync", (*victim).syncs, false},
	{"mid-compaction", (*victim).mdc, false},
	{"mid-list", (*victim).lists, false},
	{"mid-connect", (*victim).another, false},
	{"mid-grant", (*victim).grants, false},
	{"mid-fork", (*victim).forks, false},
	{"ring of reads", onRing((*victim).rideReads), false},
	{"ring of writes", onRing((*victim).rideWrites), false},
	{"ring of appends", onRing((*victim).rideAppends), false},
}

// granting is the state that needs others in it.
func granting() state {
	for s := range states {
		if states[s].name == "mid-grant" {
			return state(s)
		}
	}
	panic("no such state")
}

// stillOne chooses a state of those who do nothing.
func stillOne(rng *rand.Rand) state {
	for {
		if s := rng.IntN(len(states)); states[s].still {
			return state(s)
		}
	}
}

func (s state) String() string { return states[s].name }

// onRing does something through a queue of the victim's own.
func onRing(f func(v *victim, ctx context.Context, rng *rand.Rand, tr *train) error) func(*victim, context.Context, *rand.Rand) error {
	return func(v *victim, ctx context.Context, rng *rand.Rand) error {
		tr, err := v.newTrain(ctx, rng)
		if tr == nil || err != nil {
			return err
		}
		if err := f(v, ctx, rng, tr); err != nil || rng.IntN(4) == 0 {
			return err // as it is
		}
		return tr.end()
	}
}

// holds makes several of what it holds.
func holds(rng *rand.Rand, most int, f func() error) error {
	for range 1 + rng.IntN(most) {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// later has what is held used if the victim comes to show that it is a client
// still. It returns err, and does nothing if that is one.
func (v *victim) later(err error, use func() error) error {
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.uses = append(v.uses, use)
	return nil
}

func (v *victim) holdUncommitted(ctx context.Context, rng *rand.Rand) error {
	return holds(rng, 20, func() error {
		t := v.next()
		b, err := v.p.AllocMblock(ctx, api.AllocOptions{Capacity: int64(t.size()), Tag: uint64(t)})
		return v.later(err, func() error {
			if _, err := b.Write(ctx, t.content()); err != nil {
				return err
			}
			return v.commit(ctx, t, b)
		})
	})
}

func (v *victim) holdWritten(ctx context.Context, rng *rand.Rand) error {
	return holds(rng, 4, func() error {
		t := v.next()
		b, err := v.write(ctx, rng, t)
		return v.later(err, func() error { return errors.Join(t.matches(ctx, b), v.commit(ctx, t, b)) })
	})
}

func (v *victim) holdCommitted(ctx context.Context, rng *rand.Rand) error {
	return holds(rng, 3, func() error {
		t := v.next()
		b, err := v.write(ctx, rng, t)
		if err != nil {
			return err
		}
		err = v.commit(ctx, t, b)
		return v.later(err, func() error { return errors.Join(t.matches(ctx, b), v.delete(ctx, t, b)) })
	})
}

func (v *victim) holdReferences(ctx context.Context, rng *rand.Rand) error {
	b, err := v.p.Mblock(ctx, v.shared[0])
	if err != nil {
		return err
	}
	return holds(rng, 50, func() error {
		o, err := b.Get(ctx)
		return v.later(err, func() error { return o.Put() })
	})
}

func (v *victim) holdLog(ctx context.Context, rng *rand.Rand) error {
	return holds(rng, 5, func() error {
		t := v.next()
		l, err := v.p.AllocMlog(ctx, api.AllocOptions{Capacity: 512 << 10, Tag: uint64(t)})
		return v.later(err, func() error { return v.commit(ctx, t, l) })
	})
}

// newLog commits a log and opens it.
func (v *victim) newLog(ctx context.Context, t tag) (api.Mlog, api.Appender, error) {
	l, err := v.p.AllocMlog(ctx, api.AllocOptions{Capacity: 512 << 10, Tag: uint64(t)})
	if err != nil {
		return nil, nil, err
	}
	if err := v.commit(ctx, t, l); err != nil {
		return nil, nil, err
	}
	a, err := l.OpenAppend(ctx)
	return l, a, err
}

// fillLog appends to a log up to so many records.
func (v *victim) fillLog(ctx context.Context, rng *rand.Rand, t tag, a api.Appender, from, n, syncs int) error {
	for i := uint64(from); i < uint64(n); i++ {
		if _, err := a.Append(ctx, t.record(i), rng.IntN(100) < syncs); err != nil {
			return err
		}
		v.tell("a %x %d", uint64(t), i+1)
	}
	return nil
}

func (v *victim) holdAppender(ctx context.Context, rng *rand.Rand) error {
	t := v.next()
	_, a, err := v.newLog(ctx, t)
	if err != nil {
		return err
	}
	n := rng.IntN(20)
	err = v.fillLog(ctx, rng, t, a, 0, n, 0)
	return v.later(err, func() error { return errors.Join(v.fillLog(ctx, rng, t, a, n, n+5, 50), a.Close(ctx)) })
}

func (v *victim) holdReader(ctx context.Context, rng *rand.Rand) error {
	return holds(rng, 5, func() error {
		l, err := v.p.Mlog(ctx, v.shared[1])
		if err != nil {
			return err
		}
		r, err := l.OpenRead(ctx)
		if err != nil {
			return err
		}
		_, err = r.Next(ctx, make([]byte, 64<<10))
		return v.later(err, func() error {
			r.Rewind()
			_, err := sharedTag.count(ctx, r)
			return errors.Join(err, r.Close(), l.Put())
		})
	})
}

// newContainer makes a container with some records.
func (v *victim) newContainer(ctx context.Context, rng *rand.Rand, t tag) (api.MDC, uint64, error) {
	v.tell("c %x 1", uint64(t))
	id, err := v.p.CreateMDC(ctx, api.AllocOptions{Capacity: 256 << 10, Tag: uint64(t)})
	if err != nil {
		return nil, 0, err
	}
	v.tell("C %x", uint64(t))
	m, err := v.p.OpenMDC(ctx, id)
	if err != nil {
		return nil, 0, err
	}
	n := uint64(rng.IntN(5))
	for i := range n {
		if err := m.Append(ctx, t.record(i), false); err != nil {
			return nil, 0, err
		}
		v.tell("a %x %d", uint64(t), i+1)
	}
	return m, n, nil
}

func (v *victim) holdContainer(ctx context.Context, rng *rand.Rand) error {
	t := v.next()
	m, n, err := v.newContainer(ctx, rng, t)
	return v.later(err, func() error {
		if err := m.Append(ctx, t.record(n), true); err != nil {
			return err
		}
		v.tell("a %x %d", uint64(t), n+1)
		return m.Close(ctx)
	})
}

func (v *victim) holdCompaction(ctx context.Context, rng *rand.Rand) error {
	t := v.next()
	m, n, err := v.newContainer(ctx, rng, t)
	if err != nil {
		return err
	}
	err = errors.Join(m.CompactStart(ctx), m.CompactAppend(ctx, t.compact(n)))
	return v.later(err, func() error { return m.CompactEnd(ctx) })
}

func (v *victim) holdList(ctx context.Context, _ *rand.Rand) error {
	next, stop := iter.Pull2(v.p.Objects(ctx, api.Filter{}))
	_, err, _ := next()
	return v.later(err, func() error {
		defer stop()
		for {
			if _, err, ok := next(); err != nil || !ok {
				return err
			}
		}
	})
}

// holdRing leaves a ring full of reads that it never reaps.
func (v *victim) holdRing(ctx context.Context, rng *rand.Rand) error {
	tr, err := v.newTrain(ctx, rng)
	if tr == nil || err != nil {
		return err
	}
	b, err := v.p.Mblock(ctx, v.shared[0])
	for given := true; given && err == nil; {
		given, err = tr.giveRead(b, trainBytes, 0)
	}
	tr.q.Submit()
	return v.later(err, func() error {
		want := sharedTag.content()[:trainBytes]
		for tr.q.Flight() > 0 {
			if err := tr.reap(ctx, 1, func(r ride, _ *client.Completion) error {
				if !bytes.Equal(r.b.Bytes(), want) {
					return errWrong
				}
				return nil
			}); err != nil {
				return err
			}
		}
		return tr.end()
	})
}

func (v *victim) allocs(ctx context.Context, rng *rand.Rand) error {
	b, err := v.p.AllocMblock(ctx, api.AllocOptions{Capacity: rng.Int64N(256 << 10), Tag: uint64(v.next())})
	if err != nil {
		return err
	}
	if rng.IntN(20) == 0 {
		return nil // given up by nobody
	}
	return b.Abort(ctx)
}

func (v *victim) writes(ctx context.Context, rng *rand.Rand) error {
	b, err := v.write(ctx, rng, v.next())
	if err != nil {
		return err
	}
	return b.Abort(ctx)
}

func (v *victim) commits(ctx context.Context, rng *rand.Rand) error {
	t := v.next()
	b, err := v.p.AllocMblock(ctx, api.AllocOptions{Capacity: int64(t.size()), Tag: uint64(t)})
	if err != nil {
		return err
	}
	if _, err := b.Write(ctx, t.content()); err != nil {
		return err
	}
	if err := v.commit(ctx, t, b); err != nil || rng.IntN(8) == 0 {
		return err
	}
	return v.delete(ctx, t, b)
}

func (v *victim) appends(ctx context.Context, rng *rand.Rand) error { return v.logs(ctx, rng, 0) }

func (v *victim) syncs(ctx context.Context, rng *rand.Rand) error { return v.logs(ctx, rng, 100) }

// logs fills logs and deletes them.
func (v *victim) logs(ctx context.Context, rng *rand.Rand, syncs int) error {
	t := v.next()
	l, a, err := v.newLog(ctx, t)
	if err != nil {
		return err
	}
	if err := v.fillLog(ctx, rng, t, a, 0, 20+rng.IntN(50), syncs); err != nil {
		return err
	}
	if err := errors.Join(a.Sync(ctx), a.Close(ctx)); err != nil {
		return err
	}
	return v.delete(ctx, t, l)
}

func (v *victim) lists(ctx context.Context, _ *rand.Rand) error {
	for _, err := range v.p.Objects(ctx, api.Filter{}) {
		if err != nil {
			return err
		}
	}
	_, err := v.p.Roots(ctx)
	return err
}

// forks runs another program, and one that cannot be run: both begin as a child
// that has the victim's memory. Then it does something else.
func (v *victim) forks(ctx context.Context, rng *rand.Rand) error {
	if err := exec.Command("/bin/true").Run(); err != nil {
		return err
	}
	if err := exec.Command("/dev/null").Run(); err == nil {
		return errors.New("a device is no program")
	}
	return v.block(ctx, rng)
}
