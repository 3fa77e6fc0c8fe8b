package server

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/uhandle"
)

// peer is the process at the other end of a session.
type peer struct {
	pid    int32
	uid    uint32
	gid    uint32
	groups []uint32 // supplementary
	comm   string   // its name, printable
	admin  bool     // root, or the daemon's own user

	// accepted is when the session began: see uhandle.Ticks.
	accepted uint64
	// proc is the process; nil until it is known (see challenge).
	proc *uhandle.Process
	// challenged is set when proc is known to be the process that connected:
	// from the start with SO_PEERPIDFD, else after the second message.
	challenged bool
}

var (
	errPeerGone   = errors.New("the peer's process is gone")
	errPeerHidden = errors.New("the peer's process is not in the daemon's pid namespace")
	errNotPeer    = errors.New("sent by another process than the one that connected")
)

// identify asks the kernel who connected.
func identify(conn *net.UnixConn, noPeerPidfd bool) (*peer, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("identify peer: %w", err)
	}
	p := &peer{accepted: uhandle.Ticks()}
	var cred *unix.Ucred
	var credErr, pidfdErr error
	pidfd := -1
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		p.groups = peerGroups(int(fd))
		if noPeerPidfd {
			pidfdErr = unix.ENOPROTOOPT
			return
		}
		pidfd, pidfdErr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	}); err != nil {
		return nil, fmt.Errorf("identify peer: %w", err)
	}
	if pidfdErr == nil {
		pid := int32(0)
		if credErr == nil {
			pid = cred.Pid
		}
		if p.proc, err = uhandle.FromPidfd(pid, pidfd); err != nil {
			return nil, err
		}
		p.challenged = true
	}
	switch {
	case credErr != nil:
		p.close()
		return nil, fmt.Errorf("identify peer: %w", credErr)
	case errors.Is(pidfdErr, unix.ESRCH):
		return nil, fmt.Errorf("%w: %w", errPeerGone, pidfdErr)
	case pidfdErr != nil && !errors.Is(pidfdErr, unix.ENOPROTOOPT):
		return nil, fmt.Errorf("identify peer: %w", pidfdErr)
	case cred.Pid == 0:
		p.close()
		return nil, errPeerHidden
	}
	p.pid, p.uid, p.gid = cred.Pid, cred.Uid, cred.Gid
	p.admin = p.uid == 0 || p.uid == uint32(os.Geteuid())
	if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.pid)); err == nil {
		p.comm = printable(strings.TrimSuffix(string(comm), "\n"))
	}
	return p, nil
}

// number is the process's own among those that live, and not 0. It is for requests that
// come once the process is known.
func (p *peer) number() uint64 {
	n := uint64(uint32(p.pid))
	if p.proc != nil {
		n |= p.proc.Start << 32
	}
	return n
}

// printable makes a name that a process has chosen fit for a terminal.
func printable(name string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, name)
}

// peerGroups returns the supplementary groups the peer had when it connected,
// or none if the kernel does not say.
func peerGroups(fd int) []uint32 {
	buf := make([]uint32, 64)
	for {
		size := uint32(4 * len(buf))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return buf[:size/4]
		case errno == unix.ERANGE && int(size) > 4*len(buf) && size <= 4<<16:
			buf = make([]uint32, size/4)
		default:
			return nil
		}
	}
}

// oobSize is room for the credentials of a message and for nothing else: the
// kernel closes descriptors it has no room for and says so.
var oobSize = unix.CmsgSpace(unix.SizeofUcred)

// check says whether a message was sent by the peer. Only the process counts:
// its user ids may change in the course of its life.
func (p *peer) check(oob []byte) error {
	hdr, data, _, err := unix.ParseOneSocketControlMessage(oob)
	if err != nil || hdr.Level != unix.SOL_SOCKET || hdr.Type != unix.SCM_CREDENTIALS || len(data) < unix.SizeofUcred {
		return fmt.Errorf("%w: no credentials", errNotPeer)
	}
	pid := int32(binary.NativeEndian.Uint32(data))
	if pid != p.pid {
		return fmt.Errorf("%w: pid %d, not %d", errNotPeer, pid, p.pid)
	}
	return p.challenge()
}

// challenge finds the peer's process where the kernel does not give it: opened
// by the number of one message's sender, it is the peer's if a second message
// comes from the same number while that process lives. Messages may wait long
// before they are read: a process that is younger than the session is another.
func (p *peer) challenge() error {
	if p.challenged {
		return nil
	}
	if p.proc == nil {
		proc, err := uhandle.Open(p.pid)
		if err != nil {
			return fmt.Errorf("%w: %w", errPeerGone, err)
		}
		p.proc = proc
		if proc.Start > p.accepted {
			return errPeerGone
		}
		return nil
	}
	if p.proc.Dead() {
		return errPeerGone
	}
	p.challenged = true
	return nil
}

func (p *peer) close() {
	if p.proc != nil {
		p.proc.Close()
	}
}

// The permission bits of a pool that are asked for.
const (
	mayRead  = 4
	mayWrite = 2
)

// may says which of the permission bits the peer has on something of the given
// owner, group and mode.
func (p *peer) may(uid, gid, mode uint32) uint32 {
	switch {
	case p.admin:
		return mayRead | mayWrite
	case p.uid == uid:
		return mode >> 6 & 7
	case p.gid == gid || slices.Contains(p.groups, gid):
		return mode >> 3 & 7
	}
	return mode & 7
}
