package mlog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/sched"
)

// calls collects what begun calls are told, and ends with the last.
type calls struct {
	want int
	errs []error
	end  sched.Completion
}

func newCalls(s *sched.Sched, n int) *calls {
	c := &calls{want: n}
	c.end.Init(s)
	return c
}

func (c *calls) done(err error) {
	if c.errs = append(c.errs, err); len(c.errs) == c.want {
		c.end.Done()
	}
}

// A begun append says that it is durable when it is, and not before; everything
// before it is durable then, too.
//
// proves S21
func TestBegunAppends(t *testing.T) {
	for seed := range seeds(100) {
		r := simRig(t, seed, 3000)
		rng := rand.New(rand.NewPCG(seed, 77))
		var want [][]byte
		err := inWorld(r.disk, r.c, seed, sim.OpenOptions{}, func(c Config, s *sched.Sched) error {
			var durable uint64
			c.OnDurable = func(n uint64) { durable = n }
			l, err := Open(bg, c)
			if err != nil {
				return err
			}
			var wait []*calls
			begin := func(n int) func() error {
				return func() error {
					for range n {
						b := record(uint64(len(want)), rng.IntN(9000))
						if rng.IntN(3) == 0 {
							if _, err := l.BeginAppend(nil, b); err != nil {
								return err
							}
							want = append(want, b)
							continue
						}
						x := newCalls(s, 1)
						wait = append(wait, x)
						number := uint64(len(want))
						n, err := l.BeginAppend(func(err error) {
							if durable <= number {
								t.Errorf("seed %d: told of record %d when %d are durable", seed, number, durable)
							}
							x.done(err)
						}, b)
						if err != nil || n != number {
							return fmt.Errorf("record %d, want %d: %w", n, number, err)
						}
						want = append(want, b)
						if rng.IntN(4) == 0 {
							s.Yield()
						}
					}
					return nil
				}
			}
			block := func() error {
				for range 10 {
					if err := l.Sync(bg); err != nil {
						return err
					}
				}
				return nil
			}
			if err := tasks(s, begin(30), block); err != nil {
				return err
			}
			all := newCalls(s, 1)
			if err := l.BeginSync(all.done); err != nil {
				return err
			}
			for _, x := range append(wait, all) {
				if err := x.end.Wait(bg); err != nil || len(x.errs) != 1 || x.errs[0] != nil {
					return fmt.Errorf("%v: %w", x.errs, err)
				}
			}
			if durable != uint64(len(want)) {
				return fmt.Errorf("%d of %d are durable after a sync", durable, len(want))
			}
			again := newCalls(s, 1)
			if err := l.BeginSync(again.done); err != nil || len(again.errs) != 1 || again.errs[0] != nil {
				return fmt.Errorf("a sync of what is durable: %v, %w", again.errs, err)
			}
			return l.Close(bg)
		})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		r.attach(t)
		checkLog(t, r, want)
	}
}

// What would have to wait is refused, and takes nothing.
func TestBegunAppendsNeverWait(t *testing.T) {
	r := simRig(t, 1, 20000)
	var want [][]byte
	err := inWorld(r.disk, r.c, 1, sim.OpenOptions{}, func(c Config, _ *sched.Sched) error {
		l, err := Open(bg, c)
		if err != nil {
			return err
		}
		for {
			b := record(uint64(len(want)), 1<<20)
			n, err := l.BeginAppend(nil, b)
			if errors.Is(err, ErrWouldBlock) {
				break
			}
			if err != nil || n != uint64(len(want)) {
				return fmt.Errorf("record %d: %w", n, err)
			}
			if want = append(want, b); len(want) > 10 {
				return errors.New("10 MiB are taken without a write")
			}
		}
		b := record(uint64(len(want)), 100)
		if _, err := l.Append(bg, b); err != nil {
			return err
		}
		want = append(want, b)
		if n, _ := l.Len(); n != uint64(len(want)) {
			return fmt.Errorf("%d records, want %d", n, len(want))
		}
		return l.Close(bg)
	})
	if err != nil {
		t.Fatal(err)
	}
	r.attach(t)
	checkLog(t, r, want)
}

// Each begun append is told once, whatever becomes of the log: by its end at the
// latest.
//
// proves S40
func TestBegunAppendsAreToldOnce(t *testing.T) {
	ends := map[string]func(l *Log) error{
		"close":   func(l *Log) error { return l.Close(bg) },
		"abandon": func(l *Log) error { return l.Abandon(bg) },
	}
	for name, end := range ends {
		for _, fault := range []bdev.OpCode{0, bdev.OpWrite, bdev.OpFlush} {
			for seed := range seeds(40) {
				r := simRig(t, seed, 3000)
				err := inWorld(r.disk, r.c, seed, sim.OpenOptions{}, func(c Config, s *sched.Sched) error {
					l, err := Open(bg, c)
					if err != nil {
						return err
					}
					if fault != 0 {
						r.disk.Inject(sim.Fault{Code: fault, Err: syscall.EIO, Skip: uint64(s.Rand().IntN(3)), Count: 1})
					}
					told := newCalls(s, -1)
					begun := 0
					for range 1 + s.Rand().IntN(20) {
						if _, err := l.BeginAppend(told.done, record(1, 3000)); err == nil {
							begun++
						} else if fault == 0 || api.CodeOf(err) != api.EIO {
							return err
						}
						if s.Rand().IntN(3) == 0 {
							s.Yield()
						}
					}
					if err := end(l); err != nil && fault == 0 {
						return err
					}
					if len(told.errs) != begun {
						return fmt.Errorf("%d of %d are told at the end", len(told.errs), begun)
					}
					for _, err := range told.errs {
						code := api.CodeOf(err)
						if err != nil && code != api.EBADF && code != api.EUNKNOWN && code != api.EIO {
							return fmt.Errorf("told %w", err)
						}
						if err != nil && fault == 0 && name == "close" {
							return fmt.Errorf("told %w before a clean close", err)
						}
					}
					if _, err := l.BeginAppend(told.done, nil); api.CodeOf(err) != api.EBADF {
						return fmt.Errorf("append to a closed log: %w", err)
					}
					return nil
				})
				if err != nil {
					t.Fatalf("%s, fault %v, seed %d: %v", name, fault, seed, err)
				}
			}
		}
	}
}

// Appends to a container are told across compactions, and refused during the
// switch.
//
// proves S21, S26
func TestBegunAppendsToAContainer(t *testing.T) {
	for seed := range seeds(60) {
		s := sched.New(seed)
		disk := mdcDisk(400, sim.DiskOptions{})
		err := s.Run(func() {
			d, err := sim.Open(s, disk, sim.OpenOptions{})
			do(t, err)
			c := mdcConfig(s, d, 400, 1)
			do(t, CreateMDC(bg, c))
			m, err := OpenMDC(bg, c)
			do(t, err)
			begun, refused := 0, 0
			told := newCalls(s, -1)
			appendSome := func() error {
				for range 60 {
					switch seq, err := m.BeginAppend(told.done, record(1, s.Rand().IntN(2000))); {
					case errors.Is(err, ErrWouldBlock):
						refused++
						s.Yield()
					case err != nil:
						return err
					case seq != uint64(begun):
						return fmt.Errorf("record %d is %d", begun, seq)
					default:
						begun++
					}
					s.Yield()
				}
				return nil
			}
			compact := func() error {
				for range 2 {
					if err := m.CompactStart(bg); err != nil {
						return err
					}
					if err := m.CompactAppend(bg, []byte("live")); err != nil {
						return err
					}
					if err := m.CompactEnd(bg); err != nil {
						return err
					}
				}
				return nil
			}
			do(t, tasks(s, appendSome, compact))
			x := newCalls(s, 1)
			do(t, m.BeginSync(x.done))
			do(t, x.end.Wait(bg))
			do(t, m.Close(bg))
			if len(told.errs) != begun {
				t.Errorf("seed %d: %d of %d are told", seed, len(told.errs), begun)
			}
			for _, err := range told.errs {
				do(t, err)
			}
			do(t, d.Close())
		})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// Begun appends allocate nothing of their own: what a group costs is shared.
func TestSteadyBegunAppendsAllocateNothing(t *testing.T) {
	const each = 200
	_, l := newTestLog(t, 30000)
	b := record(1, 100)
	ch := make(chan error, each)
	done := func(err error) { ch <- err }
	run := func() {
		for range each {
			if _, err := l.BeginAppend(done, b); err != nil {
				t.Fatal(err)
			}
		}
		for range each {
			if err := <-ch; err != nil {
				t.Fatal(err)
			}
		}
	}
	run()
	if n := testing.AllocsPerRun(100, run); n > each/3 && !checkedBuild {
		t.Errorf("%v allocations for %v appends", n, each)
	}
	mustClose(t, l)
}
