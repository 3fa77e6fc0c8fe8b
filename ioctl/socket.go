package ioctl

import (
	"errors"
	"path/filepath"
)

// SocketVariable is the environment's variable that names the daemon's socket.
const SocketVariable = "MPOOL_SOCKET"

// DefaultSocket returns the path of the daemon's socket: what MPOOL_SOCKET
// says, else the system's for root, else the user's own. getenv is os.Getenv.
func DefaultSocket(uid int, getenv func(string) string) (string, error) {
	if path := getenv(SocketVariable); path != "" {
		return path, nil
	}
	if uid == 0 {
		return "/run/mpool/mpoold.sock", nil
	}
	if dir := getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "mpool", "mpoold.sock"), nil
	}
	return "", errors.New("no socket: neither MPOOL_SOCKET nor XDG_RUNTIME_DIR is set")
}
