package client

import (
	"context"
	"errors"
	"io"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

// receive hands answers to their calls until the connection ends.
func (l *link) receive() {
	defer l.credits.end()
	oob := make([]byte, unix.CmsgSpace(4))
	reset := false
	for {
		buf := getBuffer()
		n, oobn, _, _, err := l.conn.ReadMsgUnix(buf[:], oob)
		if n == 0 && (err == nil || errors.Is(err, io.EOF)) {
			err = errHungUp
		}
		if errors.Is(err, unix.ECONNRESET) && !reset {
			// The kernel tells of the end before it gives what was sent before.
			reset = true
			putBuffer(buf)
			continue
		}
		if err != nil {
			putBuffer(buf)
			l.die(err)
			return
		}
		fd := takeFD(oob[:oobn])
		h, err := ioctl.ParseHeader(buf[:n])
		if err != nil || h.Flags&ioctl.FlagReply == 0 {
			closeFD(fd)
			putBuffer(buf)
			l.die(&api.Error{Code: api.EPROTO, Detail: "the daemon broke the protocol", Err: err})
			return
		}
		if h.Op == ioctl.OpCredit {
			closeFD(fd)
			l.credited(h, buf[ioctl.HeaderSize:n])
			putBuffer(buf)
			continue
		}
		l.answer(h, buf, n, fd)
	}
}

// answer ends the call that a message answers.
func (l *link) answer(h ioctl.Header, buf *[ioctl.MaxMessage]byte, n, fd int) {
	if ringOf(h.Tag) != 0 {
		closeFD(fd)
		if !l.ringFailed(h, buf, n) {
			putBuffer(buf)
		}
		return
	}
	l.mu.Lock()
	k := l.calls[h.Tag]
	if k == nil || k.op != h.Op {
		l.mu.Unlock()
		// Nobody's: such as what another process asked in this one's name.
		closeFD(fd)
		putBuffer(buf)
		return
	}
	delete(l.calls, h.Tag)
	l.answered.Store(true)
	late := k.late
	k.buf, k.size, k.fd = buf, n, fd
	l.mu.Unlock()
	if !late {
		l.finish(k)
		return
	}
	k.end()
	closeFD(fd)
	handle := given(h, k)
	putBuffer(buf)
	// What came and nobody waits for is given back, in the slot of the call
	// that asked for it. The receiver must not wait for that.
	if handle == 0 || !l.spawn(func() { l.giveBack(undoing(k.op), handle) }) {
		<-l.slots
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

// giveBack gives up what a handle is on, by undo, in a slot that the caller gives
// away. If the daemon does not hear it, the connection's end does the same.
func (l *link) giveBack(undo ioctl.Op, handle ioctl.Handle) {
	k, err := l.beginHeld(context.Background(), undo, &ioctl.Target{Handle: handle}, nil)
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
