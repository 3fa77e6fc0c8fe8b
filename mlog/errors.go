package mlog

import (
	"context"
	"errors"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
)

// ioError makes the user's error of a failed operation on the log's drive, or
// of a context that ended.
func (c *Config) ioError(op string, err error) *api.Error {
	e := &api.Error{Code: api.EIO, Op: op, Object: c.ID, Device: c.Drive.Path(), Offset: c.Extent.Offset(), Err: err}
	var io *bdev.IOError
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		e.Code, e.Device, e.Offset = api.ContextError(op, err).Code, "", 0
	case errors.As(err, &io):
		e.Offset = io.Offset
	}
	return e
}

// corrupt makes the error of a page that is not what was written: ECORRUPT, or
// EIO when it could not even be read.
func (c *Config) corrupt(op string, offset int64, detail string, cause error) *api.Error {
	code := api.ECORRUPT
	if unreadable(cause) {
		code = api.EIO
	}
	return &api.Error{Code: code, Op: op, Object: c.ID, Device: c.Drive.Path(), Offset: offset, Detail: detail, Err: cause}
}
