package mpool

import (
	"context"
	"errors"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/mlog"
)

// appender implements [api.Appender].
type appender struct {
	obj   *object
	log   *mlog.Log
	ended handleEnd
}

// Append implements [api.Appender].
func (a *appender) Append(ctx context.Context, record []byte, sync bool) (uint64, error) {
	const op = "mlog append"
	if err := a.ended.check(op, a.obj.id); err != nil {
		return 0, err
	}
	if err := a.obj.pool.writable(op); err != nil {
		return 0, err
	}
	if err := timely(ctx, op); err != nil {
		return 0, err
	}
	a.obj.pool.fence.touch()
	n, err := a.log.Append(ctx, record)
	if err == nil && sync {
		if err = a.log.SyncTo(ctx, n+1); err != nil && ctx.Err() != nil {
			err = &api.Error{
				Code: api.EUNKNOWN, Op: op, Object: a.obj.id, Err: err,
				Detail: "the record was appended; whether it is durable is unknown",
			}
		}
	}
	return n, ioError(op, a.obj.drive.dev, err)
}

// Sync implements [api.Appender].
func (a *appender) Sync(ctx context.Context) error {
	if err := a.ended.check("mlog sync", a.obj.id); err != nil {
		return err
	}
	if err := a.obj.pool.writable("mlog sync"); err != nil {
		return err
	}
	if err := timely(ctx, "mlog sync"); err != nil {
		return err
	}
	return ioError("mlog sync", a.obj.drive.dev, a.log.Sync(ctx))
}

// Len implements [api.Appender].
func (a *appender) Len() (uint64, int64) { return a.log.Len() }

// Close implements [api.Appender].
func (a *appender) Close(ctx context.Context) error {
	if err := a.ended.end("mlog close", a.obj.id); err != nil {
		return err
	}
	err := a.obj.closeLog(ctx, "mlog close", true)
	a.obj.unref()
	return err
}

// logReader implements [api.LogReader].
type logReader struct {
	*mlog.Reader
	obj   *object
	ended handleEnd
}

// Next implements [api.LogReader].
func (r *logReader) Next(ctx context.Context, p []byte) (int, error) {
	if err := r.ended.check("mlog read", r.obj.id); err != nil {
		return 0, err
	}
	if err := r.obj.pool.alive("mlog read"); err != nil {
		return 0, err
	}
	if err := timely(ctx, "mlog read"); err != nil {
		return 0, err
	}
	n, err := r.Reader.Next(ctx, p)
	return n, r.obj.pool.corrupted(err)
}

// Seek implements [api.LogReader].
func (r *logReader) Seek(ctx context.Context, record uint64) error {
	if err := r.ended.check("mlog seek", r.obj.id); err != nil {
		return err
	}
	if err := r.obj.pool.alive("mlog seek"); err != nil {
		return err
	}
	if err := timely(ctx, "mlog seek"); err != nil {
		return err
	}
	return r.obj.pool.corrupted(r.Reader.Seek(ctx, record))
}

// Close implements [api.LogReader].
func (r *logReader) Close() error {
	if err := r.ended.end("mlog close", r.obj.id); err != nil {
		return err
	}
	err := errors.Join(r.Reader.Close(), r.obj.closeLog(context.Background(), "mlog close", false))
	r.obj.unref()
	return err
}
