package server

import (
	"context"
	"errors"
	"sync"

	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
)

// handleLane serves those descriptors of one handle that a loop does not serve itself,
// one after another and by the handlers of requests on the socket, in a goroutine
// that ends when there are none. While there are, all of the handle's come here,
// so that they keep their order; but for allocations, which have none.
type handleLane struct {
	set     *ringSet
	pending int // operations that the loop has not got back

	mu sync.Mutex
	// +checklocks:mu
	queue opList
	// +checklocks:mu
	running bool // a goroutine serves it, or will
}

// laneTurns are the lanes of a session that have a goroutine, and those that have
// to wait for one.
type laneTurns struct {
	running int
	waiting []*handleLane
}

// toLane puts an operation into its handle's lane.
func (x *ringOp) toLane() {
	set := x.ring.set
	base := set.s.ctx
	if x.verb.outlives() {
		base = set.s.srv.hard
	}
	x.ctx, x.cancel = context.WithCancel(base)
	if !set.s.name(x.d.Tag, x.cancel) {
		x.cancel()
		x.undo(errTag)
		x.unanswered()
		set.loop.breach(set, errTag)
		return
	}
	x.state = opSlow
	set.loop.count.slow.Add(1)
	var ln *handleLane
	if x.hasOrder() {
		ln = set.lanes[x.d.Handle]
	}
	if ln == nil {
		ln = &handleLane{set: set}
		if x.hasOrder() {
			set.lanes[x.d.Handle] = ln
		}
	}
	x.lane = ln
	ln.pending++
	if ln.add(x) {
		set.turns.waiting = append(set.turns.waiting, ln)
		set.startLanes()
	}
}

// hasOrder says whether an operation is done in order with the others of its handle.
// An allocation is not, and never in the lane of its handle, whatever that is.
func (x *ringOp) hasOrder() bool { return !x.verb.allocates() }

var errTag = errors.New("a tag that is in use")

// startLanes gives lanes their goroutines, as many as the session may have
// requests in flight.
func (set *ringSet) startLanes() {
	t := &set.turns
	for t.running < set.s.srv.limits.Requests && len(t.waiting) > 0 {
		ln := t.waiting[0]
		t.waiting = t.waiting[1:]
		t.running++
		set.s.requests.Go(ln.run)
	}
}

// add puts an operation into the lane, and says whether that needs a goroutine.
func (ln *handleLane) add(x *ringOp) bool {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	ln.queue.add(x)
	start := !ln.running
	ln.running = true
	return start
}

func (ln *handleLane) take() *ringOp {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	x := ln.queue.take()
	ln.running = x != nil
	return x
}

// run serves the lane until it is empty.
func (ln *handleLane) run() {
	set := ln.set
	for x := ln.take(); x != nil; x = ln.take() {
		if x.err = x.serveSlowly(); x.err != nil {
			x.breaksChain(x.err)
		}
		x.cancel()
		set.s.unregister(x.d.Tag)
		set.loop.pass(x)
	}
	set.loop.do(func() {
		set.turns.running--
		set.startLanes()
	})
}

// laneDone takes an operation back from its lane and answers it.
func (x *ringOp) laneDone() {
	set := x.ring.set
	if ln := x.lane; x.hasOrder() {
		if ln.pending--; ln.pending == 0 {
			delete(set.lanes, x.d.Handle)
		}
	}
	err := x.err
	if err != nil {
		x.undo(err)
	}
	x.state, x.err = opBegun, nil
	if set.stopped() && err != nil {
		x.unanswered() // nobody listens
		return
	}
	x.answer(err)
}

// serveSlowly does the operation as a request on the socket, and fills in the
// completion.
func (x *ringOp) serveSlowly() error {
	s := x.ring.set.s
	if err := x.ctx.Err(); err != nil {
		return err
	}
	// Before its turn nothing has begun that would have to run to its end: the
	// session's handles end before its context does.
	turn, letGo := s.untilEnd(x.ctx)
	defer letGo()
	end, err := s.srv.fair.turn(turn, s.flow, x.turnKind(), min(int64(x.d.Length), maxTurnBytes))
	if err != nil {
		return err
	}
	defer end()
	if err := x.beginTask(); err != nil {
		return err
	}
	r := &request{s: s, op: ioctl.Op(x.d.Op), tag: x.d.Tag, ctx: x.ctx, began: x.began, fd: -1}
	reply, err := x.ask(r)
	x.pool = r.pool
	if err == nil {
		x.fill(reply)
	}
	r.letGo()
	if r.data != nil {
		putBuffer(r.data)
	}
	if r.buffers > 0 {
		s.unreserve(MessageBytes, r.buffers)
	}
	s.io.give(s, IOBytes, r.io)
	x.endTask()
	return err
}

// turnKind is what the operation needs in its handle's lane.
func (x *ringOp) turnKind() kind {
	switch x.verb {
	case verbRead, verbWrite:
		return bulk
	case verbAppend, verbMDCAppend:
		if x.d.Flags&ring.FlagSync == 0 {
			return bulk
		}
	case verbAlloc:
		return quick
	case verbNone, verbSync, verbMDCSync, verbPut, verbCommit, verbClose:
	}
	return durable
}

// fill makes a completion of an answer.
func (x *ringOp) fill(reply ioctl.Message) {
	x.c = ring.Completion{N: x.d.Length}
	switch m := reply.(type) {
	case *ioctl.MblockReadReply:
		x.c.N = m.N
		if m.EOF {
			x.c.Flags = ring.FlagEOF
		}
	case *ioctl.MblockWritten:
		x.c.N = m.N
	case *ioctl.Appended:
		x.c.A, x.c.B = m.Record, uint64(m.Bytes)
	case *ioctl.Opened:
		x.c = completionOf(m)
	}
}

// name lets an operation be cancelled by its tag; false: that is in use.
func (s *session) name(tag uint64, cancel context.CancelFunc) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.tags[tag]; taken {
		return false
	}
	s.tags[tag] = cancel
	if s.ended { // it has not begun, and nothing begins any more
		cancel()
	}
	return true
}

// errorQueue has errors sent on the socket, by a goroutine that ends when there
// are none: a client that does not read its socket holds up nobody else. As long
// as an error is not sent, its descriptor is not answered, which bounds them.
type errorQueue struct {
	mu sync.Mutex
	// +checklocks:mu
	queue opList
	// +checklocks:mu
	running bool
}

// send has an operation's error sent; the loop gets it back then.
func (q *errorQueue) send(x *ringOp) {
	x.state = opSent
	set := x.ring.set
	if set.stopped() {
		x.unanswered()
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.queue.add(x)
	if !q.running {
		q.running = true
		set.s.requests.Go(func() { q.run(set) })
	}
}

func (q *errorQueue) run(set *ringSet) {
	for x := q.take(); x != nil; x = q.take() {
		set.s.reply(ioctl.Op(x.d.Op), x.d.Tag, nil, x.err, -1)
		set.loop.pass(x)
	}
}

func (q *errorQueue) take() *ringOp {
	q.mu.Lock()
	defer q.mu.Unlock()
	x := q.queue.take()
	q.running = x != nil
	return x
}
