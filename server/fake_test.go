package server

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

// fakeBackend has pools in memory. They check what the server must not do to a
// real one: use a handle that has ended, or end it twice.
type fakeBackend struct {
	mu    sync.Mutex
	pools map[string]*fakePool
	// before is called at the start of every operation of every pool; it may
	// wait, and fail the operation.
	before func(ctx context.Context, op string) error
	// unheard makes operations run on although their context has ended.
	unheard bool
}

func newFakeBackend() *fakeBackend {
	return &fakeBackend{pools: make(map[string]*fakePool), before: func(context.Context, string) error { return nil }}
}

// hook changes what happens before operations.
func (b *fakeBackend) hook(f func(ctx context.Context, op string) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.before = f
}

// deaf makes operations run on although their context has ended.
func (b *fakeBackend) deaf(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unheard = on
}

func (b *fakeBackend) begin(ctx context.Context, op string) error {
	b.mu.Lock()
	f, deaf := b.before, b.unheard
	b.mu.Unlock()
	if err := f(ctx, op); err != nil {
		return err
	}
	if ctx.Err() != nil && !deaf {
		return api.ContextError(op, context.Cause(ctx))
	}
	return nil
}

func (b *fakeBackend) Create(ctx context.Context, name string, devices []string, o api.CreateOptions) (api.CreateResult, error) {
	if err := b.begin(ctx, "pool create"); err != nil {
		return api.CreateResult{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if name == "" || len(devices) == 0 {
		return api.CreateResult{}, api.Errorf(api.EINVAL, "pool create", "no name or no devices")
	}
	p := &fakePool{
		b: b, uuid: "uuid of " + name, objects: make(map[layout.ObjectID]*fakeObject),
		roots: make(map[string]layout.ObjectID), owners: []api.Owner{{}}, next: 1,
		info: api.PoolInfo{Name: name, UUID: "uuid of " + name, State: "active", UID: o.UID, GID: o.GID, Mode: o.Mode, Label: o.Label},
	}
	if p.info.Mode == 0 {
		p.info.Mode = 0o660
	}
	for i, d := range append(slices.Clone(devices), o.Staging...) {
		p.info.Drives = append(p.info.Drives, api.DriveInfo{Path: d, Slot: uint16(i), State: "online"})
	}
	if !o.DryRun {
		b.pools[name] = p
	}
	return api.CreateResult{Name: name, UUID: p.uuid, ZoneSize: 65536, Drives: p.info.Drives}, nil
}

func (b *fakeBackend) Activate(ctx context.Context, nameOrUUID string, _ []string, _ api.ActivateOptions, w Watch) (Pool, error) {
	if err := b.begin(ctx, "pool activate"); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.pools {
		p.mu.Lock()
		if p.info.Name == nameOrUUID || p.uuid == nameOrUUID {
			defer p.mu.Unlock()
			if p.active {
				return nil, api.Errorf(api.EBUSY, "pool activate", "active already")
			}
			p.active, p.watch = true, w
			return p, nil
		}
		p.mu.Unlock()
	}
	return nil, api.Errorf(api.ENOENT, "pool activate", "no pool %q", nameOrUUID)
}

type fakePool struct {
	b    *fakeBackend
	uuid string

	mu      sync.Mutex
	info    api.PoolInfo
	active  bool
	watch   Watch
	next    uint64
	objects map[layout.ObjectID]*fakeObject
	roots   map[string]layout.ObjectID
	owners  []api.Owner
	misuse  []string // what must not happen
	closers int      // appenders, readers and MDCs that are open

	table, growths atomic.Int64 // what it says of its memory
}

func (p *fakePool) DriveStats() map[string]bdev.Stats { return nil }
func (p *fakePool) MemoryBytes() (table, sums int64)  { return p.table.Load(), 0 }
func (p *fakePool) CacheBytes() int64                 { return 0 }
func (p *fakePool) MemoryGrowths() uint64             { return uint64(p.growths.Load()) }

type fakeObject struct {
	p       *fakePool
	id      layout.ObjectID
	o       api.AllocOptions
	state   api.State
	refs    uint32
	busy    bool // being committed
	data    []byte
	records [][]byte
	gen     uint64
	append  bool
}

func (p *fakePool) wrong(what string) {
	p.misuse = append(p.misuse, what)
}

func (p *fakePool) begin(ctx context.Context, op string) error { return p.b.begin(ctx, op) }

func (p *fakePool) Name() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.info.Name
}

func (p *fakePool) Access() (uid, gid, mode uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.info.UID, p.info.GID, p.info.Mode
}

func (p *fakePool) Shared() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.info.Shared
}

func (p *fakePool) Rename(_ context.Context, name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.info.Name = name
	return nil
}

func (p *fakePool) Set(ctx context.Context, s api.PoolSettings) error {
	if err := p.begin(ctx, "pool set"); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.Mode != nil {
		p.info.Mode = *s.Mode
	}
	if s.UID != nil {
		p.info.UID = *s.UID
	}
	if s.GID != nil {
		p.info.GID = *s.GID
	}
	if s.Shared != nil {
		p.info.Shared = *s.Shared
	}
	return nil
}

func (p *fakePool) Scrub(ctx context.Context, _ api.ScrubCursor, _ int64) (api.ScrubStep, error) {
	if err := p.begin(ctx, "pool scrub"); err != nil {
		return api.ScrubStep{}, err
	}
	return api.ScrubStep{Done: true}, nil
}

func (p *fakePool) Destroy(ctx context.Context) error {
	if err := p.begin(ctx, "pool destroy"); err != nil {
		return err
	}
	if err := p.Close(); err != nil {
		return err
	}
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	maps.DeleteFunc(p.b.pools, func(_ string, q *fakePool) bool { return p == q })
	return nil
}

func (p *fakePool) Abandon(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.active = false
	maps.DeleteFunc(p.objects, func(_ layout.ObjectID, o *fakeObject) bool { return o.state == api.StateUncommitted })
	return nil
}

func (p *fakePool) Describe(_ context.Context, id layout.ObjectID) (api.ObjectInfo, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if o := p.objects[id]; o != nil {
		return o.info(), nil
	}
	return api.ObjectInfo{}, api.Errorf(api.ENOENT, "object show", "no %v", id)
}

func (p *fakePool) DriveCounters() []ioctl.DriveCounters {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []ioctl.DriveCounters
	for _, d := range p.info.Drives {
		list = append(list, ioctl.DriveCounters{Path: d.Path, Reads: 7})
	}
	return list
}

func (p *fakePool) Info(ctx context.Context) (api.PoolInfo, error) {
	if err := p.begin(ctx, "pool info"); err != nil {
		return api.PoolInfo{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.info, nil
}

func (p *fakePool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range p.objects {
		if o.refs > 0 {
			return api.Errorf(api.EBUSY, "pool close", "%v is in use", o.id)
		}
	}
	if !p.active {
		return api.Errorf(api.EBADF, "pool close", "closed already")
	}
	p.active = false
	for id, o := range p.objects {
		if o.state == api.StateUncommitted {
			delete(p.objects, id)
		}
	}
	return nil
}

func (p *fakePool) CommitMany(ctx context.Context, objects []api.Object, roots []api.Root) error {
	for _, o := range objects {
		if err := o.Commit(ctx); err != nil {
			return err
		}
	}
	return p.SetRoots(ctx, roots)
}

func (p *fakePool) SetRoots(ctx context.Context, roots []api.Root) error {
	if err := p.begin(ctx, "root set"); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range roots {
		p.roots[r.Name] = r.ID
	}
	return nil
}

func (p *fakePool) Roots(context.Context) ([]api.Root, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []api.Root
	for name, id := range p.roots {
		list = append(list, api.Root{Name: name, ID: id})
	}
	slices.SortFunc(list, func(a, b api.Root) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

func (p *fakePool) AddOwner(_ context.Context, name string, parent uint32) (uint32, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := uint32(len(p.owners))
	p.owners = append(p.owners, api.Owner{Index: i, Parent: parent, Name: name})
	return i, nil
}

func (p *fakePool) Owners(context.Context) ([]api.Owner, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.owners), nil
}
