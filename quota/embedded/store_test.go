package embedded_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/quota"
	"github.com/mpool-go/mpool/quota/embedded"
	"github.com/mpool-go/mpool/test/quotatest"
)

// proves G27, the embedded store.
func TestEmbeddedConforms(t *testing.T) {
	disk := newDiskOf(t, nil, 512<<20) // a container for each run of the model
	p, err := embeddedPool(disk)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	quotatest.Run(t, func(tb testing.TB) quotatest.Store {
		tb.Helper()
		n++
		mdc, err := p.SystemContainer(bg, fmt.Sprint(".quota", n), 64<<10)
		if err != nil {
			tb.Fatal(err)
		}
		s, err := embedded.Open(bg, mdc, embedded.Options{})
		if err != nil {
			tb.Fatal(err)
		}
		return quotatest.Store{Store: s, Verify: s.Verify}
	})
	if err := p.Abandon(bg); err != nil {
		t.Error(err)
	}
}

// What was there when it was closed is there when it is opened; ids go on.
func TestReopen(t *testing.T) {
	disk := newDisk(t, nil)
	var before string
	var highest quota.ID
	for life := range 4 {
		p, s, err := open(nil, disk, sim.OpenOptions{}, 64<<10, embedded.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.View(bg, func(r quota.Reader) {
			if got := dump(r); got != before {
				t.Errorf("life %d: there is\n%s\nwant\n%s", life, got, before)
			}
			if next := r.NextID(); next <= highest {
				t.Errorf("life %d: id %v is given again", life, next)
			}
		}); err != nil {
			t.Fatal(err)
		}
		l := quota.New(s, quota.Options{})
		if err := l.Define(bg, quota.NewClass("x", quota.Bytes)); err != nil {
			t.Fatal(err)
		}
		if err := l.SetLimit(bg, quota.OwnerLimit{Owner: "a", Class: "x", Limit: quota.Limit(100 + life)}); err != nil {
			t.Fatal(err)
		}
		var last *quota.Claim
		for i := range 3 {
			if last, err = l.Reserve(bg, quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "x", N: 2}}, Request: fmt.Sprint(life, i)}); err != nil {
				t.Fatal(err)
			}
		}
		highest = last.ID
		// The highest is gone: its id is not given again all the same.
		if _, err := l.Release(bg, quota.ByID(last.ID), fmt.Sprint("end", life)); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Reserve(bg, quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "x", N: 2}}, Request: "0 2"}); !errors.Is(err, quota.ErrNotFound) {
			t.Errorf("life %d: a request whose claim has ended: %v", life, err)
		}
		if err := s.View(bg, func(r quota.Reader) { before = dump(r) }); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Verify(), s.Close(bg), p.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// A full log refuses claims and takes releases; compactions keep what counts.
func TestFullLog(t *testing.T) {
	disk := newDisk(t, nil)
	p, s, err := open(nil, disk, sim.OpenOptions{}, 32<<10, embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l := quota.New(s, quota.Options{})
	if err := l.Define(bg, quota.NewClass("x", quota.Count)); err != nil {
		t.Fatal(err)
	}
	for round := range 5 {
		var ids []quota.ID
		for {
			c, err := l.Reserve(bg, quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "x", N: 1}}, Request: fmt.Sprintf("request-%d-%d", round, len(ids))})
			if errors.Is(err, quota.ErrFull) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, c.ID)
		}
		if len(ids) < 20 {
			t.Fatalf("round %d: full with %d claims", round, len(ids))
		}
		for _, id := range ids {
			if _, err := l.Resize(bg, quota.ByID(id), []quota.Amount{{Class: "x", N: 2}}, ""); err != nil {
				t.Fatal(err)
			}
		}
		for _, id := range ids {
			if _, err := l.Release(bg, quota.ByID(id), fmt.Sprint("end-", id)); err != nil {
				t.Fatalf("round %d: a release: %v", round, err)
			}
		}
		if err := s.Verify(); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.Close(bg), p.Close()); err != nil {
		t.Fatal(err)
	}
}

// flushes counts a disk's flushes.
type flushes struct {
	mu sync.Mutex
	n  int
}

// Sixteen claimants share flushes.
func TestGroupCommit(t *testing.T) {
	disk := newDisk(t, nil)
	var f flushes
	p, s, err := open(nil, disk, sim.OpenOptions{OnIO: func(b sim.Boundary) bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		if b.Op.Code == bdev.OpFlush {
			f.n++
		}
		return false
	}}, 1<<20, embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l := quota.New(s, quota.Options{})
	if err := l.Define(bg, quota.NewClass("x", quota.Count)); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	f.n = 0
	f.mu.Unlock()
	const each = 50
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range each {
				c, err := l.Reserve(bg, quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "x", N: 1}}})
				if err == nil {
					_, err = l.Release(bg, quota.ByID(c.ID), "")
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	f.mu.Lock()
	t.Logf("%d flushes' starts and ends for %d changes", f.n, 2*16*each)
	if f.n/2 >= 2*16*each {
		t.Errorf("%d flushes for %d changes: they were not shared", f.n/2, 2*16*each)
	}
	f.mu.Unlock()
	if err := errors.Join(s.Verify(), s.Close(bg), p.Close()); err != nil {
		t.Fatal(err)
	}
}

// A container that holds something else is no store.
func TestForeignRecords(t *testing.T) {
	disk := newDisk(t, nil)
	p, err := embeddedPool(disk)
	if err != nil {
		t.Fatal(err)
	}
	mdc, err := p.SystemContainer(bg, rootName, 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	if err := mdc.Append(bg, []byte("something else"), true); err != nil {
		t.Fatal(err)
	}
	if _, err := embedded.Open(bg, mdc, embedded.Options{}); api.CodeOf(err) != api.ECORRUPT {
		t.Errorf("%v", err)
	}
	if err := errors.Join(mdc.Close(bg), p.Close()); err != nil {
		t.Error(err)
	}
}
