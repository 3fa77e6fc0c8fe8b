package hostile

import (
	"context"
	"errors"
	"maps"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/test/daemon"
)

// tenThousand is how many connections are made at one time, if the machine lets
// the test have so many descriptors.
const tenThousand = 10_000

// raiseDescriptors lets this process have as many descriptors as it may, and
// returns how many connections that is good for.
func raiseDescriptors(t *testing.T) int {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	limit.Cur = limit.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	return int(min(tenThousand, limit.Max-200))
}

// proves S41 S43: of ten thousand connections as many become sessions as may
// be, the others are told so or closed; a session that was there is served
// throughout, and new ones are made when there is room again.
func TestTenThousandConnections(t *testing.T) {
	n := raiseDescriptors(t)
	s := newSiege(t)
	s.remember()
	s.d.ResetPeak()
	var open []*daemon.Raw
	defer func() {
		for _, w := range open {
			w.Conn.Close()
		}
	}()
	var longest time.Duration
	for i := range n {
		w, err := daemon.DialRaw(s.d.Socket)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		open = append(open, w)
		if err := w.Send(ioctl.Header{Op: ioctl.OpHello, Tag: 1}, daemon.Hello()); err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
			t.Fatalf("connection %d: %v", i, err)
		}
		if i%100 == 0 {
			began := time.Now()
			if _, err := s.p.Info(context.Background()); err != nil {
				t.Fatalf("who was there before, at connection %d: %v", i, err)
			}
			longest = max(longest, time.Since(began))
		}
	}
	served, told, closed := 0, 0, 0
	for i, w := range open {
		h, body, err := w.Receive()
		if errors.Is(err, unix.ECONNRESET) { // what was sent before comes after
			h, body, err = w.Receive()
		}
		if err != nil {
			closed++
			continue
		}
		switch _, err := daemon.Answer(h, body); {
		case err == nil:
			served++
		case errors.Is(err, api.EAGAIN):
			told++
		default:
			t.Errorf("connection %d is told %v", i, err)
		}
	}
	u := s.d.Usage()
	t.Logf("%d connections: %d served, %d told that there are enough, %d closed; peak %d MiB, %d descriptors; who was there waited %v at most",
		n, served, told, closed, u.Peak>>20, u.Count(), longest)
	if served == 0 || served > sessions-1 || told == 0 {
		t.Errorf("%d were served and %d refused; the daemon may have %d sessions and has one", served, told, sessions)
	}
	for _, w := range open {
		w.Conn.Close()
	}
	open = nil
	daemon.Eventually(t, "there is room again", func() bool {
		c, err := client.Dial(context.Background(), client.Options{Socket: s.d.Socket, Reconnect: -1})
		if err != nil {
			return false
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		return true
	})
	daemon.Eventually(t, "descriptors are as before", func() bool {
		return maps.Equal(s.d.Usage().Descriptors, s.before.Descriptors)
	})
}

// proves S41: a daemon that has no descriptors left says so, goes on with those
// it serves, does not spin, and takes new ones when there are some again.
func TestNoDescriptorsLeft(t *testing.T) {
	s := newSiege(t)
	s.remember()
	limit := unix.Rlimit{Cur: uint64(s.before.Count() + 40), Max: uint64(s.before.Count() + 40)}
	if err := unix.Prlimit(s.d.PID, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	var open []*daemon.Raw
	defer func() {
		for _, w := range open {
			w.Conn.Close()
		}
	}()
	for range 200 {
		w, err := daemon.DialRaw(s.d.Socket)
		if errors.Is(err, unix.EAGAIN) {
			break // the backlog is full
		}
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, w)
		_ = w.Send(ioctl.Header{Op: ioctl.OpHello, Tag: 1}, daemon.Hello()) // it may be refused already
	}
	for range 100 {
		if _, err := s.p.Info(context.Background()); err != nil {
			t.Fatalf("who was there before: %v", err)
		}
	}
	// An arena is refused, or the message that has it is lost for want of a
	// descriptor; a small write goes without one.
	b, err := s.p.AllocMblock(context.Background(), api.AllocOptions{Capacity: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Write(context.Background(), make([]byte, 1<<20)); err != nil {
		t.Errorf("a write without an arena: %v", err)
	}
	load := s.d.Load(time.Second)
	t.Logf("%d connections asked for, %d descriptors of the daemon's, load %.2f of a processor", len(open), s.d.Usage().Count(), load)
	if load > 0.5 {
		t.Errorf("without descriptors the daemon uses %.2f of a processor", load)
	}
	for _, w := range open {
		w.Conn.Close()
	}
	open = nil
	daemon.Eventually(t, "there are descriptors again", func() bool {
		c, err := client.Dial(context.Background(), client.Options{Socket: s.d.Socket, Reconnect: -1})
		if err != nil {
			return false
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		return true
	})
	if err := b.Abort(context.Background()); err != nil {
		t.Error(err)
	}
}
