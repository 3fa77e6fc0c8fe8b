package mlog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/sched"
)

// ledger knows what was appended to a log, and judges what is found in it after
// a crash. It belongs to one simulated world at a time.
type ledger struct {
	next  uint64            // of record ids
	size  map[uint64]int    // by id: records that may be in the log
	dead  map[uint64]bool   // ids that were lost in a crash or erased: they must never come back
	place map[uint64]uint64 // by record number: the id that Append said it has
	acked uint64            // records that were said to be durable
	base  []uint64          // ids found at the last open
}

func newLedger() *ledger {
	return &ledger{size: map[uint64]int{}, dead: map[uint64]bool{}, place: map[uint64]uint64{}}
}

func (g *ledger) clone() *ledger {
	c := *g
	c.size, c.dead, c.place = maps.Clone(g.size), maps.Clone(g.dead), maps.Clone(g.place)
	c.base = slices.Clone(g.base)
	return &c
}

// make invents a record of at least 8 bytes, with its id in front.
func (g *ledger) make(size int) (uint64, []byte) {
	g.next++
	b := binary.LittleEndian.AppendUint64(nil, g.next)
	b = append(b, record(g.next, max(0, size-8))...)
	g.size[g.next] = len(b)
	return g.next, b
}

func (g *ledger) appended(id, number uint64) { g.place[number] = id }

func (g *ledger) durable(records uint64) { g.acked = max(g.acked, records) }

// judge says what is wrong with the records found at an open, and takes them as
// the log's content.
func (g *ledger) judge(found [][]byte) error {
	if uint64(len(found)) < g.acked {
		return fmt.Errorf("%d records, %d were durable", len(found), g.acked)
	}
	var ids []uint64
	for n, b := range found {
		if len(b) < 8 {
			return fmt.Errorf("record %d: %d bytes", n, len(b))
		}
		id := binary.LittleEndian.Uint64(b)
		switch want, ok := g.place[uint64(n)]; {
		case g.dead[id]:
			return fmt.Errorf("record %d: %d came back from the dead", n, id)
		case g.size[id] != len(b):
			return fmt.Errorf("record %d: %d has %d bytes, want %d", n, id, len(b), g.size[id])
		case !bytes.Equal(b[8:], record(id, max(0, len(b)-8))):
			return fmt.Errorf("record %d: %d is not what was appended", n, id)
		case n < len(g.base) && g.base[n] != id:
			return fmt.Errorf("record %d: %d, was %d before", n, id, g.base[n])
		case ok && want != id:
			return fmt.Errorf("record %d: %d, appended as %d", n, id, want)
		case slices.Contains(ids, id):
			return fmt.Errorf("record %d: %d is there twice", n, id)
		}
		ids = append(ids, id)
	}
	if len(ids) < len(g.base) {
		return fmt.Errorf("%d records, %d were found before", len(ids), len(g.base))
	}
	g.settle(ids)
	return nil
}

// settle makes ids the log's content; everything else is dead.
func (g *ledger) settle(ids []uint64) {
	for id := range g.size {
		if !slices.Contains(ids, id) {
			g.dead[id] = true
			delete(g.size, id)
		}
	}
	g.base = ids
	g.acked = uint64(len(ids))
	g.place = map[uint64]uint64{}
}

// workload is what some tasks do with a log in a simulated world.
type workload struct {
	tasks, steps int
	maxSize      int
	clean        bool // close at the end
}

// run opens the log, judges it and works on it.
func (w workload) run(c Config, g *ledger, rng *rand.Rand) error {
	return w.runWith(c, g, rng, func(*Log) {})
}

// runWith is run, and tells the log that it opened.
func (w workload) runWith(c Config, g *ledger, rng *rand.Rand, opened func(*Log)) error {
	var found [][]byte
	c.Replay = func(_ uint64, b []byte) error {
		found = append(found, bytes.Clone(b))
		return nil
	}
	c.OnDurable = func(records uint64) { g.durable(records) }
	l, err := Open(bg, c)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	opened(l)
	if err := g.judge(found); err != nil {
		return err
	}
	var failed error
	left := w.tasks
	var done sched.Completion
	done.Init(c.Sched)
	for range w.tasks {
		steps := w.steps
		seed := rng.Uint64()
		c.Sched.Go("appender", func() {
			if err := w.appender(l, g, rand.New(rand.NewPCG(seed, 5)), steps); err != nil && failed == nil {
				failed = err
			}
			if left--; left == 0 {
				done.Done()
			}
		})
	}
	if err := done.Wait(bg); err != nil {
		return err
	}
	if failed != nil {
		return failed
	}
	if w.clean {
		records := l.Records()
		if err := l.Close(bg); err != nil {
			return err
		}
		g.durable(records)
		return nil
	}
	return l.Abandon(bg)
}

func (w workload) appender(l *Log, g *ledger, rng *rand.Rand, steps int) error {
	for range steps {
		size := rng.IntN(300)
		if rng.IntN(6) == 0 {
			size = rng.IntN(w.maxSize)
		}
		id, b := g.make(size)
		sync := rng.IntN(2) == 0
		var n uint64
		var err error
		if sync {
			n, err = l.AppendSync(bg, b)
		} else {
			n, err = l.Append(bg, b)
		}
		if errors.Is(err, api.EFBIG) {
			delete(g.size, id)
			return nil
		}
		if err != nil {
			return err
		}
		g.appended(id, n)
		if sync {
			g.durable(n + 1)
		}
		if rng.IntN(8) == 0 {
			before := l.Records()
			if err := l.Sync(bg); err != nil {
				return err
			}
			g.durable(before)
		}
	}
	return nil
}

func simRig(t testing.TB, seed uint64, finals uint32) *rig {
	t.Helper()
	r := &rig{}
	physical := 512
	if seed%3 == 0 {
		physical = 4096
	}
	r.disk = sim.NewDisk(int64(testStart+SlotPages+finals+16)*PageSize, sim.DiskOptions{PhysicalSector: physical})
	r.c = newRigConfig(finals)
	r.attach(t)
	r.format(t)
	if err := r.drive.Close(); err != nil {
		t.Fatal(err)
	}
	return r
}

// inWorld runs f in a simulation on a disk, until it ends or the cutter cuts. In every
// other world logs are written by the drive's writers.
func inWorld(disk *sim.Disk, c Config, seed uint64, o sim.OpenOptions, f func(c Config, s *sched.Sched) error) error {
	s := sched.New(seed)
	var err error
	run := s.Run(func() {
		c.Sched = s
		if c.Drive, err = sim.Open(s, disk, o); err != nil {
			return
		}
		if seed%2 == 1 {
			c.Writers = NewWriters(s, c.Drive)
		}
		if err = f(c, s); err == nil {
			err = c.Drive.Close()
		}
		if err == nil && c.Writers != nil && c.Writers.waiting() != 0 {
			err = fmt.Errorf("%d wait for the writers, whom all have left", c.Writers.waiting())
		}
	})
	return errors.Join(run, err)
}

// proves S22
//
// The power fails at every start and end of an operation, with several possible
// survivors each; what is recovered is judged, appended to, and cut again.
func TestCrashAtEveryIO(t *testing.T) {
	for seed := range seeds(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := simRig(t, seed, 40)
			rng := rand.New(rand.NewPCG(seed, 2))
			g := newLedger()
			var snaps []snapshot
			w := workload{tasks: 1 + int(seed%4), steps: 12, maxSize: 4 * PageSize, clean: true}
			err := inWorld(r.disk, r.c, seed, sim.OpenOptions{OnIO: func(b sim.Boundary) bool {
				for range 4 {
					d, cut := r.disk.Survivor(rng, sim.CutOptions{})
					snaps = append(snaps, snapshot{d, g.clone(), fmt.Sprintf("%v: %v", b, cut)})
				}
				return false
			}}, func(c Config, _ *sched.Sched) error { return w.run(c, g, rng) })
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			t.Logf("%d survivors", len(snaps))
			for i, s := range snaps {
				if err := crashAgain(s, r.c, seed+uint64(i)); err != nil {
					t.Fatalf("seed %d, survivor %d, %s: %v", seed, i, s.what, err)
				}
			}
		})
	}
}

// snapshot is what a power cut may leave, and what was known before.
type snapshot struct {
	disk *sim.Disk
	g    *ledger
	what string
}

// crashAgain recovers a survivor, appends, and cuts at random a few times.
func crashAgain(s snapshot, c Config, seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 3))
	for cycle := range 3 {
		c.Epoch++
		w := workload{tasks: 1 + rng.IntN(3), steps: 1 + rng.IntN(4), maxSize: 3 * PageSize, clean: rng.IntN(4) == 0}
		if err := oneLife(s.disk, c, s.g, w, rng); err != nil {
			return fmt.Errorf("life %d after it: %w", cycle+2, err)
		}
	}
	return nil
}

// oneLife runs a workload until it ends or is cut, and brings the power back.
func oneLife(disk *sim.Disk, c Config, g *ledger, w workload, rng *rand.Rand) error {
	cutter := &sim.Cutter{At: 1 + rng.Uint64N(40)}
	err := inWorld(disk, c, rng.Uint64(), sim.OpenOptions{OnIO: cutter.OnIO}, func(c Config, s *sched.Sched) error {
		cutter.Sched = s
		return w.run(c, g, rng)
	})
	if err != nil && !errors.Is(err, sched.ErrCut) {
		return err
	}
	if rng.IntN(3) == 0 {
		disk.Kill(rng)
	} else {
		disk.PowerCut(rng, sim.CutOptions{})
	}
	return nil
}

// proves S22
//
// Many lives of one log: crashes and kills at random moments, clean closes,
// erases that a crash may interrupt.
func TestCrashCycles(t *testing.T) {
	for seed := range seeds(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := simRig(t, seed, 60)
			rng := rand.New(rand.NewPCG(seed, 4))
			g := newLedger()
			c := r.c
			for life := range 25 {
				c.Epoch++
				w := workload{tasks: 1 + rng.IntN(4), steps: 1 + rng.IntN(10), maxSize: 5 * PageSize, clean: rng.IntN(3) == 0}
				if err := oneLife(r.disk, c, g, w, rng); err != nil {
					t.Fatalf("seed %d, life %d: %v", seed, life, err)
				}
				if rng.IntN(4) > 0 {
					continue
				}
				c.Epoch++
				to := c.Generation + 1 + rng.Uint64N(3)
				done, err := eraseInWorld(r.disk, c, to, rng)
				if err != nil {
					t.Fatalf("seed %d, life %d: erase: %v", seed, life, err)
				}
				if done { // and recorded
					c.Generation = to
					g.base = nil
					g.settle(nil)
				}
			}
		})
	}
}

// eraseInWorld formats the log at a new generation. A cut may come in between.
func eraseInWorld(disk *sim.Disk, c Config, to uint64, rng *rand.Rand) (done bool, err error) {
	cutter := &sim.Cutter{}
	if rng.IntN(2) == 0 {
		cutter.At = 1 + rng.Uint64N(8)
	}
	err = inWorld(disk, c, rng.Uint64(), sim.OpenOptions{OnIO: cutter.OnIO}, func(c Config, s *sched.Sched) error {
		cutter.Sched = s
		current := c.Generation
		c.Generation = to
		if err := Format(context.Background(), c, current); err != nil {
			return err
		}
		done = rng.IntN(3) > 0
		return nil
	})
	if errors.Is(err, sched.ErrCut) {
		err = nil
	}
	disk.PowerCut(rng, sim.CutOptions{})
	return done, err
}
