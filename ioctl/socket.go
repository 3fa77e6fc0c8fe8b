package ioctl

import (
	"errors"
	"path/filepath"
)

// DefaultSocket returns the path of the daemon's socket: what MPOOL_SOCKET
// says, else the system's for root, else the user's own. getenv is os.Getenv.
func DefaultSocket(uid int, getenv func(string) string) (string, error) {
	if path := getenv("MPOOL_SOCKET"); path != "" {
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
