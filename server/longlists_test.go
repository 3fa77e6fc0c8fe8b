package server

import (
	"context"
	"slices"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

// Lists longer than a message come whole.
func TestLongLists(t *testing.T) {
	ctx := context.Background()
	r := newRig(t)
	c := r.dial()
	p := r.open(c)
	const n = 1500
	ids := map[layout.ObjectID]bool{}
	objects := make([]api.Object, api.MaxCommitMany)
	for i := range n {
		b := must[api.Mblock](t)(p.AllocMblock(ctx, api.AllocOptions{Capacity: 1, Tag: uint64(i)}))
		ids[b.ID()] = true
		if i < len(objects) {
			objects[i] = b
		}
	}
	roots := make([]api.Root, api.MaxRoots)
	for i := range roots {
		name := []byte("root number ................................................")
		copy(name[12:], []byte{byte('a' + i/100), byte('a' + i/10%10), byte('a' + i%10)})
		roots[i] = api.Root{Name: string(name), ID: objects[i].ID()}
	}
	if err := p.CommitMany(ctx, objects, roots); err != nil {
		t.Fatal(err)
	}
	if got := must[[]api.Root](t)(p.Roots(ctx)); !slices.Equal(got, roots) {
		t.Errorf("%d roots of %d came back", len(got), len(roots))
	}
	if err := p.SetRoots(ctx, roots); err != nil {
		t.Error(err)
	}
	seen := 0
	for i, err := range p.Objects(ctx, api.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		if !ids[i.ID] {
			t.Errorf("%v is listed twice or is nobody's", i.ID)
		}
		delete(ids, i.ID)
		seen++
	}
	if seen != n {
		t.Errorf("%d objects listed of %d", seen, n)
	}
	for range p.Objects(ctx, api.Filter{}) {
		break // the rest is given up
	}
	for i := range 300 {
		if got := must[uint32](t)(p.AddOwner(ctx, "owner", 0)); got != uint32(i+1) {
			t.Fatalf("owner %d has index %d", i, got)
		}
	}
	if owners := must[[]api.Owner](t)(p.Owners(ctx)); len(owners) != 301 {
		t.Errorf("%d owners", len(owners))
	}
	devices := make([]string, ioctl.MaxDevices)
	for i := range devices {
		devices[i] = "/dev/" + string(rune('a'+i))
	}
	must[api.CreateResult](t)(c.CreatePool(ctx, "wide", devices, api.CreateOptions{}))
	wide := r.named("wide")
	wide.mu.Lock()
	wide.info.Drives = slices.Repeat(wide.info.Drives, 5)
	wide.mu.Unlock()
	for _, i := range must[[]api.PoolInfo](t)(c.Pools(ctx)) {
		if i.Name == "wide" && len(i.Drives) != 5*ioctl.MaxDevices {
			t.Errorf("%d drives", len(i.Drives))
		}
	}
	_, err := c.CreatePool(ctx, "wider", slices.Concat(devices, []string{"/dev/one-more"}), api.CreateOptions{})
	want(t, api.EINVAL, err)

	s := must[client.Stats](t)(c.Stat(ctx, "wide"))
	if len(s.Drives) != 5*ioctl.MaxDevices {
		t.Errorf("counters of %d drives", len(s.Drives))
	}
	s = must[client.Stats](t)(c.Stat(ctx, ""))
	for _, o := range s.Ops {
		var sum uint64
		for _, n := range o.Buckets {
			sum += n
		}
		if sum != o.Count || o.Count == 0 || o.Total <= 0 {
			t.Errorf("%v: %d in buckets, %d counted, %v in all", o.Op, sum, o.Count, o.Total)
		}
		if o.Op == ioctl.OpMblockAlloc && o.Count != n {
			t.Errorf("%d allocations counted of %d", o.Count, n)
		}
	}
	if s.Sessions != 1 || s.Handles == 0 {
		t.Errorf("%d sessions, %d handles", s.Sessions, s.Handles)
	}
	_, err = c.Stat(ctx, "none")
	want(t, api.ENOENT, err)
}
