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
)

// ErrInUse is returned when a daemon listens on the socket already.
var ErrInUse = errors.New("a daemon is listening on the socket already")

// Listener is a daemon's socket and the lock beside it.
type Listener struct {
	*net.UnixListener

	path string
	lock *os.File
	once sync.Once
}

// Listen makes the daemon's socket at path, with the given permission bits; who
// may do what is decided pool by pool. A lock file beside it (path + ".lock")
// keeps two daemons apart. A socket that nobody listens on is replaced; one
// that is alive is ErrInUse. The directory is made if it is not there.
func Listen(path string, mode os.FileMode) (*Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	lock, err := takeLock(path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l, err := listen(path, mode)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", path, err), os.Remove(lock.Name()), lock.Close())
	}
	return &Listener{UnixListener: l, path: path, lock: lock}, nil
}

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
	if err := removeStale(path); err != nil {
		return nil, err
	}
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
		err = errors.Join(l.UnixListener.Close(), os.Remove(l.path), os.Remove(l.lock.Name()), l.lock.Close())
	})
	return err
}
