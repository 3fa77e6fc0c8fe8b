package server

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
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

// endingQueue is one of which something has ended.
type endingQueue struct {
	heldQueue
	submit func()
}

func (q *endingQueue) Reap(int) (int, error) { return 1, nil }
func (q *endingQueue) Submit() error         { q.submit(); return nil }

// Who waits for what has ended is told, and what waited for the drive is started,
// before a large piece is summed.
//
// proves S42
func TestSumsKeepNobodyWaiting(t *testing.T) {
	l, _, d, first := fullDrive()
	waits, large := requestOf(l, d), requestOf(l, nil)
	l.submit(waits)
	first.share.ended(first)
	large.verb, large.unsummed = verbWrite, true
	l.sums.add(large)
	mem, err := unix.Mmap(-1, 0, ring.Size(2), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Munmap(mem); err != nil {
			t.Error(err)
		}
	}()
	end, err := ring.NewDaemon(mem, 2)
	if err != nil {
		t.Fatal(err)
	}
	client := &ioRing{end: end}
	q := new(endingQueue)
	submitted := false
	q.submit = func() {
		submitted = true
		if !large.unsummed || !q.has(waits) {
			t.Errorf("it is submitted when the sum is done: %v, what waited is begun: %v", !large.unsummed, q.has(waits))
		}
	}
	l.queue = q
	l.tell(client)
	if !l.sumNext() || large.unsummed || !submitted || client.told {
		t.Errorf("summed: %v, submitted: %v, told: %v", !large.unsummed, submitted, !client.told)
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
