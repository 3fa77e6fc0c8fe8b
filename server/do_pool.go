package server

import (
	"errors"
	"os"
	"runtime"
	"sort"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

func version(r *request, _ *ioctl.Empty) (ioctl.Message, error) {
	return &ioctl.VersionReply{
		Daemon: r.s.srv.opt.Version, Go: runtime.Version(), Protocol: ioctl.Version, PID: int32(os.Getpid()),
	}, nil
}

func stat(r *request, m *ioctl.StatAsk) (ioctl.Message, error) {
	if m.Pool == "" {
		return r.s.srv.stat(m, nil), nil
	}
	a, err := r.visible(m.Pool)
	if err != nil {
		return nil, err
	}
	return r.s.srv.stat(m, a), nil
}

// mustAdmin refuses everybody but administrators.
func (r *request) mustAdmin() error {
	if !r.s.peer.admin {
		return api.Errorf(api.EPERM, "", "only root and the daemon's user may")
	}
	return nil
}

// rights returns the peer's permission bits on a pool.
func (r *request) rights(a *activePool) uint32 {
	return r.s.peer.may(a.pool.Access())
}

// visible returns a pool by name if the peer may see it.
func (r *request) visible(name string) (*activePool, error) {
	a, err := r.s.srv.pools.get(name)
	if err != nil {
		return nil, err
	}
	if r.rights(a)&mayRead == 0 {
		return nil, api.Errorf(api.EPERM, "", "the pool's owner, group and mode do not let user %d open it", r.s.peer.uid)
	}
	return a, nil
}

func poolCreate(r *request, m *ioctl.PoolCreate) (ioctl.Message, error) {
	if err := r.mustAdmin(); err != nil {
		return nil, err
	}
	result, err := r.s.srv.CreatePool(r.ctx, m.Name, m.Devices, m.Options)
	if err != nil {
		return nil, err
	}
	return &ioctl.PoolCreateReply{Result: result}, nil
}

func poolActivate(r *request, m *ioctl.PoolActivate) (ioctl.Message, error) {
	if err := r.mustAdmin(); err != nil {
		return nil, err
	}
	info, err := r.s.srv.ActivatePool(r.ctx, m.Name, m.Devices, m.Options)
	if err != nil {
		return nil, err
	}
	return poolReply(info, 0), nil
}

// poolReply makes the page of a pool's description that begins with a drive.
func poolReply(info api.PoolInfo, firstDrive uint32) *ioctl.PoolReply {
	n := len(info.Drives)
	first := min(int(firstDrive), n)
	last := min(first+ioctl.DrivesPerPage, n)
	info.Drives = info.Drives[first:last]
	return &ioctl.PoolReply{Info: info, More: last < n}
}

func poolDeactivate(r *request, m *ioctl.PoolName) (ioctl.Message, error) {
	if err := r.mustAdmin(); err != nil {
		return nil, err
	}
	return &ioctl.Empty{}, r.withOpeners(m.Name, r.s.srv.DeactivatePool(r.ctx, m.Name))
}

// withOpeners puts into an EBUSY who has the pool open.
func (r *request) withOpeners(name string, err error) error {
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.EBUSY {
		return err
	}
	if a, gerr := r.s.srv.pools.get(name); gerr == nil {
		e.Holders = r.holders(a, []layout.ObjectID{0}) // handles of the pool are on no object
	}
	return err
}

func poolDestroy(r *request, m *ioctl.PoolName) (ioctl.Message, error) {
	if err := r.mustAdmin(); err != nil {
		return nil, err
	}
	return &ioctl.Empty{}, r.withOpeners(m.Name, r.s.srv.DestroyPool(r.ctx, m.Name))
}

func poolRename(r *request, m *ioctl.PoolRename) (ioctl.Message, error) {
	if err := r.mustAdmin(); err != nil {
		return nil, err
	}
	return &ioctl.Empty{}, r.s.srv.RenamePool(r.ctx, m.Name, m.NewName)
}

// poolScrub does one step of a scrub. Whoever asks for the steps paces them.
func poolScrub(r *request, m *ioctl.PoolScrub) (ioctl.Message, error) {
	if err := r.mustAdmin(); err != nil {
		return nil, err
	}
	a, err := r.s.srv.pools.get(m.Name)
	if err != nil {
		return nil, err
	}
	if m.Bytes <= 0 || m.Bytes > api.MaxScrubStep {
		return nil, api.Errorf(api.EINVAL, "", "a step of %d bytes: want 1 to %d", m.Bytes, int64(api.MaxScrubStep))
	}
	step, err := a.pool.Scrub(r.ctx, m.From, m.Bytes)
	if err != nil {
		return nil, err
	}
	return &ioctl.PoolScrubReply{Step: step}, nil
}

func poolSet(r *request, m *ioctl.PoolSet) (ioctl.Message, error) {
	if err := r.mustAdmin(); err != nil {
		return nil, err
	}
	return &ioctl.Empty{}, r.s.srv.SetPool(r.ctx, m.Name, m.Settings)
}

// poolList lists the pools that the peer may open.
func poolList(r *request, m *ioctl.PoolName) (ioctl.Message, error) {
	reply := &ioctl.PoolListReply{}
	for _, a := range r.s.srv.pools.list() {
		name := a.title()
		if name <= m.Name || r.rights(a)&mayRead == 0 {
			continue
		}
		if len(reply.Names) == ioctl.PoolsPerPage {
			reply.More = true
			break
		}
		reply.Names = append(reply.Names, name)
	}
	return reply, nil
}

func poolShow(r *request, m *ioctl.PoolShow) (ioctl.Message, error) {
	var a *activePool
	if m.Pool != 0 {
		p, err := use[*poolRef](r, m.Pool, kindPool)
		if err != nil {
			return nil, err
		}
		a = p.pool
	} else {
		var err error
		if a, err = r.visible(m.Name); err != nil {
			return nil, err
		}
	}
	info, err := a.pool.Info(r.ctx)
	if err != nil {
		return nil, err
	}
	return poolReply(info, m.FirstDrive), nil
}

func poolOpen(r *request, m *ioctl.PoolName) (ioctl.Message, error) {
	a, err := r.visible(m.Name)
	if err != nil {
		return nil, err
	}
	if err := r.s.srv.reserver.Enter(&r.s.client, m.Name); err != nil {
		return nil, refused("the client may not open the pool now", err)
	}
	if err := a.open(); err != nil {
		return nil, err
	}
	if view, _ := a.ownership.get(); view != nil && view.wanting {
		a.ownership.forget(false) // it may be there by now
	}
	r.s.mu.Lock()
	r.s.pools[a] = struct{}{}
	r.s.mu.Unlock()
	h, err := r.give(kindPool, &poolRef{pool: a, writable: r.rights(a)&mayWrite != 0})
	if err != nil {
		return nil, err
	}
	return &ioctl.Opened{Handle: h}, nil
}

// usePool looks a pool's handle up, to write or only to read.
func usePool(r *request, h ioctl.Handle, write bool) (*poolRef, error) {
	p, err := use[*poolRef](r, h, kindPool)
	if err != nil {
		return nil, err
	}
	if write {
		return p, p.mustWrite()
	}
	return p, nil
}

func (p *poolRef) mustWrite() error {
	if !p.writable {
		return api.Errorf(api.EPERM, "", "the pool's owner, group and mode let the caller read only")
	}
	return nil
}

// closeHandle gives up a handle of any kind.
func closeHandle(r *request, m *ioctl.Target) (ioctl.Message, error) {
	v, err := use[resource](r, m.Handle, kindPool, kindMblock, kindMlog, kindAppender, kindReader, kindMDC, kindList)
	if err != nil {
		return nil, err
	}
	if p, ok := v.(*poolRef); ok {
		if n := p.children.Load(); n > 0 {
			return nil, api.Errorf(api.EBUSY, "", "%d handles that were opened through the pool's are in use", n)
		}
	}
	if !r.s.table.End(r.entry()) {
		return nil, closedMeanwhile()
	}
	switch v.(type) {
	case *readerRef, *listRef:
		// Another request may be in it: the last one of them releases it.
		return &ioctl.Empty{}, nil
	}
	if !v.taken() {
		return nil, closedMeanwhile()
	}
	return &ioctl.Empty{}, r.s.closeResource(r.ctx, v)
}

func closedMeanwhile() error {
	return api.Errorf(api.EBADF, "", "the handle was closed at the same time")
}

// mustReachRoots says ENOENT of a root that is to name what the session may not
// use. Roots are of the pool: who may write it may change and unset any.
func (r *request) mustReachRoots(a *activePool, roots []api.Root) error {
	ids := make([]layout.ObjectID, 0, len(roots))
	for _, root := range roots {
		if root.ID != 0 {
			ids = append(ids, root.ID)
		}
	}
	return r.mustReach(a, ids...)
}

func rootsSet(r *request, m *ioctl.RootsSet) (ioctl.Message, error) {
	p, err := usePool(r, m.Pool, true)
	if err != nil {
		return nil, err
	}
	roots, err := r.roots(&m.Roots)
	if err != nil {
		return nil, err
	}
	if err := r.mustReachRoots(p.pool, roots); err != nil {
		return nil, err
	}
	return &ioctl.Empty{}, p.pool.pool.SetRoots(r.ctx, roots)
}

func rootsList(r *request, m *ioctl.RootsList) (ioctl.Message, error) {
	p, err := usePool(r, m.Pool, false)
	if err != nil {
		return nil, err
	}
	roots, err := p.pool.pool.Roots(r.ctx)
	if err != nil {
		return nil, err
	}
	i := sort.Search(len(roots), func(i int) bool { return roots[i].Name > m.After })
	roots = roots[i:]
	reply := &ioctl.RootsReply{Roots: roots[:min(len(roots), ioctl.RootsPerPage)]}
	reply.More = len(reply.Roots) < len(roots)
	return reply, nil
}

func ownerAdd(r *request, m *ioctl.OwnerAdd) (ioctl.Message, error) {
	p, err := usePool(r, m.Pool, true)
	if err != nil {
		return nil, err
	}
	if uid, _, _ := p.pool.pool.Access(); !r.s.peer.admin && r.s.peer.uid != uid {
		return nil, api.Errorf(api.EPERM, "", "only administrators and the pool's own user may add owners")
	}
	index, err := p.pool.pool.AddOwner(r.ctx, m.Name, m.Parent)
	p.pool.ownership.forget(false)
	if err != nil {
		return nil, err
	}
	if q := p.pool.quotas.Load(); q != nil {
		q.ownerAdded(r.ctx)
	}
	return &ioctl.OwnerAdded{Index: index}, nil
}

func ownerList(r *request, m *ioctl.OwnerList) (ioctl.Message, error) {
	p, err := usePool(r, m.Pool, false)
	if err != nil {
		return nil, err
	}
	owners, err := p.pool.pool.Owners(r.ctx)
	if err != nil {
		return nil, err
	}
	i := sort.Search(len(owners), func(i int) bool { return owners[i].Index >= m.From })
	owners = owners[i:]
	reply := &ioctl.OwnersReply{Owners: owners[:min(len(owners), ioctl.OwnersPerPage)]}
	reply.More = len(reply.Owners) < len(owners)
	return reply, nil
}
