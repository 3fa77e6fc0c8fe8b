package restart

import (
	"errors"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

// proves S36: a connection that breaks although the daemon lives, at any moment
// of a commit or delete, leaves no doubt about what was done: the library waits
// for the end of the old session's work before it looks.
func TestBrokenConnection(t *testing.T) {
	s := uint64(time.Now().UnixNano())
	t.Logf("seed %d", s)
	rng := rand.New(rand.NewPCG(s, 4))
	d := newServed(t)
	admin := d.dial()
	look := d.open(admin)
	outcomes := map[string]int{}
	for range 60 {
		b := broken{t: t, look: look, outcomes: outcomes, after: time.Duration(rng.IntN(1500)) * time.Microsecond}
		c, socket := dialed(t, d)
		b.socket = socket
		b.try(d.open(c), rng.IntN(2) == 0)
		if err := errors.Join(c.Close(), socket.Close()); err != nil {
			t.Error(err)
		}
	}
	stats, err := admin.Stat(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	looks := uint64(0)
	for i := range stats.Ops {
		if stats.Ops[i].Op == ioctl.OpClientList {
			looks = stats.Ops[i].Count
		}
	}
	t.Logf("%v; the library looked %d times whether the old session has ended", outcomes, looks)
	if looks == 0 {
		t.Error("no connection broke under a call")
	}
	if outcomes["EUNKNOWN"] > 0 {
		t.Error("what was done is not known, although the daemon and its drive were there")
	}
}

// broken is a connection that its daemon ends.
type broken struct {
	t        *testing.T
	socket   *os.File
	look     api.Pool // over another connection
	outcomes map[string]int
	after    time.Duration
}

// try breaks the connection under a commit, or under a delete.
func (b *broken) try(p api.Pool, remove bool) {
	b.t.Helper()
	ctx := b.t.Context()
	m, err := p.AllocMblock(ctx, api.AllocOptions{Capacity: 1 << 20})
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := m.Write(ctx, make([]byte, 200_000)); err != nil {
		b.t.Fatal(err)
	}
	work := m.Commit
	if remove {
		if err := m.Commit(ctx); err != nil {
			b.t.Fatal(err)
		}
		work = m.Delete
	}
	cut := make(chan struct{})
	time.AfterFunc(b.after, func() {
		defer close(cut)
		// What is no message ends the session.
		if err := unix.Send(int(b.socket.Fd()), []byte("garbage"), unix.MSG_NOSIGNAL); err != nil {
			b.t.Error(err)
		}
	})
	err = work(ctx)
	<-cut
	code := "ok"
	if err != nil {
		code = api.CodeOf(err).Error()
	}
	b.outcomes[code]++
	there := true
	if x, err := b.look.Mblock(ctx, m.ID()); errors.Is(err, api.ENOENT) {
		there = false
	} else if err != nil {
		b.t.Error(err)
	} else if err := x.Put(); err != nil {
		b.t.Error(err)
	}
	switch {
	case err == nil && there == remove:
		b.t.Errorf("done, they say; there: %v, after a delete: %v", there, remove)
	case err != nil && code != "EUNKNOWN" && there != remove:
		b.t.Errorf("not done, they say: %v; there: %v, after a delete: %v", err, there, remove)
	case err != nil && code != "EUNKNOWN" && code != "ECONNRESET" && code != "EBADF":
		b.t.Error(err)
	}
	if remove && there {
		x, err := b.look.Mblock(ctx, m.ID())
		if err == nil {
			err = x.Delete(ctx)
		}
		if err != nil {
			b.t.Errorf("a delete that is made again: %v", err)
		}
	}
}
