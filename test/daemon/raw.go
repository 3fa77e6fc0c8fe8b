package daemon

import (
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

// Raw is a client that sends what it likes, without the client library. It is
// for one goroutine.
type Raw struct {
	Conn *net.UnixConn
	tag  uint64
	buf  []byte
}

// DialRaw connects to a daemon's socket. Reads and writes fail after Patience.
func DialRaw(socket string) (*Raw, error) {
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: socket, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	w := NewRaw(conn)
	return w, conn.SetDeadline(time.Now().Add(Patience))
}

// NewRaw makes a client of a connection.
func NewRaw(conn *net.UnixConn) *Raw { return &Raw{Conn: conn, buf: make([]byte, ioctl.MaxMessage)} }

// Greeted connects and says hello, of a client of the protocol's first days: it knows no
// features.
func Greeted(socket string) (*Raw, error) { return GreetedWith(socket, 0) }

// GreetedWith connects and says hello with the features that it knows.
func GreetedWith(socket string, features uint64) (*Raw, error) {
	w, err := DialRaw(socket)
	if err != nil {
		return nil, err
	}
	hello := Hello()
	hello.Features = features
	if _, err := w.Ask(ioctl.OpHello, hello); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// Hello returns the message that begins a session.
func Hello() *ioctl.Hello {
	return &ioctl.Hello{MinVersion: ioctl.Version, MaxVersion: ioctl.Version}
}

// Close closes the connection.
func (w *Raw) Close() error { return w.Conn.Close() }

// Send sends one message.
func (w *Raw) Send(h ioctl.Header, m ioctl.Message) error {
	b, err := ioctl.Append(nil, h, m)
	if err != nil {
		return err
	}
	_, err = w.Conn.Write(b)
	return err
}

// Receive returns the next message. Its body is valid until the next call.
func (w *Raw) Receive() (ioctl.Header, []byte, error) {
	n, err := w.Conn.Read(w.buf)
	if err != nil {
		return ioctl.Header{}, nil, err
	}
	h, err := ioctl.ParseHeader(w.buf[:n])
	if err != nil {
		return h, nil, err
	}
	return h, w.buf[ioctl.HeaderSize:n], nil
}

// Ask makes a request and returns the answer, or the error that it is.
func (w *Raw) Ask(op ioctl.Op, m ioctl.Message) (ioctl.Message, error) {
	w.tag++
	if err := w.Send(ioctl.Header{Op: op, Tag: w.tag}, m); err != nil {
		return nil, err
	}
	h, body, err := w.Receive()
	if err != nil {
		return nil, err
	}
	turnedAway := h.Op == ioctl.OpHello && h.Flags&ioctl.FlagError != 0 // before hello was read
	if (h.Tag != w.tag || h.Op != op) && !turnedAway {
		return nil, fmt.Errorf("answer to %v of tag %d; asked %v of tag %d", h.Op, h.Tag, op, w.tag)
	}
	return Answer(h, body)
}

// Answer reads the body of an answer, or returns the error that it is.
func Answer(h ioctl.Header, body []byte) (ioctl.Message, error) {
	if h.Flags&ioctl.FlagError != 0 {
		var e ioctl.Error
		if err := ioctl.Decode(&e, body); err != nil {
			return nil, err
		}
		return nil, e.API()
	}
	if !h.Op.Valid() {
		return nil, fmt.Errorf("an answer to %v", h.Op)
	}
	reply := h.Op.NewReply()
	return reply, ioctl.Decode(reply, body)
}

// Open makes a request that gives a handle.
func (w *Raw) Open(op ioctl.Op, m ioctl.Message) (ioctl.Handle, error) {
	reply, err := w.Ask(op, m)
	if err != nil {
		return 0, err
	}
	switch reply := reply.(type) {
	case *ioctl.Opened:
		return reply.Handle, nil
	case *ioctl.AppenderOpened:
		return reply.Appender, nil
	}
	return 0, fmt.Errorf("%v gives no handle", op)
}

// OpenPool opens a pool by name.
func (w *Raw) OpenPool(name string) (ioctl.Handle, error) {
	return w.Open(ioctl.OpPoolOpen, &ioctl.PoolName{Name: name})
}

// Alloc allocates an mblock or an mlog.
func (w *Raw) Alloc(op ioctl.Op, pool ioctl.Handle, capacity int64) (ioctl.Handle, error) {
	return w.Open(op, &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: capacity}})
}

// Arena asks for an arena, and returns it with its descriptor, which is the
// caller's. It is not mapped.
func (w *Raw) Arena(size uint64) (*ioctl.ArenaReply, int, error) {
	w.tag++
	if err := w.Send(ioctl.Header{Op: ioctl.OpArena, Tag: w.tag}, &ioctl.ArenaAsk{Size: size}); err != nil {
		return nil, -1, err
	}
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := w.Conn.ReadMsgUnix(w.buf, oob)
	if err != nil {
		return nil, -1, err
	}
	fd := -1
	if msgs, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(msgs) == 1 {
		if fds, err := unix.ParseUnixRights(&msgs[0]); err == nil && len(fds) == 1 {
			fd = fds[0]
		}
	}
	h, err := ioctl.ParseHeader(w.buf[:n])
	var reply ioctl.Message
	if err == nil {
		reply, err = Answer(h, w.buf[ioctl.HeaderSize:n])
	}
	arena, ok := reply.(*ioctl.ArenaReply)
	if err == nil && (!ok || fd < 0) {
		err = fmt.Errorf("%T with descriptor %d is no arena", reply, fd)
	}
	if err != nil {
		if fd >= 0 {
			_ = unix.Close(fd) // memory has nothing to write back
		}
		return nil, -1, err
	}
	return arena, fd, nil
}

// Mapped asks for an arena, maps it and says so. The descriptor is closed.
func (w *Raw) Mapped(size uint64) (id uint16, mem []byte, err error) {
	reply, fd, err := w.Arena(size)
	if err != nil {
		return 0, nil, err
	}
	mem, err = unix.Mmap(fd, 0, int(reply.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	_ = unix.Close(fd) // memory has nothing to write back
	if err != nil {
		return 0, nil, err
	}
	_, err = w.Ask(ioctl.OpArenaMapped, &ioctl.ArenaMapped{Arena: reply.Arena})
	return reply.Arena, mem, err
}
