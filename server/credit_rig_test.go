package server

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

// borrower is a session with an owner of credits, and nothing of the client library.
type borrower struct {
	t     *testing.T
	conn  *net.UnixConn
	pool  ioctl.Handle
	owner *credit.Owner
	ended chan struct{} // closed: the session has

	mu      sync.Mutex
	stopped chan struct{} // not nil: nothing is received before it is closed
	peer    credit.Peer
	tag     uint64
	calls   map[uint64]chan error
	replies map[uint64]ioctl.Message
	refused error // an answer to a credit message
}

func (r *rig) borrower() *borrower {
	r.t.Helper()
	w := r.raw()
	b := &borrower{
		t: r.t, conn: w.conn, pool: w.openPool(), ended: make(chan struct{}), tag: 1 << 20,
		calls: map[uint64]chan error{}, replies: map[uint64]ioctl.Message{},
	}
	if err := w.conn.SetReadDeadline(time.Time{}); err != nil {
		r.t.Fatal(err)
	}
	go b.receive()
	var err error
	if b.owner, err = credit.Open(credit.Options{Config: credit.Config{ID: 1, Retry: time.Hour}}, b); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(b.end)
	return b
}

func (b *borrower) Creditor() credit.OwnerID { return ioctl.Creditor }

func (b *borrower) Connect(_ credit.OwnerID, p credit.Peer) (credit.Link, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.peer = p
	return b, nil
}

func (b *borrower) Send(m credit.Message) {
	b.write(ioctl.OpCredit, 1, &ioctl.CreditMessage{Pool: b.pool, Message: m})
}

func (b *borrower) Close() { _ = b.conn.Close() }

// end ends the session and the owner, as the process's death would.
func (b *borrower) end() {
	b.resume()
	b.Close()
	<-b.ended
	b.owner.Abandon()
}

// stop has the session answer nothing until resume.
func (b *borrower) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopped = make(chan struct{})
}

func (b *borrower) resume() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped != nil {
		close(b.stopped)
		b.stopped = nil
	}
}

func (b *borrower) write(op ioctl.Op, tag uint64, m ioctl.Message) {
	p, err := ioctl.Append(nil, ioctl.Header{Op: op, Tag: tag}, m)
	if err != nil {
		b.t.Error(err)
	}
	_, _ = b.conn.Write(p) // else receive ends, too
}

func (b *borrower) receive() {
	defer close(b.ended)
	buf := make([]byte, ioctl.MaxMessage)
	for {
		n, err := b.conn.Read(buf)
		b.mu.Lock()
		stopped := b.stopped
		b.mu.Unlock()
		if stopped != nil {
			<-stopped
		}
		if err != nil || n == 0 {
			b.down()
			return
		}
		h, err := ioctl.ParseHeader(buf[:n])
		if err != nil {
			b.t.Error(err)
			continue
		}
		b.took(h, append([]byte(nil), buf[ioctl.HeaderSize:n]...))
	}
}

func (b *borrower) down() {
	b.mu.Lock()
	p, calls := b.peer, b.calls
	b.calls = nil
	b.mu.Unlock()
	for _, c := range calls {
		c <- net.ErrClosed
	}
	if p != nil {
		p.Down()
	}
}

func (b *borrower) took(h ioctl.Header, body []byte) {
	m := h.Op.NewReply()
	if h.Op == ioctl.OpCredit {
		m = &ioctl.CreditMessage{}
	}
	var failed error
	if h.Flags&ioctl.FlagError != 0 {
		m = &ioctl.Error{}
	}
	if err := ioctl.Decode(m, body); err != nil {
		b.t.Errorf("%v: %v", h.Op, err)
		return
	}
	if e, ok := m.(*ioctl.Error); ok {
		failed = e.API()
	}
	b.mu.Lock()
	if c, ok := m.(*ioctl.CreditMessage); ok {
		p := b.peer
		b.mu.Unlock()
		c.Message.From, c.Message.To = ioctl.Creditor, 1
		p.Deliver(c.Message)
		return
	}
	defer b.mu.Unlock()
	if h.Op == ioctl.OpCredit {
		b.refused = failed
		go b.peer.Down()
		return
	}
	if call := b.calls[h.Tag]; call != nil {
		delete(b.calls, h.Tag)
		b.replies[h.Tag] = m
		call <- failed
	}
}

func (b *borrower) begin(op ioctl.Op, m ioctl.Message) (tag uint64, call chan error) {
	call = make(chan error, 1)
	b.mu.Lock()
	b.tag++
	tag = b.tag
	if b.calls == nil {
		call <- net.ErrClosed
	} else {
		b.calls[tag] = call
	}
	b.mu.Unlock()
	b.write(op, tag, m)
	return tag, call
}

func (b *borrower) ask(op ioctl.Op, m ioctl.Message) (ioctl.Message, error) {
	tag, call := b.begin(op, m)
	err := <-call
	b.mu.Lock()
	defer b.mu.Unlock()
	reply := b.replies[tag]
	delete(b.replies, tag)
	return reply, err
}

func (b *borrower) ok(op ioctl.Op, m ioctl.Message) ioctl.Message {
	b.t.Helper()
	reply, err := b.ask(op, m)
	if err != nil {
		b.t.Fatalf("%v: %v", op, err)
	}
	return reply
}

func (b *borrower) find(id layout.ObjectID) (ioctl.Handle, error) {
	op := ioctl.OpMblockFind
	if id.Kind() == layout.KindMlog {
		op = ioctl.OpMlogFind
	}
	reply, err := b.ask(op, &ioctl.Find{Pool: b.pool, ID: id})
	if err != nil {
		return 0, err
	}
	return reply.(*ioctl.Opened).Handle, nil
}

// wish is a request for a credit on a whole object.
func wish(id layout.ObjectID, m credit.Modes, more credit.Flags) credit.Request {
	return credit.Request{Resource: objectOf(id), Credit: wholeOf(m), Flags: credit.MayBorrow | credit.MayRevoke | more}
}

func (b *borrower) acquire(id layout.ObjectID, m credit.Modes) *credit.Hold {
	b.t.Helper()
	h, err := b.owner.Acquire(context.Background(), wish(id, m, 0))
	if err != nil {
		b.t.Fatal(err)
	}
	return h
}

// waits acquires in the background, until its context ends.
func (b *borrower) waits(ctx context.Context, c *creditor, id layout.ObjectID, m credit.Modes) <-chan error {
	b.t.Helper()
	got := make(chan error, 1)
	before := waiting(c, id)
	go func() {
		_, err := b.owner.Acquire(ctx, wish(id, m, 0))
		got <- err
	}()
	until(b.t, "the request waits", func() bool { return waiting(c, id) > before })
	return got
}

// waiting counts who waits for a credit on an object.
func waiting(c *creditor, id layout.ObjectID) (n int) {
	for _, l := range c.root.Loans(objectOf(id)) {
		if l.Waits {
			n++
		}
	}
	return n
}

// creditor returns that of the rig's pool.
func (r *rig) creditor() *creditor {
	r.t.Helper()
	return must[*activePool](r.t)(r.srv.pools.get("data")).credits
}

// object puts a committed mblock, or makes a committed log, without a handle.
func (r *rig) object(kind layout.Kind) layout.ObjectID {
	r.t.Helper()
	w := r.raw()
	defer w.conn.Close()
	pool := w.openPool()
	if kind == layout.KindMblock {
		return w.ok(ioctl.OpMblockPut, &ioctl.MblockPut{Pool: pool, Data: ioctl.InlinePayload([]byte("content"))}).(*ioctl.Opened).ID
	}
	o := w.ok(ioctl.OpMlogAlloc, &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 65536}}).(*ioctl.Opened)
	w.ok(ioctl.OpObjectCommit, &ioctl.Target{Handle: o.Handle})
	return o.ID
}

// residue waits until the creditor is as it was at its start, with handles or without.
func (r *rig) residue() {
	r.t.Helper()
	c := r.creditor()
	until(r.t, "nothing of credits is left", func() bool {
		c.mu.Lock()
		watched, claims := len(c.watched), len(c.claims)
		c.mu.Unlock()
		c.leaf.Lock()
		left := len(c.links) + len(c.evicted) + len(c.ending)
		c.leaf.Unlock()
		objects, debtors := c.root.Size()
		return watched+claims+left+objects+debtors == 0 && c.watching.Load() == 0
	})
}

// watches says whether an object is watched, and how many claims there are on it.
func (c *creditor) watches(id layout.ObjectID) (is bool, claims int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w := c.watched[id]; w != nil {
		return true, len(w.claims)
	}
	return false, 0
}
