package mpool

import (
	"context"
	"errors"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/mlog"
)

// ErrWouldBlock is returned by the calls of a [Beginner] when they would have to
// wait: nothing was begun. The call of the same name without Begin waits.
var ErrWouldBlock = mlog.ErrWouldBlock

// Beginner is implemented by what [Mlog.OpenAppend] and [Pool.OpenMDC] return: it
// appends and syncs for callers that must not wait.
type Beginner interface {
	// BeginAppend appends a record and returns its number (of a container: its
	// sequence number since it was opened). It never blocks; the record is the
	// caller's again when it returns. Without sync that is all. With sync, done
	// is called exactly once, when the record is durable or it is known that it
	// may not be: from another task, with no lock held, possibly before
	// BeginAppend has returned. done must not block: all who append to logs of
	// the drive wait meanwhile. It is called whatever becomes of the handle; at the latest
	// when the appender's Close has returned, but for a Close that its context
	// ended, or when the log is still open for others.
	//
	// Errors, after which nothing was appended and done is not called:
	// ErrWouldBlock, and those of Append. done gets EUNKNOWN (the write failed),
	// EBADF (the pool was closed before the write).
	BeginAppend(record []byte, sync bool, done func(error)) (number uint64, err error)
	// BeginSync has done called, in the same way, when everything appended
	// before is durable. If it is durable already, that is before BeginSync
	// returns. Errors as Sync, and done is then not called.
	BeginSync(done func(error)) error
}

// appender implements [api.Appender] and [Beginner].
type appender struct {
	obj   *object
	log   *mlog.Log
	ended handleEnd
}

// Append implements [api.Appender].
func (a *appender) Append(ctx context.Context, record []byte, sync bool) (uint64, error) {
	const op = "mlog append"
	if err := a.usable(op); err != nil {
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
	const op = "mlog sync"
	if err := a.usable(op); err != nil {
		return err
	}
	if err := timely(ctx, op); err != nil {
		return err
	}
	return ioError(op, a.obj.drive.dev, a.log.Sync(ctx))
}

// BeginAppend implements [Beginner].
func (a *appender) BeginAppend(record []byte, sync bool, done func(error)) (uint64, error) {
	const op = "mlog append"
	if err := a.usable(op); err != nil {
		return 0, err
	}
	if !sync {
		done = nil
	}
	a.obj.pool.fence.touch()
	n, err := a.log.BeginAppend(done, record)
	return n, beginError(op, a.obj, err)
}

// BeginSync implements [Beginner].
func (a *appender) BeginSync(done func(error)) error {
	const op = "mlog sync"
	if err := a.usable(op); err != nil {
		return err
	}
	return beginError(op, a.obj, a.log.BeginSync(done))
}

// usable refuses calls on an appender that is closed, or of a pool that is not
// written to.
func (a *appender) usable(op string) error {
	if err := a.ended.check(op, a.obj.id); err != nil {
		return err
	}
	return a.obj.pool.writable(op)
}

// beginError is ioError for a call that may have been refused because it would
// have to wait.
func beginError(op string, o *object, err error) error {
	if err == ErrWouldBlock { //nolint:errorlint // the log returns it bare
		return err
	}
	return ioError(op, o.drive.dev, err)
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
