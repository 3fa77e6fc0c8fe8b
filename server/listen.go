package server

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/ioctl"
)

// ErrInUse is returned when a daemon listens on the socket already.
var ErrInUse = errors.New("a daemon is listening on the socket already")

// Claim is a daemon's right to a socket: a lock file beside it, which keeps two
// daemons apart before either has made the socket.
type Claim struct {
	path string
	lock *os.File
}

// NewClaim claims the socket at path; ErrInUse if a daemon has it. The socket's
// directory is made if it is not there; the lock is path + ".lock".
func NewClaim(path string) (*Claim, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("claim socket: %w", err)
	}
	lock, err := takeLock(path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("claim socket %s: %w", path, err)
	}
	c := &Claim{path: path, lock: lock}
	if err := removeStale(path); err != nil {
		return nil, errors.Join(fmt.Errorf("claim socket %s: %w", path, err), c.Release())
	}
	return c, nil
}

// Release gives the claim up, which must not have become a Listener.
func (c *Claim) Release() error {
	// Removed first, while it is held: whoever finds it locked must not come to
	// hold a file that is not there any more.
	return errors.Join(os.Remove(c.lock.Name()), c.lock.Close())
}

// Listen makes the socket, with the given permission bits, and accepts from
// then on; who may do what is decided pool by pool. The claim is the listener's
// when it succeeds.
func (c *Claim) Listen(mode os.FileMode) (*Listener, error) {
	l, err := listen(c.path, mode)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", c.path, err)
	}
	return &Listener{UnixListener: l, claim: c}, nil
}

// Listener is a daemon's socket, with its claim.
type Listener struct {
	*net.UnixListener

	claim *Claim
	once  sync.Once
}

// Listen claims the socket at path and listens.
func Listen(path string, mode os.FileMode) (*Listener, error) {
	c, err := NewClaim(path)
	if err != nil {
		return nil, err
	}
	l, err := c.Listen(mode)
	if err != nil {
		return nil, errors.Join(err, c.Release())
	}
	return l, nil
}

// DefaultSocket returns the path of the socket where clients look for a daemon
// of the user: MPOOL_SOCKET's, else root's or the user's own.
func DefaultSocket() (string, error) { return ioctl.DefaultSocket(os.Geteuid(), os.Getenv) }

// takeLock takes the lock file. Whoever removes it holds it, so one that was
// removed while we waited for it is not the one.
func takeLock(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			if errors.Is(err, unix.EWOULDBLOCK) {
				err = ErrInUse
			}
			return nil, errors.Join(err, f.Close())
		}
		mine, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		there, err := os.Stat(path)
		if err == nil && os.SameFile(mine, there) {
			return f, nil
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
}

func listen(path string, mode os.FileMode) (*net.UnixListener, error) {
	// Bound under another name and renamed, the socket has its permissions and
	// accepts from the moment it is there.
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: tmp, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	err = passCredentials(l)
	if err == nil {
		err = os.Chmod(tmp, mode)
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close(), os.Remove(tmp))
	}
	return l, nil
}

// passCredentials makes every message of every session carry its sender's
// credentials: sessions inherit it.
func passCredentials(l *net.UnixListener) error {
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := raw.Control(func(fd uintptr) {
		serr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	}); err != nil {
		return err
	}
	return serr
}

// removeStale removes a socket that nobody listens on.
func removeStale(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode()&fs.ModeSocket == 0 {
		return errors.New("there is a file that is no socket")
	}
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	switch {
	case err == nil:
		return errors.Join(ErrInUse, c.Close())
	case errors.Is(err, unix.ECONNREFUSED):
		return os.Remove(path)
	}
	return fmt.Errorf("a socket of another kind, or another's: %w", err)
}

// Close stops listening and removes the socket and the lock.
func (l *Listener) Close() error {
	var err error
	l.once.Do(func() {
		err = errors.Join(l.UnixListener.Close(), os.Remove(l.claim.path), l.claim.Release())
	})
	return err
}
