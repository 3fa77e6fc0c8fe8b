package server

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A client can have the kernel take a wait for its bell to another word, where no
// bell is heard. Its session ends all the same.
//
// proves S33
// proves S43
func TestRingStolenWait(t *testing.T) {
	for _, kind := range []string{"io_uring", "no futex wait"} {
		t.Run(kind, func(t *testing.T) {
			r := newLoopRig(t, loopKinds[kind], func(o *Options) { o.Loops = 1 })
			w := r.idleRing()
			const requeue = 4 // FUTEX_CMP_REQUEUE
			until(t, "the wait is stolen", func() bool {
				n, _, _ := unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(w.word(wordBell))), requeue,
					0, 1, uintptr(unsafe.Pointer(&w.all[len(w.all)-4])), 1)
				return n == 1
			})
			w.conn.Close()
			until(t, "the session is gone", func() bool { return len(r.srv.all()) == 0 })
			if v := r.srv.Snapshot().Loops[0]; v.Rings != 0 || v.Listeners != 0 {
				t.Errorf("%+v", v)
			}
		})
	}
}
