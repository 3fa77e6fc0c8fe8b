package sim

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/sched"
)

// How a run of a pool in trouble ends.
const (
	endClose = iota // all handles are put, the pool is closed
	endAbandon
	endCut // the power goes at a random boundary
	ends
)

// disturb activates the pool and lets the workers run while the disk fails and
// contexts end, until the run's end.
//
// After a failed flush the machine loses power before anybody activates the
// pool again (cut): what that flush lost may still be read until then, from a
// cache above the device, and nobody can tell.
func (w *world) disturb(tr trouble, end int, ops int) (cut bool, err error) {
	s := sched.New(w.rng.Uint64())
	cutter := &devsim.Cutter{Sched: s}
	if end == endCut {
		cutter.At = 1 + w.rng.Uint64N(uint64(w.shape.cut()))
	}
	var failed error
	err = inSim(s, func() {
		p, err := w.activate(s, w.disks, devsim.OpenOptions{OnIO: cutter.OnIO})
		must(err)
		w.inject(tr)
		var done [workers]sched.Completion
		for n := range workers {
			begin(s, &done[n], &failed, func() {
				if n < w.shape.workers {
					u := &unsure{worker: w.worker(n, s, p), trouble: tr}
					u.run(ops)
				}
			})
		}
		for n := range workers {
			must(done[n].Wait(ctx))
		}
		must(failed)
		must(noReferences(p))
		for _, st := range p.DriveStats() {
			cut = cut || st.FlushFailures > 0
		}
		w.heal()
		if end == endAbandon {
			must(explainEnd(tr, p.Abandon(ctx)))
		} else {
			must(explainEnd(tr, p.Close()))
		}
	})
	w.heal()
	switch {
	case failed != nil:
		err = failed
	case errors.Is(err, sched.ErrCut):
		return true, nil
	}
	return cut, err
}

// inject draws what goes wrong: on each disk something of its own, on one disk
// only, or one disk that hangs for a while.
func (w *world) inject(tr trouble) {
	if tr.site != nil {
		w.disks[tr.site.disk].Inject(tr.site.fault)
		return
	}
	only := w.rng.IntN(len(w.disks) + 1) // the last: none is spared
	for i, d := range w.disks {
		switch {
		case only < len(w.disks) && i != only:
		case tr.faults && w.rng.IntN(4) > 0:
			d.Inject(devsim.DrawFaults(w.rng, devsim.PlanOptions{Faults: 1 + w.rng.IntN(3), Within: 300, Size: diskSize})...)
		case i == only && w.rng.IntN(2) == 0:
			d.Inject(devsim.Fault{Delay: time.Minute, Skip: w.rng.Uint64N(300), Count: 1 + w.rng.Uint64N(20)})
		default:
			d.Inject(devsim.Fault{Delay: 20 * time.Millisecond, Probability: 0.02})
		}
	}
}

func (w *world) heal() {
	for _, d := range w.disks {
		for _, n := range d.FaultHits() {
			w.hits += n
		}
		d.Heal()
	}
}

// explainEnd says whether a closing's error is one that the trouble explains:
// what could not be written before cannot be closed cleanly.
func explainEnd(tr trouble, err error) error {
	if code := api.CodeOf(err); tr.faults && (code == api.EIO || code == api.EUNKNOWN || code == api.EROFS) {
		return nil
	}
	return err
}

// noReferences checks a pool whose handles were all put.
func noReferences(p *mpool.Pool) error {
	info, err := p.Info(ctx)
	if err != nil {
		return err
	}
	sp := info.Space
	if sum := sp.Free + sp.Live + sp.Uncommitted + sp.Draining + sp.Spare + sp.Overhead + sp.Remainder; sum != sp.Total {
		return fmt.Errorf("space does not add up: %+v (S7)", sp)
	}
	for o, err := range p.Objects(ctx, api.Filter{}) {
		if err != nil {
			return err
		}
		if o.Refs != 0 {
			return fmt.Errorf("object %v, %v, has %d references that nobody holds (S30)", o.ID, o.State, o.Refs)
		}
	}
	return nil
}

// settleContainers takes containers out of the model that need not be there and
// are not. It returns what puts them back.
func settleContainers(w *world, d devsim.Rack, forGood bool) (undo func(), err error) {
	s := sched.New(w.rng.Uint64())
	there := make(map[layout.ObjectID]bool)
	err = inSim(s, func() {
		p, err := w.activate(s, d, devsim.OpenOptions{Inline: true})
		must(err)
		for o, err := range p.Objects(ctx, api.Filter{}) {
			must(err)
			there[o.ID] = true
		}
		must(p.Close())
	})
	absent := make(map[layout.ObjectID]*containerModel)
	for id, cm := range w.m.containers {
		switch {
		case !there[id] && cm.fate != live:
			absent[id] = cm
			delete(w.m.containers, id)
		case there[id] && forGood:
			cm.fate = live
		}
	}
	return func() {
		for id, cm := range absent {
			if !forGood {
				w.m.containers[id] = cm
			}
		}
	}, err
}

// afterTrouble compares what is left with the model.
func (w *world) afterTrouble(d devsim.Rack, settle bool) error {
	undo, err := settleContainers(w, d, settle)
	if err != nil {
		return fmt.Errorf("activate: %w", err)
	}
	defer undo()
	if err := w.check(d, settle); err != nil {
		return err
	}
	if settle {
		for _, cm := range w.m.containers {
			cm.unclean = false
		}
	}
	return nil
}

// troubled runs one seed: cycles of work in trouble, an end, and verification.
func troubled(seed uint64, sh shape, tr trouble) (states int, err error) {
	w := newWorld(seed, sh)
	if err := w.create(); err != nil {
		return 0, fmt.Errorf("create: %w", err)
	}
	for cycle := range sh.cycles {
		end := w.rng.IntN(ends)
		cut, err := w.disturb(tr, end, sh.ops)
		if err != nil {
			return w.states, fmt.Errorf("cycle %d, end %d: %w", cycle, end, err)
		}
		if cut || w.rng.IntN(2) == 0 {
			for range survivors - 2 {
				d, how := w.disks.Survivor(w.rng, devsim.CutOptions{})
				if err := w.afterTrouble(d, false); err != nil {
					return w.states, fmt.Errorf("cycle %d, end %d, survivor of a power cut (%v): %w", cycle, end, how, err)
				}
			}
			w.disks.PowerCut(w.rng, devsim.CutOptions{})
		}
		if err := w.afterTrouble(w.disks, true); err != nil {
			return w.states, fmt.Errorf("cycle %d, end %d, cut %v: %w", cycle, end, cut, err)
		}
	}
	return w.states, nil
}

// Random workloads while the disk fails reads, writes and flushes, is full or
// stalls; then a close or a crash, and activation on healed media.
//
// proves S7 S11 S12 S15 S21 S22 S26 S30 S40 S42
func TestFaults(t *testing.T) {
	sweep(t, func(seed uint64, sh shape, _ func() bool) (int, error) {
		return troubled(seed, sh, trouble{faults: true})
	})
}

// Random workloads whose contexts end at any moment: what an operation's error
// says is what is found.
//
// proves S7 S12 S15 S21 S22 S26 S30 S46
func TestDeadlines(t *testing.T) {
	sweep(t, func(seed uint64, sh shape, _ func() bool) (int, error) {
		return troubled(seed, sh, trouble{deadlines: true})
	})
}

// Both at once.
//
// proves S12 S15 S22 S26 S30 S40 S42 S46
func TestFaultsAndDeadlines(t *testing.T) {
	sweep(t, func(seed uint64, sh shape, _ func() bool) (int, error) {
		return troubled(seed, sh, trouble{faults: true, deadlines: true})
	})
}
