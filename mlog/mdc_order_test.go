package mlog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/sched"
)

// proves S26
//
// Writes of a compaction that was given up do not land in the next one, however
// late they come.
func TestLateWritesOfAbortedCompaction(t *testing.T) {
	for seed := range seeds(20) {
		disk, _ := kvDisk(t, seed)
		rng := rand.New(rand.NewPCG(seed, 17))
		c := mdcConfig(nil, nil, 60, 0)
		for _, extent := range []layout.Extent{c.A.Extent, c.B.Extent} {
			disk.Inject(sim.Fault{
				Code: bdev.OpWrite, From: extent.Offset(), To: extent.Offset() + extent.Size(),
				Skip: 4, Count: 2, Delay: 200 * time.Millisecond,
			})
		}
		err := inWorld(disk, Config{}, seed, sim.OpenOptions{}, func(c Config, s *sched.Sched) error {
			m, _, err := openKV(mdcConfig(s, c.Drive, 60, 1))
			if err != nil {
				return err
			}
			for round := range 6 {
				if err := m.CompactStart(bg); err != nil {
					return err
				}
				for key := range uint64(12) {
					if err := m.CompactAppend(bg, kvOp{key, uint64(round + 1)}.encode(rng.IntN(2000))); err != nil {
						return err
					}
				}
				ctx, cancel := s.WithTimeout(bg, time.Duration(rng.IntN(2000))*time.Microsecond)
				err := m.CompactSync(ctx)
				if err == nil || round == 5 {
					err = m.CompactEnd(bg)
				} else if errors.Is(err, api.ETIMEDOUT) {
					if err = m.CompactAbort(ctx); errors.Is(err, api.ETIMEDOUT) {
						err = nil
					}
				}
				cancel()
				if err != nil {
					return err
				}
			}
			return m.Abandon()
		})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		g := kvLedger{base: kv{}}
		for key := range uint64(12) {
			g.base[key] = 6
		}
		disk.PowerCut(rng, sim.CutOptions{Mode: sim.CutNone})
		if err := kvWorld(disk, &g, 2, seed, sim.OpenOptions{}, 1, &sim.Cutter{}); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// A compaction's appends that run while it ends come before the end mark, or
// are refused.
func TestCompactAppendWhileEnding(t *testing.T) {
	refused := 0
	const finals = 6000
	for seed := range seeds(20) {
		disk := mdcDisk(finals, sim.DiskOptions{})
		taken, seq := 0, uint64(0)
		err := inWorld(disk, Config{}, seed, sim.OpenOptions{}, func(c Config, s *sched.Sched) error {
			mc := mdcConfig(s, c.Drive, finals, 1)
			if err := CreateMDC(bg, mc); err != nil {
				return err
			}
			m, _, err := openKV(mc)
			if err != nil {
				return err
			}
			if err := m.CompactStart(bg); err != nil {
				return err
			}
			compactor := func() error {
				for n := range uint64(60) { // soon waits for room
					err := m.CompactAppend(bg, kvOp{n, n + 1}.encode(64<<10))
					if errors.Is(err, api.ESTATE) {
						refused++
						return nil
					}
					if err != nil {
						return err
					}
					taken++
				}
				return nil
			}
			end := func() error {
				if err := s.Sleep(bg, time.Duration(s.Rand().IntN(300))*time.Microsecond); err != nil {
					return err
				}
				if err := m.CompactEnd(bg); err != nil {
					return err
				}
				for range 3 {
					n, err := m.Append(bg, kvOp{1 << 40, 1}.encode(0))
					if err != nil || n != seq {
						return fmt.Errorf("sequence number %d, %w, want %d", n, err, seq)
					}
					seq++
				}
				return nil
			}
			if err := tasks(s, compactor, compactor, compactor, compactor, end); err != nil {
				return err
			}
			m.mu.Lock()
			records, endAt := m.logs[m.active].Records(), m.endAt
			m.mu.Unlock()
			if want := uint64(taken) + 1; endAt != want || records != endAt+4 {
				return fmt.Errorf("end mark is record %d of %d, want %d", endAt, records, want)
			}
			return m.Close(bg)
		})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
	if refused == 0 {
		t.Error("every compaction's appends were over before its end")
	}
}

// When the end of a compaction is acknowledged, it is durable: the power may go at
// once, without an append that would flush it, and also in the next compaction,
// whose start erases the log that was replaced.
//
// proves S26
func TestSwitchIsDurable(t *testing.T) {
	disk, _, m := newMDC(t, 20)
	addTo(t, m, "old")
	do(t, m.Sync(bg))
	found := func(when, want string) {
		t.Helper()
		d, err := sim.Open(nil, disk.Durable(), sim.OpenOptions{})
		do(t, err)
		c := mdcConfig(nil, d, 20, 2)
		after, err := OpenMDC(bg, c)
		if err != nil {
			t.Fatalf("the power goes %s: %v", when, err)
		}
		r := after.NewReader(ReaderOptions{})
		defer r.Close()
		if got, err := contentOf(r); err != nil || got != want {
			t.Fatalf("the power goes %s: content %q, %v, want %q", when, got, err, want)
		}
	}
	for _, content := range []string{"first", "second", "third"} {
		do(t, m.CompactStart(bg))
		do(t, m.CompactAppend(bg, []byte(content)))
		do(t, m.CompactEnd(bg))
		found("behind the switch", content)
		do(t, m.CompactStart(bg))
		found("behind the next start", content)
		do(t, m.CompactAbort(bg))
	}
	do(t, m.Close(bg))
}
