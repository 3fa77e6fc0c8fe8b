package ioctl

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Receiver receives a socket's messages, one at a time. It allocates nothing for one,
// where [unix.Recvmsg] has memory for the address that a message is from.
type Receiver struct {
	head unix.Msghdr
	part unix.Iovec
	oob  []byte
}

// NewReceiver returns a receiver of up to oob bytes of control messages, at least one,
// with each message.
func NewReceiver(oob int) *Receiver { return &Receiver{oob: make([]byte, oob)} }

// Receive receives a message into buf, which is not empty, and returns its length, the
// control messages that came with it, which are valid until the next call, and recvmsg(2)'s
// flags of the message. Without unix.MSG_DONTWAIT among the flags it waits as long as the
// socket does. Errors: those of recvmsg(2) but EINTR, of type [unix.Errno].
func (r *Receiver) Receive(fd int, buf []byte, flags int) (n int, oob []byte, is int, err error) {
	r.part.Base = unsafe.SliceData(buf)
	r.part.SetLen(len(buf))
	r.head = unix.Msghdr{Iov: &r.part, Control: unsafe.SliceData(r.oob)}
	r.head.SetIovlen(1)
	r.head.SetControllen(len(r.oob))
	got, errno := uintptr(0), unix.EINTR
	for errno == unix.EINTR {
		got, _, errno = unix.Syscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&r.head)), uintptr(flags))
	}
	r.part.Base = nil // it may be another's soon
	if errno != 0 {
		return 0, nil, 0, errno
	}
	return int(got), r.oob[:r.head.Controllen], int(r.head.Flags), nil
}
