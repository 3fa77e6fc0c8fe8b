package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/test/daemon"
)

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		children[name]()
		os.Exit(0)
	}
	before := descriptors()
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if after := descriptors(); len(after) > len(before) && code == 0 {
		fmt.Fprintf(os.Stderr, "descriptors leaked:\nbefore %q\nafter  %q\n", before, after)
		code = 1
	}
	os.Exit(code)
}

// descriptors returns what is open, without the runtime's own.
func descriptors() []string {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	var list []string
	for _, e := range entries {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || to == "anon_inode:[eventpoll]" || to == "anon_inode:[eventfd]" || to == "/proc/self/fd" ||
			to == fmt.Sprintf("/proc/%d/fd", os.Getpid()) {
			continue
		}
		list = append(list, to)
	}
	return list
}

// inVain bounds every wait for what must happen. It decides only how long a test
// that fails takes.
const inVain = 3 * time.Minute

// rig is a server over a fake backend, with one pool, "data", in it.
type rig struct {
	t      *testing.T
	b      *fakeBackend
	srv    *Server
	socket string
	served chan error
	log    daemon.Buffer
	meter  *meter // unless the test has another Reserver
}

func newRig(t *testing.T, change ...func(*Options)) *rig {
	t.Helper()
	return newRigOn(t, "/dev/fake", change...)
}

// newRigOn is newRig with the pool on a device.
func newRigOn(t *testing.T, device string, change ...func(*Options)) *rig {
	t.Helper()
	r := &rig{
		t: t, b: newFakeBackend(), socket: filepath.Join(t.TempDir(), "s"), served: make(chan error, 1),
	}
	r.meter = newMeter(t)
	o := Options{Backend: r.b, Version: "test", Reserver: r.meter, Logger: slog.New(slog.NewTextHandler(&r.log, nil))}
	o.Limits.HelloTimeout = inVain
	for _, f := range change {
		f(&o)
	}
	srv, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	r.srv = srv
	l, err := Listen(r.socket, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	go func() { r.served <- srv.Serve(l) }()
	if _, err := srv.CreatePool(context.Background(), "data", []string{device}, api.CreateOptions{Mode: 0o666}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.stop)
	return r
}

// stop shuts the server down and checks that nothing was held or misused.
func (r *rig) stop() {
	r.b.hook(func(context.Context, string) error { return nil })
	ctx, cancel := context.WithTimeout(context.Background(), inVain)
	defer cancel()
	if err := r.srv.Shutdown(ctx); err != nil {
		r.t.Errorf("shutdown: %v", err)
	}
	select {
	case err := <-r.served:
		if err != nil {
			r.t.Errorf("serve: %v", err)
		}
	case <-ctx.Done():
		r.t.Error("Serve does not return")
	}
	r.b.mu.Lock()
	defer r.b.mu.Unlock()
	for _, p := range r.b.pools {
		r.checkClean(p)
	}
	r.meter.checkEmpty()
	if n := r.srv.arenaBytes.Load(); n != 0 {
		r.t.Errorf("%d bytes of arenas are still counted", n)
	}
	if r.t.Failed() {
		r.t.Logf("the server's log:\n%s", r.log.String())
	}
}

func (r *rig) checkClean(p *fakePool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.misuse {
		r.t.Errorf("the pool was misused: %s", m)
	}
	if p.closers != 0 {
		r.t.Errorf("%d appenders, readers and containers are open", p.closers)
	}
	for _, o := range p.objects {
		if o.refs != 0 {
			r.t.Errorf("%v has %d references", o.id, o.refs)
		}
		if o.state == api.StateUncommitted {
			r.t.Errorf("%v is still uncommitted", o.id)
		}
	}
}

// eventually waits until the pool is such.
func (r *rig) eventually(what string, ok func(p *fakePool) bool) {
	r.t.Helper()
	p := r.pool()
	for end := time.Now().Add(inVain); ; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		good := ok(p)
		p.mu.Unlock()
		if good {
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("never: %s", what)
		}
	}
}

func (r *rig) pool() *fakePool { return r.named("data") }

func (r *rig) named(name string) *fakePool {
	r.b.mu.Lock()
	defer r.b.mu.Unlock()
	return r.b.pools[name]
}

// reaped returns the events of sessions' ends, and a channel that is closed
// when there are more events.
func (r *rig) reaped() (list []ioctl.Event, more <-chan struct{}) {
	for after := uint64(0); ; {
		reply, more := r.srv.events.page(after, time.Time{}, func(e *ioctl.Event) bool {
			return e.Type == ioctl.EventClientReaped
		})
		list = append(list, reply.Events...)
		if reply.Last == after {
			return list, more
		}
		after = reply.Last
	}
}

// nextReaped waits for the n-th session's end and returns it.
func (r *rig) nextReaped(n int) ioctl.Event {
	r.t.Helper()
	timeout := time.After(inVain)
	for {
		list, more := r.reaped()
		if len(list) >= n {
			return list[n-1]
		}
		select {
		case <-more:
		case <-timeout:
			r.t.Fatalf("session %d was not reaped:\n%s", n, r.log.String())
		}
	}
}

func (r *rig) dial() *client.Conn {
	r.t.Helper()
	c, err := client.Dial(context.Background(), client.Options{Socket: r.socket, Hello: inVain, Reconnect: -1})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if err := c.Close(); err != nil {
			r.t.Error(err)
		}
	})
	return c
}

func (r *rig) open(c *client.Conn) api.Pool {
	r.t.Helper()
	p, err := c.OpenPool(context.Background(), "data")
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func want(t *testing.T, code api.Code, err error) {
	t.Helper()
	if !errors.Is(err, code) {
		t.Errorf("error %v; want %v", err, code)
	}
}

func mblockID(n uint64) layout.ObjectID { return layout.NewObjectID(layout.KindMblock, n) }
