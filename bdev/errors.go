package bdev

import "errors"

// ErrDetached is wrapped by the error of a wait that its context ended while
// operations were still under way.
var ErrDetached = errors.New("gave up waiting for I/O that is still under way")

// ErrFlushFailed is returned when a flush failed after the ticket was taken:
// what was written under the ticket must be taken for lost.
var ErrFlushFailed = errors.New("a flush of the drive failed: writes since the last good flush may be lost")

// ErrClosed is returned when the drive is closed.
var ErrClosed = errors.New("drive is closed")

// ErrBusy is returned by Open when somebody else uses the device. The error
// that wraps it says who, as far as the kernel tells.
var ErrBusy = errors.New("device is busy")

// ErrNotDevice is returned by Open for what is neither a block device nor a
// regular file.
var ErrNotDevice = errors.New("neither a block device nor a regular file")

// ErrNoDirect is returned by Open for a file whose file system has no O_DIRECT,
// or one with a larger unit than 4096 bytes.
var ErrNoDirect = errors.New("the file system has no direct I/O that a drive can use")

// ErrNotRegistered is returned by RegisterBuffer where memory cannot be
// registered: the engine has no registration, or the kernel refuses it (by
// RLIMIT_MEMLOCK, for one). Plain operations on the memory work all the same.
var ErrNotRegistered = errors.New("memory cannot be registered for I/O")
