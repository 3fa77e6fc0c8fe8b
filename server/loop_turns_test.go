package server

import (
	"slices"
	"testing"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/ioctl"
)

// heldQueue is a queue whose operations never end by themselves.
type heldQueue struct{ ops []*bdev.Op }

func (q *heldQueue) Put(o *bdev.Op) bool   { q.ops = append(q.ops, o); return true }
func (q *heldQueue) Submit() error         { return nil }
func (q *heldQueue) Reap(int) (int, error) { return 0, nil }
func (q *heldQueue) InFlight() int         { return len(q.ops) }
func (q *heldQueue) Close() error          { return nil }

// has says whether a request was started.
func (q *heldQueue) has(x *ringOp) bool { return slices.Contains(q.ops, x.device[0]) }

// requestOf makes a session, with one request on a drive.
func requestOf(l *ioLoop, d *bdev.Drive) *ringOp {
	return &ringOp{ring: &ioRing{set: &ringSet{loop: l}}, device: []*bdev.Op{{Drive: d}}}
}

// fullDrive makes a loop with a drive that has as much under way as it may, and
// returns a request of that.
func fullDrive() (l *ioLoop, q *heldQueue, d *bdev.Drive, first *ringOp) {
	q, d = new(heldQueue), new(bdev.Drive)
	l = newIOLoop(nil, 0, loopTest{})
	l.queue = q
	for range driveOps {
		first = requestOf(l, d)
		l.submit(first)
	}
	return l, q, d, first
}

// What ends makes room for who waits, not for who comes just then.
//
// proves S42
func TestTurnsAreNotOvertaken(t *testing.T) {
	l, q, d, first := fullDrive()
	waits, late := requestOf(l, d), requestOf(l, d)
	l.submit(waits)
	first.share.ended(first)
	l.submit(late)
	l.dispatchAll()
	if !q.has(waits) || q.has(late) {
		t.Errorf("who waited is served: %v, who came after: %v", q.has(waits), q.has(late))
	}
}

// Sessions that end while they wait are not in the way of those that wait behind
// them.
//
// proves S42
func TestTurnsOfTheDead(t *testing.T) {
	l, q, d, first := fullDrive()
	dead, waits := requestOf(l, d), requestOf(l, d)
	l.submit(dead)
	l.submit(waits)
	dead.share.wait.takeLast() // as drop does
	first.share.ended(first)
	l.dispatchAll()
	if !q.has(waits) {
		t.Error("nobody is before it, and it is not served")
	}
	if len(first.share.drive.queue) > 0 {
		t.Error("somebody waits")
	}
}

// A descriptor that asks for more than there can be does not take the turns of as
// many bytes: the loop would look for them in vain.
//
// proves S43
func TestTurnsOfNonsense(t *testing.T) {
	r := newLoopRig(t, func(o *Options) { o.Loops = 1 })
	w, good := r.ringDial(8), r.ringDial(8)
	g := good.stored(random(1, 4096))
	w.fails(w.desc(ioctl.OpMblockRead, g, 0, 0, 1<<32-1))
	l := r.srv.loops.all()[0]
	credit := make(chan int64)
	l.do(func() { credit <- l.sets[0].credit })
	if c := <-credit; c < -loopMaxData-takeBytes {
		t.Errorf("%d bytes are owed", -c)
	}
}
