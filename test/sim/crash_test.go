package sim

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/sched"
)

var (
	seedFlag  = flag.Uint64("sim.seed", 0, "run this seed only")
	firstFlag = flag.Uint64("sim.first", 1, "first seed of a range")
	driveFlag = flag.Int("sim.drives", 0, "drives of each pool; 0: 1 to 4, by the seed")
	forFlag   = flag.Duration("sim.for", time.Second, "how long each simulation test runs")
)

const (
	diskSize   = 12 << 20
	maxDrives  = 4
	workers    = 3
	survivors  = 4 // media tried after each cut
	metaBytes  = 48 << 10
	opsPerTask = 30
)

// world is one seed's run.
type world struct {
	seed              uint64
	shape             shape
	rng               *rand.Rand
	disks             devsim.Rack // in the order of the drives' slots
	capacity, staging []string    // paths
	paths             []string    // all of them, in the order in which they are given to Activate
	m                 *model
	states            int    // crash states that were verified
	hits              uint64 // of faults
}

func newWorld(seed uint64, sh shape) *world {
	rng := rand.New(rand.NewPCG(seed, 1))
	w := &world{seed: seed, shape: sh, rng: rng, m: newModel()}
	// What needs many operations on one drive to show is found with one.
	drives := 1
	if rng.IntN(2) == 0 {
		drives = 2 + rng.IntN(maxDrives-1)
	}
	if *driveFlag > 0 {
		drives = *driveFlag
	}
	staging := rng.IntN(drives)
	for i := range drives {
		o := devsim.DiskOptions{Name: fmt.Sprintf("sim%d", i), Discard: rng.IntN(3) > 0}
		if rng.IntN(2) == 0 {
			o.PhysicalSector = 4096
			if rng.IntN(2) == 0 {
				o.LogicalSector = 4096
			}
		}
		w.disks = append(w.disks, devsim.NewDisk(diskSize, o))
		if i < drives-staging {
			w.capacity = append(w.capacity, o.Name)
		} else {
			w.staging = append(w.staging, o.Name)
		}
	}
	w.paths = w.disks.Paths()
	rng.Shuffle(drives, func(i, j int) { w.paths[i], w.paths[j] = w.paths[j], w.paths[i] })
	return w
}

// options are those of a pool on disks in a simulation.
func options(s *sched.Sched, d devsim.Rack, o devsim.OpenOptions) mpool.Options {
	open := d.Opener(s, o)
	return mpool.Options{
		Sched: s, MetadataBytes: metaBytes, Rand: randReader{s.Rand()},
		Open: func(ctx context.Context, path string, readOnly bool) (*bdev.Drive, error) {
			return open(ctx, path, readOnly)
		},
	}
}

// activate activates the pool on disks.
func (w *world) activate(s *sched.Sched, d devsim.Rack, o devsim.OpenOptions) (*mpool.Pool, error) {
	return mpool.Activate(ctx, w.m.name, w.paths, api.ActivateOptions{}, options(s, d, o))
}

// worker makes the n-th worker of a run.
func (w *world) worker(n int, s *sched.Sched, p *mpool.Pool) worker {
	return worker{n: n, s: s, rng: s.Rand(), p: p, m: w.m, staging: len(w.staging) > 0}
}

type randReader struct{ rng *rand.Rand }

func (r randReader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(r.rng.Uint32())
	}
	return len(p), nil
}

// inSim runs f in a simulation and turns what it panics with into an error.
func inSim(s *sched.Sched, f func()) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	var failed error
	err = s.Run(func() {
		defer func() {
			if r := recover(); r != nil {
				fe, ok := r.(fatal)
				if !ok {
					panic(r)
				}
				failed = fe.err
			}
		}()
		f()
	})
	if failed != nil {
		return failed
	}
	return err
}

// create makes the pool, undisturbed.
func (w *world) create() error {
	s := sched.New(w.rng.Uint64())
	return inSim(s, func() {
		_, err := mpool.Create(ctx, w.m.name, w.capacity, api.CreateOptions{Staging: w.staging}, options(s, w.disks, devsim.OpenOptions{}))
		must(err)
	})
}

// work activates the pool and lets the workers run until the cut at the given
// boundary (0: none; then the pool is closed cleanly).
func (w *world) work(seed, at uint64, ops int) (seen uint64, cut bool, err error) {
	s := sched.New(seed)
	cutter := &devsim.Cutter{Sched: s, At: at}
	var failed error
	err = inSim(s, func() {
		p, err := w.activate(s, w.disks, devsim.OpenOptions{OnIO: cutter.OnIO})
		must(err)
		var done [workers]sched.Completion
		for n := range workers {
			begin(s, &done[n], &failed, func() {
				if n < w.shape.workers {
					wk := w.worker(n, s, p)
					wk.run(ops)
				}
			})
		}
		scrubbed := w.scrub(s, p, &failed)
		for n := range workers {
			must(done[n].Wait(ctx))
		}
		must(scrubbed())
		must(failed)
		must(p.Close())
	})
	switch {
	case failed != nil:
		err = failed
	case errors.Is(err, sched.ErrCut):
		return cutter.Seen(), true, nil
	}
	return cutter.Seen(), false, err
}

// check looks at a medium with the offline checker, then activates it and
// compares it with the model.
func (w *world) check(d devsim.Rack, settle bool) error {
	w.states++
	if err := offline(w.paths, d); err != nil {
		return err
	}
	s := sched.New(w.rng.Uint64())
	return inSim(s, func() {
		p, err := w.activate(s, d, devsim.OpenOptions{Inline: true})
		if err != nil {
			must(fmt.Errorf("activate: %w", err))
		}
		must(verify(p, w.m, len(d), settle))
		must(p.Close())
	})
}

// afterCut tries several media that the cut may leave, and goes on with one.
func (w *world) afterCut(n int) error {
	for i := range n {
		d, cut := w.disks.Survivor(w.rng, devsim.CutOptions{})
		if err := w.check(d.Clone(), false); err != nil {
			return fmt.Errorf("survivor %d of a power cut (%v): %w", i, cut, err)
		}
	}
	if w.rng.IntN(4) == 0 {
		// The process died; the machine goes on, and loses power only later.
		w.disks.Kill(w.rng)
		if err := w.check(w.disks, true); err != nil {
			return fmt.Errorf("after a kill: %w", err)
		}
		d, cut := w.disks.Survivor(w.rng, devsim.CutOptions{})
		if err := w.check(d, false); err != nil {
			return fmt.Errorf("power cut after a kill and a recovery (%v): %w", cut, err)
		}
		return nil
	}
	cut := w.disks.PowerCut(w.rng, devsim.CutOptions{})
	for w.rng.IntN(3) == 0 { // the activations that follow are cut off, too
		if _, _, err := w.work(w.rng.Uint64(), uint64(1+w.rng.IntN(80)), 0); err != nil {
			return fmt.Errorf("activation after a power cut (%v): %w", cut, err)
		}
		cut = w.disks.PowerCut(w.rng, devsim.CutOptions{})
	}
	if err := w.check(w.disks, true); err != nil {
		return fmt.Errorf("power cut (%v): %w", cut, err)
	}
	return nil
}

// random runs one seed: some cycles of work, cut and verification.
func random(seed uint64, sh shape) (states int, err error) {
	w := newWorld(seed, sh)
	if err := w.create(); err != nil {
		return 0, fmt.Errorf("create: %w", err)
	}
	for cycle := range sh.cycles {
		at := uint64(1 + w.rng.IntN(sh.cut()))
		_, cut, err := w.work(w.rng.Uint64(), at, sh.ops)
		if err != nil {
			return w.states, fmt.Errorf("cycle %d: %w", cycle, err)
		}
		if cut {
			err = w.afterCut(survivors)
		} else {
			err = w.check(w.disks, true)
		}
		if err != nil {
			return w.states, fmt.Errorf("cycle %d, cut at boundary %d: %w", cycle, at, err)
		}
	}
	return w.states, nil
}

// everyBoundary runs one seed's short workload once for each of its I/O
// boundaries and cuts there.
func everyBoundary(seed uint64, sh shape, stop func() bool) (states int, err error) {
	ops := min(4, sh.ops)
	first := newWorld(seed, sh)
	if err := first.create(); err != nil {
		return 0, err
	}
	fresh := func() (*world, uint64) {
		w := newWorld(seed, sh)
		w.disks = first.disks.Clone()
		return w, w.rng.Uint64()
	}
	w, workSeed := fresh()
	total, _, err := w.work(workSeed, 0, ops)
	if err != nil {
		return 0, err
	}
	for at := uint64(1); at <= total && (states == 0 || !stop()); at++ {
		w, workSeed := fresh()
		if _, cut, err := w.work(workSeed, at, ops); err != nil || !cut {
			return states, fmt.Errorf("boundary %d of %d: cut %v: %w", at, total, cut, err)
		}
		err = w.afterCut(survivors)
		states += w.states
		if err != nil {
			return states, fmt.Errorf("cut at boundary %d of %d: %w", at, total, err)
		}
	}
	return states, nil
}

// sweep runs seeds on all processors until the time is up.
func sweep(t *testing.T, f func(seed uint64, sh shape, stop func() bool) (int, error)) {
	t.Helper()
	start := time.Now()
	sh, err := parseShape(*shapeFlag)
	if err != nil {
		t.Fatal(err)
	}
	stop := func() bool { return *seedFlag == 0 && time.Since(start) > *forFlag }
	if *seedFlag != 0 {
		states, err := f(*seedFlag, sh, stop)
		if err != nil {
			t.Fatalf("seed %d: %v%s", *seedFlag, err, shrink(t.Name(), f, *seedFlag, sh, err, *shrinkFlag))
		}
		t.Logf("seed %d: %d crash states, no violation", *seedFlag, states)
		return
	}
	var mu sync.Mutex
	next, total, seeds := *firstFlag, 0, 0
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for !stop() && !t.Failed() {
				mu.Lock()
				seed := next
				next++
				mu.Unlock()
				states, err := f(seed, sh, stop)
				mu.Lock()
				total += states
				seeds++
				mu.Unlock()
				if err != nil {
					t.Errorf("seed %d: %v\nreplay: %s\nlook for a smaller one: add -sim.shrink=30s", seed, err, replay(t.Name(), seed, sh))
				}
			}
		})
	}
	wg.Wait()
	if total == 0 && !t.Failed() {
		t.Error("no crash state was looked at")
	}
	t.Logf("%d seeds from %d, %d crash states in %v", seeds, *firstFlag, total, time.Since(start).Round(time.Second))
}

// Random workloads of several tasks over several crashes, each at a random
// place, each with several media that it may leave.
//
// proves S3 S5 S7 S8 S9 S10 S11 S12 S13 S14 S15 S20 S21 S22 S24 S25 S26 S27 S36
func TestCrashRandom(t *testing.T) {
	sweep(t, func(seed uint64, sh shape, _ func() bool) (int, error) { return random(seed, sh) })
}

// Short workloads with a cut at every I/O boundary.
//
// proves S5 S12 S15 S21 S22 S26
func TestCrashEveryBoundary(t *testing.T) {
	sweep(t, everyBoundary)
}

// A seed's run is the same twice, and acknowledges something that may be lost.
func TestReplay(t *testing.T) {
	for seed := range uint64(3) {
		var seen [2]uint64
		var disks [2]devsim.Rack
		for i := range seen {
			w := newWorld(seed, fullShape)
			if err := w.create(); err != nil {
				t.Fatal(err)
			}
			var err error
			if seen[i], _, err = w.work(w.rng.Uint64(), 0, opsPerTask); err != nil {
				t.Fatal(err)
			}
			disks[i] = w.disks
			if w.m.acks < workers*opsPerTask/4 {
				t.Errorf("seed %d: of %d operations only %d changes were acknowledged", seed, workers*opsPerTask, w.m.acks)
			}
		}
		if seen[0] != seen[1] {
			t.Fatalf("seed %d: %d and %d I/O boundaries", seed, seen[0], seen[1])
		}
		for k := range disks[0] {
			var content [2]string
			for i := range disks {
				b := make([]byte, diskSize)
				if _, err := disks[i][k].ReadAt(b, 0); err != nil {
					t.Fatal(err)
				}
				content[i] = string(b)
			}
			if content[0] != content[1] {
				t.Fatalf("seed %d: two runs left different media on drive %d", seed, k)
			}
		}
	}
}

func TestMain(m *testing.M) {
	flag.Parse()
	// A run leaves little and allocates much.
	debug.SetGCPercent(600)
	os.Exit(m.Run())
}
