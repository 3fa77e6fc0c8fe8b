package mpool

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool/check"
	"github.com/mpool-go/mpool/mpool/omf"
	"github.com/mpool-go/mpool/sched"
)

// storm is what is known of the objects of a pool in which many small mblocks
// are committed side by side, and which crashes again and again.
type storm struct {
	t    *testing.T
	rng  *rand.Rand
	disk *devsim.Disk

	cuts  int // commits that were found cut off
	size  map[layout.ObjectID]int
	there map[layout.ObjectID]bool // was acknowledged, or found by an activation
	dying map[layout.ObjectID]bool // its delete was begun
	never map[layout.ObjectID]bool // was deleted, or not found by an activation
}

var stormSeeds = flag.Uint64("mpool.storm", 15, "how many seeds TestCommitStorm runs")

// stormLogs bounds the metadata logs of the pool, in bytes.
const stormLogs = 3 << 20

// content is what an object is filled with.
func content(id layout.ObjectID, n int) []byte {
	b := make([]byte, n)
	rng := rand.New(rand.NewPCG(uint64(id), 77))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// run runs f with a pool until the cut at a boundary, or its end. With logs only
// writes to the metadata logs and the flushes behind the first of them count.
func (w *storm) run(at uint64, logs bool, f func(r *rig, p *Pool)) (cut bool) {
	w.t.Helper()
	r := &rig{t: w.t, s: sched.New(w.rng.Uint64()), disk: w.disk}
	cutter := &devsim.Cutter{Sched: r.s, At: at}
	began := !logs
	r.open.OnIO = func(b devsim.Boundary) bool {
		began = began || b.Op.Code == bdev.OpWrite && inLogs(b.Op.Offset)
		return began && (!logs || b.Op.Code == bdev.OpFlush || inLogs(b.Op.Offset)) && cutter.OnIO(b)
	}
	opt := r.options()
	opt.OnEvent = func(e Event) {
		if e.Type == EventCommitCut {
			w.cuts++
		}
	}
	err := r.s.Run(func() {
		p, err := Activate(bg, "p", []string{"sim"}, api.ActivateOptions{}, opt)
		r.ok(err)
		f(r, p)
	})
	if err != nil && !errors.Is(err, sched.ErrCut) {
		w.t.Fatal(err)
	}
	return err != nil
}

// work commits and deletes side by side.
func (w *storm) work(r *rig, p *Pool) {
	tasks := 1 + w.rng.IntN(200)
	var done []*sched.Completion
	for range tasks {
		c := new(sched.Completion)
		c.Init(r.s)
		done = append(done, c)
		r.s.Go("storm", func() {
			defer c.Done()
			var own []layout.ObjectID
			for range 1 + w.rng.IntN(3) {
				n := 1 + w.rng.IntN(2*layout.BlockSize)
				b, err := p.AllocMblock(bg, api.AllocOptions{Capacity: int64(n)})
				if err != nil {
					return // full
				}
				id := b.ID()
				w.size[id] = n
				if _, err := b.Write(bg, content(id, n)); err == nil && b.Commit(bg) == nil {
					w.there[id] = true
					own = append(own, id)
				}
				r.ok(b.Put())
				if len(own) > 0 && w.rng.IntN(3) == 0 {
					id := own[0]
					own = own[1:]
					w.dying[id] = true
					if r.remove(p, id) == nil {
						w.never[id] = true
					}
				}
			}
		})
	}
	if w.rng.IntN(3) == 0 {
		p.meta.mu.Lock()
		p.meta.compactLocked()
		p.meta.mu.Unlock()
	}
	for _, c := range done {
		r.ok(c.Wait(bg))
	}
}

// look activates the pool on a disk that nobody else uses and compares, also what
// the checker says of it before. With settle what is found counts from now on.
func (w *storm) look(disk *devsim.Disk, settle bool) {
	w.t.Helper()
	r := &rig{t: w.t, s: sched.New(w.rng.Uint64()), disk: disk}
	report := r.check()
	cut := make(map[layout.ObjectID]bool)
	for _, p := range report.Notes {
		if p.Code == check.CommitCut {
			cut[p.Object] = true
		}
	}
	r.run(func() {
		opt := r.options()
		opt.OnEvent = func(e Event) {
			if e.Type == EventCommitCut && !cut[e.Object] {
				w.t.Errorf("%v is dropped, and the checker did not see why", e.Object)
			}
			delete(cut, e.Object)
			w.cuts++
		}
		p, err := Activate(bg, "p", []string{"sim"}, api.ActivateOptions{}, opt)
		r.ok(err)
		for id := range cut {
			w.t.Errorf("%v is not dropped, and the checker said so", id)
		}
		if int64(p.table.Len()) != report.Objects {
			w.t.Errorf("%d objects; the checker found %d", p.table.Len(), report.Objects)
		}
		for _, id := range slices.Sorted(maps.Keys(w.size)) {
			if err := w.object(p, id, w.size[id], settle); err != nil {
				w.t.Errorf("%v of %d bytes: %v", id, w.size[id], err)
			}
		}
		r.ok(noneLost(p))
		r.ok(p.Close())
	})
	after := r.check()
	undone := slices.ContainsFunc(after.Notes, func(p check.Problem) bool { return p.Code == check.CommitCut })
	if after.Objects != report.Objects || undone {
		w.t.Errorf("the checker found %d objects, and %d after an activation, notes %v", report.Objects, after.Objects, after.Notes)
	}
}

func (w *storm) object(p *Pool, id layout.ObjectID, n int, settle bool) error {
	b, err := p.Mblock(bg, id)
	if api.CodeOf(err) == api.ENOENT {
		if w.there[id] && !w.dying[id] {
			return errors.New("it is gone")
		}
		w.never[id] = w.never[id] || settle
		return nil
	}
	if err != nil {
		return err
	}
	if w.never[id] {
		return errors.New("it is back")
	}
	if settle {
		w.there[id], w.dying[id] = true, false
	}
	buf := make([]byte, n)
	if k, err := b.ReadAt(buf, 0); k != n || string(buf) != string(content(id, n)) {
		return fmt.Errorf("read %d bytes, %w, or wrong ones", k, err)
	}
	return b.Put()
}

// fates has half of the power cuts keep most of what went to the logs, and less
// of the data: records without their data are rare otherwise.
func (w *storm) fates() devsim.CutOptions {
	if w.rng.IntN(2) == 0 {
		return devsim.CutOptions{}
	}
	logs, data := 40+w.rng.IntN(60), w.rng.IntN(100)
	return devsim.CutOptions{Mode: devsim.CutChosen, Choose: func(_ int, b devsim.Write) devsim.Fate {
		switch n := w.rng.IntN(100); {
		case inLogs(b.Offset) && n < logs, !inLogs(b.Offset) && n < data:
			return devsim.FateKeep
		case n < 90:
			return devsim.FateLose
		}
		return devsim.FateTear
	}}
}

func inLogs(offset int64) bool {
	return offset > omf.SecondCopyOffset && offset < omf.SecondCopyOffset+stormLogs
}

// crash leaves the disk as a power cut or the death of the process does.
func (w *storm) crash() {
	if w.rng.IntN(4) == 0 {
		w.disk.Kill(w.rng)
		return
	}
	w.disk.PowerCut(w.rng, w.fates())
}

// Many commits side by side, crashes at any moment, also of the activations that
// follow, one after the other: what was acknowledged stays, what was found once
// stays, what was not found once never comes, nothing has wrong bytes, and the
// checker sees it as the engine does.
//
// proves S12 S22 S45
func TestCommitStorm(t *testing.T) {
	if raced {
		t.Skip("one task at a time: there is nothing to race, and it takes minutes")
	}
	cuts := 0
	// A few seeds may cut off none: more are tried then.
	for seed := uint64(0); seed < *stormSeeds || cuts == 0 && seed < 10**stormSeeds; seed++ {
		w := &storm{
			t: t, rng: rand.New(rand.NewPCG(seed, 5)),
			size: make(map[layout.ObjectID]int), there: make(map[layout.ObjectID]bool),
			dying: make(map[layout.ObjectID]bool), never: make(map[layout.ObjectID]bool),
		}
		r := newRig(t, seed, 64<<20)
		r.run(func() { r.create(api.CreateOptions{}) })
		w.disk = r.disk
		for range 4 {
			if !w.run(uint64(1+w.rng.IntN(150)), true, w.work) {
				w.disk.Kill(w.rng)
			}
			w.crash()
			for range w.rng.IntN(5) {
				if w.rng.IntN(2) == 0 {
					w.run(uint64(1+w.rng.IntN(40)), false, func(*rig, *Pool) {})
				} else {
					w.run(uint64(1+w.rng.IntN(8)), true, func(*rig, *Pool) {})
				}
				if w.rng.IntN(3) == 0 {
					d, _ := w.disk.Survivor(w.rng, w.fates())
					w.look(d, false)
				}
				w.crash()
			}
			w.look(w.disk, true)
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
		cuts += w.cuts
	}
	if cuts == 0 {
		t.Error("no commit was found cut off")
	}
	t.Logf("%d commits were found cut off", cuts)
}
