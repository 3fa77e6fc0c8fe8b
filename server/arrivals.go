package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

// arrived makes a pool known that is active now.
func (s *Server) arrived(name string, a *activePool) {
	s.pools.put(name, a)
	s.followPools()
	s.tellEvent(ioctl.Event{Type: ioctl.EventPoolActivated, Pool: name})
}

// arrive makes a pool known, with its quotas.
func (s *Server) arrive(ctx context.Context, name string, p Pool, f *feed) error {
	a, err := newActivePool(ctx, s, p, f)
	if err != nil {
		return err
	}
	q, err := newQuotas(ctx, s, a)
	if err != nil {
		a.credits.close()
		return err
	}
	if q != nil {
		a.quotas.Store(q)
	}
	s.arrived(name, a)
	return nil
}

// withoutQuotas closes a pool's quotas, does what ends the pool, and opens them again
// if that stays.
func (s *Server) withoutQuotas(ctx context.Context, a *activePool, end func() error) error {
	q := a.quotas.Load()
	if err := q.close(ctx); err != nil {
		s.log.Warn("cannot close the quotas of a pool cleanly", slog.String("pool", a.title()), slog.Any("error", err))
	}
	err := end()
	if q == nil || !errors.Is(err, api.EBUSY) && !errors.Is(err, api.EROFS) {
		return err
	}
	again, qerr := newQuotas(ctx, s, a)
	if qerr != nil {
		return errors.Join(err, qerr)
	}
	a.quotas.Store(again)
	return err
}

// left takes away a pool that is active no more.
func (s *Server) left(name string, a *activePool) {
	a.leave()
	a.credits.close()
	s.pools.drop(name)
	s.followPools()
	for _, sess := range s.all() {
		sess.mu.Lock()
		delete(sess.pools, a)
		sess.mu.Unlock()
	}
	s.tellEvent(ioctl.Event{Type: ioctl.EventPoolDeactivated, Pool: name})
}

// followPools tells the scopes which pools there are and what memory they have of their
// own. It waits for nothing.
func (s *Server) followPools() {
	if s.opt.Scopes == nil {
		return
	}
	pools := make(map[string]int64)
	for _, a := range s.pools.list() {
		var bytes int64
		if m, ok := a.pool.(measured); ok {
			table, sums := m.MemoryBytes()
			bytes = table + sums + m.CacheBytes()
		}
		pools[a.title()] += bytes
	}
	if err := s.opt.Scopes.follow(pools); err != nil {
		s.log.Error("the memory of pools is not counted", slog.Any("error", err))
	}
}

// followGrowth does followPools if the pool's tables have grown, which they do as objects
// are made, or its cache, which does as they are read: it is called when one is opened.
// So nothing has to look from time to time, which would wake an idle daemon.
func (s *Server) followGrowth(a *activePool) {
	m, ok := a.pool.(measured)
	if !ok || s.opt.Scopes == nil {
		return
	}
	if n := m.MemoryGrowths(); a.grown.Load() != n && a.grown.Swap(n) != n {
		s.followPools()
	}
}

// closePools closes all pools, at the same time and whatever is in use.
func (s *Server) closePools(ctx context.Context) error {
	list := s.pools.list()
	results := make(chan error, len(list))
	var open sync.Map // names of pools that are not closed yet
	for _, a := range list {
		name := a.title()
		open.Store(name, true)
		go func() {
			// If it fails the pool waits for that I/O too.
			_ = s.loops.release(ctx, a) //nolint:errcheck // see above
			if err := a.quotas.Load().close(ctx); err != nil {
				s.log.Warn("cannot close the quotas of a pool cleanly", slog.String("pool", name), slog.Any("error", err))
			}
			err := a.pool.Close()
			if errors.Is(err, api.EBUSY) {
				s.log.Warn("pool closed while in use", slog.String("pool", name), slog.Any("error", err))
				err = errors.Join(err, a.pool.Abandon(ctx))
			}
			a.credits.close()
			s.tellEvent(ioctl.Event{Type: ioctl.EventPoolDeactivated, Pool: name})
			if err == nil {
				s.log.Info("pool closed", slog.String("pool", name))
			}
			open.Delete(name)
			results <- err
		}()
	}
	var errs []error
	for range list {
		select {
		case err := <-results:
			errs = append(errs, err)
		case <-ctx.Done():
			open.Range(func(name, _ any) bool {
				errs = append(errs, fmt.Errorf("pool %v was not closed in time", name))
				return true
			})
			return errors.Join(append(errs, context.Cause(ctx))...)
		}
	}
	return errors.Join(errs...)
}
