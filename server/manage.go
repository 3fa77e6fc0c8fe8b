package server

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mpool-go/mpool/api"
)

// choreGrace is how long an administrator's call whose context has ended waits
// for the backend to say what came of it.
const choreGrace = 250 * time.Millisecond

// chore does what must come to its end although its caller gives up: what the
// daemon knows of its pools follows what became of them. When the context ends
// before it does: EUNKNOWN, and it goes on; Shutdown waits for it.
func chore[T any](ctx context.Context, s *Server, f func() (T, error)) (T, error) {
	type outcome struct {
		v   T
		err error
	}
	done := make(chan outcome, 1)
	s.chores.Go(func() {
		v, err := f()
		done <- outcome{v, err}
	})
	select {
	case o := <-done:
		return o.v, o.err
	case <-ctx.Done():
	}
	grace := time.NewTimer(choreGrace)
	defer grace.Stop()
	select {
	case o := <-done:
		return o.v, o.err
	case <-grace.C:
	}
	var none T
	return none, &api.Error{
		Code: api.EUNKNOWN, Err: context.Cause(ctx),
		Detail: "it goes on in the daemon; look at the pool to see its outcome",
	}
}

// CreatePool implements [api.Manager].
func (s *Server) CreatePool(ctx context.Context, name string, devices []string, o api.CreateOptions) (api.CreateResult, error) {
	if ctx.Err() != nil {
		return api.CreateResult{}, api.ContextError("", context.Cause(ctx))
	}
	return chore(ctx, s, func() (api.CreateResult, error) { return s.create(ctx, name, devices, o) })
}

// mustNotServe refuses devices that are drives of an active pool. The engine
// would, too, but it cannot say whose they are.
func (s *Server) mustNotServe(ctx context.Context, devices []string) error {
	for _, a := range s.pools.list() {
		info, err := a.pool.Info(ctx)
		if err != nil {
			continue // it is being deactivated
		}
		for _, d := range info.Drives {
			there, err := os.Stat(d.Path)
			if err != nil {
				continue
			}
			for _, path := range devices {
				if st, err := os.Stat(path); err == nil && os.SameFile(st, there) {
					return api.Errorf(api.EBUSY, "", "%s is a drive of the active pool %q; destroy that first, or take another device", path, info.Name)
				}
			}
		}
	}
	return nil
}

func (s *Server) create(ctx context.Context, name string, devices []string, o api.CreateOptions) (api.CreateResult, error) {
	if err := s.pools.reserve(name, api.EEXIST); err != nil {
		return api.CreateResult{}, err
	}
	activated := false
	defer func() {
		if !activated {
			s.pools.drop(name)
		}
	}()
	all := append(slices.Clone(devices), o.Staging...)
	if err := s.mustNotServe(ctx, all); err != nil {
		return api.CreateResult{}, err
	}
	result, err := s.opt.Backend.Create(ctx, name, devices, o)
	if err != nil || o.DryRun {
		return result, err
	}
	s.log.Info("pool created", slog.String("pool", name), slog.String("uuid", result.UUID))
	if o.NoActivate {
		return result, nil
	}
	f := s.newFeed(name)
	p, err := s.opt.Backend.Activate(ctx, name, all, api.ActivateOptions{}, f.watch())
	if err != nil {
		return result, err
	}
	if err := s.arrive(ctx, name, p, f); err != nil {
		return result, errors.Join(err, p.Close())
	}
	activated = true
	s.log.Info("pool activated", slog.String("pool", name))
	return result, nil
}

// ActivatePool implements [api.Manager].
func (s *Server) ActivatePool(ctx context.Context, nameOrUUID string, devices []string, o api.ActivateOptions) (api.PoolInfo, error) {
	if ctx.Err() != nil {
		return api.PoolInfo{}, api.ContextError("", context.Cause(ctx))
	}
	return chore(ctx, s, func() (api.PoolInfo, error) { return s.activate(ctx, nameOrUUID, devices, o) })
}

func (s *Server) activate(ctx context.Context, nameOrUUID string, devices []string, o api.ActivateOptions) (api.PoolInfo, error) {
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
	if err := s.arrive(ctx, name, p, f); err != nil {
		if name != nameOrUUID {
			s.pools.drop(name)
		}
		return api.PoolInfo{}, errors.Join(err, p.Close())
	}
	s.log.Info("pool activated", slog.String("pool", name), slog.String("uuid", info.UUID))
	return info, nil
}

// Activate is ActivatePool with no options and nothing to say about the pool.
func (s *Server) Activate(ctx context.Context, nameOrUUID string, devices []string) error {
	_, err := s.ActivatePool(ctx, nameOrUUID, devices, api.ActivateOptions{})
	return err
}

// change does an administrator's change of a pool. f's context is the daemon's.
func (s *Server) change(ctx context.Context, name string, alone bool, f func(context.Context, *activePool) error) error {
	a, err := s.pools.get(name)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return api.ContextError("", context.Cause(ctx))
	}
	if alone {
		s.dying.letGo() // the dead have nothing open
	}
	if err := a.begin(name, alone); err != nil {
		return err
	}
	_, err = chore(ctx, s, func() (struct{}, error) {
		defer a.end(s)
		return struct{}{}, f(s.hard, a)
	})
	return err
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
func (s *Server) DeactivatePool(ctx context.Context, name string) error {
	return s.change(ctx, name, true, func(ctx context.Context, a *activePool) error {
		if err := s.loops.release(ctx, a); err != nil {
			return api.ContextError("", err)
		}
		err := s.withoutQuotas(ctx, a, a.pool.Close)
		if errors.Is(err, api.EBUSY) {
			return err
		}
		s.left(name, a)
		s.tell("pool deactivated", name, err)
		return err
	})
}

// DestroyPool implements [api.Manager].
func (s *Server) DestroyPool(ctx context.Context, name string) error {
	return s.change(ctx, name, true, func(ctx context.Context, a *activePool) error {
		if err := s.loops.release(ctx, a); err != nil {
			return api.ContextError("", err)
		}
		err := s.withoutQuotas(ctx, a, func() error { return a.pool.Destroy(ctx) })
		if errors.Is(err, api.EBUSY) || errors.Is(err, api.EROFS) {
			return err
		}
		if err != nil {
			// It may be half done; whatever it is, it is not to be used.
			if cerr := a.pool.Close(); cerr != nil && !errors.Is(cerr, api.EBADF) {
				err = errors.Join(err, cerr)
			}
		}
		s.left(name, a)
		s.tell("pool destroyed", name, err)
		return err
	})
}

// RenamePool implements [api.Manager].
func (s *Server) RenamePool(ctx context.Context, name, newName string) error {
	return s.change(ctx, name, false, func(ctx context.Context, a *activePool) error {
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
		s.followPools()
		s.log.Info("pool renamed", slog.String("pool", name), slog.String("new_name", newName))
		return nil
	})
}

// SetPool implements [api.Manager].
func (s *Server) SetPool(ctx context.Context, name string, set api.PoolSettings) error {
	a, err := s.pools.get(name)
	if err != nil {
		return err
	}
	if err := a.begin(name, false); err != nil {
		return err
	}
	defer a.end(s)
	return a.pool.Set(ctx, set)
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
