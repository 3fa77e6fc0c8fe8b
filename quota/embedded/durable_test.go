package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/quota"
	"github.com/mpool-go/mpool/quota/embedded"
	"github.com/mpool-go/mpool/sched"
)

// proves G22, G24: what was answered is there after a power cut that keeps nothing
// volatile.
func TestAnsweredIsDurable(t *testing.T) {
	disk := newDisk(t, nil)
	p, st, err := open(nil, disk, sim.OpenOptions{}, 64<<10, embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l := quota.New(st, quota.Options{})
	var c *quota.Claim
	one := []quota.Amount{{Class: "x", N: 1}}
	for i, do := range []func() error{
		func() error { return l.Define(bg, quota.NewClass("x", quota.Count)) },
		func() error { return l.AddOwner(bg, quota.Owner{Name: "a"}) },
		func() error { return l.SetLimit(bg, quota.OwnerLimit{Owner: "a", Class: "x", Limit: 5}) },
		func() (err error) {
			c, err = l.Reserve(bg, quota.Ask{Owner: "a", Amounts: one, Request: "r"})
			return err
		},
		func() error { _, err := l.Provision(bg, c.ID, "real", ""); return err },
		func() error {
			_, err := l.Resize(bg, quota.ByReal("real"), []quota.Amount{{Class: "x", N: 3}}, "")
			return err
		},
		func() error { _, err := l.Transfer(bg, quota.ByReal("real"), "b", ""); return err },
		func() error { _, err := l.Release(bg, quota.ByReal("real"), "end"); return err },
		func() error { return l.UnsetLimit(bg, "a", "x") },
		func() error { return l.RemoveClass(bg, "x") },
	} {
		if err := do(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		var want, got string
		if err := st.View(bg, func(r quota.Reader) { want = dump(r) }); err != nil {
			t.Fatal(err)
		}
		after, _ := disk.Survivor(nil, sim.CutOptions{Mode: sim.CutNone})
		p, st, err := open(nil, after, sim.OpenOptions{}, 0, embedded.Options{})
		if err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		if err := st.View(bg, func(r quota.Reader) { got = dump(r) }); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("step %d: after the cut there is\n%s\nwant\n%s", i, got, want)
		}
		if err := errors.Join(st.Close(bg), p.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(st.Close(bg), p.Close()); err != nil {
		t.Fatal(err)
	}
}

// hooked is a container that tells of the first record that a compaction writes.
type hooked struct {
	api.MDC
	first func()
}

func (h *hooked) CompactAppend(ctx context.Context, record []byte) error {
	if h.first != nil {
		h.first()
		h.first = nil
	}
	return h.MDC.CompactAppend(ctx, record)
}

// proves G24: a request is remembered whose claim ends between the moment at which a
// compaction lists the records and that at which it comes to this one.
func TestRequestEndsInCompaction(t *testing.T) {
	for seed := range uint64(3) {
		s := sched.New(seed)
		disk := newDisk(t, s)
		var failed error
		if err := s.Run(func() { failed = endsInCompaction(s, disk) }); failed != nil || err != nil {
			t.Fatalf("seed %d: %v, %v", seed, failed, err)
		}
	}
}

func endsInCompaction(s *sched.Sched, disk *sim.Disk) error {
	p, err := mpool.Activate(bg, "p", []string{"sim"}, api.ActivateOptions{}, options(s, disk, sim.OpenOptions{}))
	if err != nil {
		return err
	}
	mdc, err := p.SystemContainer(bg, rootName, 64<<10)
	if err != nil {
		return err
	}
	h := &hooked{MDC: mdc}
	st, err := embedded.Open(bg, h, embedded.Options{Sched: s})
	if err != nil {
		return err
	}
	l := quota.New(st, quota.Options{Now: s.Now, Sleep: s.Sleep, Jitter: func(d time.Duration) time.Duration { return d }})
	if err := l.Define(bg, quota.NewClass("x", quota.Count)); err != nil {
		return err
	}
	var last quota.Ask
	var c *quota.Claim
	for i := range 60 {
		last = quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "x", N: 1}}, Request: fmt.Sprint("r", i)}
		if c, err = l.Reserve(bg, last); err != nil {
			return err
		}
	}
	var done sched.Completion
	done.Init(s)
	var released error
	h.first = func() {
		s.Go("release", func() {
			_, released = l.Release(bg, quota.ByID(c.ID), "")
			done.Done()
		})
	}
	for h.first != nil { // fill the log
		if _, err := l.Resize(bg, quota.ByID(1), []quota.Amount{{Class: "x", N: 1}}, ""); err != nil {
			return err
		}
	}
	if err := errors.Join(done.Wait(bg), released, st.Close(bg), p.Close()); err != nil {
		return err
	}
	p, st, err = open(s, disk, sim.OpenOptions{}, 0, embedded.Options{})
	if err != nil {
		return err
	}
	if _, err := quota.New(st, quota.Options{Now: s.Now}).Reserve(bg, last); !errors.Is(err, quota.ErrNotFound) {
		return fmt.Errorf("the request of a claim that has ended, again: %w", err)
	}
	return errors.Join(st.Verify(), st.Close(bg), p.Close())
}

// table is owners kept elsewhere.
type table struct{ list []quota.Owner }

func (t *table) List(context.Context) ([]quota.Owner, error) { return t.list, nil }

func (t *table) Add(_ context.Context, o quota.Owner) error {
	t.list = append(t.list, o)
	return nil
}

// proves G20, G21, G22: owners and the usage of external classes come from elsewhere,
// those there were before and those that a claim names; nothing of them is in the log.
func TestOwnersAndUsageFromElsewhere(t *testing.T) {
	disk := newDisk(t, nil)
	owners := &table{list: []quota.Owner{{Name: "child", Parent: "top"}, {Name: "top"}}}
	var bytes atomic.Int64
	changed := 0
	opt := embedded.Options{
		Owners: owners,
		External: func(owner, class string) quota.Sum {
			if owner == "b" || class != "bytes" {
				return quota.Sum{}
			}
			return quota.Sum{Held: bytes.Load()}
		},
		Changed: func(quota.Reader, []quota.Change) { changed++ },
	}
	for life := range 2 {
		p, st, err := open(nil, disk, sim.OpenOptions{}, 64<<10, opt)
		if err != nil {
			t.Fatal(err)
		}
		var overs []quota.Over
		l := quota.New(st, quota.Options{OnOver: func(o quota.Over) { overs = append(overs, o) }})
		c := quota.NewClass("bytes", quota.Bytes)
		c.External = true
		if err := errors.Join(l.Define(bg, quota.NewClass("x", quota.Count)), l.Define(bg, c)); err != nil {
			t.Fatal(err)
		}
		for _, o := range []string{"child", "b"} {
			if _, err := l.Reserve(bg, quota.Ask{Owner: o, Amounts: []quota.Amount{{Class: "x", N: 1}}}); err != nil {
				t.Fatal(err)
			}
		}
		bytes.Store(100)
		if err := l.SetLimit(bg, quota.OwnerLimit{Owner: "child", Class: "bytes", Limit: quota.Limit(60 - life)}); err != nil {
			t.Fatal(err)
		}
		if len(overs) != 1 || overs[0].By() != int64(40+life) {
			t.Errorf("life %d: %+v", life, overs)
		}
		if list, err := l.Usage(bg, "top"); err != nil || len(list) != 2 || list[0].Sum.Held != 100 || list[1].Sum.Reserved != int64(life+1) {
			t.Errorf("life %d: %+v, %v", life, list, err)
		}
		if len(owners.list) != 3 || owners.list[2] != (quota.Owner{Name: "b"}) {
			t.Errorf("life %d: owners %+v", life, owners.list)
		}
		if err := errors.Join(st.Verify(), st.Close(bg), p.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if changed < 2+4 {
		t.Errorf("%d changes were told of", changed)
	}
}
