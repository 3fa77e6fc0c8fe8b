package server

import (
	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
	"github.com/mpool-go/mpool/uhandle"
)

// A client gives writes and their commit without waiting for answers. When one of
// the writes is refused without having a place, the next would take that place,
// and the commit leave it out. So each handle counts its chained writes that have
// failed, and what is chained says of how many its client knows: if there are
// more, it was given in the belief that they succeed. What comes from one handle
// is begun in order, and a failure is counted before what is behind it is begun.

// inChain refuses what was given before the client knew that a write of the same
// handle has failed.
func (x *ringOp) inChain(o *objectRef) error {
	if x.d.Flags&ring.FlagChained == 0 || o.failed.Load() == x.d.Offset {
		return nil
	}
	if o.broken.Load() {
		return &api.Error{
			Code: api.EIO, Object: o.obj.ID(),
			Detail: "the device failed a write before it: nothing was done; abort the mblock",
		}
	}
	return &api.Error{
		Code: api.ESTATE, Object: o.obj.ID(),
		Detail: "a write before it failed: nothing was done; give them again once that is answered, or abort the mblock",
	}
}

// breaksChain counts a write that fails, if it is chained.
func (x *ringOp) breaksChain(failure error) {
	if x.verb != verbWrite || x.d.Flags&ring.FlagChained == 0 {
		return
	}
	s := x.ring.set.s
	e, err := s.table.Use(uhandle.Handle(x.d.Handle), kindMblock)
	if err != nil {
		return // nothing can come behind it
	}
	if o, ok := e.Value.(*objectRef); ok {
		if api.CodeOf(failure) == api.EIO {
			o.broken.Store(true)
		}
		o.failed.Add(1)
	}
	s.doneWith(e)
}

// askInChain refuses as inChain does, in a lane.
func (x *ringOp) askInChain(r *request) error {
	if x.d.Flags&ring.FlagChained == 0 {
		return nil
	}
	o, err := use[*objectRef](r, ioctl.Handle(x.d.Handle), kindMblock, kindMlog)
	if err != nil {
		return err
	}
	return x.inChain(o)
}

// total is how much a write says that it and those that follow will write, in
// bytes; 0: it does not say.
func (x *ringOp) total() uint64 {
	if x.d.Flags&ring.FlagChained != 0 {
		return 0
	}
	return uint64(x.d.Offset)
}
