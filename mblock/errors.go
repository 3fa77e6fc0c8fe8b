package mblock

import (
	"context"
	"errors"
	"fmt"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
)

// The operations, as errors name them.
const (
	opWrite  = "mblock write"
	opRead   = "mblock read"
	opCommit = "mblock commit"
	opVerify = "mblock verify"
)

// ioError makes the error of a failed device operation.
func (c *Config) ioError(op string, err error) *api.Error {
	e := &api.Error{Code: api.EIO, Op: op, Object: c.ID, Device: c.Drive.Path(), Err: err}
	e.Detail = "the drive failed the request"
	if ioe, ok := errors.AsType[*bdev.IOError](err); ok {
		e.Offset = ioe.Offset
	}
	return e
}

// failure makes the error of I/O that Drive.Run or Drive.Flush failed.
func (c *Config) failure(ctx context.Context, op string, err error) *api.Error {
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, cause) {
		return c.ended(ctx, op)
	}
	return c.ioError(op, err)
}

// corrupt makes the error of bytes that are not what was written, at a block of
// the extent.
func (c *Config) corrupt(op string, block uint32, cause error, format string, args ...any) *api.Error {
	return &api.Error{
		Code: api.ECORRUPT, Op: op, Object: c.ID, Device: c.Drive.Path(),
		Offset: c.Extent.Offset() + int64(block)*blockSize,
		Detail: fmt.Sprintf(format, args...), Err: cause,
	}
}

// ended makes the error of an operation that its context ended.
func (c *Config) ended(ctx context.Context, op string) *api.Error {
	e := api.ContextError(op, context.Cause(ctx))
	e.Object = c.ID
	return e
}

// gone makes the error of an operation on an object that is being deleted.
func (c *Config) gone(op string) *api.Error {
	return &api.Error{Code: api.ENOENT, Op: op, Object: c.ID, Detail: "the object is being deleted"}
}
