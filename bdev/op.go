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
// engine until it has ended, then to its maker again. The device writes to the
// memory that it names behind the garbage collector's back: an Op and its
// buffers are on the heap or off Go's memory (whatever is handed to Start, Run
// or Put is), and the engine keeps a pointer to the Op until it has ended.
type Op struct {
	Drive  *Drive // set by Drive.Run; a Queue's user sets it
	Code   OpCode
	Offset int64    // bytes, a multiple of the logical sector size
	Buf    []byte   // memory of a read or write: address and length multiples of the logical sector size
	Vec    [][]byte // the same in several pieces, each aligned as Buf; used when Buf is nil
	Length int64    // OpDiscard: bytes
	Bulk   bool     // low priority: may wait behind others
	// Fixed names the registered buffer that Buf lies in, or is 0. It is used
	// on the queue that gave it only, and means nothing elsewhere; see
	// [RegisterBuffer].
	Fixed BufferID

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
	queue collector // whoever wants the end first: a Queue of this package
	state opState   // the engine's
}

// opState is what an engine keeps with an operation under way.
type opState struct {
	done    int64 // bytes done so far
	err     error // the result, until Complete
	retries int
	counted bool // the drive counts it already
	slot    uint32
	iovs    []syscall.Iovec
	next    *Op // in the engine's or the collector's list
}

// collector takes the ends of operations and calls finish for each later, from
// its own goroutine. collect must not block, and may run in a simulation's event.
type collector interface {
	collect(o *Op)
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
	o.state.err = err
	if o.queue != nil {
		o.queue.collect(o)
		return
	}
	o.finish()
}

// finish makes the end known, as Complete or the collector was told it.
func (o *Op) finish() {
	o.Err = nil
	if err := o.state.err; err != nil {
		o.Err = &IOError{Op: o.Code, Device: o.Drive.Path(), Offset: o.Offset, Length: o.Size(), Err: err}
		o.state.err = nil
		o.Drive.note(o.Code, o.Err)
	}
	// The Op may be used again as soon as anybody knows of the end.
	d, b, failed := o.Drive, o.batch, o.Err != nil
	o.batch, o.queue = nil, nil
	if o.OnDone != nil {
		o.OnDone(o)
	}
	d.ended(failed)
	if b != nil {
		b.opDone()
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
	text := fmt.Sprintf("%v %d bytes at %s+%d: %v", e.Op, e.Length, e.Device, e.Offset, e.Err)
	if errors.Is(e.Err, syscall.ENOSPC) {
		text += ": the pool has room, and what the drive lies on has none (the file system of a file, or a thin volume): make room there"
	}
	return text
}

// Unwrap returns the cause.
func (e *IOError) Unwrap() error { return e.Err }
