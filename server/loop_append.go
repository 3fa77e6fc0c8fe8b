package server

import (
	"errors"

	"github.com/mpool-go/mpool/ioctl/ring"
	"github.com/mpool-go/mpool/mpool"
)

// logOf returns the log behind a handle, or nil if it is not one of package mpool.
func logOf(v resource) mpool.Beginner {
	switch v := v.(type) {
	case *appenderRef:
		b, _ := v.app.(mpool.Beginner)
		return b
	case *mdcRef:
		b, _ := v.mdc.(mpool.Beginner)
		return b
	default:
		panic("server: a handle's kind and its value do not agree")
	}
}

func (x *ringOp) startAppend(v resource, mem []byte) error {
	b := logOf(v)
	if b == nil {
		return errSlow
	}
	sync := x.d.Flags&ring.FlagSync != 0
	if sync {
		x.awaitLog()
	}
	number, err := b.BeginAppend(mem, sync, x.durable)
	if err != nil {
		x.notAwaited(sync)
		return slowIf(err)
	}
	x.c.N = uint32(len(mem))
	if v, ok := v.(*appenderRef); ok {
		_, bytes := v.app.Len()
		x.c.A, x.c.B = number, uint64(bytes)
	}
	if !sync {
		x.end(nil)
	}
	return nil
}

func (x *ringOp) startSync(v resource) error {
	b := logOf(v)
	if b == nil {
		return errSlow
	}
	x.awaitLog()
	if err := b.BeginSync(x.durable); err != nil {
		x.notAwaited(true)
		return slowIf(err)
	}
	return nil
}

func slowIf(err error) error {
	if errors.Is(err, mpool.ErrWouldBlock) {
		return errSlow
	}
	return err
}

// awaitLog says that a log will tell of the operation's end.
func (x *ringOp) awaitLog() {
	x.state = opDurable
	x.ring.set.appends.add(x)
}

func (x *ringOp) notAwaited(sync bool) {
	if sync {
		x.state = opBegun
		x.ring.set.appends.remove(x)
	}
}

// logDone is called by the log, from anywhere.
func (x *ringOp) logDone(err error) {
	s, commit := x.ring.set.s, x.obj != nil
	x.err = err
	x.loop().pass(x) // which may use it again at once
	if commit {
		s.commitEnds()
	}
}

// appended ends an append or a sync that a log has told the end of.
func (x *ringOp) appended() {
	if x.obj != nil && x.err == nil {
		x.obj.ref.pool.settled(x.ring.set.s, x.obj.obj.ID())
	}
	if x.orphan {
		x.forget()
		return
	}
	x.ring.set.appends.remove(x)
	err := x.err
	if err != nil {
		x.undo(err)
	}
	x.state, x.err = opBegun, nil
	x.end(err)
}

// abandon answers nobody when the log tells of the end.
func (x *ringOp) abandon() {
	x.ring.set.appends.remove(x)
	x.dismiss()
	x.orphan = true
	x.ring.end.Fail()
	x.ring.set.ease(0, 1)
}

// opList is a list of operations.
type opList struct{ head, tail *ringOp }

func (q *opList) add(x *ringOp) {
	x.prev, x.next = q.tail, nil
	if q.tail == nil {
		q.head = x
	} else {
		q.tail.next = x
	}
	q.tail = x
}

func (q *opList) remove(x *ringOp) {
	if x.prev == nil {
		q.head = x.next
	} else {
		x.prev.next = x.next
	}
	if x.next == nil {
		q.tail = x.prev
	} else {
		x.next.prev = x.prev
	}
	x.next, x.prev = nil, nil
}

// takeLast takes the last, or nil.
func (q *opList) takeLast() *ringOp {
	x := q.tail
	if x != nil {
		q.remove(x)
	}
	return x
}

// take takes the first, or nil.
func (q *opList) take() *ringOp {
	x := q.head
	if x != nil {
		q.remove(x)
	}
	return x
}
