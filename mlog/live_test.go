package mlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/sched"
)

// tasks runs functions as tasks of a world and waits for them.
func tasks(s *sched.Sched, list ...func() error) error {
	var done sched.Completion
	done.Init(s)
	left := len(list)
	var first error
	for _, f := range list {
		s.Go("task", func() {
			if err := f(); err != nil && first == nil {
				first = err
			}
			if left--; left == 0 {
				done.Done()
			}
		})
	}
	if err := done.Wait(bg); err != nil {
		return err
	}
	return first
}

// Unwritten appends are bounded: by 4 MiB and what of one record exceeds it.
func TestBackpressure(t *testing.T) {
	for seed := range uint64(4) {
		r := simRig(t, seed, 20000)
		rng := rand.New(rand.NewPCG(seed, 12))
		sizes := []int{100, 3000, 300 << 10, 2 << 20}
		var most int64
		var want [][]byte
		err := inWorld(r.disk, r.c, seed, sim.OpenOptions{}, func(c Config, s *sched.Sched) error {
			l, err := Open(bg, c)
			if err != nil {
				return err
			}
			appender := func() error {
				for range 12 {
					b := make([]byte, sizes[rng.IntN(len(sizes))])
					b[0] = byte(len(want))
					if _, err := l.Append(bg, b); err != nil {
						return err
					}
					buffered := int64(0)
					for _, c := range l.images.chunks {
						buffered += int64(len(c.buf))
					}
					most = max(most, buffered)
				}
				return nil
			}
			if err := tasks(s, appender, appender, appender); err != nil {
				return err
			}
			if want, err = readAll(l, ReaderOptions{Unsynced: true}); err != nil {
				return err
			}
			return l.Close(bg)
		})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if limit := int64(blockAt + 2<<20 + 2*chunkMost*PageSize); most > limit || most < blockAt {
			t.Errorf("seed %d: %d bytes buffered, want about %d", seed, most, limit)
		}
		c := r.c
		r.attach(t)
		c.Drive = r.drive
		r.c = c
		checkLog(t, r, want)
	}
}

// A context that ends leaves a log that works, and an outcome that is known or
// EUNKNOWN.
func TestTimeouts(t *testing.T) {
	unknown, late := 0, 0
	for seed := range seeds(40) {
		r := simRig(t, seed, 6000)
		rng := rand.New(rand.NewPCG(seed, 13))
		taken := map[uint64][]byte{}
		records := uint64(0)
		err := inWorld(r.disk, r.c, seed, sim.OpenOptions{}, func(c Config, s *sched.Sched) error {
			l, err := Open(bg, c)
			if err != nil {
				return err
			}
			appender := func() error {
				for i := range uint64(10) {
					ctx, cancel := s.WithTimeout(bg, time.Duration(rng.IntN(2000))*time.Microsecond)
					size := 100
					if rng.IntN(3) == 0 {
						size = 1 << 20
					}
					b := record(seed<<8|i, size)
					var n uint64
					var err error
					switch rng.IntN(3) {
					case 0:
						n, err = l.Append(ctx, b)
					case 1:
						n, err = l.AppendSync(ctx, b)
					case 2:
						if n, err = l.Append(ctx, b); err == nil {
							if err := l.SyncTo(ctx, n+1); err != nil && api.CodeOf(err) != api.ETIMEDOUT {
								return err
							}
						}
					}
					cancel()
					switch {
					case err == nil:
						taken[n] = b
					case errors.Is(err, api.EUNKNOWN):
						unknown++
						taken[n] = b
					case errors.Is(err, api.ETIMEDOUT): // nothing was taken
						late++
					default:
						return err
					}
				}
				return nil
			}
			if err := tasks(s, appender, appender, appender); err != nil {
				return err
			}
			records = l.Records()
			return l.Close(bg)
		})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if records != uint64(len(taken)) {
			t.Fatalf("seed %d: %d records, %d were taken", seed, records, len(taken))
		}
		want := make([][]byte, records)
		for n, b := range taken {
			want[n] = b
		}
		c := r.c
		r.attach(t)
		c.Drive = r.drive
		r.c = c
		checkLog(t, r, want)
	}
	if unknown == 0 || late == 0 && !raced {
		t.Errorf("%d unknown, %d late", unknown, late)
	}
}

// proves S22, S40
//
// Writes and flushes fail at random: what was acknowledged is there after the
// power cut that follows, and the log that failed acknowledges nothing more.
func TestFailuresThenCut(t *testing.T) {
	failures := 0
	for seed := range seeds(150) {
		r := simRig(t, seed, 60)
		rng := rand.New(rand.NewPCG(seed, 14))
		g := newLedger()
		c := r.c
		for life := range 6 {
			c.Epoch++
			r.disk.Inject(
				sim.Fault{Code: bdev.OpWrite, Probability: 0.02, Err: syscall.EIO},
				sim.Fault{Code: bdev.OpFlush, Skip: 1, Probability: 0.05, Err: syscall.EIO})
			w := workload{tasks: 3, steps: 8, maxSize: 3 * PageSize, clean: true}
			err := inWorld(r.disk, c, rng.Uint64(), sim.OpenOptions{}, func(c Config, _ *sched.Sched) error {
				failed := false
				c.OnFailure = func(error) { failed = true }
				var log *Log
				err := w.runWith(c, g, rng, func(l *Log) { log = l })
				if failed {
					failures++
					records, bytes := log.Durable()
					if _, err := log.Append(bg, nil); err == nil {
						return errors.New("a failed log appends")
					}
					if n, b := log.Durable(); n != records || b != bytes {
						return errors.New("a failed log makes something durable")
					}
					if err == nil && records == log.Records() {
						return nil // only the mark of the clean close failed
					}
					if code := api.CodeOf(err); code != api.EIO && code != api.EUNKNOWN {
						return fmt.Errorf("after a failure: %w", err)
					}
					return log.Abandon(bg)
				}
				return err
			})
			if err != nil {
				t.Fatalf("seed %d, life %d: %v", seed, life, err)
			}
			r.disk.Heal()
			r.disk.PowerCut(rng, sim.CutOptions{})
		}
	}
	if failures < int(seeds(50)) {
		t.Errorf("only %d failures", failures)
	}
}

// OnDurable is called in order, before waiters are told, for all that is
// acknowledged.
func TestOnDurableOrder(t *testing.T) {
	for seed := range seeds(30) {
		r := simRig(t, seed, 60)
		rng := rand.New(rand.NewPCG(seed, 15))
		said := uint64(0)
		c := r.c
		c.OnDurable = func(records uint64) {
			if records <= said {
				t.Errorf("OnDurable(%d) after %d", records, said)
			}
			said = records
		}
		err := inWorld(r.disk, c, seed, sim.OpenOptions{}, func(c Config, s *sched.Sched) error {
			l, err := Open(bg, c)
			if err != nil {
				return err
			}
			appender := func() error {
				for range 15 {
					n, err := l.AppendSync(bg, make([]byte, rng.IntN(1000)))
					if err != nil {
						return err
					}
					if said <= n {
						return fmt.Errorf("record %d is synced, OnDurable said %d", n, said)
					}
				}
				return nil
			}
			if err := tasks(s, appender, appender, appender, appender); err != nil {
				return err
			}
			return l.Close(bg)
		})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// proves S20
//
// The same on a real file or device, through the kernel, with many goroutines.
func TestRealFile(t *testing.T) {
	path := os.Getenv("MLOG_TEST_DEVICE") // of 64 MiB or more; its content is lost
	if path == "" {
		path = filepath.Join(t.TempDir(), "drive")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, 64<<20); err != nil {
			t.Fatal(err)
		}
	}
	d, err := bdev.Open(bg, nil, path, bdev.OpenOptions{})
	if errors.Is(err, syscall.EINVAL) {
		t.Skipf("no O_DIRECT here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	r := &rig{drive: d, c: newRigConfig(15000)}
	r.c.Birth = layout.BirthStamp(rand.Uint64()) // the device may hold another log
	r.c.Drive = d
	r.format(t)
	l := r.open(t)
	const appenders, each = 8, 40
	type result struct {
		n   uint64
		b   []byte
		err error
	}
	results := make(chan result, appenders*each)
	for a := range uint64(appenders) {
		go func() {
			rng := rand.New(rand.NewPCG(a, 16))
			for i := range uint64(each) {
				size := rng.IntN(3000)
				if rng.IntN(20) == 0 {
					size = 1 << 20
				}
				b := record(a<<32|i, size)
				n, err := l.AppendSync(bg, b)
				results <- result{n, b, err}
			}
		}()
	}
	follow := make(chan error, 1)
	go func() {
		reader := l.NewReader(ReaderOptions{Unsynced: true})
		defer reader.Close()
		for reader.Record() < appenders*each {
			if _, err := reader.View(bg); err != nil && !errors.Is(err, io.EOF) {
				follow <- err
				return
			}
		}
		follow <- nil
	}()
	want := make([][]byte, appenders*each)
	for range appenders * each {
		res := <-results
		if res.err != nil {
			t.Fatal(res.err)
		}
		want[res.n] = res.b
	}
	if err := <-follow; err != nil {
		t.Fatal(err)
	}
	mustClose(t, l)
	checkLog(t, r, want)
}

// A reader whose context ends goes on later where it stood.
func TestReaderContext(t *testing.T) {
	r := simRig(t, 1, 3000)
	var want [][]byte
	for n := range uint64(40) {
		want = append(want, record(n, 200<<10))
	}
	err := inWorld(r.disk, r.c, 1, sim.OpenOptions{}, func(c Config, s *sched.Sched) error {
		l, err := Open(bg, c)
		if err != nil {
			return err
		}
		for _, b := range want {
			if _, err := l.Append(bg, b); err != nil {
				return err
			}
		}
		if err := l.Sync(bg); err != nil {
			return err
		}
		reader := l.NewReader(ReaderOptions{})
		defer reader.Close()
		late := 0
		for n := 0; n < len(want); {
			ctx, cancel := s.WithTimeout(context.Background(), time.Duration(s.Rand().IntN(200))*time.Microsecond)
			b, err := reader.View(ctx)
			cancel()
			switch {
			case api.CodeOf(err) == api.ETIMEDOUT:
				late++
			case err != nil:
				return err
			case !bytes.Equal(b, want[n]):
				return fmt.Errorf("record %d differs", n)
			default:
				n++
			}
		}
		if late == 0 {
			return errors.New("nothing was late")
		}
		return l.Close(bg)
	})
	if err != nil {
		t.Fatal(err)
	}
}
