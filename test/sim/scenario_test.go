package sim

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/mpool/check"
	"github.com/mpool-go/mpool/sched"
)

var allFlag = flag.Bool("sim.all", false, "run all cases of the tests of each call, however long that takes")

// scenario is one public call, or some that belong together, whose I/Os fail in
// turn, are cut off and torn. The media say what has happened: as they are after
// so many of its steps, undisturbed, they must be found after as many were
// acknowledged.
type scenario struct {
	name     string
	pristine bool // there is no pool at first
	grown    bool // the drives have grown since the pool was made
	ready    func(p *mpool.Pool)
	// damage, if set, is done to the media behind ready.
	damage func(d devsim.Rack)
	// open says that the steps use a pool that is active.
	open  bool
	steps func(r *play) []step
	// ends says that the last step ends the pool's use.
	ends bool
	// apart says that the steps are not played in the simulation: no cut is.
	apart bool
	// ruins says that the pool p, which was there, may be found in any state until
	// the first step is acknowledged.
	ruins bool
	// vague says that an error need not say whether the step has been done.
	vague bool

	seed     uint64
	base     devsim.Rack // before the first step
	states   []string    // after so many steps
	starts   []int       // I/Os of each disk, undisturbed
	flushes  []int       // of them, flushes
	writesOf []int       // of them, writes
	cuts     int         // boundaries
	writes   []int       // those that are a write's end
}

// step is one call.
type step struct {
	changes bool // what is durable
	do      func() error
}

// play is one run of a scenario.
type play struct {
	sc    *scenario
	s     *sched.Sched
	disks devsim.Rack
	p     *mpool.Pool
	onIO  func(devsim.Boundary) bool // unless it is nil
	admit func(context.Context, mpool.Priority) (func(), error)

	acked  int
	err    error // of the step that failed
	inStep bool  // a step has begun and not ended
	flush  bool  // a flush failed
	later  bool  // a call after the one that failed was acknowledged
}

// laterOwner is what is made after a step has failed.
const laterOwner = "later"

func playDisks(size int64) devsim.Rack {
	return devsim.Rack{
		devsim.NewDisk(size, devsim.DiskOptions{Name: "sim0", PhysicalSector: 4096, Discard: true}),
		devsim.NewDisk(size, devsim.DiskOptions{Name: "sim1"}),
	}
}

func (r *play) options(o devsim.OpenOptions) mpool.Options {
	opt := options(r.s, r.disks, o)
	opt.Admit = r.admit
	return opt
}

func (r *play) openOptions() devsim.OpenOptions {
	return devsim.OpenOptions{OnIO: func(b devsim.Boundary) bool {
		r.flush = r.flush || failedFlush(b)
		return r.onIO != nil && r.onIO(b)
	}}
}

func failedFlush(b devsim.Boundary) bool {
	return b.Phase == devsim.PhaseEnd && b.Op.Code == bdev.OpFlush && b.Err != nil
}

func (r *play) activate(name string, o api.ActivateOptions) (*mpool.Pool, error) {
	return mpool.Activate(ctx, name, r.disks.Paths(), o, r.options(r.openOptions()))
}

func (r *play) create(name string, o api.CreateOptions) error {
	o.Staging = []string{"sim1"}
	_, err := mpool.Create(ctx, name, []string{"sim0"}, o, r.options(r.openOptions()))
	return err
}

// run plays the first so many steps. trouble is called before the first of them.
// It ends at a step's error, with another call if that is asked for, or at a cut.
func (r *play) run(most int, goOn bool, trouble func()) error {
	err := inSim(r.s, func() {
		if r.sc.open {
			p, err := r.activate("p", api.ActivateOptions{})
			must(err)
			r.p = p
		}
		steps := r.sc.steps(r)
		if trouble != nil {
			trouble()
		}
		for _, st := range steps[:min(most, len(steps))] {
			r.inStep = true
			if r.err = st.do(); r.err != nil {
				break
			}
			r.inStep = false
			r.acked++
		}
		if r.p != nil && r.err != nil && goOn {
			_, err := r.p.AddOwner(ctx, laterOwner, 0)
			r.later = err == nil
		}
		if r.p != nil {
			_ = r.p.Abandon(ctx) // what it says is of no step
		}
	})
	if errors.Is(err, sched.ErrCut) {
		return nil
	}
	return err
}

// play begins a run on copies of the media.
func (sc *scenario) play() *play {
	return &play{sc: sc, s: sched.New(sc.seed), disks: sc.base.Clone()}
}

// prepare makes the media and the states of a scenario.
func (sc *scenario) prepare() error {
	sc.base = playDisks(diskSize)
	if !sc.pristine {
		r := &play{sc: sc, s: sched.New(sc.seed + 1), disks: sc.base}
		if err := inSim(r.s, func() {
			must(r.create("p", api.CreateOptions{}))
			p, err := r.activate("p", api.ActivateOptions{})
			must(err)
			if sc.ready != nil {
				sc.ready(p)
			}
			must(p.Close())
		}); err != nil {
			return fmt.Errorf("ready: %w", err)
		}
	}
	if sc.grown {
		sc.base = grow(sc.base, diskSize+4<<20)
	}
	if sc.damage != nil {
		sc.damage(sc.base)
	}
	for n := 0; ; n++ {
		r := sc.play()
		changes := false
		if n > 0 {
			list := sc.steps(&play{sc: sc, s: sched.New(1)})
			if n > len(list) {
				return nil
			}
			changes = list[n-1].changes
		}
		sc.count(r)
		if err := r.run(n, false, nil); err != nil {
			return fmt.Errorf("%d steps: %w", n, err)
		}
		if r.err != nil {
			return fmt.Errorf("step %d, undisturbed: %w", r.acked, r.err)
		}
		disks, _ := r.disks.Survivor(nil, devsim.CutOptions{Mode: devsim.CutNone})
		state, _, err := sc.state(disks)
		if err != nil {
			return fmt.Errorf("after %d steps: %w", n, err)
		}
		if n > 0 && changes == (state == sc.states[n-1]) {
			return fmt.Errorf("step %d is to change something, %v; before:\n%s\nafter:\n%s", n-1, changes, sc.states[n-1], state)
		}
		sc.states = append(sc.states, state)
	}
}

// count has an undisturbed run say what I/Os there are.
func (sc *scenario) count(r *play) {
	n := len(r.disks)
	sc.starts, sc.flushes, sc.writesOf = make([]int, n), make([]int, n), make([]int, n)
	sc.cuts, sc.writes = 0, nil
	r.onIO = func(b devsim.Boundary) bool {
		sc.cuts++
		switch {
		case b.Phase == devsim.PhaseStart:
			disk := slices.Index(r.disks, b.Disk)
			sc.starts[disk]++
			switch b.Op.Code { //nolint:exhaustive // the others are not counted
			case bdev.OpFlush:
				sc.flushes[disk]++
			case bdev.OpWrite:
				sc.writesOf[disk]++
			}
		case b.Op.Code == bdev.OpWrite:
			sc.writes = append(sc.writes, sc.cuts)
		}
		return false
	}
}

// grow returns larger disks of the same content.
func grow(small devsim.Rack, size int64) devsim.Rack {
	large := playDisks(size)
	b := make([]byte, 4096)
	zero := string(make([]byte, 4096))
	for i, d := range small {
		for off := int64(0); off < d.Size(); off += 4096 {
			if _, err := d.ReadAt(b, off); err != nil {
				panic(err)
			}
			if string(b) == zero {
				continue
			}
			if _, err := large[i].WriteAt(b, off); err != nil {
				panic(err)
			}
		}
	}
	return large
}

// judge says whether media are what the run has left.
func (r *play) judge(disks devsim.Rack) error {
	got, later, err := r.sc.state(disks)
	if err != nil {
		return err
	}
	if r.later && !later {
		return errors.New("a call that was acknowledged after another one had failed is gone")
	}
	if got == r.sc.states[r.acked] {
		return nil
	}
	if r.sc.ruins && r.acked == 0 && !strings.Contains(got, "pool q") {
		return nil
	}
	maybe := r.err == nil && r.inStep || r.err != nil && (unknown(r.err) || r.sc.vague)
	if maybe && got == r.sc.states[r.acked+1] {
		return nil
	}
	if n := slices.Index(r.sc.states, got); n >= 0 {
		return fmt.Errorf("%d steps were acknowledged (the next: under way %v, %w), and what is found is as after %d", r.acked, r.inStep, errOr(r.err), n)
	}
	return fmt.Errorf("%d steps were acknowledged (the next: under way %v, %w); found is\n%swant\n%s", r.acked, r.inStep, errOr(r.err), got, r.sc.states[r.acked])
}

// repairTarget opens a disk of the run for a repair, which has goroutines of its
// own: outside the simulation.
func (r *play) repairTarget(_ context.Context, path string) (check.Target, error) {
	var mu sync.Mutex
	d, err := devsim.Open(nil, r.disks.Disk(path), devsim.OpenOptions{OnIO: func(b devsim.Boundary) bool {
		mu.Lock()
		defer mu.Unlock()
		r.flush = r.flush || failedFlush(b)
		return false
	}})
	if err != nil {
		return nil, err
	}
	return &target{d: d, ticket: d.Ticket()}, nil
}
