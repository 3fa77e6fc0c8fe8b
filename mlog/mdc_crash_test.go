package mlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/sched"
)

// kvOp sets a key to a value, or deletes it (value 0).
type kvOp struct{ key, value uint64 }

func (o kvOp) encode(pad int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, o.key)
	b = binary.LittleEndian.AppendUint64(b, o.value)
	return append(b, make([]byte, pad)...)
}

type kv map[uint64]uint64

func (s kv) apply(o kvOp) {
	if o.value == 0 {
		delete(s, o.key)
		return
	}
	s[o.key] = o.value
}

// kvLedger knows the operations of a life on a container, in their order, and
// judges the state found after a crash.
type kvLedger struct {
	base  kv     // the state at the last open
	ops   []kvOp // since then
	acked int    // of ops: durable
	next  uint64 // value
}

func (g *kvLedger) clone() *kvLedger {
	c := *g
	c.base = maps.Clone(g.base)
	c.ops = append([]kvOp(nil), g.ops...)
	return &c
}

// judge says whether a state is that of a prefix of the operations with all
// acknowledged ones, and takes it as the base.
func (g *kvLedger) judge(found kv) error {
	state := maps.Clone(g.base)
	for k := 0; ; k++ {
		if k >= g.acked && maps.Equal(state, found) {
			g.base, g.ops, g.acked = found, nil, 0
			return nil
		}
		if k == len(g.ops) {
			return fmt.Errorf("the state is that of no prefix of %d operations, %d acknowledged: %v", len(g.ops), g.acked, found)
		}
		state.apply(g.ops[k])
	}
}

// mdcLife is one life of a container in a simulated world: appenders and
// compactions at the same time.
type mdcLife struct {
	g     *kvLedger
	m     *MDC
	s     *sched.Sched
	order sched.Mutex // the order of operations is that of their appends
	state kv          // of all operations appended
	err   error
	fails bool // the disk does
}

// openKV opens a container and returns the state that is replayed.
func openKV(c MDCConfig) (*MDC, kv, error) {
	state := kv{}
	c.Replay = func(b []byte) error {
		if len(b) < 16 || !bytes.Equal(b[16:], make([]byte, len(b)-16)) {
			return fmt.Errorf("a record of %d bytes", len(b))
		}
		state.apply(kvOp{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])})
		return nil
	}
	c.Reset = func() { state = kv{} }
	m, err := OpenMDC(bg, c)
	return m, state, err
}

func (w *mdcLife) run(c MDCConfig, rng *rand.Rand, steps int) error {
	// A sequence number counts from this open, as the ledger's operations do.
	c.OnDurable = func(seq uint64) { w.g.acked = max(w.g.acked, int(seq)) }
	m, state, err := openKV(c)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	if err := w.g.judge(state); err != nil {
		return err
	}
	w.m, w.state = m, maps.Clone(state)
	w.order.Init(w.s, sched.RankMeta)
	tasks := []func(*rand.Rand) error{w.compact}
	for range 1 + rng.IntN(3) {
		tasks = append(tasks, func(rng *rand.Rand) error { return w.append(rng, steps) })
	}
	var done sched.Completion
	done.Init(w.s)
	left := len(tasks)
	for _, f := range tasks {
		rng := rand.New(rand.NewPCG(rng.Uint64(), 8))
		w.s.Go("task", func() {
			if err := f(rng); err != nil && w.err == nil {
				w.err = err
			}
			if left--; left == 0 {
				done.Done()
			}
		})
	}
	if err := done.Wait(bg); err != nil {
		return err
	}
	if w.err != nil {
		return errors.Join(w.err, m.Abandon())
	}
	if rng.IntN(2) == 0 {
		return m.Abandon()
	}
	n := len(w.g.ops)
	if err := m.Close(bg); err != nil {
		return err
	}
	w.g.acked = n
	return nil
}

func (w *mdcLife) append(rng *rand.Rand, steps int) error {
	for range steps {
		w.order.Lock()
		w.g.next++
		o := kvOp{key: rng.Uint64N(12), value: w.g.next}
		if rng.IntN(4) == 0 {
			o.value = 0
		}
		w.g.ops = append(w.g.ops, o)
		n := len(w.g.ops)
		seq, err := w.m.Append(bg, o.encode(rng.IntN(600)))
		w.state.apply(o)
		w.order.Unlock()
		if err != nil {
			return err
		}
		if seq != uint64(n)-1 {
			return fmt.Errorf("operation %d has sequence number %d", n-1, seq)
		}
		if rng.IntN(2) == 0 {
			if err := w.m.SyncTo(bg, seq+1); err != nil {
				return err
			}
			if w.g.acked < n {
				return fmt.Errorf("operation %d is synced and OnDurable was called for %d", n, w.g.acked)
			}
		}
	}
	return nil
}

// compact runs compactions; some are given up.
func (w *mdcLife) compact(rng *rand.Rand) error {
	for range 1 + rng.IntN(3) {
		if err := w.m.CompactStart(bg); err != nil {
			return err
		}
		for key := range uint64(12) {
			w.order.Lock()
			var err error
			if v := w.state[key]; v != 0 {
				err = w.m.CompactAppend(bg, kvOp{key, v}.encode(0))
			}
			w.order.Unlock()
			if err != nil {
				return err
			}
			if rng.IntN(8) == 0 {
				if err := w.m.CompactSync(bg); err != nil {
					return err
				}
			}
		}
		end := w.m.CompactEnd
		if rng.IntN(4) == 0 {
			end = w.m.CompactAbort
		}
		ctx, cancel := w.s.WithCancel(bg)
		if rng.IntN(3) == 0 {
			ctx, cancel = w.s.WithTimeout(bg, time.Duration(rng.IntN(4000))*time.Microsecond)
		}
		err := end(ctx)
		cancel()
		switch {
		case err == nil:
		case errors.Is(err, api.EUNKNOWN): // the switch goes on
			if w.fails {
				return err
			}
			for w.m.CompactAbort(bg); w.switching(); {
				if err := w.s.Sleep(bg, time.Millisecond); err != nil {
					return err
				}
			}
		case errors.Is(err, api.ETIMEDOUT): // before the switch, or given up
			if err := w.m.CompactAbort(bg); err != nil && !errors.Is(err, api.ESTATE) {
				return err
			}
		default:
			return err
		}
	}
	return nil
}

func (w *mdcLife) switching() bool {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	return w.m.state == compactSwitch
}

func kvDisk(t *testing.T, seed uint64) (*sim.Disk, kvLedger) {
	t.Helper()
	physical := 512
	if seed%3 == 0 {
		physical = 4096
	}
	disk := mdcDisk(60, sim.DiskOptions{PhysicalSector: physical})
	d, err := sim.Open(nil, disk, sim.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := CreateMDC(bg, mdcConfig(nil, d, 60, 0)); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return disk, kvLedger{base: kv{}}
}

// kvWorld runs a life on a disk in a simulation.
func kvWorld(disk *sim.Disk, g *kvLedger, epoch, seed uint64, o sim.OpenOptions, steps int, cutter *sim.Cutter) error {
	rng := rand.New(rand.NewPCG(seed, 6))
	return inWorld(disk, Config{}, seed, o, func(c Config, s *sched.Sched) error {
		if cutter != nil {
			cutter.Sched = s
		}
		w := mdcLife{g: g, s: s, fails: cutter == nil && epoch > 1}
		return w.run(mdcConfig(s, c.Drive, 60, epoch), rng, steps)
	})
}

// proves S26
//
// The power fails at every start and end of an operation while appends and
// compactions run.
func TestMDCCrashAtEveryIO(t *testing.T) {
	for seed := range seeds(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			disk, g := kvDisk(t, seed)
			rng := rand.New(rand.NewPCG(seed, 7))
			type snap struct {
				disk *sim.Disk
				g    *kvLedger
				what string
			}
			var snaps []snap
			observe := sim.OpenOptions{OnIO: func(b sim.Boundary) bool {
				for range 3 {
					d, cut := disk.Survivor(rng, sim.CutOptions{})
					snaps = append(snaps, snap{d, g.clone(), fmt.Sprintf("%v: %v", b, cut)})
				}
				return false
			}}
			if err := kvWorld(disk, &g, 1, seed, observe, 8, nil); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			t.Logf("%d survivors", len(snaps))
			for i, s := range snaps {
				for life := range uint64(2) {
					cutter := &sim.Cutter{At: 1 + rng.Uint64N(60)}
					err := kvWorld(s.disk, s.g, 2+life, seed+uint64(i), sim.OpenOptions{OnIO: cutter.OnIO}, 3, cutter)
					if err != nil && !errors.Is(err, sched.ErrCut) {
						t.Fatalf("seed %d, survivor %d, life %d, %s: %v", seed, i, life, s.what, err)
					}
					s.disk.PowerCut(rng, sim.CutOptions{})
				}
			}
		})
	}
}

// proves S26
//
// Many lives of one container, each ended by a crash, a kill or a close.
func TestMDCCrashCycles(t *testing.T) {
	for seed := range seeds(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			disk, g := kvDisk(t, seed)
			rng := rand.New(rand.NewPCG(seed, 9))
			for life := range uint64(20) {
				cutter := &sim.Cutter{At: 1 + rng.Uint64N(150)}
				err := kvWorld(disk, &g, 1+life, rng.Uint64(), sim.OpenOptions{OnIO: cutter.OnIO}, 1+rng.IntN(10), cutter)
				if err != nil && !errors.Is(err, sched.ErrCut) {
					t.Fatalf("seed %d, life %d: %v", seed, life, err)
				}
				if rng.IntN(3) == 0 {
					disk.Kill(rng)
				} else {
					disk.PowerCut(rng, sim.CutOptions{})
				}
			}
		})
	}
}

// proves S26, S40
//
// Writes and flushes fail at random, then the power does: the content is that
// of a prefix with all that was acknowledged.
func TestMDCFailures(t *testing.T) {
	failed := 0
	for seed := range seeds(150) {
		disk, g := kvDisk(t, seed)
		rng := rand.New(rand.NewPCG(seed, 10))
		for life := range uint64(5) {
			disk.Inject(
				sim.Fault{Code: bdev.OpWrite, Probability: 0.01, Err: syscall.EIO},
				sim.Fault{Code: bdev.OpFlush, Skip: 2, Probability: 0.03, Err: syscall.EIO})
			err := kvWorld(disk, &g, 2+life, rng.Uint64(), sim.OpenOptions{}, 8, nil)
			if err != nil {
				failed++
				if c := api.CodeOf(err); c != api.EIO && c != api.EUNKNOWN || errors.Is(err, sched.ErrDeadlock) {
					t.Fatalf("seed %d, life %d: %v", seed, life, err)
				}
				if !errors.As(err, new(*api.Error)) && !errors.As(err, new(*bdev.IOError)) && !errors.Is(err, bdev.ErrFlushFailed) {
					t.Fatalf("seed %d, life %d: %v", seed, life, err)
				}
			}
			disk.Heal()
			disk.PowerCut(rng, sim.CutOptions{})
		}
	}
	if failed < int(seeds(100)) {
		t.Errorf("only %d failures", failed)
	}
}
