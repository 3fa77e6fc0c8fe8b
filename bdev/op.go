package bdev

import (
	"errors"
	"fmt"
	"syscall"
)

// OpCode says what an operation does.
type OpCode uint8

// The operations.
const (
	OpRead OpCode = iota + 1
	OpWrite
	OpFlush   // makes all writes that ended before it durable
	OpDiscard // Offset, Length: the content is no longer needed
)

func (c OpCode) String() string {
	switch c {
	case OpRead:
		return "read"
	case OpWrite:
		return "write"
	case OpFlush:
		return "flush"
	case OpDiscard:
		return "discard"
	default:
		return "unknown"
	}
}

// Op is one operation. It belongs to its maker until it is started, to the
// engine until it has ended, then to its maker again.
type Op struct {
	Drive  *Drive // set by Drive.Run; a Queue's user sets it
	Code   OpCode
	Offset int64    // bytes, a multiple of the logical sector size
	Buf    []byte   // memory of a read or write: aligned address and length
	Vec    [][]byte // the same in several pieces; used when Buf is nil
	Length int64    // OpDiscard: bytes
	Bulk   bool     // low priority: may wait behind others

	// Err is the result: nil, or an [*IOError]. A read or write is done whole
	// or not: engines go on after a short one.
	Err error

	// OnDone, if set, is called once when the operation has ended, before
	// anybody who waits is told. It must not block or take a lock that is held
	// while operations are started.
	OnDone func(*Op)
	// User is the maker's own.
	User uint64

	batch *Batch
	state opState // the engine's
}

// opState is what an engine keeps with an operation under way.
type opState struct {
	done  int64 // bytes done so far
	slot  uint32
	iovs  []syscall.Iovec
	next  *Op
	index int
}

// Size returns how many bytes the operation moves or discards.
func (o *Op) Size() int64 {
	switch {
	case o.Code == OpDiscard:
		return o.Length
	case o.Buf != nil:
		return int64(len(o.Buf))
	}
	var n int64
	for _, v := range o.Vec {
		n += int64(len(v))
	}
	return n
}

// Complete ends the operation. Engines call it, exactly once for each.
func (o *Op) Complete(err error) {
	if err != nil {
		o.Err = &IOError{Op: o.Code, Device: o.Drive.Path(), Offset: o.Offset, Length: o.Size(), Err: err}
	} else {
		o.Err = nil
	}
	o.Drive.ended(o)
	if o.OnDone != nil {
		o.OnDone(o)
	}
	if o.batch != nil {
		o.batch.opDone()
	}
}

// IOError is a failed operation.
type IOError struct {
	Op     OpCode
	Device string
	Offset int64
	Length int64
	Err    error // usually a syscall.Errno
}

func (e *IOError) Error() string {
	return fmt.Sprintf("%v %d bytes at %s+%d: %v", e.Op, e.Length, e.Device, e.Offset, e.Err)
}

// Unwrap returns the cause.
func (e *IOError) Unwrap() error { return e.Err }

// ErrDetached is wrapped by the error of a wait that its context ended while
// operations were still under way.
var ErrDetached = errors.New("gave up waiting for I/O that is still under way")

// ErrFlushFailed is returned when a flush failed after the ticket was taken:
// what was written under the ticket must be taken for lost.
var ErrFlushFailed = errors.New("a flush of the drive failed: writes since the last good flush may be lost")

// ErrClosed is returned when the drive is closed.
var ErrClosed = errors.New("drive is closed")
