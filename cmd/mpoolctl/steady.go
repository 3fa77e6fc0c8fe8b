package main

import (
	"context"
	"errors"

	"github.com/mpool-go/mpool/api"
)

// steady reads a committed mblock across restarts of the daemon, which end handles:
// it finds the mblock again by its id. What is committed does not change, so nobody
// can tell.
type steady struct {
	pool api.Pool
	m    api.Mblock
	info api.ObjectInfo // zero: not asked for
}

// newSteady makes one of a handle, which is its own from then on, also when it
// fails: close it.
func newSteady(ctx context.Context, p api.Pool, m api.Mblock) (*steady, error) {
	s := &steady{pool: p, m: m}
	err := s.again(ctx, func() (err error) {
		s.info, err = s.m.Info(ctx)
		return err
	})
	return s, err
}

// readAt is ReadAtContext of the mblock.
func (s *steady) readAt(ctx context.Context, b []byte, off int64) (n int, err error) {
	err = s.again(ctx, func() error {
		n, err = s.m.ReadAtContext(ctx, b, off)
		return err
	})
	return n, err
}

// restarts is how many restarts of the daemon one call is made again after.
const restarts = 4

// again makes a call, and makes it again while the handle was gone with its daemon.
func (s *steady) again(ctx context.Context, call func() error) error {
	for left := restarts; ; left-- {
		err := call()
		if !errors.Is(err, api.EBADF) || left == 0 {
			return err
		}
		if err := s.find(ctx); err != nil && !errors.Is(err, api.EBADF) { // gone again
			return err
		}
	}
}

// find gets a new handle on the same mblock.
func (s *steady) find(ctx context.Context) error {
	id := s.m.ID()
	m, err := s.pool.Mblock(ctx, id)
	if err != nil {
		return err
	}
	old := s.m
	s.m = m
	_ = old.Put() //nolint:errcheck // it went with its daemon, and what may be left of it goes with the connection
	if s.info.ID == 0 {
		return nil // no id is given twice but by an administrator who restores
	}
	info, err := m.Info(ctx)
	if err != nil {
		return err
	}
	if !info.Created.Equal(s.info.Created) || info.Length != s.info.Length {
		return &api.Error{Code: api.ESTALE, Object: id, Detail: "while the daemon restarted, the mblock was replaced by another of its id"}
	}
	return nil
}

func (s *steady) close() error { return s.m.Put() }
