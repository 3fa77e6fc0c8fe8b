package mlog

import (
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/sched"
)

// unsureOf opens a container anew, as the next activation, and returns the
// records that it is unsure of.
func unsureOf(t *testing.T, c MDCConfig) string {
	t.Helper()
	c.A.Epoch++
	c.B.Epoch++
	m, err := OpenMDC(bg, c)
	do(t, err)
	var list []string
	do(t, m.Unsure(bg, func(b []byte) error {
		list = append(list, string(b[:1]))
		return nil
	}))
	do(t, m.Abandon())
	return strings.Join(list, "")
}

// A container that was not closed is unsure of its last group's records, of all
// of them and of no others; one that was closed, or has confirmed, of none. Rot
// of what says so never makes it surer of the last group.
//
// proves S23
func TestUnsureOfTheLastGroup(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for round := range 200 {
		disk, c, m := newMDC(t, 64)
		last := ""
		for range 1 + rng.IntN(6) {
			last = ""
			for range 1 + rng.IntN(4) {
				r := string(rune('a' + rng.IntN(26)))
				_, err := m.Append(bg, []byte(r), make([]byte, rng.IntN(9000)))
				do(t, err)
				last += r
			}
			do(t, m.Sync(bg))
			if rng.IntN(8) == 0 {
				do(t, m.CompactStart(bg))
				do(t, m.CompactAppend(bg, []byte("Z")))
				do(t, m.CompactEnd(bg))
				last = "" // the end mark's group
			}
		}
		how := rng.IntN(3)
		switch how {
		case 0:
			do(t, m.Abandon())
			got := unsureOf(t, c)
			if !strings.HasSuffix(got, last) || last != "" && got != last {
				t.Fatalf("round %d: unsure of %q, want %q", round, got, last)
			}
		case 1:
			do(t, m.Close(bg))
		case 2:
			m.Confirm()
			l := m.logs[m.active]
			l.mu.Lock()
			for l.writing {
				do(t, l.idle.Wait(bg))
			}
			l.mu.Unlock()
			do(t, m.Abandon())
		}
		if got := unsureOf(t, c); how != 0 && got != "" {
			t.Fatalf("round %d: unsure of %q after a %s", round, got, []string{"", "close", "confirmation"}[how])
		}
		if how == 2 {
			continue
		}
		// Both copies of the tail before the last rot: the last says less then.
		active := m.c.log(m.active)
		older := m.logs[m.active].w.pair
		for i := range int64(PairPages) {
			disk.FlipBit(active.pairOffset(older)+i*PageSize+100, 1)
		}
		got := unsureOf(t, c)
		if how == 0 && !strings.HasSuffix(got, last) || how == 1 && got != "" {
			t.Fatalf("round %d: unsure of %q without the tail before, of %q with it or none after a close", round, got, last)
		}
	}
}

// A record of data that was written before it is durable only if no flush has
// failed since: whether the failure comes before the append, or before the
// group's own flush.
//
// proves S40
func TestDataOfAFailedFlush(t *testing.T) {
	for seed := range uint64(100) {
		s := sched.New(seed)
		disk := mdcDisk(64, sim.DiskOptions{})
		err := s.Run(func() {
			d, err := sim.Open(s, disk, sim.OpenOptions{})
			do(t, err)
			c := mdcConfig(s, d, 64, 1)
			do(t, CreateMDC(bg, c))
			m, err := OpenMDC(bg, c)
			do(t, err)
			old := d.Ticket()
			fail := func() {
				disk.Inject(sim.Fault{Code: bdev.OpFlush, Count: 1, Err: syscall.EIO})
				if d.Flush(bg, d.Ticket()) == nil {
					t.Error("a flush did not fail")
				}
				disk.Heal()
			}
			if seed%2 == 0 {
				fail()
				if _, err := m.AppendData(bg, old, []byte("x")); err != bdev.ErrFlushFailed { //nolint:errorlint // bare, as documented
					t.Errorf("seed %d: append of lost data: %v", seed, err)
				}
				// Nothing was taken: the container goes on.
				seq, err := m.AppendData(bg, d.Ticket(), []byte("y"))
				if err != nil || seq != 0 || m.Sync(bg) != nil {
					t.Errorf("seed %d: record %d, %v", seed, seq, err)
				}
			} else {
				_, err := m.AppendData(bg, old, []byte("x"))
				do(t, err)
				fail()
				_, err = m.AppendData(bg, d.Ticket(), []byte("y"))
				do(t, err)
				if err := m.Sync(bg); api.CodeOf(err) != api.EUNKNOWN {
					t.Errorf("seed %d: a record whose data may be lost is acknowledged: %v", seed, err)
				}
			}
			do(t, m.Abandon())
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
