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

// receive hands on what comes and is not taken by who waits for it, until the connection
// ends.
func (l *link) receive() {
	defer l.credits.end()
	defer l.sock.closed()
	if err := l.sock.watch(func() bool { return !l.receiveAll() }); err != nil {
		l.die(err)
	}
}

// receiveAll takes what has come; false: the connection has ended.
func (l *link) receiveAll() bool {
	l.sock.turn.Lock()
	defer l.sock.turn.Unlock()
	for {
		if came, err := l.receiveOne(false); err != nil || !came {
			return err == nil
		}
	}
}

// attend says whether the caller, which is about to send a request and to wait for what
// follows, is to receive what comes itself: then it calls lead as soon as that is sent, and
// waits for nothing before. Not if others wait: then one goroutine hands on for all. In any
// case it calls leave when it waits no more.
func (l *link) attend() bool {
	// A child that has the socket must not take what is for its parent.
	if l.waiting.Add(1) > 1 || !l.mark.here() || !l.leading.CompareAndSwap(false, true) {
		return false
	}
	// Before the request is sent: else the answer may be there first, and who does more than
	// to sleep when it has woken the daemon has that run on another processor.
	if l.sock.overlook(true) != nil {
		l.leading.Store(false)
		return false // it has ended, as the caller will be told
	}
	return true
}

// leave is the end of a wait that began with attend.
func (l *link) leave() { l.waiting.Add(-1) }

// lead receives what comes until done is closed, which may be before, the context ends or
// nothing has come for a moment. The caller, to whom attend has said so, waits on then.
func (l *link) lead(ctx context.Context, done <-chan struct{}) {
	l.leadOn(ctx, done)
	l.breath.take()
	l.leading.Store(false)
	if l.sock.overlook(false) == nil {
		l.receiveAll()
	}
}

func (l *link) leadOn(ctx context.Context, done <-chan struct{}) {
	l.sock.turn.Lock()
	defer l.sock.turn.Unlock()
	for ctx.Err() == nil {
		select {
		case <-done:
			return
		default:
		}
		if came, err := l.receiveOne(true); err != nil || !came {
			return
		}
	}
}

// receiveOne takes a message and hands it on; with wait it sleeps a moment for one. It
// says whether one came. An error is the connection's end, which is told.
//
// +checklocks:l.sock.turn
func (l *link) receiveOne(wait bool) (came bool, err error) {
	buf := getBuffer()
	n, fd, err := l.sock.receive(buf[:], wait)
	if err != nil {
		putBuffer(buf)
		if errors.Is(err, unix.EAGAIN) {
			return false, nil
		}
		if errors.Is(err, io.EOF) {
			err = errHungUp
		}
		l.die(err)
		return false, err
	}
	h, err := ioctl.ParseHeader(buf[:n])
	if err != nil || h.Flags&ioctl.FlagReply == 0 {
		closeFD(fd)
		putBuffer(buf)
		err = &api.Error{Code: api.EPROTO, Detail: "the daemon broke the protocol", Err: err}
		l.die(err)
		return false, err
	}
	if h.Op != ioctl.OpCredit {
		l.answer(h, buf, n, fd)
		return true, nil
	}
	closeFD(fd)
	l.credited(h, buf[ioctl.HeaderSize:n])
	putBuffer(buf)
	return true, nil
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
	k, err := l.begin(context.Background(), undo, &ioctl.Target{Handle: handle}, nil)
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
