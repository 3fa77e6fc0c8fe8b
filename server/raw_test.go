package server

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/ioctl"
)

// raw is a client that sends what it likes.
type raw struct {
	t    *testing.T
	conn *net.UnixConn
	tag  uint64
}

func (r *rig) rawDial() *raw {
	r.t.Helper()
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: r.socket, Net: "unixpacket"})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(inVain)); err != nil {
		r.t.Fatal(err)
	}
	return &raw{t: r.t, conn: conn}
}

// raw says hello.
func (r *rig) raw() *raw {
	r.t.Helper()
	w := r.rawDial()
	w.ok(ioctl.OpHello, &ioctl.Hello{MinVersion: 1, MaxVersion: 1})
	return w
}

func (w *raw) send(h ioctl.Header, m ioctl.Message) {
	w.t.Helper()
	b, err := ioctl.Append(nil, h, m)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.conn.Write(b); err != nil {
		w.t.Fatal(err)
	}
}

// recv returns the next message.
func (w *raw) recv() (ioctl.Header, []byte, error) {
	buf := make([]byte, ioctl.MaxMessage)
	n, err := w.conn.Read(buf)
	if err != nil {
		return ioctl.Header{}, nil, err
	}
	h, err := ioctl.ParseHeader(buf[:n])
	return h, buf[ioctl.HeaderSize:n], err
}

// ask makes a request and returns the answer or the error that it is.
func (w *raw) ask(op ioctl.Op, m ioctl.Message) (ioctl.Message, error) {
	w.t.Helper()
	w.tag++
	w.send(ioctl.Header{Op: op, Tag: w.tag}, m)
	return w.answer(op, w.tag)
}

func (w *raw) answer(op ioctl.Op, tag uint64) (ioctl.Message, error) {
	w.t.Helper()
	h, body, err := w.recv()
	if err != nil {
		return nil, err
	}
	if h.Tag != tag || h.Op != op {
		w.t.Fatalf("answer to %v of tag %d, asked %v of tag %d", h.Op, h.Tag, op, tag)
	}
	if h.Flags&ioctl.FlagError != 0 {
		var e ioctl.Error
		if err := ioctl.Decode(&e, body); err != nil {
			w.t.Fatal(err)
		}
		return nil, e.API()
	}
	reply := op.NewReply()
	if err := ioctl.Decode(reply, body); err != nil {
		w.t.Fatal(err)
	}
	return reply, nil
}

func (w *raw) ok(op ioctl.Op, m ioctl.Message) ioctl.Message {
	w.t.Helper()
	reply, err := w.ask(op, m)
	if err != nil {
		w.t.Fatalf("%v: %v", op, err)
	}
	return reply
}

// opened makes a request that gives a handle.
func (w *raw) opened(op ioctl.Op, m ioctl.Message) ioctl.Handle {
	w.t.Helper()
	switch reply := w.ok(op, m).(type) {
	case *ioctl.Opened:
		return reply.Handle
	case *ioctl.AppenderOpened:
		return reply.Appender
	}
	w.t.Fatalf("%v gives no handle", op)
	return 0
}

func (w *raw) openPool() ioctl.Handle {
	w.t.Helper()
	return w.opened(ioctl.OpPoolOpen, &ioctl.PoolName{Name: "data"})
}

// ended fails unless the daemon has ended the session.
func (w *raw) ended() {
	w.t.Helper()
	for {
		_, _, err := w.recv()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			w.t.Fatal("the session goes on")
		}
		if err != nil && !errors.Is(err, ioctl.ErrMalformed) {
			return
		}
	}
}

// arena makes, maps and confirms an arena.
func (w *raw) arena(size uint64) (id uint16, mem []byte, fd int) {
	w.t.Helper()
	w.tag++
	w.send(ioctl.Header{Op: ioctl.OpArena, Tag: w.tag}, &ioctl.ArenaAsk{Size: size})
	buf, oob := make([]byte, ioctl.MaxMessage), make([]byte, 64)
	n, oobn, _, _, err := w.conn.ReadMsgUnix(buf, oob)
	if err != nil {
		w.t.Fatal(err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(msgs) != 1 {
		w.t.Fatalf("%d control messages, %v", len(msgs), err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		w.t.Fatalf("descriptors %v, %v", fds, err)
	}
	w.t.Cleanup(func() { unix.Close(fds[0]) })
	var reply ioctl.ArenaReply
	if err := ioctl.Decode(&reply, buf[ioctl.HeaderSize:n]); err != nil {
		w.t.Fatal(err)
	}
	mem, err = unix.Mmap(fds[0], 0, int(reply.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := unix.Munmap(mem); err != nil {
			w.t.Error(err)
		}
	})
	return reply.Arena, mem, fds[0]
}
