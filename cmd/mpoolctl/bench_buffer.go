package main

import (
	"context"
	"errors"
	"io"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
)

// lender is a daemon that lends memory.
type lender interface {
	Borrow(ctx context.Context, size int) (*client.Buffer, error)
}

// borrow borrows a buffer for each operation in flight. giveBack is to be called
// in the end.
func (b *bench) borrow(ctx context.Context, c benchCase) ([]*client.Buffer, error) {
	l, ok := b.d.(lender)
	if !ok {
		return nil, api.Errorf(api.ENOTSUP, "", "this connection has no shared memory")
	}
	bufs := make([]*client.Buffer, c.depth)
	for i := range bufs {
		var err error
		if bufs[i], err = l.Borrow(ctx, int(c.size)); err != nil {
			return nil, errors.Join(err, giveBack(bufs[:i]))
		}
		copy(bufs[i].Bytes(), noise(c.size))
	}
	return bufs, nil
}

func giveBack(bufs []*client.Buffer) error {
	var err error
	for _, x := range bufs {
		err = errors.Join(err, x.Release())
	}
	return err
}

// shared returns what reads and writes an mblock without copying.
func shared(m api.Mblock) (client.BufferIO, error) {
	s, ok := m.(client.BufferIO)
	if !ok {
		return nil, api.Errorf(api.ENOTSUP, "", "this connection has no shared memory")
	}
	return s, nil
}

// readShared is readFrom with memory that is shared with the daemon.
func (b *bench) readShared(ctx context.Context, c benchCase, next func(worker int) place) (benchView, error) {
	bufs, err := b.borrow(ctx, c)
	if err != nil {
		return benchView{}, err
	}
	v, err := b.repeat(ctx, c, func(w int) error {
		at := next(w)
		m, err := shared(at.m)
		if err != nil {
			return err
		}
		n, err := m.ReadBuffer(ctx, bufs[w], at.off)
		if errors.Is(err, io.EOF) && int64(n) == c.size {
			return nil
		}
		return err
	})
	return v, errors.Join(err, giveBack(bufs))
}

// writeShared is the writers' part with memory that is shared with the daemon.
func (b *bench) writeShared(ctx context.Context, c benchCase, writers []*writer) (benchView, error) {
	bufs, err := b.borrow(ctx, c)
	if err != nil {
		return benchView{}, err
	}
	v, err := b.repeat(ctx, c, func(w int) error {
		x := writers[w]
		if err := x.room(ctx, c.size); err != nil {
			return err
		}
		m, err := shared(x.m)
		if err != nil {
			return err
		}
		n, err := m.WriteBuffer(ctx, bufs[w])
		x.at += int64(n)
		return err
	})
	return v, errors.Join(err, giveBack(bufs))
}
