package client

import (
	"context"
	"io"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

// receive hands answers to their calls until the connection ends.
func (c *Conn) receive() {
	oob := make([]byte, unix.CmsgSpace(4))
	for {
		buf := getBuffer()
		n, oobn, _, _, err := c.conn.ReadMsgUnix(buf[:], oob)
		if err == nil && n == 0 {
			err = io.EOF
		}
		if err != nil {
			putBuffer(buf)
			c.die(err)
			return
		}
		fd := takeFD(oob[:oobn])
		h, err := ioctl.ParseHeader(buf[:n])
		if err != nil || h.Flags&ioctl.FlagReply == 0 {
			closeFD(fd)
			putBuffer(buf)
			c.die(&api.Error{Code: api.EPROTO, Detail: "the daemon broke the protocol", Err: err})
			return
		}
		c.answer(h, buf, n, fd)
	}
}

// answer ends the call that a message answers.
func (c *Conn) answer(h ioctl.Header, buf *[ioctl.MaxMessage]byte, n, fd int) {
	c.mu.Lock()
	k := c.calls[h.Tag]
	if k == nil || k.op != h.Op {
		c.mu.Unlock()
		// Nobody's: such as what another process asked in this one's name.
		closeFD(fd)
		putBuffer(buf)
		return
	}
	delete(c.calls, h.Tag)
	late := k.late
	k.buf, k.size, k.fd = buf, n, fd
	c.mu.Unlock()
	if !late {
		c.finish(k)
		return
	}
	k.end()
	closeFD(fd)
	handle := given(h, k)
	putBuffer(buf)
	// What came and nobody waits for is given back, in the slot of the call
	// that asked for it. The receiver must not wait for that.
	if handle == 0 || !c.spawn(func() { c.giveBack(handle) }) {
		<-c.slots
	}
}

// given returns the handle that an answer gives, or 0.
func given(h ioctl.Header, k *call) ioctl.Handle {
	reply := k.op.NewReply()
	if reply == nil || decode(h, k.buf[ioctl.HeaderSize:k.size], reply) != nil {
		return 0
	}
	switch m := reply.(type) {
	case *ioctl.Opened:
		return m.Handle
	case *ioctl.AppenderOpened:
		return m.Appender
	}
	return 0
}

// giveBack closes a handle, in a slot that the caller gives away. If the daemon
// does not hear it, the connection's end does the same.
func (c *Conn) giveBack(handle ioctl.Handle) {
	k, err := c.beginHeld(context.Background(), ioctl.OpClose, &ioctl.Target{Handle: handle}, nil)
	if err != nil {
		return
	}
	<-k.done
	if k.err == nil {
		putBuffer(k.buf)
	}
}

// takeFD returns the descriptor in a control message, or -1.
func takeFD(oob []byte) int {
	if len(oob) == 0 {
		return -1
	}
	msgs, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return -1
	}
	for i := range msgs {
		fds, err := syscall.ParseUnixRights(&msgs[i])
		if err == nil && len(fds) > 0 {
			return fds[0] // there is room for one
		}
	}
	return -1
}

func closeFD(fd int) {
	if fd >= 0 {
		_ = unix.Close(fd) // memory has nothing to write back
	}
}
