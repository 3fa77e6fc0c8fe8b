package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/sched"
)

// outcome runs operations one by one and writes one letter for each: '.' done,
// else the error's first.
func outcome(drive *bdev.Drive, ops ...*bdev.Op) string {
	var b strings.Builder
	for _, o := range ops {
		err := do(drive, o)
		switch {
		case err == nil:
			b.WriteByte('.')
		case errors.Is(err, syscall.EIO):
			b.WriteByte('I')
		case errors.Is(err, syscall.ENOSPC):
			b.WriteByte('S')
		case errors.Is(err, syscall.ENODEV):
			b.WriteByte('D')
		default:
			b.WriteByte('?')
		}
	}
	return b.String()
}

func TestFaultPlans(t *testing.T) {
	r := func(n int64) *bdev.Op { return readOp(n*512, 1024) }
	w := func(n int64) *bdev.Op { return writeOp(n*512, letters(2, 'A')) }
	f := func() *bdev.Op { return &bdev.Op{Code: bdev.OpFlush} }
	for _, c := range []struct {
		name   string
		faults []Fault
		ops    []*bdev.Op
		want   string
		hits   string
	}{
		{"none", nil, []*bdev.Op{r(0), w(0), f()}, "...", "[]"},
		{
			"third read once",
			[]Fault{{Code: bdev.OpRead, Skip: 2, Count: 1, Err: syscall.EIO}},
			[]*bdev.Op{r(0), w(0), r(0), r(0), f(), r(0)},
			"...I..", "[1]",
		},
		{
			"writes from the second on",
			[]Fault{{Code: bdev.OpWrite, Skip: 1, Err: syscall.ENOSPC}},
			[]*bdev.Op{w(0), w(0), r(0), w(0), f(), w(5)},
			".S.S.S", "[3]",
		},
		{
			"a range, read and written, touched at either end or not",
			[]Fault{{From: 10 * 512, To: 12 * 512, Err: syscall.EIO}},
			[]*bdev.Op{r(8), r(9), r(10), w(11), w(12), f()},
			".III..", "[3]",
		},
		{
			"flush",
			[]Fault{{Code: bdev.OpFlush, Count: 2, Err: syscall.EIO}},
			[]*bdev.Op{w(0), f(), f(), f()},
			".II.", "[2]",
		},
		{
			"the first error wins",
			[]Fault{{Code: bdev.OpWrite, Skip: 1, Err: syscall.ENOSPC}, {Err: syscall.EIO, Skip: 1}},
			[]*bdev.Op{w(0), w(0), r(0)},
			".SI", "[1 2]",
		},
		{
			"everything",
			[]Fault{{Err: syscall.ENODEV}},
			[]*bdev.Op{w(0), r(0), f()},
			"DDD", "[3]",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := NewDisk(64<<10, DiskOptions{})
			drive := mustOpen(t, nil, d, OpenOptions{})
			d.Inject(c.faults...)
			if got := outcome(drive, c.ops...); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if got := fmt.Sprint(d.FaultHits()); got != c.hits {
				t.Errorf("hits %s, want %s", got, c.hits)
			}
			d.Heal()
			if got := outcome(drive, c.ops...); strings.Trim(got, ".") != "" {
				t.Errorf("healed, got %s", got)
			}
		})
	}
}

func TestProbableFault(t *testing.T) {
	d := NewDisk(64<<10, DiskOptions{})
	drive := mustOpen(t, nil, d, OpenOptions{Seed: 5})
	d.Inject(Fault{Code: bdev.OpRead, Probability: 0.25, Err: syscall.EIO})
	var ops []*bdev.Op
	for range 1000 {
		ops = append(ops, readOp(0, 512))
	}
	if n := strings.Count(outcome(drive, ops...), "I"); n < 180 || n > 320 {
		t.Fatalf("%d of 1000 hit, want about 250", n)
	}
}

// A failed write may have been done whole, in part or not at all.
func TestFailedWriteMayHaveBeenDone(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(200) {
		d := NewDisk(64<<10, DiskOptions{})
		drive := mustOpen(t, nil, d, OpenOptions{Seed: seed})
		d.Inject(Fault{Code: bdev.OpWrite, Err: syscall.EIO})
		if got := outcome(drive, writeOp(0, letters(2, 'A'))); got != "I" {
			t.Fatal(got)
		}
		seen[picture(d)[:2]]++
	}
	if len(seen) != 4 {
		t.Fatalf("%v", seen)
	}
}

// After a failed flush what it would have covered may be durable, lost but
// readable, lost and gone, or volatile; a later flush does not bring it back.
func TestFailedFlushLoses(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(400) {
		d := NewDisk(4<<10, DiskOptions{})
		drive := mustOpen(t, nil, d, OpenOptions{Seed: seed})
		if err := do(drive, writeOp(0, letters(2, 'D')), &bdev.Op{Code: bdev.OpFlush}); err != nil {
			t.Fatal(err)
		}
		d.Inject(Fault{Code: bdev.OpFlush, Count: 1, Err: syscall.EIO})
		got := outcome(drive, writeOp(0, letters(1, 'A')), &bdev.Op{Code: bdev.OpFlush}, writeOp(512, letters(1, 'B')))
		if got != ".I." {
			t.Fatal(got)
		}
		state := picture(d)[:2] + " " + picture(d.Durable())[:2]
		if got := outcome(drive, &bdev.Op{Code: bdev.OpFlush}); got != "." {
			t.Fatal(got)
		}
		state += " then " + picture(d)[:2] + " " + picture(d.Durable())[:2]
		seen[state]++
	}
	for _, want := range []string{
		"AB AD then AB AB", // durable
		"AB DD then AB AB", // still volatile
		"AB DD then AB DB", // lost, and read until the power goes
		"DB DD then DB DB", // lost and gone
	} {
		if seen[want] < 10 {
			t.Errorf("%q seen %d times", want, seen[want])
		}
	}
	if len(seen) != 4 {
		t.Errorf("%v", seen)
	}
}

func TestLies(t *testing.T) {
	run := func(f Fault, o *bdev.Op) (string, *bdev.Op) {
		d := NewDisk(16<<10, DiskOptions{})
		drive := mustOpen(t, nil, d, OpenOptions{})
		if err := do(drive, writeOp(0, letters(24, 'D'))); err != nil {
			t.Fatal(err)
		}
		d.Inject(f)
		if err := do(drive, o); err != nil {
			t.Fatal(err)
		}
		return picture(d), o
	}
	w := func() *bdev.Op { return writeOp(4096, letters(8, 'A')) }
	for _, c := range []struct {
		fault Fault
		want  string
	}{
		{Fault{Code: bdev.OpWrite, Effect: EffectLost}, "DDDDDDDD|DDDDDDDD|DDDDDDDD|........"},
		{Fault{Code: bdev.OpWrite, Effect: EffectMisdirect, Shift: 8192}, "DDDDDDDD|DDDDDDDD|DDDDDDDD|AAAAAAAA"},
		{Fault{Code: bdev.OpWrite, Effect: EffectMisdirect, Shift: -8192}, "DDDDDDDD|DDDDDDDD|DDDDDDDD|AAAAAAAA"},
	} {
		if got, _ := run(c.fault, w()); got != c.want {
			t.Errorf("%+v: got %s, want %s", c.fault, got, c.want)
		}
	}
	if got, o := run(Fault{Code: bdev.OpWrite, Effect: EffectFlip}, w()); strings.Count(got, "#") != 1 || strings.Count(got, "A") != 7 || !bytes.Equal(o.Buf, letters(8, 'A')) {
		t.Errorf("flip on write: %s", got)
	}
	got, o := run(Fault{Code: bdev.OpRead, Effect: EffectFlip}, readOp(0, 4096))
	if strings.Contains(got, "#") || bytes.Count(o.Buf, []byte("D")) != 4095 {
		t.Errorf("flip on read: disk %s, %d bytes right", got, bytes.Count(o.Buf, []byte("D")))
	}
}

func TestStallDelaysOnlyWhatItHits(t *testing.T) {
	d := NewDisk(64<<10, DiskOptions{})
	d.Inject(Fault{Code: bdev.OpWrite, Count: 1, Delay: time.Hour})
	s := sched.New(1)
	err := s.Run(func() {
		drive := mustOpen(t, s, d, OpenOptions{})
		ctx, cancel := s.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		var detached sched.Completion
		detached.Init(s)
		b := &bdev.Batch{Ops: []*bdev.Op{writeOp(0, letters(1, 'A'))}, Detached: detached.Done}
		if err := drive.Run(ctx, b); !errors.Is(err, bdev.ErrDetached) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("stalled write: %v", err)
		}
		if err := do(drive, writeOp(512, letters(1, 'B')), readOp(512, 512)); err != nil {
			t.Error(err)
		}
		if at := s.Now().Sub(sched.Epoch); at > 2*time.Minute {
			t.Errorf("others were held up until %v", at)
		}
		if err := drive.Close(); !errors.Is(err, syscall.EBUSY) {
			t.Errorf("close with a write under way: %v", err)
		}
		if err := detached.Wait(context.Background()); err != nil {
			t.Error(err)
		}
		if at := s.Now().Sub(sched.Epoch); at < time.Hour {
			t.Errorf("the stalled write ended at %v", at)
		}
		if err := drive.Close(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := picture(d)[:2]; got != "AB" {
		t.Fatal(got)
	}
}

// A device that vanishes fails what is under way and all that follows.
func TestVanish(t *testing.T) {
	d := NewDisk(64<<10, DiskOptions{})
	s := sched.New(1)
	err := s.Run(func() {
		drive := mustOpen(t, s, d, OpenOptions{Write: Latency{Min: time.Millisecond}})
		s.Go("thief", func() {
			if err := s.Sleep(context.Background(), 500*time.Microsecond); err != nil {
				t.Error(err)
			}
			d.Vanish()
		})
		got := outcome(drive, writeOp(0, letters(1, 'A')), readOp(0, 512), &bdev.Op{Code: bdev.OpFlush})
		if got != "DDD" {
			t.Error(got)
		}
		if err := drive.Close(); err != nil {
			t.Error(err)
		}
		if _, err := Open(s, d, OpenOptions{}); !errors.Is(err, syscall.ENODEV) {
			t.Errorf("open of a vanished device: %v", err)
		}
		d.PowerCut(s.Rand(), CutOptions{})
		if got := outcome(mustOpen(t, s, d, OpenOptions{}), readOp(0, 512)); got != "." {
			t.Error(got)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A process that is killed while the machine runs on: its operations end with
// ENODEV, the next process finds what had ended.
func TestKillInARunningSimulation(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(200) {
		d := NewDisk(4<<10, DiskOptions{})
		s := sched.New(seed)
		err := s.Run(func() {
			drive := mustOpen(t, s, d, OpenOptions{})
			if err := do(drive, writeOp(0, letters(1, 'A'))); err != nil {
				t.Error(err)
			}
			var end sched.Completion
			end.Init(s)
			s.Go("dying", func() {
				if got := outcome(drive, writeOp(512, letters(2, 'B'))); got != "D" && got != "." {
					t.Error(got)
				}
				end.Done()
			})
			s.Point()
			d.Kill(s.Rand())
			after := mustOpen(t, s, d, OpenOptions{})
			if err := end.Wait(context.Background()); err != nil {
				t.Error(err)
			}
			seen[picture(d)]++
			if err := after.Close(); err != nil {
				t.Error(err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"A.......", "ABB.....", "AB......", "A.B....."} {
		if seen[want] < 2 {
			t.Errorf("%s seen %d times: %v", want, seen[want], seen)
		}
	}
	if len(seen) != 4 {
		t.Errorf("%v", seen)
	}
}

// What a lying flush should have made durable can be read, and goes with the power.
func TestLyingFlush(t *testing.T) {
	d := NewDisk(4<<10, DiskOptions{})
	drive := mustOpen(t, nil, d, OpenOptions{})
	d.Inject(Fault{Code: bdev.OpFlush, Effect: EffectLost, Count: 1})
	flush := &bdev.Op{Code: bdev.OpFlush}
	if got := outcome(drive, writeOp(0, letters(1, 'A')), flush); got != ".." {
		t.Fatal(got)
	}
	if now, durable := picture(d), picture(d.Durable()); now != "A......." || durable != "........" {
		t.Fatalf("%s can be read, %s is durable", now, durable)
	}
	if got := outcome(drive, &bdev.Op{Code: bdev.OpFlush}); got != "." || picture(d.Durable()) != "A......." {
		t.Fatalf("after an honest one %s is durable", picture(d.Durable()))
	}
}
