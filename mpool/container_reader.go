package mpool

import (
	"context"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/mlog"
)

// OpenRead implements [api.MDC].
func (c *container) OpenRead(ctx context.Context) (api.LogReader, error) {
	if err := c.usable(ctx, "mdc read"); err != nil {
		return nil, err
	}
	return &containerReader{MDCReader: c.NewReader(mlog.ReaderOptions{Unsynced: true}), c: c}, nil
}

// containerReader reads the active log's records.
type containerReader struct {
	*mlog.MDCReader
	c     *container
	ended handleEnd
}

func (r *containerReader) usable(ctx context.Context, op string) error {
	if err := r.ended.check(op, r.c.logs[0].id); err != nil {
		return err
	}
	if err := r.c.logs[0].pool.alive(op); err != nil {
		return err
	}
	return timely(ctx, op)
}

// Next implements [api.LogReader].
func (r *containerReader) Next(ctx context.Context, p []byte) (int, error) {
	if err := r.usable(ctx, "mlog read"); err != nil {
		return 0, err
	}
	n, err := r.MDCReader.Next(ctx, p)
	return n, r.c.logs[0].pool.corrupted(err)
}

// Seek implements [api.LogReader].
func (r *containerReader) Seek(ctx context.Context, record uint64) error {
	if err := r.usable(ctx, "mlog seek"); err != nil {
		return err
	}
	return r.MDCReader.Seek(ctx, record)
}

// Close implements [api.LogReader].
func (r *containerReader) Close() error {
	if err := r.ended.end("mlog close", r.c.logs[0].id); err != nil {
		return err
	}
	return r.MDCReader.Close()
}
