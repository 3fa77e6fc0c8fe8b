package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

// ErrNoDaemon is wrapped by Dial's error when nobody listens on the socket, and
// by that of a call that has waited in vain for somebody to.
var ErrNoDaemon = errors.New("no daemon")

// ErrSilent is wrapped, together with ErrNoDaemon, by Dial's error when the socket
// is there and nobody has answered on it in time: the daemon hangs, is stopped, or
// is still starting.
var ErrSilent = errors.New("nobody answers")

// Options are the options of a connection.
type Options struct {
	// Socket is the path of the daemon's socket; "": that of MPOOL_SOCKET, else
	// the default one of the user.
	Socket string
	// Hello is how long Dial waits for a daemon that has the socket to answer. Its
	// context counts first. 0: 30 s, which is enough for one daemon to end and the
	// next one to begin on a socket that is kept.
	Hello time.Duration
	// Reconnect is how long a call waits for a new connection when the one
	// there was is gone, all in all. Its context counts first. 0: 30 s;
	// negative: it does not wait, and the connection is never made again.
	Reconnect time.Duration
	// Credits, if not nil, has the connection take credits itself, and keep what
	// nobody else wants: see the package's comment.
	Credits *CreditOptions
}

// What Options have when they are 0.
const (
	defaultHello     = 30 * time.Second
	defaultReconnect = 30 * time.Second
)

// Dial connects to the daemon. It fails at once if nobody listens on the socket:
// what is waited for later is Options.Reconnect's. A daemon that is behind with
// those who connect, or is just ending, is tried again. Close must be called in
// the end. Errors: one that wraps ErrNoDaemon, EAGAIN (the daemon has as many
// sessions as it may), EPERM, ENOTSUP (it speaks another version), ECONNRESET (it
// hung up without an answer, again and again).
func Dial(ctx context.Context, o Options) (*Conn, error) {
	c := &Conn{socket: o.Socket, reconnect: o.Reconnect, pid: os.Getpid()}
	if o.Credits != nil {
		c.useCredits(*o.Credits)
	}
	if c.socket == "" {
		var err error
		if c.socket, err = ioctl.DefaultSocket(os.Geteuid(), os.Getenv); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoDaemon, err)
		}
	}
	if c.reconnect == 0 {
		c.reconnect = defaultReconnect
	}
	l, err := c.first(ctx, cmp.Or(o.Hello, defaultHello))
	if err != nil {
		return nil, err
	}
	c.current.Store(l)
	return c, nil
}

// rebuffs is how many daemons may hang up on Dial without an answer before it
// fails. One may that ends just now; the next connection waits for the next daemon,
// if the socket is kept for it, or finds none.
const rebuffs = 2

// first makes the first connection.
func (c *Conn) first(ctx context.Context, patience time.Duration) (*link, error) {
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for delay, rebuffed := time.Duration(0), 0; ; {
		l, err := connect(bounded, c.socket, c.pid, &c.wg)
		switch {
		case err == nil:
			return l, nil
		case bounded.Err() != nil:
			return nil, c.silent(ctx, patience)
		case errors.Is(err, unix.EAGAIN): // its backlog is full
		case errors.Is(err, api.ECONNRESET) && rebuffed < rebuffs:
			rebuffed++
		default:
			return nil, err
		}
		delay = longer(delay)
		t := time.NewTimer(jittered(delay, rand.N))
		select {
		case <-t.C:
		case <-bounded.Done():
			t.Stop()
			return nil, c.silent(ctx, patience)
		}
	}
}

// silent is the error of Dial when time is up: the caller's, or its own.
func (c *Conn) silent(ctx context.Context, patience time.Duration) error {
	if ctx.Err() != nil {
		return expired(ctx, "dial")
	}
	return fmt.Errorf("%w at %s: the socket is there, but %w on it in %v: the daemon hangs, is stopped, or is still starting",
		ErrNoDaemon, c.socket, ErrSilent, patience)
}

// connect makes one connection. Its goroutines count in wg.
func connect(ctx context.Context, path string, pid int, wg *sync.WaitGroup) (*link, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unixpacket", path)
	if err != nil {
		if ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
			<-ctx.Done() // the dialer's timer for the same moment may be the faster
			return nil, expired(ctx, "dial")
		}
		return nil, fmt.Errorf("%w at %s: %w", ErrNoDaemon, path, err)
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		panic("client: a unix dialer gave another connection")
	}
	limits, err := greet(ctx, u)
	if err != nil {
		return nil, errors.Join(err, u.Close())
	}
	return newLink(u, limits, pid, wg)
}

// greet says hello. The context's end interrupts it.
func greet(ctx context.Context, u *net.UnixConn) (*ioctl.HelloReply, error) {
	const op = ioctl.OpHello
	stop := context.AfterFunc(ctx, func() {
		_ = u.SetDeadline(time.Unix(1, 0)) //nolint:errcheck // then greet fails anyway
	})
	defer stop()
	fail := func(err error) (*ioctl.HelloReply, error) {
		if ctx.Err() != nil {
			return nil, expired(ctx, "dial")
		}
		return nil, gone("dial", err)
	}
	b, err := ioctl.Append(nil, ioctl.Header{Op: op}, &ioctl.Hello{MinVersion: ioctl.Version, MaxVersion: ioctl.Version, Features: ioctl.Features})
	if err != nil {
		return nil, err
	}
	// A daemon that turns clients away says why without having been asked:
	// when sending fails there may still be an answer.
	_, werr := u.Write(b)
	buf := make([]byte, ioctl.MaxMessage)
	n, err := u.Read(buf)
	if errors.Is(err, unix.ECONNRESET) {
		// The kernel tells of the end before it gives what was sent before.
		n, err = u.Read(buf)
	}
	if errors.Is(err, io.EOF) {
		err = errHungUp
	}
	if err != nil {
		return fail(errors.Join(werr, err))
	}
	h, err := ioctl.ParseHeader(buf[:n])
	if err == nil && (h.Op != op || h.Flags&ioctl.FlagReply == 0) {
		err = fmt.Errorf("%w: no answer to hello", ioctl.ErrMalformed)
	}
	if err != nil {
		return nil, &api.Error{Code: api.EPROTO, Op: "dial", Err: err}
	}
	reply := &ioctl.HelloReply{}
	if err := decode(h, buf[ioctl.HeaderSize:n], reply); err != nil {
		return nil, err
	}
	if !stop() {
		return fail(ctx.Err()) // the deadline may have been set just now
	}
	return reply, nil
}

// decode reads a reply's body, or returns the error that it is.
func decode(h ioctl.Header, body []byte, reply ioctl.Message) error {
	if h.Flags&ioctl.FlagError != 0 {
		var e ioctl.Error
		if err := ioctl.Decode(&e, body); err != nil {
			return &api.Error{Code: api.EPROTO, Op: h.Op.Name(), Err: err}
		}
		return e.API()
	}
	if err := ioctl.Decode(reply, body); err != nil {
		return &api.Error{Code: api.EPROTO, Op: h.Op.Name(), Err: err}
	}
	return nil
}
