package client

import (
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mark is a word that a child process does not have: to ask for the process's
// number costs a system call. Where there is no such memory it asks.
type mark struct {
	pid  int
	word *uint32 // 1; in a child 0; nil: none
}

// newMark makes a mark of the process pid, which lives as long as its owner.
func newMark[T any](owner *T, pid int) mark {
	m := mark{pid: pid}
	if os.Getpid() != pid {
		return m
	}
	at, err := unix.MmapPtr(-1, 0, nil, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return m
	}
	if unix.Madvise(unsafe.Slice((*byte)(at), page), unix.MADV_WIPEONFORK) != nil {
		_ = unix.MunmapPtr(at, page) //nolint:errcheck // fails only for what is not mapped
		return m
	}
	m.word = (*uint32)(at)
	*m.word = 1
	runtime.AddCleanup(owner, func(at unsafe.Pointer) {
		_ = unix.MunmapPtr(at, page) //nolint:errcheck // the same
	}, at)
	return m
}

// here says whether this is the process that made the mark.
func (m *mark) here() bool {
	if m.word != nil {
		return *m.word == 1
	}
	return os.Getpid() == m.pid
}
