package client

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// Options are the options of a connection.
type Options struct {
	// Socket is the path of the daemon's socket; "": that of MPOOL_SOCKET, else
	// the default one of the user.
	Socket string
	// Reconnect is how long a call waits for a new connection when the one
	// there was is gone, all in all. Its context counts first. 0: 30 s;
	// negative: it does not wait, and the connection is never made again.
	Reconnect time.Duration
}

// defaultReconnect is what Options.Reconnect is when it is 0.
const defaultReconnect = 30 * time.Second

// Dial connects to the daemon. It tries once: what is waited for later is
// Options.Reconnect's. Close must be called in the end.
func Dial(ctx context.Context, o Options) (*Conn, error) {
	c := &Conn{socket: o.Socket, reconnect: o.Reconnect, pid: os.Getpid()}
	if c.socket == "" {
		var err error
		if c.socket, err = ioctl.DefaultSocket(os.Geteuid(), os.Getenv); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoDaemon, err)
		}
	}
	if c.reconnect == 0 {
		c.reconnect = defaultReconnect
	}
	l, err := connect(ctx, c.socket, c.pid, &c.wg)
	if err != nil {
		return nil, err
	}
	c.current.Store(l)
	return c, nil
}

// connect makes one connection. Its goroutines count in wg.
func connect(ctx context.Context, path string, pid int, wg *sync.WaitGroup) (*link, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unixpacket", path)
	if err != nil {
		if ctx.Err() != nil {
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
	b, err := ioctl.Append(nil, ioctl.Header{Op: op}, &ioctl.Hello{MinVersion: ioctl.Version, MaxVersion: ioctl.Version})
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
