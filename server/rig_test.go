package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

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

// raw is a client that sends what it likes.
type raw struct {
	t    *testing.T
	conn *net.UnixConn
	tag  uint64
}

func (r *rig) rawDial() *raw {
	r.t.Helper()
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: r.socket, Net: "unixpacket"})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(inVain)); err != nil {
		r.t.Fatal(err)
	}
	return &raw{t: r.t, conn: conn}
}

// raw says hello.
func (r *rig) raw() *raw {
	r.t.Helper()
	w := r.rawDial()
	w.ok(ioctl.OpHello, &ioctl.Hello{MinVersion: 1, MaxVersion: 1})
	return w
}

func (w *raw) send(h ioctl.Header, m ioctl.Message) {
	w.t.Helper()
	b, err := ioctl.Append(nil, h, m)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.conn.Write(b); err != nil {
		w.t.Fatal(err)
	}
}

// recv returns the next message.
func (w *raw) recv() (ioctl.Header, []byte, error) {
	buf := make([]byte, ioctl.MaxMessage)
	n, err := w.conn.Read(buf)
	if err != nil {
		return ioctl.Header{}, nil, err
	}
	h, err := ioctl.ParseHeader(buf[:n])
	return h, buf[ioctl.HeaderSize:n], err
}

// ask makes a request and returns the answer or the error that it is.
func (w *raw) ask(op ioctl.Op, m ioctl.Message) (ioctl.Message, error) {
	w.t.Helper()
	w.tag++
	w.send(ioctl.Header{Op: op, Tag: w.tag}, m)
	return w.answer(op, w.tag)
}

func (w *raw) answer(op ioctl.Op, tag uint64) (ioctl.Message, error) {
	w.t.Helper()
	h, body, err := w.recv()
	if err != nil {
		return nil, err
	}
	if h.Tag != tag || h.Op != op {
		w.t.Fatalf("answer to %v of tag %d, asked %v of tag %d", h.Op, h.Tag, op, tag)
	}
	if h.Flags&ioctl.FlagError != 0 {
		var e ioctl.Error
		if err := ioctl.Decode(&e, body); err != nil {
			w.t.Fatal(err)
		}
		return nil, e.API()
	}
	reply := op.NewReply()
	if err := ioctl.Decode(reply, body); err != nil {
		w.t.Fatal(err)
	}
	return reply, nil
}

func (w *raw) ok(op ioctl.Op, m ioctl.Message) ioctl.Message {
	w.t.Helper()
	reply, err := w.ask(op, m)
	if err != nil {
		w.t.Fatalf("%v: %v", op, err)
	}
	return reply
}

// opened makes a request that gives a handle.
func (w *raw) opened(op ioctl.Op, m ioctl.Message) ioctl.Handle {
	w.t.Helper()
	switch reply := w.ok(op, m).(type) {
	case *ioctl.Opened:
		return reply.Handle
	case *ioctl.AppenderOpened:
		return reply.Appender
	}
	w.t.Fatalf("%v gives no handle", op)
	return 0
}

func (w *raw) openPool() ioctl.Handle {
	w.t.Helper()
	return w.opened(ioctl.OpPoolOpen, &ioctl.PoolName{Name: "data"})
}

// ended fails unless the daemon has ended the session.
func (w *raw) ended() {
	w.t.Helper()
	for {
		_, _, err := w.recv()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			w.t.Fatal("the session goes on")
		}
		if err != nil && !errors.Is(err, ioctl.ErrMalformed) {
			return
		}
	}
}

// arena makes, maps and confirms an arena.
func (w *raw) arena(size uint64) (id uint16, mem []byte, fd int) {
	w.t.Helper()
	w.tag++
	w.send(ioctl.Header{Op: ioctl.OpArena, Tag: w.tag}, &ioctl.ArenaAsk{Size: size})
	buf, oob := make([]byte, ioctl.MaxMessage), make([]byte, 64)
	n, oobn, _, _, err := w.conn.ReadMsgUnix(buf, oob)
	if err != nil {
		w.t.Fatal(err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(msgs) != 1 {
		w.t.Fatalf("%d control messages, %v", len(msgs), err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		w.t.Fatalf("descriptors %v, %v", fds, err)
	}
	w.t.Cleanup(func() { unix.Close(fds[0]) })
	var reply ioctl.ArenaReply
	if err := ioctl.Decode(&reply, buf[ioctl.HeaderSize:n]); err != nil {
		w.t.Fatal(err)
	}
	mem, err = unix.Mmap(fds[0], 0, int(reply.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := unix.Munmap(mem); err != nil {
			w.t.Error(err)
		}
	})
	return reply.Arena, mem, fds[0]
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
