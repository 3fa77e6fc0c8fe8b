package server

import (
	"errors"
	"io"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/ioctl/ring"
	"github.com/mpool-go/mpool/mpool"
)

// engineMblock returns the mblock behind a handle, or nil if it is not one of
// package mpool.
func engineMblock(v resource) (*objectRef, *mpool.Mblock) {
	o, ok := v.(*objectRef)
	if !ok {
		panic("server: a handle's kind and its value do not agree")
	}
	m, _ := o.mblock.(*mpool.Mblock) // nil if it is another's
	return o, m
}

func (x *ringOp) startRead(v resource, mem []byte) error {
	_, m := engineMblock(v)
	if m == nil {
		return errSlow
	}
	if err := m.BeginRead(&x.read, mem, x.d.Offset); err != nil {
		return err
	}
	x.device, x.direct = x.read.Ops(), x.read.Direct()
	x.queue(x.direct, 1)
	return nil
}

func (x *ringOp) startWrite(v resource, mem []byte) error {
	o, m := engineMblock(v)
	if m == nil {
		return errSlow
	}
	if err := o.ref.mustWrite(); err != nil {
		return err
	}
	if err := x.inChain(o); err != nil {
		return err
	}
	if total := x.total(); total > uint64(len(mem)) {
		q := request{ctx: x.ring.set.s.ctx}
		if err := q.mustFit(o, total); err != nil {
			return err
		}
	}
	if err := m.BeginWrite(&x.write, mem); err != nil {
		return err
	}
	x.queueWrite(len(mem))
	return nil
}

// queueWrite has a write of so many bytes done that was begun.
func (x *ringOp) queueWrite(size int) {
	x.device, x.direct = x.write.Ops(), x.write.Direct()
	if x.unsummed = size >= bulkBytes; !x.unsummed {
		x.write.Sum()
	}
	x.queue(x.direct, len(x.device))
}

// queue has the operations on the drive done when it is the session's turn, the
// first of them with registered memory if that may be.
func (x *ringOp) queue(direct bool, fixed int) {
	x.left = len(x.device)
	if x.left == 0 {
		x.ioEnded()
		return
	}
	id := bdev.BufferID(0)
	if direct {
		id = x.ring.set.arenas[x.d.Arena].id
	}
	for i, o := range x.device {
		o.OnDone = x.onDone
		if i < fixed {
			o.Fixed = id
		}
	}
	x.loop().submit(x)
}

// deviceDone is called by the queue when one of the device's operations ended.
func (x *ringOp) deviceDone(*bdev.Op) {
	if x.left--; x.left > 0 {
		return
	}
	switch {
	case x.unsummed:
		x.through = true
	case x.verb == verbRead && x.d.Length >= bulkBytes:
		x.loop().sums.add(x)
	default:
		x.summed()
	}
}

// summed ends what the device is through with and whose checksums are looked at.
// Until then it is part of its session's share of the drive: so nobody has more
// to be summed than that.
func (x *ringOp) summed() {
	x.share.ended(x)
	x.ioEnded()
}

// ioEnded ends a read or write when its device is through.
func (x *ringOp) ioEnded() {
	var n int
	var err error
	if x.verb == verbPut {
		x.written()
		return
	}
	if x.verb == verbWrite {
		n, err = x.write.End()
	} else {
		n, err = x.endRead()
	}
	x.c.N = uint32(n)
	if err == io.EOF { //nolint:errorlint // End returns it bare
		x.c.Flags, err = ring.FlagEOF, nil
	}
	if errors.Is(err, errSlow) {
		x.dismiss()
		x.toLane()
		return
	}
	x.end(err)
}

// endRead ends a read. What does not match in memory that the client can write to
// is read again, into the daemon's own: only that says something about the drive.
func (x *ringOp) endRead() (int, error) {
	if !x.direct {
		return x.read.End()
	}
	n, err := x.read.EndQuiet()
	if err != nil && api.CodeOf(err) == api.ECORRUPT {
		x.loop().count.rereads.Add(1)
		return 0, errSlow
	}
	return n, err
}
