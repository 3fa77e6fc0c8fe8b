package server

import (
	"context"
	"errors"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/uhandle"
)

// ringOp is a descriptor that was taken. It is its loop's, but for a lane that
// serves it, a log that makes it durable, or who sends its error: they pass it
// back. It is used again for another one.
type ringOp struct {
	ring  *ioRing
	d     ring.Descriptor
	verb  verb
	began time.Time
	pool  *activePool // for its counters, or nil
	c     ring.Completion
	err   error
	state opState

	io    int64 // bytes of the session's I/O that it has taken
	begun int64 // bytes that count as the set's

	read     mpool.ReadOp
	write    mpool.WriteOp
	device   []*bdev.Op  // of read or write
	left     int         // of device, that have not ended
	share    *driveShare // of its drive
	direct   bool        // the device has the client's own memory
	orphan   bool        // nobody waits for its end
	unsummed bool        // a write, whose checksums are not computed
	through  bool        // the device is, with such a one
	onDone   func(*bdev.Op)
	durable  func(error)

	obj  *objectRef   // that it commits
	made ioctl.Handle // on the object of a put, once it is allocated

	lane   *handleLane
	ctx    context.Context // a lane's
	cancel context.CancelFunc

	next, prev *ringOp
}

// opState is who has an operation, or has had it when it is passed to the loop.
type opState uint8

const (
	opBegun   opState = iota // the loop and the devices
	opDurable                // a log
	opSlow                   // a lane
	opSent                   // its error is told
)

// newOp returns an operation for a descriptor that will be taken. There are never
// more of them than the session has had descriptors open at one time.
func (r *ioRing) newOp() *ringOp {
	set := r.set
	x := set.free
	if x != nil {
		set.free, x.next = x.next, nil
		x.ring = r
		return x
	}
	x = &ringOp{ring: r}
	x.onDone, x.durable = x.deviceDone, x.logDone
	return x
}

// forget ends an operation that is answered, or never will be.
func (x *ringOp) forget() {
	set := x.ring.set
	x.pool, x.err, x.share, x.device, x.lane, x.ctx, x.cancel = nil, nil, nil, nil, nil, nil, nil
	x.obj, x.made = nil, 0
	x.state, x.direct, x.orphan, x.prev = opBegun, false, false, nil
	x.unsummed, x.through = false, false
	x.c = ring.Completion{}
	x.next, set.free = set.free, x
}

func (x *ringOp) loop() *ioLoop { return x.ring.set.loop }

// begin begins what a descriptor asks for: here, or in its handle's lane if it
// would have to wait, or comes behind what is there.
func (x *ringOp) begin() {
	set, d := x.ring.set, &x.d
	behind := len(set.lanes) > 0 && x.hasOrder() && set.lanes[d.Handle] != nil
	if d.Length > x.verb.most() || behind || !x.isForLoop() {
		x.toLane()
		return
	}
	mem, err := set.window(d)
	if err == nil {
		err = x.admit()
	}
	if err != nil {
		x.answer(err)
		return
	}
	err = x.start(mem)
	switch {
	case errors.Is(err, errSlow):
		x.dismiss()
		x.toLane()
	case err != nil:
		x.end(err)
	}
}

// errSlow says that an operation would have to wait.
var errSlow = errors.New("it would have to wait")

// admit reserves what an operation takes.
func (x *ringOp) admit() error {
	s := x.ring.set.s
	if err := x.beginTask(); err != nil {
		return err
	}
	n := int64(x.d.Length)
	if err := s.io.take(s, IOBytes, n); err != nil {
		x.endTask()
		return err
	}
	x.io, x.begun = n, n
	x.ring.set.begun += n
	return nil
}

// beginTask reserves the operation, but for one that gives a handle back, which nothing
// is to refuse; endTask gives it back.
func (x *ringOp) beginTask() error {
	if x.verb == verbClose {
		return nil
	}
	return x.ring.set.s.beginTask(x.turnKind())
}

func (x *ringOp) endTask() {
	if x.verb != verbClose {
		x.ring.set.s.endTask(x.turnKind())
	}
}

// dismiss gives back what admit took.
func (x *ringOp) dismiss() {
	set := x.ring.set
	set.s.io.give(set.s, IOBytes, x.io)
	x.endTask()
	set.ease(x.begun, 0)
	x.io, x.begun = 0, 0
}

// start begins an operation. Its handle is in use until that is done: from then
// on the object has its pin, and the handle may go.
func (x *ringOp) start(mem []byte) error {
	s := x.ring.set.s
	e, err := s.table.Use(uhandle.Handle(x.d.Handle), x.verb.kinds()...)
	if err != nil {
		return s.badHandle(ioctl.Op(x.d.Op), ioctl.Handle(x.d.Handle))
	}
	x.pool = e.Value.home()
	if e.Value.isFenced() {
		s.doneWith(e)
		return staleHandle(ioctl.Handle(x.d.Handle))
	}
	switch x.verb {
	case verbRead:
		err = x.startRead(e.Value, mem)
	case verbWrite:
		err = x.startWrite(e.Value, mem)
	case verbAppend, verbMDCAppend:
		err = x.startAppend(e.Value, mem)
	case verbSync, verbMDCSync:
		err = x.startSync(e.Value)
	case verbAlloc:
		err = x.startAlloc(e.Value)
	case verbPut:
		err = x.startPut(e.Value, mem)
	case verbCommit:
		err = x.startCommit(e.Value)
	case verbClose:
		err = x.startClose(e)
	case verbNone:
		panic(errNoVerb)
	}
	if s.table.Done(e) && (x.verb != verbClose || err != nil) {
		// Its last user lets go of what has ended; that may write.
		v := e.Value
		s.requests.Go(func() { s.release(v) })
	}
	return err
}

// end answers an operation that was admitted.
func (x *ringOp) end(err error) {
	x.dismiss()
	x.answer(err)
}

// answer answers an operation: by a completion, or by an error on the socket.
func (x *ringOp) answer(err error) {
	l, r := x.loop(), x.ring
	set := r.set
	op := ioctl.Op(x.d.Op)
	if err != nil {
		x.c = ring.Completion{}
		if x.lane == nil { // else it was counted there
			x.breaksChain(err)
		}
	}
	took, moved := l.clock().Sub(x.began), x.moved(err)
	set.s.srv.ops.add(op, took, moved, err != nil)
	if x.pool != nil {
		x.pool.ops.add(op, took, moved, err != nil)
	}
	l.count.ops.Add(1)
	l.count.bytes.Add(moved)
	if err != nil {
		x.err = dressed(op, err)
		set.errors.send(x)
		return
	}
	x.c.Tag, x.c.Op = x.d.Tag, x.d.Op
	r.end.Complete(&x.c)
	set.ease(0, 1)
	l.tell(r)
	l.heat(r)
	x.forget()
}

// unanswered ends an operation whose client is told on the socket, or is gone.
func (x *ringOp) unanswered() {
	r := x.ring
	r.end.Fail()
	r.set.ease(0, 1)
	x.loop().heat(r)
	x.forget()
}

// passed takes an operation back from whoever had it.
func (x *ringOp) passed() {
	switch x.state {
	case opSent:
		x.unanswered()
	case opDurable:
		x.appended()
	case opSlow:
		x.laneDone()
	case opBegun:
		panic("server: an operation is passed that nobody had")
	}
}

// dressed puts the operation into an error that does not name one.
func dressed(op ioctl.Op, err error) error {
	r := request{op: op}
	return r.dress(err)
}

func badHandle(h ioctl.Handle) error {
	return api.Errorf(api.EBADF, "", "handle %#x is stale, of another kind, or not this session's", uint64(h))
}
