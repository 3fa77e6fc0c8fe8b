package server

import (
	"bytes"
	"testing"

	"github.com/mpool-go/mpool/ioctl"
)

// One large piece is summed in a turn of the loop, after what was begun before it
// is started.
//
// proves S42
func TestSumsTakeTurns(t *testing.T) {
	l, _, _, _ := fullDrive()
	a, b := requestOf(l, nil), requestOf(l, nil)
	for _, x := range []*ringOp{a, b} {
		x.verb, x.unsummed = verbWrite, true
		l.sums.add(x)
	}
	for i, want := range [][2]bool{{false, true}, {false, false}} {
		if !l.sumNext() || a.unsummed != want[0] || b.unsummed != want[1] {
			t.Fatalf("turn %d: %v and %v are to be summed", i, a.unsummed, b.unsummed)
		}
	}
	if l.sumNext() {
		t.Error("there was another")
	}
}

// Large writes and reads, many under way, are whole.
//
// proves S11, S13
func TestManyLargePieces(t *testing.T) {
	const size, n = 256 << 10, 12
	eachLoopKind(t, func(t *testing.T, change func(*Options)) {
		w := newLoopRig(t, change).ringDial(16)
		data := random(7, n*size)
		h := w.alloc(int64(len(data)))
		copy(w.mem, data)
		for i := range n {
			w.put(w.desc(ioctl.OpMblockWrite, h, size, i*size, size))
		}
		for range n {
			if c := w.next(); c.N != size {
				t.Fatalf("%+v", c)
			}
		}
		w.ok(ioctl.OpObjectCommit, &ioctl.Target{Handle: h})
		clear(w.mem[:len(data)])
		for i := range n {
			w.put(w.desc(ioctl.OpMblockRead, h, int64(i*size), i*size, size))
		}
		for range n {
			if c := w.next(); c.N != size {
				t.Fatalf("%+v", c)
			}
		}
		if !bytes.Equal(w.mem[:len(data)], data) {
			t.Error("other bytes than were written")
		}
	})
}
