package credits

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/test/daemon"
)

// wire is a session with an owner of credits that speaks with the daemon, and
// nothing of the client library: it is the engine of that owner, and the link.
type wire struct {
	conn  *net.UnixConn
	pool  ioctl.Handle
	owner *credit.Owner
	ended chan struct{} // closed: the session has

	library *library // another session of the process, when it is needed; or nil

	sent atomic.Uint64 // credit messages
	left atomic.Bool   // it has given up its handle of the pool

	mu    sync.Mutex
	peer  credit.Peer
	tag   uint64
	calls map[uint64]chan answer
}

type answer struct {
	m   ioctl.Message
	err error
}

// longRetry is a Retry for a socket, which loses nothing.
const longRetry = time.Hour

func dialWire(socket, pool string) (*wire, error) {
	raw, err := daemon.Greeted(socket)
	if err != nil {
		return nil, err
	}
	h, err := raw.OpenPool(pool)
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	w := &wire{conn: raw.Conn, pool: h, ended: make(chan struct{}), calls: make(map[uint64]chan answer)}
	if err := w.conn.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	go w.receive()
	w.owner, err = credit.Open(credit.Options{Config: credit.Config{ID: 1, Retry: longRetry, Ack: 100 * time.Millisecond}, Linger: 10 * time.Millisecond}, w)
	return w, err
}

// Creditor implements [credit.Engine].
func (w *wire) Creditor() credit.OwnerID { return ioctl.Creditor }

// Connect implements [credit.Engine].
func (w *wire) Connect(_ credit.OwnerID, p credit.Peer) (credit.Link, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.peer = p
	return w, nil
}

// Send implements [credit.Link].
func (w *wire) Send(m credit.Message) {
	w.sent.Add(1)
	_ = w.write(ioctl.OpCredit, 1<<40, &ioctl.CreditMessage{Pool: w.pool, Message: m}) // else receive ends, too
}

// Close implements [credit.Link], and ends the session.
func (w *wire) Close() { _ = w.conn.Close() }

// end ends the session and the owner.
func (w *wire) end() {
	w.Close()
	<-w.ended
	w.owner.Abandon()
}

func (w *wire) write(op ioctl.Op, tag uint64, m ioctl.Message) error {
	b, err := ioctl.Append(nil, ioctl.Header{Op: op, Tag: tag}, m)
	if err == nil {
		_, err = w.conn.Write(b)
	}
	return err
}

// receive takes what the daemon sends.
func (w *wire) receive() {
	defer close(w.ended)
	buf := make([]byte, ioctl.MaxMessage)
	for {
		n, err := w.conn.Read(buf)
		if err != nil || n == 0 {
			w.down()
			return
		}
		h, err := ioctl.ParseHeader(buf[:n])
		if err != nil {
			panic(err)
		}
		m, err := daemon.Answer(h, append([]byte(nil), buf[ioctl.HeaderSize:n]...))
		if h.Op == ioctl.OpCredit {
			if w.left.Load() {
				continue // what was under way when it gave up its handle
			}
			if err != nil {
				panic(fmt.Sprint("a credit message is answered ", err))
			}
			w.mu.Lock()
			p := w.peer
			w.mu.Unlock()
			for c := range m.(*ioctl.CreditMessage).All() {
				c.From, c.To = ioctl.Creditor, 1
				p.Deliver(c)
			}
			continue
		}
		w.mu.Lock()
		call := w.calls[h.Tag]
		delete(w.calls, h.Tag)
		w.mu.Unlock()
		if call != nil {
			call <- answer{m, err}
		}
	}
}

func (w *wire) down() {
	w.mu.Lock()
	p, calls := w.peer, w.calls
	w.calls = nil
	w.mu.Unlock()
	for _, c := range calls {
		c <- answer{nil, net.ErrClosed}
	}
	if p != nil {
		p.Down()
	}
}

// ask makes a request.
func (w *wire) ask(op ioctl.Op, m ioctl.Message) (ioctl.Message, error) {
	c := make(chan answer, 1)
	w.mu.Lock()
	if w.calls == nil {
		w.mu.Unlock()
		return nil, net.ErrClosed
	}
	w.tag++
	tag := w.tag
	w.calls[tag] = c
	w.mu.Unlock()
	if err := w.write(op, tag, m); err != nil {
		return nil, err
	}
	a := <-c
	return a.m, a.err
}

// open makes a request that gives a handle.
func (w *wire) open(op ioctl.Op, m ioctl.Message) (ioctl.Handle, layout.ObjectID, error) {
	reply, err := w.ask(op, m)
	switch reply := reply.(type) {
	case *ioctl.Opened:
		return reply.Handle, reply.ID, err
	case *ioctl.AppenderOpened:
		return reply.Appender, 0, err
	}
	return 0, 0, err
}

// acquire asks the owner for modes of bytes of an object.
func (w *wire) acquire(ctx context.Context, id layout.ObjectID, m credit.Modes, first, end uint64, more credit.Flags) (*credit.Hold, error) {
	return w.owner.Acquire(ctx, request(id, m, first, end, more))
}

func request(id layout.ObjectID, m credit.Modes, first, end uint64, more credit.Flags) credit.Request {
	return credit.Request{
		Resource: objectOf(id),
		Credit:   credit.Make(credit.Span{First: first, End: end, Modes: m}),
		Flags:    credit.MayBorrow | credit.MayRevoke | more,
	}
}

func objectOf(id layout.ObjectID) credit.Resource {
	return credit.Resource{Type: credit.Access, ID: uint64(id)}
}
