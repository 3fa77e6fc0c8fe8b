package client

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

// dialing is a call of Dial under way.
type dialing struct {
	t    *testing.T
	done chan struct{}
	c    *Conn
	err  error
}

func dialIn(t *testing.T, o Options) *dialing {
	t.Helper()
	d := &dialing{t: t, done: make(chan struct{})}
	o.Hello = cmp.Or(o.Hello, inVain)
	go func() {
		d.c, d.err = Dial(context.Background(), o)
		close(d.done)
	}()
	return d
}

// works waits for the connection, which there must be.
func (d *dialing) works() {
	d.t.Helper()
	<-d.done
	if d.err != nil {
		d.t.Fatal(d.err)
	}
	if err := d.c.Close(); err != nil {
		d.t.Error(err)
	}
}

// A daemon that hangs is waited for as long as Options say, and the error says
// what is the matter.
//
// proves S46
func TestHangingDaemon(t *testing.T) {
	s := newScripted(t)
	d := dialIn(t, Options{Socket: s.socket, Hello: 20 * time.Millisecond})
	<-d.done
	if !errors.Is(d.err, ErrNoDaemon) || !errors.Is(d.err, ErrSilent) {
		t.Error(d.err)
	}
}

// A daemon that ends just when somebody connects, with a word or without, is as
// none at all: the next one on the socket is asked, if there is one.
//
// proves S36
func TestDialWhileDaemonEnds(t *testing.T) {
	for name, end := range map[string]func(p *peerConn){
		"without a word": func(*peerConn) {},
		"told": func(p *peerConn) {
			h, _ := p.read()
			h.Flags = ioctl.FlagError
			p.reply(h, &ioctl.Error{Code: api.ECONNRESET, Detail: "the daemon is stopping"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScripted(t)
			d := dialIn(t, Options{Socket: s.socket})
			for range rebuffs {
				p := <-s.conns
				end(p)
				p.Close()
			}
			p := <-s.conns
			h, _ := p.read()
			p.reply(h, &roomy)
			d.works()
			p.Close()
			// One that does nothing else is not asked for ever.
			d = dialIn(t, Options{Socket: s.socket})
			for range rebuffs + 1 {
				p := <-s.conns
				end(p)
				p.Close()
			}
			if <-d.done; !errors.Is(d.err, api.ECONNRESET) {
				t.Error(d.err)
			}
		})
	}
}

// crowded listens on a socket that has no room for another who connects, before
// those who did, who say nothing, are accepted.
func crowded(t *testing.T) (path string, l *net.UnixListener, before int) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	fd := must(unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0))
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	made, ok := must(net.FileListener(f)).(*net.UnixListener)
	if !ok {
		t.Fatal("no Unix socket")
	}
	t.Cleanup(func() { made.Close() })
	for ; ; before++ {
		c, err := net.Dial("unixpacket", path)
		if errors.Is(err, unix.EAGAIN) {
			return path, made, before
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
}

// Who finds the daemon behind with those who connect waits, and is not told that
// there is none.
func TestDialWhenCrowded(t *testing.T) {
	path, l, before := crowded(t)
	d := dialIn(t, Options{Socket: path, Hello: 20 * time.Millisecond})
	if <-d.done; !errors.Is(d.err, ErrSilent) {
		t.Error(d.err)
	}
	d = dialIn(t, Options{Socket: path})
	for range before {
		defer must(l.AcceptUnix()).Close()
	}
	p := &peerConn{t, must(l.AcceptUnix())}
	defer p.Close()
	h, _ := p.read()
	p.reply(h, &roomy)
	d.works()
}

// Delays grow to a second and no more, so that clients are back within one after
// the daemon is, and so few that a daemon that does not come back costs nothing.
// Those who lost it at one moment do not stay in step.
//
// proves S36
func TestDelays(t *testing.T) {
	const clients = 1000
	rng := rand.New(rand.NewPCG(1, 2)) // any seed will do
	random := func(n time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(n))) }
	at := make([]time.Duration, clients)
	for delay, tries := time.Duration(0), 1; tries <= 12; tries++ {
		delay = longer(delay)
		if delay < firstDelay || delay > lastDelay {
			t.Fatalf("a delay of %v", delay)
		}
		crowd, most := map[time.Duration]int{}, 0
		for i := range at {
			d := jittered(delay, random)
			if d < delay/2 || d >= delay {
				t.Fatalf("%v of a delay of %v", d, delay)
			}
			at[i] += d
			moment := at[i] / (delay / 10)
			crowd[moment]++
			most = max(most, crowd[moment])
		}
		// Evenly they would be 200 in each tenth; a few more by chance.
		if most > clients/3 {
			t.Errorf("%d of %d clients try within %v, at the %d. time", most, clients, delay/10, tries)
		}
	}
	tries := 0
	for at, delay := time.Duration(0), time.Duration(0); at < defaultReconnect; tries++ {
		delay = longer(delay)
		at += jittered(delay, func(time.Duration) time.Duration { return 0 })
	}
	if tries > 70 {
		t.Errorf("%d tries in %v", tries, defaultReconnect)
	}
}
