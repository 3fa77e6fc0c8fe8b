package embedded_test

import (
	"context"
	"errors"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/quota"
	"github.com/mpool-go/mpool/quota/embedded"
)

// counted counts a container's syncs and compactions.
type counted struct {
	api.MDC
	syncs, ends int
}

func (c *counted) Sync(ctx context.Context) error {
	c.syncs++
	return c.MDC.Sync(ctx)
}

func (c *counted) CompactEnd(ctx context.Context) error {
	err := c.MDC.CompactEnd(ctx)
	c.ends++
	return err
}

// proves G24: an id is not given again after a compaction, though its claim is gone;
// and what a call without changes has seen is durable when it returns.
func TestIDsOutliveCompactions(t *testing.T) {
	disk := newDisk(t, nil)
	p, err := embeddedPool(disk)
	if err != nil {
		t.Fatal(err)
	}
	mdc, err := p.SystemContainer(bg, rootName, 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	m := &counted{MDC: mdc}
	st, err := embedded.Open(bg, m, embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l := quota.New(st, quota.Options{})
	ask := quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "x", N: 1}}}
	if err := l.Define(bg, quota.NewClass("x", quota.Count)); err != nil {
		t.Fatal(err)
	}
	keep, err := l.Reserve(bg, ask)
	if err != nil {
		t.Fatal(err)
	}
	last, err := l.Reserve(bg, ask)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Release(bg, quota.ByID(last.ID), ""); err != nil {
		t.Fatal(err)
	}
	for range 2000 { // more than the log has room for
		if _, err := l.Resize(bg, quota.ByID(keep.ID), ask.Amounts, ""); err != nil {
			t.Fatal(err)
		}
	}
	var g quota.Generation
	if err := st.View(bg, func(r quota.Reader) { g = r.Generation() }); err != nil {
		t.Fatal(err)
	}
	before := m.syncs
	if err := st.Apply(bg, g, nil); err != nil || m.syncs == before {
		t.Errorf("no changes: %v, after %d syncs", err, m.syncs-before)
	}
	if err := errors.Join(st.Verify(), st.Close(bg), p.Close()); err != nil {
		t.Fatal(err)
	}
	if m.ends == 0 {
		t.Fatal("no compaction")
	}
	p, st, err = open(nil, disk, sim.OpenOptions{}, 0, embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := quota.New(st, quota.Options{}).Reserve(bg, ask)
	if err != nil || c.ID <= last.ID {
		t.Errorf("claim %v after %v, %v", c, last.ID, err)
	}
	if err := errors.Join(st.Close(bg), p.Close()); err != nil {
		t.Fatal(err)
	}
}
