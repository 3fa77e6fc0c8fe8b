package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

// inVain bounds every wait for what must happen. It decides only how long a test
// that fails takes.
const inVain = 3 * time.Minute

// fuse is a context whose time is up when the test says so: after what is to
// happen before, however slow the machine is.
type fuse struct {
	context.Context
	up chan struct{}
}

func newFuse(t *testing.T) *fuse { return &fuse{t.Context(), make(chan struct{})} }

func (f *fuse) Done() <-chan struct{} { return f.up }

func (f *fuse) Err() error {
	select {
	case <-f.up:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// eventually waits until ok says true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(inVain); !ok(); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

func TestMain(m *testing.M) {
	before := descriptors()
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if after := descriptors(); after > before && code == 0 {
		fmt.Fprintf(os.Stderr, "%d descriptors, there were %d\n", after, before)
		code = 1
	}
	os.Exit(code)
}

// descriptors counts what is open, without the runtime's own.
func descriptors() (n int) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	for _, e := range entries {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && to != "anon_inode:[eventpoll]" && to != "anon_inode:[eventfd]" &&
			to != fmt.Sprintf("/proc/%d/fd", os.Getpid()) {
			n++
		}
	}
	return n
}

// scripted is a daemon that does what a test says.
type scripted struct {
	t      *testing.T
	socket string
	l      *net.UnixListener
	conns  chan *peerConn
	wg     sync.WaitGroup
}

// peerConn is the daemon's end of one connection.
type peerConn struct {
	t *testing.T
	*net.UnixConn
}

func newScripted(t *testing.T) *scripted {
	t.Helper()
	s := &scripted{t: t, socket: filepath.Join(t.TempDir(), "s"), conns: make(chan *peerConn, 16)}
	var err error
	s.l, err = net.ListenUnix("unixpacket", &net.UnixAddr{Name: s.socket, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	s.wg.Go(func() {
		for {
			c, err := s.l.AcceptUnix()
			if err != nil {
				return
			}
			s.conns <- &peerConn{t, c}
		}
	})
	t.Cleanup(func() {
		s.l.Close()
		s.wg.Wait()
		for len(s.conns) > 0 {
			(<-s.conns).Close()
		}
	})
	return s
}

// dial connects and answers hello.
func (s *scripted) dial(limits ioctl.HelloReply) (*Conn, *peerConn) {
	s.t.Helper()
	type result struct {
		c   *Conn
		err error
	}
	done := make(chan result, 1)
	go func() {
		c, err := Dial(context.Background(), Options{Socket: s.socket, Hello: inVain, Reconnect: inVain})
		done <- result{c, err}
	}()
	p := <-s.conns
	h, _ := p.read()
	limits.Version = ioctl.Version
	p.reply(h, &limits)
	r := <-done
	if r.err != nil {
		s.t.Fatal(r.err)
	}
	s.t.Cleanup(func() {
		p.Close()
		if err := r.c.Close(); err != nil {
			s.t.Error(err)
		}
	})
	return r.c, p
}

var roomy = ioctl.HelloReply{MaxRequests: 64, MaxHandles: 100, MaxArenas: 1, ArenaDefault: 1 << 20, ArenaTotal: 8 << 20}

// read returns the next request.
func (p *peerConn) read() (ioctl.Header, ioctl.Message) {
	p.t.Helper()
	buf := make([]byte, ioctl.MaxMessage)
	n, err := p.Read(buf)
	if err != nil {
		p.t.Error(err)
		return ioctl.Header{}, nil
	}
	h, err := ioctl.ParseHeader(buf[:n])
	if err != nil {
		p.t.Error(err)
		return h, nil
	}
	m := h.Op.NewRequest()
	if err := ioctl.Decode(m, buf[ioctl.HeaderSize:n]); err != nil {
		p.t.Error(err)
	}
	return h, m
}

func (p *peerConn) reply(h ioctl.Header, m ioctl.Message) {
	p.t.Helper()
	h.Flags |= ioctl.FlagReply
	b, err := ioctl.Append(nil, h, m)
	if err != nil {
		p.t.Error(err)
		return
	}
	if _, err := p.Write(b); err != nil {
		p.t.Error(err)
	}
}

// When nobody listens, Dial says so.
func TestNoDaemon(t *testing.T) {
	_, err := Dial(context.Background(), Options{Socket: filepath.Join(t.TempDir(), "none")})
	if !errors.Is(err, ErrNoDaemon) {
		t.Error(err)
	}
	t.Setenv("MPOOL_SOCKET", filepath.Join(t.TempDir(), "none"))
	_, err = Dial(context.Background(), Options{})
	if !errors.Is(err, ErrNoDaemon) {
		t.Error(err)
	}
}

// A daemon that accepts and says nothing does not hold Dial beyond its context.
//
// proves S46
func TestSilentDaemon(t *testing.T) {
	s := newScripted(t)
	ctx := newFuse(t)
	done := make(chan error, 1)
	go func() {
		_, err := Dial(ctx, Options{Socket: s.socket, Hello: inVain})
		done <- err
	}()
	p := <-s.conns
	p.read()
	close(ctx.up)
	if err := <-done; !errors.Is(err, api.ETIMEDOUT) || !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	p.Close()
}

// A daemon's refusal is Dial's error.
func TestRefused(t *testing.T) {
	s := newScripted(t)
	for _, m := range []ioctl.Message{
		&ioctl.Error{Code: api.ENOTSUP, Detail: "too old"},
		&ioctl.Error{Code: api.EAGAIN, Detail: "too many"},
	} {
		done := make(chan error, 1)
		go func() {
			_, err := Dial(context.Background(), Options{Socket: s.socket, Hello: inVain})
			done <- err
		}()
		p := <-s.conns
		h, _ := p.read()
		h.Flags = ioctl.FlagError
		p.reply(h, m)
		code := m.(*ioctl.Error).Code
		if err := <-done; !errors.Is(err, code) {
			t.Errorf("%v, want %v", err, code)
		}
		p.Close()
	}
}

// What a daemon sends is checked before it is believed.
func TestHostileDaemon(t *testing.T) {
	s := newScripted(t)
	ctx := context.Background()
	for name, answer := range map[string]func(p *peerConn, h ioctl.Header){
		"garbage":       func(p *peerConn, _ ioctl.Header) { p.Write([]byte("garbage")) },
		"nothing":       func(p *peerConn, _ ioctl.Header) { p.Write(nil) },
		"a request":     func(p *peerConn, h ioctl.Header) { b, _ := ioctl.Append(nil, h, &ioctl.Empty{}); p.Write(b) },
		"another body":  func(p *peerConn, h ioctl.Header) { p.reply(h, &ioctl.MDCUsage{}) },
		"a short error": func(p *peerConn, h ioctl.Header) { h.Flags = ioctl.FlagError; p.reply(h, &ioctl.Empty{}) },
		"too much read": func(p *peerConn, h ioctl.Header) {
			p.reply(h, &ioctl.MblockReadReply{N: 100, Data: make([]byte, 100)})
		},
		"less than it says": func(p *peerConn, h ioctl.Header) { p.reply(h, &ioctl.MblockReadReply{N: 3}) },
		"no progress":       func(p *peerConn, h ioctl.Header) { p.reply(h, &ioctl.MblockReadReply{Data: []byte{}}) },
	} {
		c, p := s.dial(roomy)
		done := make(chan error, 1)
		go func() {
			m := (&opened{l: c.current.Load(), Opened: ioctl.Opened{Handle: 1}}).mblock()
			_, err := m.ReadAtContext(ctx, make([]byte, 10), 0)
			done <- err
		}()
		h, _ := p.read()
		answer(p, h)
		if err := <-done; !errors.Is(err, api.EPROTO) && !errors.Is(err, api.ECONNRESET) {
			t.Errorf("%s: %v", name, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Answers to nothing, of other tags and with descriptors, do no harm.
func TestStrayAnswers(t *testing.T) {
	s := newScripted(t)
	c, p := s.dial(roomy)
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	done := make(chan error, 1)
	go func() {
		_, err := c.Version(context.Background())
		done <- err
	}()
	h, _ := p.read()
	stray := h
	stray.Tag = 999
	p.reply(stray, &ioctl.VersionReply{})
	stray = h
	stray.Op = ioctl.OpStat
	p.reply(stray, &ioctl.StatReply{})
	h.Flags = ioctl.FlagReply
	b, err := ioctl.Append(nil, h, &ioctl.VersionReply{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.WriteMsgUnix(b, unix.UnixRights(int(null.Fd())), nil); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A daemon that does not read holds up no call beyond its context, and what was
// not sent is known not to be done.
//
// proves S46
func TestDaemonThatDoesNotRead(t *testing.T) {
	s := newScripted(t)
	c, p := s.dial(roomy)
	if err := p.SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	ctx, l := newFuse(t), c.current.Load()
	var wg sync.WaitGroup
	var mu sync.Mutex
	codes := map[api.Code]int{}
	for range 100 {
		wg.Go(func() {
			a := &appender{handle: handle{l: l, h: 3}}
			_, err := a.Append(ctx, make([]byte, ioctl.MaxInline), false)
			mu.Lock()
			defer mu.Unlock()
			codes[api.CodeOf(err)]++
		})
	}
	// As many as may be in flight are, some of them sent and some not: the rest
	// wait for slots.
	eventually(t, "all slots are taken", func() bool {
		l.out.mu.Lock()
		defer l.out.mu.Unlock()
		return len(l.slots) == int(roomy.MaxRequests) && len(l.out.queue) > 1
	})
	close(ctx.up)
	wg.Wait()
	if codes[api.EUNKNOWN] == 0 || codes[api.ETIMEDOUT] == 0 || codes[api.EUNKNOWN]+codes[api.ETIMEDOUT] != 100 {
		t.Errorf("%v", codes)
	}
	// It reads again: those of unknown fate are there, and those that were not
	// done never come.
	sent := 0
	wg.Go(func() { // sent after all of them
		if _, err := c.Version(t.Context()); err != nil {
			t.Error(err)
		}
	})
	for last := false; !last; {
		h, _ := p.read()
		switch h.Op { //nolint:exhaustive // no other is sent
		case ioctl.OpAppend:
			sent++
			p.reply(h, &ioctl.Appended{})
		case ioctl.OpVersion:
			last = true
			p.reply(h, &ioctl.VersionReply{})
		case ioctl.OpCancel:
		default:
			t.Fatalf("%v", h.Op)
		}
	}
	wg.Wait()
	if sent != codes[api.EUNKNOWN] {
		t.Errorf("%d were sent, %d are said to be of unknown fate", sent, codes[api.EUNKNOWN])
	}
	eventually(t, "no slot is taken", func() bool { return len(l.slots) == 0 })
}

// No more requests are in flight than the daemon allows; who waits for a slot
// waits no longer than its context.
func TestSlots(t *testing.T) {
	s := newScripted(t)
	limits := roomy
	limits.MaxRequests = 2
	c, p := s.dial(limits)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if _, err := c.Version(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	first, _ := p.read()
	second, _ := p.read()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Version(ctx); !errors.Is(err, api.ETIMEDOUT) {
		t.Errorf("a third: %v", err)
	}
	p.reply(second, &ioctl.VersionReply{})
	p.reply(first, &ioctl.VersionReply{})
	wg.Wait()
}

// Who waits for shared memory that the daemon does not give waits no longer than
// its context.
//
// proves S46
func TestArenaThatDoesNotCome(t *testing.T) {
	s := newScripted(t)
	c, p := s.dial(roomy)
	ctx := newFuse(t)
	a := &appender{handle: handle{l: c.current.Load(), h: 3}}
	done := make(chan error, 1)
	go func() {
		_, err := a.Append(ctx, make([]byte, 100_000), true)
		done <- err
	}()
	if h, _ := p.read(); h.Op != ioctl.OpArena {
		t.Errorf("the daemon was asked for %v", h.Op)
	}
	close(ctx.up)
	if err := <-done; !errors.Is(err, api.ETIMEDOUT) {
		t.Error(err)
	}
}
