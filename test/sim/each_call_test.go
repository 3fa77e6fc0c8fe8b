package sim

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/bdev"
	devsim "github.com/mpool-go/mpool/bdev/sim"
)

var caseFlag = flag.String("sim.case", "", "run only this case of the tests of each call; it begins with the name that a failure prints")

// trial is one case: a scenario, disturbed in one way.
type trial struct {
	name string
	do   func() (states int, err error)
}

// tryAll runs trials on all processors: some, in a random order, until a quarter of
// the time of a simulation is up, or all.
func tryAll(t *testing.T, list []trial) {
	t.Helper()
	start := time.Now()
	seed := uint64(start.UnixNano())
	rng := rand.New(rand.NewPCG(seed, 6))
	rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	var next, states, ran atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for !t.Failed() {
				i := next.Add(1) - 1
				late := !*allFlag && *caseFlag == "" && time.Since(start) >= *forFlag/4
				if i >= int64(len(list)) || late && i > 0 {
					return
				}
				if *caseFlag != "" && !strings.HasPrefix(list[i].name, *caseFlag) {
					continue
				}
				n, err := list[i].do()
				states.Add(int64(n))
				ran.Add(1)
				if err != nil {
					t.Errorf("%s: %v\nreplay: go test ./test/sim -run '^%s$' -sim.first=%d -sim.case='%s'",
						list[i].name, err, t.Name(), *firstFlag, list[i].name)
				}
			}
		})
	}
	wg.Wait()
	if ran.Load() == 0 {
		t.Errorf("none of %d cases has run", len(list))
	}
	t.Logf("%d of %d cases, %d states in %v", ran.Load(), len(list), states.Load(), time.Since(start).Round(time.Millisecond))
}

// prepared are the scenarios with their media. It is worked out once.
var prepared = sync.OnceValues(func() ([]*scenario, error) {
	list := scenarios()
	if raced { // one task runs at a time: there is nothing to race
		list = slices.DeleteFunc(list, func(sc *scenario) bool { return len(sc.name)%4 != 0 })
	}
	for _, sc := range list {
		sc.seed = *firstFlag
		if err := sc.prepare(); err != nil {
			return nil, fmt.Errorf("%s: %w", sc.name, err)
		}
	}
	return list, nil
})

func mustPrepare(t *testing.T) []*scenario {
	t.Helper()
	list, err := prepared()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// after judges some of the media that a run may have left: that on which nothing
// volatile is left, another one, and, unless a flush failed, that of a process
// which died.
func (r *play) after(rng *rand.Rand) (states int, err error) {
	lost, _ := r.disks.Survivor(nil, devsim.CutOptions{Mode: devsim.CutNone})
	if err := r.judge(lost); err != nil {
		return 1, fmt.Errorf("the power goes, and all that was volatile: %w", err)
	}
	drawn, cut := r.disks.Survivor(rng, devsim.CutOptions{})
	if err := r.judge(drawn); err != nil {
		return 2, fmt.Errorf("survivor of a power cut (%v): %w", cut, err)
	}
	if r.flush {
		return 2, nil // what the flush lost may still be read
	}
	r.disks.Kill(rng)
	if err := r.judge(r.disks); err != nil {
		return 3, fmt.Errorf("after a kill: %w", err)
	}
	return 3, nil
}

// fails plays a scenario in which I/Os of a disk fail.
func (sc *scenario) fails(disk int, f devsim.Fault) (states int, err error) {
	r := sc.play()
	if err := r.run(len(sc.states), f.Skip%2 == 1, func() { r.disks[disk].Inject(f) }); err != nil {
		return 0, err
	}
	for _, d := range r.disks {
		d.Heal()
	}
	return r.after(rand.New(rand.NewPCG(f.Skip, uint64(disk))))
}

// ways are how I/Os fail: once, from then on, for want of space, with the drive.
var ways = []struct {
	name  string
	fault devsim.Fault
}{
	{"EIO once", devsim.Fault{Err: syscall.EIO, Count: 1}},
	{"EIO for good", devsim.Fault{Err: syscall.EIO}},
	{"ENOSPC once", devsim.Fault{Err: syscall.ENOSPC, Count: 1}},
	{"ENOSPC for good", devsim.Fault{Err: syscall.ENOSPC}},
	{"ENODEV for good", devsim.Fault{Err: syscall.ENODEV}},
}

// Each I/O of each call fails in turn, in every way: what the call says is what is
// found after the power has gone, or the process died.
//
// proves S5 S7 S9 S12 S15 S21 S22 S24 S26 S40
func TestEachCallFailsAnywhere(t *testing.T) {
	var list []trial
	for _, sc := range mustPrepare(t) {
		for disk, n := range sc.starts {
			for _, way := range ways {
				for at := range uint64(n) {
					f := way.fault
					f.Skip = at
					list = append(list, trial{
						fmt.Sprintf("%s, %s, I/O %d of disk %d", sc.name, way.name, at, disk),
						func() (int, error) { return sc.fails(disk, f) },
					})
				}
			}
		}
	}
	tryAll(t, list)
}

// Each flush and each write of each call fails in turn. What is acknowledged, then
// or later, is durable.
//
// proves S12 S21 S40
func TestNoFalseAcknowledgement(t *testing.T) {
	var list []trial
	for _, sc := range mustPrepare(t) {
		for disk := range sc.starts {
			for _, code := range []bdev.OpCode{bdev.OpFlush, bdev.OpWrite} {
				n := sc.flushes[disk]
				if code == bdev.OpWrite {
					n = sc.writesOf[disk]
				}
				for at := range uint64(n) {
					f := devsim.Fault{Code: code, Err: syscall.EIO, Count: 1, Skip: at}
					list = append(list, trial{
						fmt.Sprintf("%s, %v %d of disk %d", sc.name, code, at, disk),
						func() (int, error) { return sc.fails(disk, f) },
					})
				}
			}
		}
	}
	tryAll(t, list)
}

// cutAt plays a scenario to a boundary.
func (sc *scenario) cutAt(at int) (*play, error) {
	r := sc.play()
	cutter := &devsim.Cutter{Sched: r.s, At: uint64(at)}
	r.onIO = cutter.OnIO
	return r, r.run(len(sc.states), false, nil)
}

// Each call is cut off at each boundary.
//
// proves S5 S9 S12 S15 S21 S22 S24 S26
func TestEachCallCutAnywhere(t *testing.T) {
	var list []trial
	for _, sc := range mustPrepare(t) {
		if sc.apart {
			continue
		}
		for at := 1; at <= sc.cuts; at++ {
			list = append(list, trial{fmt.Sprintf("%s, boundary %d", sc.name, at), func() (int, error) {
				r, err := sc.cutAt(at)
				if err != nil {
					return 0, err
				}
				return r.after(rand.New(rand.NewPCG(uint64(at), 3)))
			}})
		}
	}
	tryAll(t, list)
}
