package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/ioctl"
)

// ErrInUse is returned when a daemon has the socket already.
var ErrInUse = errors.New("a daemon is listening on the socket already")

// The networks of Unix sockets: sessions are of messages, HTTP is a stream.
const (
	networkSession = "unixpacket"
	networkStream  = "unix"
)

// A socket is bound as path + newSuffix and then renamed; the kernel has room
// for so many bytes of a path.
const (
	newSuffix     = ".new"
	maxSocketPath = len(unix.RawSockaddrUnix{}.Path) - 1 - len(newSuffix)
)

// Claim is a process's right to a socket's path: a lock file beside it, which
// keeps two daemons apart before either has made the socket, and until the one
// that has it has ended.
type Claim struct {
	path    string
	network string
	lock    *os.File
}

// NewClaim claims the socket of sessions at path; ErrInUse if a daemon has it.
// The socket's directory must be there, but the one of the default socket, which is made;
// the lock is path + ".lock".
// Release must be called in the end.
func NewClaim(path string) (*Claim, error) { return newClaim(path, networkSession) }

func newClaim(path, network string) (*Claim, error) {
	if err := checkSocketPath(path); err != nil {
		return nil, fmt.Errorf("claim socket %q: %w", path, err)
	}
	if err := needDirectory(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("claim socket %s: %w", path, err)
	}
	lock, err := takeLock(path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("claim socket %s: %w", path, err)
	}
	c := &Claim{path: path, network: network, lock: lock}
	if err := c.removeStale(); err != nil {
		return nil, errors.Join(fmt.Errorf("claim socket %s: %w", path, err), c.Release())
	}
	return c, nil
}

// needDirectory makes a socket's directory if it is that of the default socket. Another
// one that is not there is likely a slip of the pen: clients would look elsewhere.
func needDirectory(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case err == nil && !info.IsDir():
		return fmt.Errorf("%s is no directory", dir)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	own, err := ioctl.DefaultSocket(os.Geteuid(), func(key string) string {
		if key == ioctl.SocketVariable {
			return ""
		}
		return os.Getenv(key)
	})
	if err != nil || dir != filepath.Dir(own) {
		return fmt.Errorf("its directory %s is not there: make it, or say another path", dir)
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make its directory: %w", err)
	}
	return nil
}

// checkSocketPath says what is wrong with the path of a socket.
func checkSocketPath(path string) error {
	switch {
	case path == "":
		return errors.New("the path is empty")
	case strings.HasPrefix(path, "@"):
		return errors.New("the socket must be a file: abstract sockets (@...) have no permissions")
	case len(path) > maxSocketPath:
		return fmt.Errorf("the path has %d bytes; at most %d fit", len(path), maxSocketPath)
	}
	return nil
}

// Release gives the claim up. Its listener must be closed.
func (c *Claim) Release() error {
	var err error
	if sameFile(c.lock, c.lock.Name()) {
		// Removed first, while it is held: whoever finds it locked must not come
		// to hold a file that is not there any more.
		err = os.Remove(c.lock.Name())
	}
	return errors.Join(err, c.lock.Close())
}

// Listen makes the socket, with the given permission bits, and accepts from
// then on; who may do what is decided pool by pool. The claim stays the
// caller's: it is released when the listener is closed and what was served
// through it is closed too.
func (c *Claim) Listen(mode os.FileMode) (*Listener, error) {
	l, err := c.listen(mode)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", c.path, err)
	}
	return l, nil
}

// Listener is a listening Unix socket: the one of sessions, see [Listen] and
// [Inherit], or a stream, see [ListenStream].
type Listener struct {
	*net.UnixListener

	path  string
	made  os.FileInfo // the socket's file, if it is the listener's to remove
	claim *Claim      // if it is the listener's to release
	once  sync.Once
}

// Path returns the socket's path.
func (l *Listener) Path() string { return l.path }

// Listen claims the socket of sessions at path and listens; Close releases the
// claim.
func Listen(path string, mode os.FileMode) (*Listener, error) {
	return claimAndListen(path, networkSession, mode)
}

// ListenStream is Listen for a socket of streams, as HTTP takes.
func ListenStream(path string, mode os.FileMode) (*Listener, error) {
	return claimAndListen(path, networkStream, mode)
}

func claimAndListen(path, network string, mode os.FileMode) (*Listener, error) {
	c, err := newClaim(path, network)
	if err != nil {
		return nil, err
	}
	l, err := c.Listen(mode)
	if err != nil {
		return nil, errors.Join(err, c.Release())
	}
	l.claim = c
	return l, nil
}

// DefaultSocket returns the path of the socket where clients look for a daemon
// of the user: MPOOL_SOCKET's, else root's or the user's own.
func DefaultSocket() (string, error) { return ioctl.DefaultSocket(os.Geteuid(), os.Getenv) }

// takeLock takes the lock file and writes the process's id into it. Whoever
// removes it holds it, so one that was removed while we waited for it is not
// the one.
func takeLock(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("take its lock: %w", err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			if errors.Is(err, unix.EWOULDBLOCK) {
				err = inUse(f)
			}
			return nil, errors.Join(err, f.Close())
		}
		if !sameFile(f, path) {
			if err := f.Close(); err != nil {
				return nil, err
			}
			continue
		}
		// For people only: that it may be missing does no harm.
		if err := f.Truncate(0); err == nil {
			_, _ = fmt.Fprintf(f, "%d\n", os.Getpid())
		}
		return f, nil
	}
}

// inUse is ErrInUse, with the holder's process as its lock file has it.
func inUse(lock *os.File) error {
	b := make([]byte, 16)
	n, _ := lock.ReadAt(b, 0) //nolint:errcheck // what cannot be read is not told
	if pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n]))); err == nil && pid > 0 {
		return fmt.Errorf("%w (pid %d)", ErrInUse, pid)
	}
	return ErrInUse
}

// sameFile says whether an open file is the one at a path.
func sameFile(f *os.File, path string) bool {
	mine, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(mine, there)
}

func (c *Claim) listen(mode os.FileMode) (*Listener, error) {
	// Bound under another name and renamed, the socket has its permissions and
	// accepts from the moment it is there.
	tmp := c.path + newSuffix
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	// Nobody can connect by the other name meanwhile.
	private := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return control(raw, func(fd int) error { return unix.Fchmod(fd, 0o600) })
	}}
	made, err := private.Listen(context.Background(), c.network, tmp)
	if err != nil {
		return nil, err
	}
	l := &Listener{UnixListener: made.(*net.UnixListener), path: c.path}
	l.SetUnlinkOnClose(false)
	if c.network == networkSession {
		err = passCredentials(l.UnixListener)
	}
	if err == nil {
		err = os.Chmod(tmp, mode)
	}
	if err == nil {
		l.made, err = os.Lstat(tmp)
	}
	if err == nil {
		err = os.Rename(tmp, c.path)
	}
	if err != nil {
		return nil, errors.Join(err, l.UnixListener.Close(), os.Remove(tmp))
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
	return control(raw, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	})
}

// control calls f with a connection's descriptor.
func control(raw syscall.RawConn, f func(fd int) error) error {
	var ferr error
	if err := raw.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}

// removeStale removes a socket that nobody listens on.
func (c *Claim) removeStale() error {
	st, err := os.Lstat(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode()&fs.ModeSocket == 0 {
		return errors.New("there is a file that is no socket; move it away")
	}
	conn, err := net.DialUnix(c.network, nil, &net.UnixAddr{Name: c.path, Net: c.network})
	switch {
	case err == nil:
		return errors.Join(ErrInUse, conn.Close())
	case errors.Is(err, unix.ECONNREFUSED):
		return os.Remove(c.path)
	case errors.Is(err, unix.EAGAIN):
		return ErrInUse // its backlog is full
	}
	return fmt.Errorf("a socket of another kind, or another's: %w", err)
}

// Close stops listening, and removes the socket unless it is inherited or
// another's by now.
func (l *Listener) Close() error {
	var err error
	l.once.Do(func() {
		err = l.UnixListener.Close()
		if l.made != nil {
			if there, lerr := os.Lstat(l.path); lerr == nil && os.SameFile(l.made, there) {
				err = errors.Join(err, os.Remove(l.path))
			}
		}
		if l.claim != nil {
			err = errors.Join(err, l.claim.Release())
		}
	})
	return err
}
