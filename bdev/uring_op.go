package bdev

import (
	"errors"
	"syscall"
	"unsafe"

	"github.com/mpool-go/mpool/bdev/uring"
)

// bulkPriority is the I/O priority of Op.Bulk: best effort, lowest.
const bulkPriority = 2<<13 | 7

// prepare fills in a submission entry for what is left of an operation, with
// its memory registered as fixed, or 0. The entry is zeroed. The memory it
// points to is the Op's, which is on the heap: see Op.
func (d *device) prepare(e *uring.SQE, o *Op, fixed BufferID) {
	e.FD = int32(d.fd)
	e.UserData = uint64(o.state.slot)
	if o.state.retries > 0 {
		e.Flags |= uring.SQEAsync
	}
	switch o.Code {
	case OpRead, OpWrite:
		d.prepareTransfer(e, o, fixed)
	case OpFlush:
		e.Opcode, e.OpFlags = uring.OpFsync, uring.FsyncDatasync
	case OpDiscard:
		if d.geo.Regular {
			e.Opcode, e.Off, e.Addr, e.Len = uring.OpFallocate, uint64(o.Offset), uint64(o.Length), punchHole
		} else {
			e.Opcode, e.Off = uring.OpURingCmd, uring.CmdBlockDiscard
			e.Addr, e.Addr3 = uint64(o.Offset), uint64(o.Length)
		}
	}
}

func (d *device) prepareTransfer(e *uring.SQE, o *Op, fixed BufferID) {
	e.Off = uint64(o.Offset + o.state.done)
	if o.Bulk {
		e.IOPrio = bulkPriority
	}
	write := o.Code == OpWrite
	if o.Buf == nil {
		e.Opcode = choose(write, uring.OpWritev, uring.OpReadv)
		o.state.iovs = o.state.iovs[:0]
		for _, p := range o.rest() {
			v := syscall.Iovec{Base: &p[0]}
			v.SetLen(len(p))
			o.state.iovs = append(o.state.iovs, v)
		}
		e.Addr = uint64(uintptr(unsafe.Pointer(&o.state.iovs[0])))
		e.Len = uint32(len(o.state.iovs))
		return
	}
	p := o.Buf[o.state.done:]
	e.Addr, e.Len = uint64(address(p)), uint32(min(len(p), maxTransfer))
	if fixed != 0 {
		e.Opcode = choose(write, uring.OpWriteFixed, uring.OpReadFixed)
		e.BufIndex = uint16(fixed - 1)
		return
	}
	e.Opcode = choose(write, uring.OpWrite, uring.OpRead)
}

func choose(write bool, w, r uring.Opcode) uring.Opcode {
	if write {
		return w
	}
	return r
}

// settleCQE is settle for the result of a completion.
func (o *Op) settleCQE(res int32) (again bool, _ error) {
	if res < 0 {
		return o.settle(0, syscall.Errno(-res))
	}
	return o.settle(int(res), nil)
}

// needsIoctl says whether an operation cannot go through io_uring: a discard of
// a block device in a kernel without the command for it.
func (d *device) needsIoctl(o *Op) bool {
	return o.Code == OpDiscard && !d.geo.Regular && d.plainDiscard.Load()
}

// learnIoctl says whether a failed operation has to be tried by ioctl, because
// that is what the error means, and remembers it. A device that cannot discard
// at all gives the same errors, and gives them to the ioctl too.
func (d *device) learnIoctl(o *Op, err error) bool {
	if o.Code != OpDiscard || d.geo.Regular {
		return false
	}
	for _, e := range []error{syscall.EINVAL, syscall.EOPNOTSUPP, syscall.ENOTTY, syscall.ENOSYS} {
		if errors.Is(err, e) {
			d.plainDiscard.Store(true)
			return true
		}
	}
	return false
}
