package server

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/sched"
)

// Inherit makes a listener of a socket that the process was started with: a
// listening Unix socket of type SOCK_SEQPACKET, as systemd gives one with
// ListenSequentialPacket. The socket stays its maker's: closing the listener
// neither removes it nor stops others from listening on it. The file is the
// listener's, also when Inherit fails.
//
// early says that the socket did not yet ask for its peers' credentials: a
// client that connected before is turned away with its first message.
func Inherit(f *os.File) (l *Listener, early bool, err error) {
	defer func() {
		if cerr := f.Close(); cerr != nil {
			err = errors.Join(err, cerr)
		}
	}()
	fd := int(f.Fd())
	if err := checkInherited(fd); err != nil {
		return nil, false, fmt.Errorf("descriptor %d (%s): %w", fd, f.Name(), err)
	}
	passes, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED)
	if err != nil {
		return nil, false, fmt.Errorf("descriptor %d (%s): %w", fd, f.Name(), err)
	}
	made, err := net.FileListener(f)
	if err != nil {
		return nil, false, fmt.Errorf("descriptor %d (%s): %w", fd, f.Name(), err)
	}
	u := made.(*net.UnixListener) // checkInherited has seen that it is one
	u.SetUnlinkOnClose(false)
	if err := passCredentials(u); err != nil {
		return nil, false, errors.Join(err, u.Close())
	}
	return &Listener{UnixListener: u, path: u.Addr().String()}, passes == 0, nil
}

// turnAwayTime bounds how long TurnAway takes.
const turnAwayTime = 50 * time.Millisecond

// TurnAway closes the connections that wait to be accepted: a daemon that cannot
// serve them and inherited their socket does not let them wait for the next one.
// The listener is not served.
func (l *Listener) TurnAway() {
	var clock *sched.Sched // the machine's
	if err := l.SetDeadline(clock.Now().Add(turnAwayTime)); err != nil {
		return // it is closed
	}
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return // none is left, or it is enough
		}
		_ = conn.Close() // nothing was said
	}
}

// checkInherited says why a descriptor is not the socket that is wanted.
func checkInherited(fd int) error {
	const want = "want a listening Unix socket of type SOCK_SEQPACKET (ListenSequentialPacket= in a systemd socket unit)"
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		if errors.Is(err, unix.ENOTSOCK) {
			return errors.New("it is no socket: " + want)
		}
		return fmt.Errorf("%w: %s", err, want)
	}
	if domain != unix.AF_UNIX {
		return fmt.Errorf("it is a socket of family %d: %s", domain, want)
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return err
	}
	if kind != unix.SOCK_SEQPACKET {
		name := map[int]string{unix.SOCK_STREAM: "SOCK_STREAM", unix.SOCK_DGRAM: "SOCK_DGRAM"}[kind]
		return fmt.Errorf("it is a Unix socket of type %s: %s", name, want)
	}
	listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return err
	}
	if listens == 0 {
		return errors.New("it does not listen: " + want)
	}
	return nil
}
