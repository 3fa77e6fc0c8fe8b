package server

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

// activePool is a pool that is active in this daemon.
type activePool struct {
	pool    Pool
	feed    *feed
	ops     counters
	handles atomic.Int64 // of all sessions

	ownership ownership

	sweeping sync.Mutex // held by a sweep; see the package's comment
	orphans  atomic.Int64

	mu sync.Mutex
	// +checklocks:mu
	name string
	// +checklocks:mu
	opens int // handles on the pool itself
	// +checklocks:mu
	busy bool // an administrator is changing it
	// +checklocks:mu
	leaving bool // it is being deactivated: no opens
	// +checklocks:mu
	adopters map[layout.ObjectID]*session // of uncommitted objects
	// +checklocks:mu
	own map[*session]map[layout.ObjectID]struct{} // the same, by session
	// +checklocks:mu
	orphaned map[layout.ObjectID]*session // uncommitted objects of sessions that ended
}

func newActivePool(p Pool, f *feed) *activePool {
	name := p.Name()
	f.rename(name)
	return &activePool{
		pool: p, feed: f, name: name,
		adopters: make(map[layout.ObjectID]*session),
		own:      make(map[*session]map[layout.ObjectID]struct{}),
		orphaned: make(map[layout.ObjectID]*session),
	}
}

// open counts a handle on the pool.
func (a *activePool) open() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.leaving {
		return api.Errorf(api.EBUSY, "", "the pool is being deactivated")
	}
	a.opens++
	return nil
}

// closed counts one out.
func (a *activePool) closed() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.opens--
}

// begin lets one administrator change the pool. With alone nobody may have it
// open.
func (a *activePool) begin(alone bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.busy:
		return api.Errorf(api.EBUSY, "", "another administrator is changing the pool; try again")
	case alone && a.opens > 0:
		return api.Errorf(api.EBUSY, "", "%d clients have the pool open; end them first", a.opens)
	}
	a.busy, a.leaving = true, alone
	return nil
}

func (a *activePool) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.busy, a.leaving = false, false
}

// poolTable has the active pools by name.
type poolTable struct {
	mu sync.Mutex
	// +checklocks:mu
	active map[string]*activePool // nil: the name is being taken
}

func (t *poolTable) init() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.active = make(map[string]*activePool)
}

// get returns an active pool.
func (t *poolTable) get(name string) (*activePool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a := t.active[name]; a != nil {
		return a, nil
	}
	return nil, api.Errorf(api.ENOENT, "", "no active pool %q", name)
}

// reserve takes a name until put or drop. code says what a taken one means.
func (t *poolTable) reserve(name string, code api.Code) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, taken := t.active[name]; taken {
		return api.Errorf(code, "", "a pool %q is active, or is becoming so", name)
	}
	t.active[name] = nil
	return nil
}

func (t *poolTable) put(name string, a *activePool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.active[name] = a
}

func (t *poolTable) drop(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.active, name)
}

// rename moves a pool to a name that was reserved.
func (t *poolTable) rename(a *activePool, name, newName string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.active, name)
	t.active[newName] = a
	a.mu.Lock()
	a.name = newName
	a.mu.Unlock()
	a.feed.rename(newName)
	a.ownership.forget(true)
}

// list returns the active pools sorted by name.
func (t *poolTable) list() []*activePool {
	t.mu.Lock()
	defer t.mu.Unlock()
	names := make([]string, 0, len(t.active))
	for name, a := range t.active {
		if a != nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	list := make([]*activePool, len(names))
	for i, name := range names {
		list[i] = t.active[name]
	}
	return list
}

// title returns the pool's name.
func (a *activePool) title() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.name
}

// arrived makes a pool known that is active now.
func (s *Server) arrived(name string, a *activePool) {
	s.pools.put(name, a)
	s.tellEvent(ioctl.Event{Type: ioctl.EventPoolActivated, Pool: name})
}

// left takes away a pool that is active no more.
func (s *Server) left(name string) {
	s.pools.drop(name)
	s.tellEvent(ioctl.Event{Type: ioctl.EventPoolDeactivated, Pool: name})
}

// CreatePool implements [api.Manager].
func (s *Server) CreatePool(ctx context.Context, name string, devices []string, o api.CreateOptions) (api.CreateResult, error) {
	if err := s.pools.reserve(name, api.EEXIST); err != nil {
		return api.CreateResult{}, err
	}
	activated := false
	defer func() {
		if !activated {
			s.pools.drop(name)
		}
	}()
	result, err := s.opt.Backend.Create(ctx, name, devices, o)
	if err != nil || o.DryRun {
		return result, err
	}
	s.log.Info("pool created", slog.String("pool", name), slog.String("uuid", result.UUID))
	if o.NoActivate {
		return result, nil
	}
	all := append(slices.Clone(devices), o.Staging...)
	f := s.newFeed(name)
	p, err := s.opt.Backend.Activate(ctx, name, all, api.ActivateOptions{}, f.watch())
	if err != nil {
		return result, err
	}
	s.arrived(name, newActivePool(p, f))
	activated = true
	s.log.Info("pool activated", slog.String("pool", name))
	return result, nil
}

// ActivatePool implements [api.Manager].
func (s *Server) ActivatePool(ctx context.Context, nameOrUUID string, devices []string, o api.ActivateOptions) (api.PoolInfo, error) {
	if err := s.pools.reserve(nameOrUUID, api.EBUSY); err != nil {
		return api.PoolInfo{}, err
	}
	defer func() {
		if _, err := s.pools.get(nameOrUUID); err != nil {
			s.pools.drop(nameOrUUID) // it is not active under what was asked for
		}
	}()
	f := s.newFeed(nameOrUUID)
	p, err := s.opt.Backend.Activate(ctx, nameOrUUID, devices, o, f.watch())
	if err != nil {
		return api.PoolInfo{}, err
	}
	name := p.Name()
	if name != nameOrUUID {
		if err := s.pools.reserve(name, api.EEXIST); err != nil {
			return api.PoolInfo{}, errors.Join(err, p.Close())
		}
	}
	info, err := p.Info(ctx)
	if err != nil {
		if name != nameOrUUID {
			s.pools.drop(name)
		}
		return api.PoolInfo{}, errors.Join(err, p.Close())
	}
	s.arrived(name, newActivePool(p, f))
	s.log.Info("pool activated", slog.String("pool", name), slog.String("uuid", info.UUID))
	return info, nil
}

// Activate is ActivatePool with no options and nothing to say about the pool.
func (s *Server) Activate(ctx context.Context, nameOrUUID string, devices []string) error {
	_, err := s.ActivatePool(ctx, nameOrUUID, devices, api.ActivateOptions{})
	return err
}

// change does an administrator's change of a pool.
func (s *Server) change(name string, alone bool, f func(*activePool) error) error {
	a, err := s.pools.get(name)
	if err != nil {
		return err
	}
	if err := a.begin(alone); err != nil {
		return err
	}
	defer a.end()
	return f(a)
}

// tell logs what became of a pool that is active no more.
func (s *Server) tell(what, name string, err error) {
	if err != nil {
		s.log.Error(what, slog.String("pool", name), slog.Any("error", err)) //nolint:sloglint // one of two constants
		return
	}
	s.log.Info(what, slog.String("pool", name)) //nolint:sloglint // one of two constants
}

// DeactivatePool implements [api.Manager].
func (s *Server) DeactivatePool(_ context.Context, name string) error {
	return s.change(name, true, func(a *activePool) error {
		err := a.pool.Close()
		if errors.Is(err, api.EBUSY) {
			return err
		}
		s.left(name)
		s.tell("pool deactivated", name, err)
		return err
	})
}

// DestroyPool implements [api.Manager].
func (s *Server) DestroyPool(ctx context.Context, name string) error {
	return s.change(name, true, func(a *activePool) error {
		err := a.pool.Destroy(ctx)
		if errors.Is(err, api.EBUSY) || errors.Is(err, api.EROFS) {
			return err
		}
		if err != nil {
			// It may be half done; whatever it is, it is not to be used.
			if cerr := a.pool.Close(); cerr != nil && !errors.Is(cerr, api.EBADF) {
				err = errors.Join(err, cerr)
			}
		}
		s.left(name)
		s.tell("pool destroyed", name, err)
		return err
	})
}

// RenamePool implements [api.Manager].
func (s *Server) RenamePool(ctx context.Context, name, newName string) error {
	return s.change(name, false, func(a *activePool) error {
		if name == newName {
			return nil
		}
		if err := s.pools.reserve(newName, api.EEXIST); err != nil {
			return err
		}
		if err := a.pool.Rename(ctx, newName); err != nil {
			s.pools.drop(newName)
			return err
		}
		s.pools.rename(a, name, newName)
		s.log.Info("pool renamed", slog.String("pool", name), slog.String("new_name", newName))
		return nil
	})
}

// SetPool implements [api.Manager].
func (s *Server) SetPool(ctx context.Context, name string, set api.PoolSettings) error {
	return s.change(name, false, func(a *activePool) error { return a.pool.Set(ctx, set) })
}

// Pools implements [api.Manager].
func (s *Server) Pools(ctx context.Context) ([]api.PoolInfo, error) {
	var infos []api.PoolInfo
	for _, a := range s.pools.list() {
		info, err := a.pool.Info(ctx)
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	slices.SortFunc(infos, func(a, b api.PoolInfo) int { return strings.Compare(a.Name, b.Name) })
	return infos, nil
}

// closePools closes all pools, at the same time and whatever is in use.
func (s *Server) closePools(ctx context.Context) error {
	list := s.pools.list()
	results := make(chan error, len(list))
	for _, a := range list {
		go func() {
			err := a.pool.Close()
			if errors.Is(err, api.EBUSY) {
				s.log.Warn("pool closed while in use", slog.String("pool", a.title()), slog.Any("error", err))
				err = errors.Join(err, a.pool.Abandon(ctx))
			}
			s.tellEvent(ioctl.Event{Type: ioctl.EventPoolDeactivated, Pool: a.title()})
			if err == nil {
				s.log.Info("pool closed", slog.String("pool", a.title()))
			}
			results <- err
		}()
	}
	var errs []error
	for range list {
		select {
		case err := <-results:
			errs = append(errs, err)
		case <-ctx.Done():
			return errors.Join(append(errs, context.Cause(ctx))...)
		}
	}
	return errors.Join(errs...)
}
