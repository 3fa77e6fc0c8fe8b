package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/sched"
)

// do runs operations and returns the first error.
func do(drive *bdev.Drive, ops ...*bdev.Op) error {
	return drive.Run(context.Background(), &bdev.Batch{Ops: ops})
}

func writeOp(off int64, p []byte) *bdev.Op {
	return &bdev.Op{Code: bdev.OpWrite, Offset: off, Buf: p}
}

func readOp(off int64, n int) *bdev.Op {
	return &bdev.Op{Code: bdev.OpRead, Offset: off, Buf: aligned(n)}
}

func mustOpen(t *testing.T, s *sched.Sched, d *Disk, o OpenOptions) *bdev.Drive {
	t.Helper()
	drive, err := Open(s, d, o)
	if err != nil {
		t.Fatal(err)
	}
	return drive
}

// workload runs tasks that read, write, discard and flush, and returns the
// trace of all boundaries and the final picture.
func workload(t *testing.T, seed uint64) string {
	t.Helper()
	var b strings.Builder
	d := NewDisk(256<<10, DiskOptions{PhysicalSector: 4096, Discard: true})
	d.Inject(Fault{Code: bdev.OpRead, Probability: 0.05, Err: syscall.EIO}, Fault{Code: bdev.OpFlush, Skip: 3, Count: 1, Err: syscall.EIO})
	s := sched.New(seed)
	err := s.Run(func() {
		drive := mustOpen(t, s, d, OpenOptions{OnIO: func(x Boundary) bool {
			fmt.Fprintf(&b, "%v %v\n", s.Now().Sub(sched.Epoch), x)
			return false
		}})
		for i := range 4 {
			s.Go("task", func() {
				for k := range 20 {
					off := s.Rand().Int64N(60) * 4096
					var err error
					switch s.Rand().IntN(4) {
					case 0:
						err = do(drive, readOp(off, 8192))
					case 1:
						err = do(drive, writeOp(off, letters(16, byte('A'+i*5+k%5))))
					case 2:
						err = do(drive, &bdev.Op{Code: bdev.OpDiscard, Offset: off, Length: 4096})
					case 3:
						err = drive.Flush(context.Background(), drive.Ticket())
					}
					if err != nil && !errors.Is(err, syscall.EIO) && !errors.Is(err, bdev.ErrFlushFailed) {
						t.Errorf("%v", err)
					}
				}
			})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	n, cut := d.Survivor(s.Rand(), CutOptions{})
	return b.String() + cut.String() + picture(n)
}

// One seed is one run.
func TestSeedDecidesEverything(t *testing.T) {
	traces := map[string]bool{}
	for seed := range uint64(10) {
		a, b := workload(t, seed), workload(t, seed)
		if a != b {
			t.Fatalf("seed %d: two runs differ:\n%s\n\n%s", seed, a, b)
		}
		traces[a] = true
	}
	if len(traces) != 10 {
		t.Fatalf("10 seeds gave %d runs", len(traces))
	}
}

func TestReadsAndWritesInAllShapes(t *testing.T) {
	for _, inline := range []bool{false, true} {
		d := NewDisk(64<<10, DiskOptions{})
		s := sched.New(3)
		err := s.Run(func() {
			drive := mustOpen(t, s, d, OpenOptions{Inline: inline})
			want := aligned(24 * 512)
			for i := range want {
				want[i] = byte(i * 7 >> 3)
			}
			// Pieces that end within pages.
			vec := [][]byte{want[:512], want[512 : 10*512], want[10*512:]}
			if err := do(drive, &bdev.Op{Code: bdev.OpWrite, Offset: 3 * 512, Vec: vec}); err != nil {
				t.Error(err)
			}
			whole := readOp(3*512, len(want))
			parts := [][]byte{aligned(512), aligned(16 * 512), aligned(7 * 512)}
			if err := do(drive, whole, &bdev.Op{Code: bdev.OpRead, Offset: 3 * 512, Vec: parts}); err != nil {
				t.Error(err)
			}
			if !bytes.Equal(whole.Buf, want) || !bytes.Equal(bytes.Join(parts, nil), want) {
				t.Error("read something else than was written")
			}
			// Outside and unaligned operations never reach the disk.
			for _, o := range []*bdev.Op{readOp(1, 512), readOp(0, 100), readOp(64<<10, 512), writeOp(-512, want[:512])} {
				if err := do(drive, o); err == nil {
					t.Errorf("%v at %d of %d bytes was done", o.Code, o.Offset, o.Size())
				}
			}
			if err := do(drive, &bdev.Op{Code: bdev.OpDiscard, Length: 512}); !errors.Is(err, syscall.EOPNOTSUPP) {
				t.Errorf("discard without discard: %v", err)
			}
			if err := drive.Close(); err != nil {
				t.Error(err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestReadOnlyOpen(t *testing.T) {
	d := NewDisk(64<<10, DiskOptions{Discard: true})
	drive := mustOpen(t, nil, d, OpenOptions{ReadOnly: true})
	if !drive.Geometry().ReadOnly {
		t.Error("the geometry does not say so")
	}
	if err := do(drive, readOp(0, 512)); err != nil {
		t.Error(err)
	}
	for _, o := range []*bdev.Op{writeOp(0, letters(1, 'A')), {Code: bdev.OpDiscard, Length: 4096}} {
		if err := do(drive, o); !errors.Is(err, syscall.EROFS) {
			t.Errorf("%v: %v", o.Code, err)
		}
	}
}

func TestOneOpenAtATime(t *testing.T) {
	d := NewDisk(64<<10, DiskOptions{Name: "/sim/a"})
	first := mustOpen(t, nil, d, OpenOptions{})
	if _, err := Open(nil, d, OpenOptions{}); !errors.Is(err, bdev.ErrBusy) {
		t.Fatalf("second open: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := mustOpen(t, nil, d, OpenOptions{})
	if err := do(first, readOp(0, 512)); !errors.Is(err, bdev.ErrClosed) {
		t.Fatalf("read of a closed drive: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(nil, d, OpenOptions{}); !errors.Is(err, bdev.ErrBusy) {
		t.Fatalf("a second close released another's open: %v", err)
	}
	d.PowerCut(nil, CutOptions{Mode: CutNone})
	if err := do(second, readOp(0, 512)); !errors.Is(err, syscall.ENODEV) {
		t.Fatalf("read after a power cut: %v", err)
	}
	third := mustOpen(t, nil, d, OpenOptions{})
	d.Kill(rand.New(rand.NewPCG(1, 1)))
	if _, err := Open(nil, d, OpenOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := do(third, readOp(0, 512)); !errors.Is(err, syscall.ENODEV) {
		t.Fatalf("read after a kill: %v", err)
	}
	if got := third.Geometry(); got.Path != "/sim/a" || got.Size != 64<<10 || !got.WriteCache || got.LogicalSector != 512 {
		t.Fatalf("geometry %+v", got)
	}
}

// Two hosts that reach one disk by paths of their own see each other's writes.
func TestSharedOpen(t *testing.T) {
	d := NewDisk(64<<10, DiskOptions{})
	a := mustOpen(t, nil, d, OpenOptions{})
	b := mustOpen(t, nil, d, OpenOptions{Shared: true})
	if err := do(a, writeOp(0, letters(1, 'A'))); err != nil {
		t.Fatal(err)
	}
	r := readOp(0, 512)
	if err := do(b, writeOp(512, letters(1, 'B')), r); err != nil || r.Buf[0] != 'A' {
		t.Fatal(err, r.Buf[0])
	}
	if _, err := Open(nil, d, OpenOptions{}); !errors.Is(err, bdev.ErrBusy) {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = mustOpen(t, nil, d, OpenOptions{})
	d.Kill(rand.New(rand.NewPCG(1, 1)))
	for _, x := range []*bdev.Drive{a, b} {
		if err := do(x, readOp(0, 512)); !errors.Is(err, syscall.ENODEV) {
			t.Fatal(err)
		}
	}
	if got := picture(d)[:2]; got != "AB" {
		t.Fatal(got)
	}
}

// A cut at every boundary of a little program: nothing happens after it, and
// the defers of dead tasks do no I/O.
func TestCutAtEveryBoundary(t *testing.T) {
	var total uint64
	for at := uint64(0); at == 0 || at <= total; at++ {
		d := NewDisk(64<<10, DiskOptions{})
		s := sched.New(11)
		cutter := &Cutter{Sched: s, At: at}
		told := 0
		err := s.Run(func() {
			drive := mustOpen(t, s, d, OpenOptions{OnIO: cutter.OnIO})
			defer func() {
				if s.Cutting() {
					drive.Start(writeOp(32<<10, letters(1, 'X')))
				}
				if err := drive.Close(); err != nil {
					t.Error(err)
				}
			}()
			for i := range int64(5) {
				o := writeOp(i*4096, letters(8, 'A'))
				o.OnDone = func(*bdev.Op) { told++ }
				if err := do(drive, o, readOp(60<<10, 512)); err != nil {
					t.Error(err)
				}
				if err := drive.Flush(context.Background(), drive.Ticket()); err != nil {
					t.Error(err)
				}
			}
		})
		if at == 0 {
			total = cutter.Seen()
			if err != nil || total != 30 || told != 5 {
				t.Fatalf("Run = %v, %d boundaries, %d told", err, total, told)
			}
			continue
		}
		b, ok := cutter.Stopped()
		if !errors.Is(err, sched.ErrCut) || !ok || cutter.Seen() != at {
			t.Fatalf("boundary %d: Run = %v, stopped %v at %v, %d seen", at, err, ok, b, cutter.Seen())
		}
		full, _ := d.Survivor(s.Rand(), CutOptions{Mode: CutAll})
		if strings.Contains(picture(full), "X") {
			t.Fatalf("boundary %d: a dead task wrote", at)
		}
		// Whoever was told was told the truth, but for what the flush covers.
		if got := strings.Count(picture(full), "AAAAAAAA"); got < told {
			t.Fatalf("boundary %d: %d writes are there, %d were told", at, got, told)
		}
		if got := strings.Count(picture(d.Durable()), "AAAAAAAA"); got < told-1 {
			t.Fatalf("boundary %d: %d writes are durable, %d were told and flushed", at, got, told-1)
		}
	}
}

// Without a simulation a stopped machine answers ENODEV for ever.
func TestCutterWithoutSimulation(t *testing.T) {
	d := NewDisk(64<<10, DiskOptions{})
	cutter := &Cutter{At: 4}
	drive := mustOpen(t, nil, d, OpenOptions{OnIO: cutter.OnIO})
	if err := do(drive, writeOp(0, letters(1, 'A'))); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := do(drive, writeOp(512, letters(1, 'B'))); !errors.Is(err, syscall.ENODEV) {
			t.Fatal(err)
		}
	}
	// Boundary 4 is the end of the second write: it has happened.
	if got := picture(d)[:3]; got != "AB." {
		t.Fatal(got)
	}
}

// The device may fetch a write's buffer at any time until the write has ended:
// all old, all new and mixtures of a changed buffer are seen.
func TestBufferIsReadLate(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(300) {
		d := NewDisk(64<<10, DiskOptions{})
		s := sched.New(seed)
		err := s.Run(func() {
			drive := mustOpen(t, s, d, OpenOptions{})
			o := writeOp(0, letters(4, 'A'))
			s.Go("client", func() {
				if err := s.Sleep(context.Background(), time.Duration(s.Rand().IntN(50))*time.Microsecond); err != nil {
					t.Error(err)
				}
				copy(o.Buf, letters(4, 'B'))
			})
			if err := do(drive, o); err != nil {
				t.Error(err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		seen[picture(d)[:4]]++
	}
	for _, want := range []string{"AAAA", "BBBB", "ABBB", "AABB", "AAAB"} {
		if seen[want] < 3 {
			t.Errorf("%s seen %d times: %v", want, seen[want], seen)
		}
	}
	if len(seen) != 5 {
		t.Errorf("%v", seen)
	}
}

// A read that overlaps a write under way may see any of its sectors.
func TestReadSeesWritesUnderWay(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(400) {
		d := NewDisk(64<<10, DiskOptions{})
		s := sched.New(seed)
		err := s.Run(func() {
			drive := mustOpen(t, s, d, OpenOptions{Read: Latency{Max: 50 * time.Microsecond}})
			r := readOp(0, 1024)
			if err := do(drive, writeOp(0, letters(2, 'A')), r); err != nil {
				t.Error(err)
			}
			seen[string(bytes.ReplaceAll([]byte{r.Buf[0], r.Buf[512]}, []byte{0}, []byte{'.'}))]++
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"..", "A.", ".A", "AA"} {
		if seen[want] < 3 {
			t.Errorf("%s seen %d times: %v", want, seen[want], seen)
		}
	}
}
