// Package misuse holds every call of api, in process and through a daemon, to
// one promise: what is asked wrongly gets the error that the contract names for
// it, and changes nothing. The tables say, call by call, in which state, with
// which argument, by whose handle, which error that is, and which invariant it
// follows from.
package misuse

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool"
)

const diskBytes = 64 << 20

// disks are the simulated drives of a world, by path, in real time. I/O can be
// held up.
type disks struct {
	rack sim.Rack

	mu sync.Mutex
	// +checklocks:mu
	gate chan struct{} // closed: writes go on; nil: nobody holds them up
	// +checklocks:mu
	held chan struct{} // has a token when one waits
}

func newDisks() *disks {
	d := &disks{}
	for _, name := range []string{"one", "two", "three"} {
		d.rack = append(d.rack, sim.NewDisk(diskBytes, sim.DiskOptions{Name: name}))
	}
	return d
}

func (d *disks) options() mpool.Options {
	open := d.rack.Opener(nil, sim.OpenOptions{OnIO: d.onIO})
	return mpool.Options{Open: open}
}

// onIO waits while writes are held up. Without a simulation that is as a slow
// device.
func (d *disks) onIO(b sim.Boundary) bool {
	d.mu.Lock()
	gate, held := d.gate, d.held
	d.mu.Unlock()
	if gate != nil && b.Phase == sim.PhaseStart && b.Op.Code == bdev.OpWrite {
		select {
		case held <- struct{}{}:
		default:
		}
		<-gate
	}
	return false
}

// hold holds writes up until release; held tells when one waits.
func (d *disks) hold() (held <-chan struct{}, release func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	gate, told := make(chan struct{}), make(chan struct{}, 1)
	d.gate, d.held = gate, told
	return told, sync.OnceFunc(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.gate = nil
		close(gate)
	})
}

// fail makes the next operation of the kind fail on all disks, once each.
func (d *disks) fail(code bdev.OpCode) {
	for _, disk := range d.rack {
		disk.Inject(sim.Fault{Code: code, Err: syscall.EIO, Count: 1})
	}
}

func (d *disks) heal() {
	for _, disk := range d.rack {
		disk.Heal()
	}
}

// world is a pool in one implementation of api.
type world struct {
	t     *testing.T
	ctx   context.Context
	disks *disks
	api.Pool

	socket string // of the daemon; "" in process
	// handles counts the handles that are open in the daemon; nil in process.
	handles func() uint32
	// other returns another pool of the same implementation.
	other func() api.Pool
	// deactivate takes the pool away from under everybody.
	deactivate func()
	// gone is the error of everything after that.
	gone []api.Code

	// subject is what the calls of a table are about.
	subject
	undo []func() // in reverse order, before the pool is closed
}

// subject has what a state needs of it.
type subject struct {
	m  api.Mblock
	l  api.Mlog
	a  api.Appender
	r  api.LogReader
	c  api.MDC
	id layout.ObjectID

	token api.Token // of a grant of m
}

// later does something when the world ends.
func (w *world) later(f func()) { w.undo = append(w.undo, f) }

func (w *world) ok(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func content(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	return p
}

// furnish puts things into the pool that misuse must leave alone.
func (w *world) furnish() {
	w.t.Helper()
	owner, err := w.AddOwner(w.ctx, "tenant", 0)
	w.ok(err)
	m := w.mblock(api.AllocOptions{Capacity: 10_000, Owner: owner, Tag: 7}, content(1, 9_000))
	w.ok(m.Commit(w.ctx))
	l := w.log(3)
	w.ok(w.SetRoots(w.ctx, []api.Root{{Name: "data", ID: m.ID()}, {Name: "log", ID: l.ID()}}))
	w.ok(errors.Join(m.Put(), l.Put()))
	u := w.mblock(api.AllocOptions{Capacity: 8192}, content(2, 4096))
	w.later(func() { _ = u.Put() })
}

func (w *world) mblock(o api.AllocOptions, data []byte) api.Mblock {
	w.t.Helper()
	m, err := w.AllocMblock(w.ctx, o)
	w.ok(err)
	_, err = m.Write(w.ctx, data)
	w.ok(err)
	return m
}

// log makes a committed log of some records.
func (w *world) log(records int) api.Mlog {
	w.t.Helper()
	l, err := w.AllocMlog(w.ctx, api.AllocOptions{Capacity: 64 << 10})
	w.ok(err)
	w.ok(l.Commit(w.ctx))
	a, err := l.OpenAppend(w.ctx)
	w.ok(err)
	for i := range records {
		_, err := a.Append(w.ctx, content(uint64(i), 500), true)
		w.ok(err)
	}
	w.ok(a.Close(w.ctx))
	return l
}

// snapshot is everything that can be seen of a pool.
type snapshot struct {
	Info     api.PoolInfo
	Objects  []api.ObjectInfo
	Roots    []api.Root
	Owners   []api.Owner
	Contents []string // of committed objects, and of the subject's container
	Handles  uint32
	Usage    [2]int64 // of the subject's container
	Len      [2]int64 // of the subject's appender
	Record   uint64   // the place of the subject's reader
}

func (w *world) snapshot() *snapshot {
	w.t.Helper()
	s := &snapshot{Handles: w.handles()}
	var err error
	s.Info, err = w.Info(w.ctx)
	w.ok(err)
	// What is on its way to being free gets there by itself.
	s.Info.Space.Free += s.Info.Space.Draining
	s.Info.Space.Draining, s.Info.Drives[0].Free = 0, s.Info.Space.Free
	for o, err := range w.Objects(w.ctx, api.Filter{}) {
		w.ok(err)
		o.Created = o.Created.UTC()
		s.Objects = append(s.Objects, o)
	}
	slices.SortFunc(s.Objects, func(a, b api.ObjectInfo) int { return int(int64(a.ID) - int64(b.ID)) })
	s.Roots, err = w.Roots(w.ctx)
	w.ok(err)
	s.Owners, err = w.Owners(w.ctx)
	w.ok(err)
	for _, o := range s.Objects {
		if o.State == api.StateCommitted && o.Partner == 0 {
			s.Contents = append(s.Contents, fmt.Sprintf("%v %s", o.ID, w.sum(o)))
		}
	}
	if w.c != nil {
		if r, err := w.c.OpenRead(w.ctx); err == nil {
			s.Contents = append(s.Contents, "container "+w.records(r))
			w.ok(r.Close())
		}
		s.Usage[0], s.Usage[1] = w.c.Usage()
	}
	if w.a != nil {
		records, bytes := w.a.Len()
		s.Len = [2]int64{int64(records), bytes}
	}
	if w.r != nil {
		s.Record = w.r.Record()
	}
	return s
}

// sum says what an object holds.
func (w *world) sum(o api.ObjectInfo) string {
	w.t.Helper()
	if o.Kind == layout.KindMblock {
		m, err := w.Mblock(w.ctx, o.ID)
		if err != nil {
			return err.Error()
		}
		h := sha256.New()
		_, err = m.WriteTo(h)
		return fmt.Sprintf("%x %v", h.Sum(nil), errors.Join(err, m.Put()))
	}
	l, err := w.Mlog(w.ctx, o.ID)
	if err != nil {
		return err.Error()
	}
	defer func() { w.ok(l.Put()) }()
	r, err := l.OpenRead(w.ctx)
	if err != nil {
		return err.Error()
	}
	defer func() { w.ok(r.Close()) }()
	return w.records(r)
}

func (w *world) records(r api.LogReader) string {
	h := sha256.New()
	buf := make([]byte, 64<<10)
	for n := 0; ; n++ {
		k, err := r.Next(w.ctx, buf)
		if err != nil {
			return fmt.Sprintf("%d records %x %v", n, h.Sum(nil), err)
		}
		_, _ = h.Write(buf[:k]) // a hash does not fail
	}
}

// unchanged fails the test if anything has changed.
func (w *world) unchanged(before *snapshot, what string) bool {
	w.t.Helper()
	diff := cmp.Diff(before, w.snapshot())
	if diff != "" {
		w.t.Errorf("%s has changed something (-before +after):\n%s", what, diff)
	}
	return diff == ""
}

// codes parses "EBADF" or "EBADF|ENOENT"; "ok" is none.
func (w *world) codes(t *testing.T, s string) []api.Code {
	t.Helper()
	var list []api.Code
	for name := range strings.SplitSeq(s, "|") {
		if name == "gone" {
			list = append(list, w.gone...)
			continue
		}
		found := false
		for c := api.Code(1); c.Valid(); c++ {
			if c.Error() == name {
				list, found = append(list, c), true
			}
		}
		if !found {
			t.Fatalf("the table has an unknown code %q", name)
		}
	}
	return list
}

// isOne says whether the error is one of the codes, and an api.Error that says
// what was tried and why not.
func isOne(err error, codes []api.Code) bool {
	var e *api.Error
	if !errors.As(err, &e) || e.Op == "" || e.Detail == "" && e.Err == nil {
		return false
	}
	return slices.Contains(codes, e.Code)
}

// end makes the end of a log no error.
func end(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func TestMain(m *testing.M) {
	if os.Getenv(visitorEnv) != "" {
		visitorMain()
		return
	}
	goleak.VerifyTestMain(m)
}
