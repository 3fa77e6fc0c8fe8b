package death

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/layout"
)

// What a victim says, each in one line through a pipe that outlives it:
//
//	r PID    it is at work; the number is the daemon's
//	c TAG N  it is about to commit N objects of the tag's group as one
//	C TAG    it was told that they are committed
//	x TAG    it is about to delete the object
//	X TAG    it was told that it is deleted
//	a TAG N  it was told that the log has N records
//	q TAG N  it may have asked for up to N before it is told of them
//	d        it is about to connect once more
//	D        it is connected once more
//	h PID    a child of it lives on
//	l        it is served still
//	E TEXT   something is wrong
//
// A line about what follows is written before the request is, and one about
// what was promised after the answer came.

// victim is a client that works until it is made to die.
type victim struct {
	serial uint32
	shared []layout.ObjectID // objects of the test's, to be read: an mblock and a log
	seq    atomic.Uint32
	out    *os.File

	c      *client.Conn
	p      api.Pool
	cut    bool // it ends its own connection: errors that say so are none
	others atomic.Int32
	mayGo  chan struct{} // closed when the first thread may end
	first  sync.Once     // it is at work

	mu   sync.Mutex
	uses []func() error // of what it holds
}

// victimArgs are what a victim is told, in its environment.
type victimArgs struct {
	serial  uint32
	seed    uint64
	workers int
	state   state
	way     way
	orphan  bool          // its daemon dies, too
	number  int           // of the signal, or the exit code
	pace    time.Duration // between two things that it does, on average
	mblock  layout.ObjectID
	log     layout.ObjectID
}

func (a *victimArgs) String() string {
	return fmt.Sprintf("%d %d %d %d %d %t %d %d %d %d", a.serial, a.seed, a.workers, a.state, a.way, a.orphan, a.number, a.pace, uint64(a.mblock), uint64(a.log))
}

func parseVictimArgs(s string) (a victimArgs) {
	var mblock, log uint64
	try(fmt.Sscan(s, &a.serial, &a.seed, &a.workers, &a.state, &a.way, &a.orphan, &a.number, &a.pace, &mblock, &log))
	a.mblock, a.log = layout.ObjectID(mblock), layout.ObjectID(log)
	return a
}

func victimMain() {
	// The first thread has nothing to do from here on. Before there is anything
	// to do for others, it is soon the idle one.
	runtime.LockOSThread()
	if unix.Gettid() != os.Getpid() {
		go victimMain()
		select {} // keeps this thread from it
	}
	a := parseVictimArgs(os.Getenv(envArgs))
	v := &victim{
		serial: a.serial, shared: []layout.ObjectID{a.mblock, a.log}, out: os.NewFile(reportFD, "report"), cut: a.way.cuts() || a.orphan,
		mayGo: make(chan struct{}),
	}
	for fd := reportFD; fd <= grantFD; fd++ {
		unix.CloseOnExec(fd)
	}
	v.prepare(&a)
	go v.await(&a)
	go v.work(&a)
	<-v.mayGo
	// As a system call that blocks for ever: the runtime gives its work to
	// others when this thread is gone.
	_, _, _ = unix.Syscall(unix.SYS_EXIT, 0, 0, 0)
}

// work connects and does what its state says.
func (v *victim) work(a *victimArgs) {
	ctx := context.Background()
	var err error
	if v.c, err = client.Dial(ctx, client.Options{Socket: os.Getenv(envSocket)}); err == nil {
		v.p, err = v.c.OpenPool(ctx, poolName)
	}
	if err != nil {
		v.blame("dial", err)
		return
	}
	s := &states[a.state]
	if !s.still {
		v.begun()
	}
	for g := range a.workers {
		go func() {
			rng := rand.New(rand.NewPCG(a.seed, uint64(g)))
			for v.blame(s.name, s.do(v, ctx, rng)) && !s.still {
				if a.pace > 0 {
					time.Sleep(rand.N(2 * a.pace)) // others have something to do, too
				}
			}
			v.begun()
		}()
	}
}

// begun says that it is at work, once. The number is that in the namespace of
// /proc, which is the test's.
func (v *victim) begun() {
	v.first.Do(func() { v.tell("r %s", try(os.Readlink("/proc/self"))) })
}

// tell writes a line at once: what a dead process has in a buffer is lost.
func (v *victim) tell(format string, a ...any) {
	try(v.out.WriteString(fmt.Sprintf(format, a...) + "\n"))
}

// blame reports an error that should not be, unless the connection has ended.
// It says whether the victim goes on.
func (v *victim) blame(what string, err error) bool {
	switch {
	case err == nil, errors.Is(err, api.ENOSPC), errors.Is(err, api.EFBIG), errors.Is(err, api.EAGAIN), errors.Is(err, api.ENOMEM),
		errors.Is(err, api.ETIMEDOUT): // the library is not patient for ever; on a crowded machine that shows
		return true
	case v.cut && !errors.Is(err, errWrong):
		return false // its descriptors were taken from under it
	}
	v.tell("E %s: %s", what, strings.ReplaceAll(err.Error(), "\n", "; "))
	return false
}

// anything does one thing of all.
func (v *victim) anything(ctx context.Context, rng *rand.Rand) error {
	switch rng.IntN(14) {
	case 10, 11, 12, 13:
		return v.ride(ctx, rng)
	case 0, 1, 2, 3:
		return v.block(ctx, rng)
	case 4:
		return v.many(ctx, rng)
	case 5, 6:
		return v.log(ctx, rng)
	case 7:
		return v.mdc(ctx, rng)
	case 8:
		return v.look(ctx, rng)
	default:
		return v.another(ctx, rng)
	}
}

func (v *victim) next() tag { return newTag(v.serial, v.seq.Add(1), 0) }

// write allocates the mblock of a tag and writes it.
func (v *victim) write(ctx context.Context, rng *rand.Rand, t tag) (api.Mblock, error) {
	data := t.content()
	b, err := v.p.AllocMblock(ctx, api.AllocOptions{Capacity: int64(len(data)), Tag: uint64(t)})
	if err != nil {
		return nil, err
	}
	if rng.IntN(2) == 0 && len(data) > 8192 {
		half := len(data) / 2 &^ 4095
		if _, err := b.Write(ctx, data[:half]); err != nil {
			return nil, err
		}
		data = data[half:]
	}
	if len(data) > 0 {
		if _, err := b.Write(ctx, data); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// block is the life of an mblock, or a part of it.
func (v *victim) block(ctx context.Context, rng *rand.Rand) error {
	t := v.next()
	if rng.IntN(4) == 0 {
		return v.put(ctx, rng, t)
	}
	b, err := v.write(ctx, rng, t)
	if err != nil {
		return err
	}
	if rng.IntN(4) == 0 {
		if err := t.matches(ctx, b); err != nil {
			return err
		}
	}
	switch rng.IntN(8) {
	case 0:
		return b.Abort(ctx)
	case 1:
		return b.Put() // and nobody's until the end
	case 2:
		return nil // nor given up
	}
	if err := v.commit(ctx, t, b); err != nil {
		return err
	}
	return v.after(ctx, rng, t, b)
}

// put stores an mblock by one call.
func (v *victim) put(ctx context.Context, rng *rand.Rand, t tag) error {
	v.tell("c %x 1", uint64(t))
	b, err := v.p.PutMblock(ctx, api.AllocOptions{Tag: uint64(t)}, t.content())
	if err != nil {
		return err
	}
	v.tell("C %x", uint64(t))
	return v.after(ctx, rng, t, b)
}

// commit commits one object.
func (v *victim) commit(ctx context.Context, t tag, o api.Object) error {
	v.tell("c %x 1", uint64(t))
	if err := o.Commit(ctx); err != nil {
		return err
	}
	v.tell("C %x", uint64(t))
	return nil
}

// after is what becomes of a committed mblock.
func (v *victim) after(ctx context.Context, rng *rand.Rand, t tag, b api.Mblock) error {
	if rng.IntN(2) == 0 {
		again, err := v.p.Mblock(ctx, b.ID())
		if err != nil {
			return err
		}
		if err := t.matches(ctx, again); err != nil {
			return err
		}
		if err := again.Put(); err != nil {
			return err
		}
	}
	switch rng.IntN(4) {
	case 0:
		return nil // the handle is kept
	case 1:
		return b.Put()
	}
	return v.delete(ctx, t, b)
}

func (v *victim) delete(ctx context.Context, t tag, o api.Object) error {
	v.tell("x %x", uint64(t))
	if err := o.Delete(ctx); err != nil {
		return err
	}
	v.tell("X %x", uint64(t))
	return nil
}

// many commits several mblocks and a root together.
func (v *victim) many(ctx context.Context, rng *rand.Rand) error {
	first := v.next()
	n := 2 + rng.IntN(5)
	objects := make([]api.Object, n)
	for i := range objects {
		b, err := v.write(ctx, rng, first+tag(i))
		if err != nil {
			return err
		}
		objects[i] = b
	}
	v.tell("c %x %d", uint64(first), n)
	if err := v.p.CommitMany(ctx, objects, []api.Root{{Name: rootName(v.serial), ID: objects[0].ID()}}); err != nil {
		return err
	}
	v.tell("C %x", uint64(first))
	for i, o := range objects {
		if rng.IntN(3) == 0 {
			if err := v.delete(ctx, first+tag(i), o); err != nil {
				return err
			}
		}
	}
	return nil
}

// rootName is the root of a victim's own.
func rootName(serial uint32) string { return fmt.Sprintf("victim-%d", serial) }
