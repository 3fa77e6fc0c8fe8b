package mpool

import (
	"context"
	"errors"
	"io/fs"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
)

// errIncomplete is wrapped by the reason why a pool is read-only that was
// activated without some of its drives.
var errIncomplete = errors.New("it lacks drives")

// ioError turns a device's error into an api error with the device's name.
// Errors that are api errors already stay.
func ioError(op string, d *bdev.Drive, err error) error {
	if err == nil {
		return nil // before anything that takes memory
	}
	if _, known := errors.AsType[*api.Error](err); known {
		return err
	}
	e := &api.Error{Code: api.EIO, Op: op, Err: err}
	if d != nil {
		e.Device = d.Path()
	}
	if io, ok := errors.AsType[*bdev.IOError](err); ok {
		e.Offset = io.Offset
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		e.Code = api.ETIMEDOUT
	case errors.Is(err, context.Canceled):
		e.Code = api.ECANCELED
	}
	return e
}

// openError turns the error of opening a device into an api error.
func openError(op, path string, err error) error {
	e := &api.Error{Code: api.EIO, Op: op, Device: path, Err: err}
	switch {
	case errors.Is(err, bdev.ErrBusy):
		e.Code, e.Detail = api.EBUSY, "the device is in use"
	case errors.Is(err, bdev.ErrNotDevice):
		e.Code, e.Detail = api.EINVAL, "not a block device or a regular file"
	case errors.Is(err, bdev.ErrNoDirect):
		e.Code, e.Detail = api.ENOTSUP, "the file system has no direct I/O; put the file elsewhere"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		e.Code = api.CodeOf(err)
	case errors.Is(err, fs.ErrNotExist):
		e.Code, e.Detail = api.ENOENT, "no such device"
	case errors.Is(err, fs.ErrPermission):
		e.Code, e.Detail = api.EPERM, "no permission to open the device"
	}
	return e
}
