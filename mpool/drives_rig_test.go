package mpool

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/sched"
)

// rackRig is a simulated world with several disks, a0 a1 ... of the class
// capacity and s0 s1 ... of the class staging.
type rackRig struct {
	*rig
	disks             devsim.Rack
	capacity, staging []string
	events            []Event
	admit             func(ctx context.Context, p Priority) (func(), error)
}

func newRackRig(t *testing.T, seed uint64, size int64, capacity, staging int) *rackRig {
	t.Helper()
	r := &rackRig{rig: &rig{t: t, s: sched.New(seed)}}
	for i := range capacity {
		r.capacity = append(r.capacity, fmt.Sprintf("a%d", i))
	}
	for i := range staging {
		r.staging = append(r.staging, fmt.Sprintf("s%d", i))
	}
	for _, name := range r.paths() {
		r.disks = append(r.disks, devsim.NewDisk(size, devsim.DiskOptions{Name: name, Discard: true}))
	}
	return r
}

// again is the same disks, or copies, in a world of its own.
func (r *rackRig) again(seed uint64, disks devsim.Rack) *rackRig {
	n := *r
	n.rig = &rig{t: r.t, s: sched.New(seed), meta: r.meta}
	n.disks, n.events = disks, nil
	return &n
}

func (r *rackRig) paths() []string {
	return append(append([]string(nil), r.capacity...), r.staging...)
}

func (r *rackRig) options() Options {
	open := r.disks.Opener(r.s, r.open)
	return Options{
		Sched: r.s, MetadataBytes: r.meta, Rand: dice{r.s.Rand()}, Admit: r.admit,
		OnEvent: func(e Event) { r.events = append(r.events, e) },
		Open:    func(ctx context.Context, path string, ro bool) (*bdev.Drive, error) { return open(ctx, path, ro) },
	}
}

func (r *rackRig) create(o api.CreateOptions) api.CreateResult {
	r.t.Helper()
	o.Staging = r.staging
	res, err := Create(bg, "p", r.capacity, o, r.options())
	r.ok(err)
	return res
}

func (r *rackRig) activate() *Pool {
	r.t.Helper()
	p, err := r.activateOn(r.paths(), api.ActivateOptions{})
	r.ok(err)
	return p
}

func (r *rackRig) activateOn(paths []string, o api.ActivateOptions) (*Pool, error) {
	return Activate(bg, "p", paths, o, r.options())
}

// putOn commits an mblock of a class that lies on the drive of a slot.
func (r *rackRig) putOn(p *Pool, slot uint16, data []byte) layout.ObjectID {
	r.t.Helper()
	var others []api.Mblock
	for range 100 {
		b, err := p.AllocMblock(bg, api.AllocOptions{Capacity: int64(len(data)), Class: api.Class(p.byslot[slot].entry.Class)})
		r.ok(err)
		if b.(*Mblock).obj.drive.entry.Slot != slot {
			others = append(others, b)
			r.ok(r.s.Sleep(bg, time.Millisecond)) // what is under way counts
			continue
		}
		_, err = b.Write(bg, data)
		r.ok(err)
		r.ok(b.Commit(bg))
		r.ok(b.Put())
		for _, o := range others {
			r.ok(o.Abort(bg))
		}
		return b.ID()
	}
	r.t.Fatalf("no object lands on drive %d", slot)
	return 0
}

// putClass commits an mblock of n bytes and a class.
func (r *rackRig) putClass(p *Pool, c api.Class, n int) layout.ObjectID {
	r.t.Helper()
	b, err := p.AllocMblock(bg, api.AllocOptions{Capacity: int64(n), Class: c})
	r.ok(err)
	_, err = b.Write(bg, make([]byte, n))
	r.ok(err)
	r.ok(b.Commit(bg))
	r.ok(b.Put())
	return b.ID()
}

// read reads an mblock whole.
func read(p *Pool, id layout.ObjectID, n int) ([]byte, error) {
	b, err := p.Mblock(bg, id)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, n)
	_, err = b.ReadAt(buf, 0)
	if perr := b.Put(); err == nil {
		err = perr
	}
	return buf, err
}

// permutations calls f with every order of 0 .. n-1.
func permutations(n int, f func([]int)) {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	var walk func(k int)
	walk = func(k int) {
		if k == n {
			f(order)
			return
		}
		for i := k; i < n; i++ {
			order[k], order[i] = order[i], order[k]
			walk(k + 1)
			order[k], order[i] = order[i], order[k]
		}
	}
	walk(0)
}
