package main

import (
	"context"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/layout"
)

// fakeDaemon is a daemon in memory: enough of one to run every verb, to fail
// where a test wants it to, and to see what a verb leaves behind.
type fakeDaemon struct {
	mu    sync.Mutex
	pools map[string]*fakePool
	err   error // what every call returns, if set

	// What the daemon says of its clients; set before it is used.
	clients []client.ClientInfo
	handles []client.HandleInfo
	events  []fakeEvent
	idle    func() // called when there are no more events
	looked  func() // called by Stat; nil: nothing is
}

func newFakeDaemon(pools ...string) *fakeDaemon {
	d := &fakeDaemon{pools: make(map[string]*fakePool), idle: func() {}}
	for _, name := range pools {
		d.pools[name] = newFakePool(name)
	}
	return d
}

func (d *fakeDaemon) Close() error { return nil }

func (d *fakeDaemon) Stat(_ context.Context, pool string) (client.Stats, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if pool != "" && d.pools[pool] == nil {
		return client.Stats{}, api.Errorf(api.ENOENT, "stat", "there is no active pool %q", pool)
	}
	if d.looked != nil {
		d.looked()
	}
	ops := []client.OpCounters{{Op: 1, Count: 1000, Bytes: 4096, Total: time.Second}}
	ops[0].Buckets[4], ops[0].Buckets[9], ops[0].Buckets[20] = 900, 99, 1
	return client.Stats{
		Uptime: time.Minute, Sessions: 2, Handles: 3, Ops: ops, Drives: []client.DriveCounters{{Path: "/dev/fake", Reads: 5}},
	}, nil
}

func (d *fakeDaemon) Version(context.Context) (client.Version, error) {
	return client.Version{Daemon: "v0", Go: "go1", Protocol: 1, PID: 4711}, nil
}

func (d *fakeDaemon) CreatePool(_ context.Context, name string, devices []string, o api.CreateOptions) (api.CreateResult, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pools[name] != nil {
		return api.CreateResult{}, api.Errorf(api.EEXIST, "pool create", "pool %q is active already", name)
	}
	p := newFakePool(name)
	p.info.Drives = nil
	for _, dev := range devices {
		p.info.Drives = append(p.info.Drives, api.DriveInfo{Path: dev, Size: 1 << 30, State: "online"})
	}
	for _, dev := range o.Staging {
		p.info.Drives = append(p.info.Drives, api.DriveInfo{Path: dev, Size: 1 << 30, State: "online", Class: api.ClassStaging})
	}
	if !o.DryRun && !o.NoActivate {
		d.pools[name] = p
	}
	return api.CreateResult{
		Name: name, UUID: p.info.UUID, ZoneSize: 64 << 10, OverheadBytes: 8 << 20, UsableBytes: 1016 << 20,
		Drives: p.info.Drives,
	}, nil
}

func (d *fakeDaemon) ActivatePool(_ context.Context, name string, _ []string, _ api.ActivateOptions) (api.PoolInfo, error) {
	return api.PoolInfo{}, api.Errorf(api.ENOENT, "pool activate", "no device carries pool %q", name)
}

func (d *fakeDaemon) DeactivatePool(ctx context.Context, name string) error {
	return d.DestroyPool(ctx, name)
}

func (d *fakeDaemon) DestroyPool(_ context.Context, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.pools, name)
	return nil
}

func (d *fakeDaemon) RenamePool(_ context.Context, name, newName string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	p, ok := d.pools[name]
	if !ok {
		return api.Errorf(api.ENOENT, "pool rename", "no active pool %q", name)
	}
	delete(d.pools, name)
	p.info.Name = newName
	d.pools[newName] = p
	return nil
}

// ScrubPool finds one problem in the first of three steps.
func (d *fakeDaemon) ScrubPool(_ context.Context, _ string, from api.ScrubCursor, _ int64) (api.ScrubStep, error) {
	s := api.ScrubStep{
		Next: api.ScrubCursor{Object: from.Object + 1}, Done: from.Object == 2, Verified: 1000, Covered: 4096, Total: 3 * 4096, Objects: 1,
	}
	if from.Object == 0 {
		s.Problems = []api.ScrubProblem{{Object: 7, Device: "/dev/x", Offset: 8192, Code: api.ECORRUPT, Text: "wrong"}}
	}
	return s, nil
}

func (d *fakeDaemon) SetPool(_ context.Context, name string, s api.PoolSettings) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.pools[name]
	if s.Label != nil {
		p.info.Label = *s.Label
	}
	if s.Mode != nil {
		p.info.Mode = *s.Mode
	}
	return nil
}

func (d *fakeDaemon) Pools(ctx context.Context) ([]api.PoolInfo, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return nil, d.err
	}
	var infos []api.PoolInfo
	for _, name := range slices.Sorted(maps.Keys(d.pools)) {
		info, _ := d.pools[name].Info(ctx)
		infos = append(infos, info)
	}
	return infos, nil
}

func (d *fakeDaemon) OpenPool(_ context.Context, name string) (api.Pool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return nil, d.err
	}
	if p, ok := d.pools[name]; ok {
		return p, nil
	}
	return nil, api.Errorf(api.ENOENT, "pool open", "there is no active pool %q", name)
}

// fakePool is a pool in memory. The parts of api.Pool that no verb uses panic.
type fakePool struct {
	api.Pool
	mu      sync.Mutex
	info    api.PoolInfo
	next    uint64
	objects map[layout.ObjectID]*fakeObject
	roots   map[string]layout.ObjectID
	owners  []api.Owner
	commits []int // objects in each CommitMany

	failWrite  error // what writes return once okWrites have been done
	okWrites   int
	committed  chan struct{} // if not nil, writes fail only after the first commit, which closes it
	failCommit error         // the same for commits
	okCommits  int
	failDelete error
}

func newFakePool(name string) *fakePool {
	return &fakePool{
		info: api.PoolInfo{
			Name: name, UUID: "6f1c2a6e-0d9b-4b0e-9a55-0f2f5e6f7a81", State: "active", Health: "optimal",
			ZoneSize: 64 << 10, Mode: 0o660,
			Space:  api.Space{Total: 1 << 30, Free: 1016 << 20, Overhead: 8 << 20},
			Drives: []api.DriveInfo{{Path: "/dev/fake", UUID: "d", State: "online", Size: 1 << 30, Free: 1016 << 20}},
		},
		objects: make(map[layout.ObjectID]*fakeObject),
		roots:   make(map[string]layout.ObjectID),
		owners:  []api.Owner{{Index: 0, Name: "pool"}},
	}
}

// fakeObject is the state of an mblock or mlog.
type fakeObject struct {
	info    api.ObjectInfo
	data    []byte
	records [][]byte
	synced  int
	refs    int
}

// count returns how many objects are committed and how many are not, and the
// references that are held.
func (p *fakePool) count() (committed, uncommitted, refs int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range p.objects {
		refs += o.refs
		if o.info.State == api.StateCommitted {
			committed++
		} else {
			uncommitted++
		}
	}
	return committed, uncommitted, refs
}

func (p *fakePool) Close() error { return nil }

func (p *fakePool) Info(context.Context) (api.PoolInfo, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	info := p.info
	for _, o := range p.objects {
		if o.info.Kind == layout.KindMblock {
			info.Mblocks++
		} else {
			info.Mlogs++
		}
	}
	return info, nil
}

func (p *fakePool) alloc(kind layout.Kind, o api.AllocOptions) *fakeHandle {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next++
	id := layout.NewObjectID(kind, p.next)
	obj := &fakeObject{refs: 1, info: api.ObjectInfo{
		ID: id, Kind: kind, State: api.StateUncommitted, Class: o.Class, Capacity: o.Capacity, Owner: o.Owner,
		Tag: o.Tag, Refs: 1, Created: time.Unix(1700000000, 0),
	}}
	if kind == layout.KindMlog {
		obj.info.Generation = 1
	}
	p.objects[id] = obj
	return &fakeHandle{pool: p, obj: obj}
}

func (p *fakePool) open(kind layout.Kind, id layout.ObjectID) (*fakeHandle, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	obj, ok := p.objects[id]
	if !ok || id.Kind() != kind {
		return nil, &api.Error{Code: api.ENOENT, Op: kind.String() + " find", Object: id, Detail: "there is no such object"}
	}
	obj.refs++
	return &fakeHandle{pool: p, obj: obj}, nil
}

func (p *fakePool) AllocMblock(ctx context.Context, o api.AllocOptions) (api.Mblock, error) {
	if ctx.Err() != nil {
		return nil, api.ContextError("mblock alloc", context.Cause(ctx))
	}
	if o.Capacity > p.info.Space.Free {
		return nil, &api.Error{Code: api.ENOSPC, Op: "mblock alloc", Want: o.Capacity, Have: p.info.Space.Free, Detail: "too large"}
	}
	return p.alloc(layout.KindMblock, o), nil
}

func (p *fakePool) Mblock(_ context.Context, id layout.ObjectID) (api.Mblock, error) {
	h, err := p.open(layout.KindMblock, id)
	if err != nil {
		return nil, err
	}
	return h, nil
}

func (p *fakePool) AllocMlog(_ context.Context, o api.AllocOptions) (api.Mlog, error) {
	return &fakeLog{fakeHandle: p.alloc(layout.KindMlog, o)}, nil
}

func (p *fakePool) Mlog(_ context.Context, id layout.ObjectID) (api.Mlog, error) {
	h, err := p.open(layout.KindMlog, id)
	if err != nil {
		return nil, err
	}
	return &fakeLog{fakeHandle: h}, nil
}

func (p *fakePool) CommitMany(_ context.Context, objects []api.Object, _ []api.Root) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failCommit != nil && p.okCommits == 0 {
		return p.failCommit
	}
	p.okCommits--
	if p.committed != nil && len(p.commits) == 0 {
		close(p.committed)
	}
	p.commits = append(p.commits, len(objects))
	for _, o := range objects {
		p.objects[o.ID()].info.State = api.StateCommitted
	}
	return nil
}

func (p *fakePool) SetRoots(_ context.Context, roots []api.Root) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range roots {
		if r.ID == 0 {
			delete(p.roots, r.Name)
		} else {
			p.roots[r.Name] = r.ID
		}
	}
	return nil
}

func (p *fakePool) Roots(context.Context) ([]api.Root, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var roots []api.Root
	for _, name := range slices.Sorted(maps.Keys(p.roots)) {
		roots = append(roots, api.Root{Name: name, ID: p.roots[name]})
	}
	return roots, nil
}

func (p *fakePool) Objects(_ context.Context, f api.Filter) iter.Seq2[api.ObjectInfo, error] {
	return func(yield func(api.ObjectInfo, error) bool) {
		p.mu.Lock()
		var infos []api.ObjectInfo
		for _, id := range slices.Sorted(maps.Keys(p.objects)) {
			infos = append(infos, p.objects[id].info)
		}
		p.mu.Unlock()
		for _, i := range infos {
			switch {
			case f.Kind != 0 && f.Kind != i.Kind, f.Owner != nil && *f.Owner != i.Owner, f.Tag != nil && *f.Tag != i.Tag:
				continue
			}
			if !yield(i, nil) {
				return
			}
		}
	}
}

func (p *fakePool) Owners(context.Context) ([]api.Owner, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.owners), nil
}

func (p *fakePool) AddOwner(_ context.Context, name string, parent uint32) (uint32, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := uint32(len(p.owners))
	p.owners = append(p.owners, api.Owner{Index: i, Parent: parent, Name: name})
	return i, nil
}

func dialFake(d *fakeDaemon) func(context.Context, client.Options) (daemon, error) {
	return func(context.Context, client.Options) (daemon, error) { return d, nil }
}
