package scopes

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/test/daemon"
)

var each = flag.Bool("scopes.each", false, "each kind of memory is attacked alone, too")

// limit is the memory that the daemon may have, in MiB.
const limit = 112

var config = fmt.Sprintf(`
log_level = "error"
[limits]
sessions = 4000
handles = 100000
[scopes.system]
memory = "%dMiB"
[scopes.client]
memory = "unlimited"
`, limit)

// greedy is a session that takes of one thing as much as it gets, and gives nothing back.
type greedy struct {
	*daemon.Raw
	pool ioctl.Handle
	log  ioctl.Handle // a committed mlog
	s    *siege
}

// attack takes one more of something. It is called until it is refused.
type attack struct {
	name string
	take func(g *greedy, i int) error
	most int // of one session
}

var attacks = []attack{
	{"sessions", func(*greedy, int) error { return nil }, 0},
	{"arenas", func(g *greedy, _ int) error {
		_, mem, err := g.Mapped(1 << 20)
		g.s.mu.Lock()
		defer g.s.mu.Unlock()
		g.s.arenas += int64(len(mem)) // it has all its pages from the beginning
		return err                    // the mapping goes with the process
	}, 4},
	{"handles", func(g *greedy, _ int) error {
		_, err := g.Open(ioctl.OpObjectGet, &ioctl.Target{Handle: g.log})
		return err
	}, 20_000},
	{"readers", func(g *greedy, _ int) error {
		h, err := g.Open(ioctl.OpMlogOpenRead, &ioctl.Target{Handle: g.log})
		if err == nil {
			_, err = g.Ask(ioctl.OpReadNext, &ioctl.ReadNext{Reader: h, Into: ioctl.Window{Length: ioctl.MaxInline}})
		}
		return err
	}, 1000},
	{"appenders", func(g *greedy, _ int) error {
		l, err := g.Alloc(ioctl.OpMlogAlloc, g.pool, 256<<10)
		if err != nil {
			return err
		}
		if _, err = g.Ask(ioctl.OpObjectCommit, &ioctl.Target{Handle: l}); err != nil {
			return err
		}
		a, err := g.Open(ioctl.OpMlogOpenAppend, &ioctl.Target{Handle: l})
		for i := 0; err == nil && i < 8; i++ {
			_, err = g.Ask(ioctl.OpAppend, &ioctl.AppendRecord{To: a, Data: ioctl.InlinePayload(make([]byte, 30_000))})
		}
		return err
	}, 300},
	{"uncommitted mblocks", func(g *greedy, _ int) error {
		b, err := g.Alloc(ioctl.OpMblockAlloc, g.pool, 8<<10)
		if err == nil {
			_, err = g.Ask(ioctl.OpMblockWrite, &ioctl.MblockWrite{Mblock: b, Data: ioctl.InlinePayload(make([]byte, 5000))})
		}
		return err
	}, 300},
	{"lists", func(g *greedy, _ int) error {
		_, err := g.Open(ioctl.OpListOpen, &ioctl.ListOpen{Pool: g.pool})
		return err
	}, 16},
	{"unread answers", func(g *greedy, i int) error {
		if err := g.Conn.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			return err
		}
		return g.Send(ioctl.Header{Op: ioctl.OpClientList, Tag: uint64(i) + 1e6}, &ioctl.ClientList{})
	}, 10_000},
}

// siege is a daemon whose memory clients are after.
type siege struct {
	d   *daemon.Daemon
	log layout.ObjectID

	mu      sync.Mutex
	list    []*daemon.Raw // kept until the end
	arenas  int64         // bytes
	peak    int64         // bytes of the daemon's memory
	refused map[string]int
}

// look measures. Of arenas only those pages are resident that the daemon has touched, and
// all take memory.
func (s *siege) look() {
	u := s.d.Usage()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peak = max(s.peak, u.Resident-u.Shared+max(u.Shared, s.arenas))
}

// greedy makes a session.
func (s *siege) greedy() (*greedy, error) {
	w, err := daemon.Greeted(s.d.Socket)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.list = append(s.list, w)
	s.mu.Unlock()
	g := &greedy{Raw: w, s: s}
	if g.pool, err = w.OpenPool("data"); err != nil {
		return nil, err
	}
	g.log, err = w.Open(ioctl.OpMlogFind, &ioctl.Find{Pool: g.pool, ID: s.log})
	return g, err
}

// press has sessions take of one thing until that was refused to several in a row.
func (s *siege) press(t *testing.T, a attack) {
	for row := 0; row < 5; {
		g, err := s.greedy()
		for i := 0; err == nil && i < a.most; i++ {
			err = a.take(g, i)
			if i%16 == 0 {
				s.look()
			}
		}
		s.look()
		switch {
		case errors.Is(err, api.EAGAIN):
			if !strings.Contains(err.Error(), "limit of") || !strings.Contains(err.Error(), "mpoolctl scope set") {
				t.Errorf("%s: refused without the limit and its setting: %v", a.name, err)
			}
		case errors.Is(err, api.ENOSPC): // the drive is full before
		case err == nil, errors.Is(err, os.ErrDeadlineExceeded): // a session takes no more
			row = 0
			continue
		default:
			t.Errorf("%s: %v", a.name, err)
			return
		}
		row++
		s.mu.Lock()
		s.refused[a.name]++
		s.mu.Unlock()
	}
}

// logOf makes a committed mlog with records.
func logOf(t *testing.T, p api.Pool) layout.ObjectID {
	t.Helper()
	ctx := t.Context()
	l, err := p.AllocMlog(ctx, api.AllocOptions{Capacity: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	a, err := l.OpenAppend(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range 90 {
		if _, err := a.Append(ctx, make([]byte, 30_000), false); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Close(ctx); err != nil {
		t.Fatal(err)
	}
	return l.ID()
}

// proves G6: clients that ask for everything, read no answer and give nothing back are
// refused, by a limit that is named with its setting, and the daemon's memory, not only its
// count of it, never comes to its limit: all of it at one time, then logs open for
// append, and by a flag each other kind alone.
func TestResidentBelowLimit(t *testing.T) {
	t.Run("all", func(t *testing.T) { besiege(t, attacks...) })
	for _, a := range attacks {
		if *each || a.name == "appenders" { // which come nearest to the limit
			t.Run(a.name, func(t *testing.T) { besiege(t, a) })
		}
	}
}

func besiege(t *testing.T, list ...attack) {
	drive := daemon.Drive(t, 256<<20)
	d := daemon.Start(t, mpoold, daemon.Options{Config: config})
	_, p := d.Pool("data", drive, api.CreateOptions{Mode: 0o666})
	s := &siege{d: d, log: logOf(t, p), refused: map[string]int{}}
	var wg sync.WaitGroup
	for _, a := range list {
		wg.Go(func() { s.press(t, a) })
	}
	wg.Wait()
	for _, w := range s.list {
		_ = w.Close() // the test is over
	}
	t.Logf("%d sessions; refused %v; at most %d MiB of %d, %d in arenas", len(s.list), s.refused, s.peak>>20, limit, s.arenas>>20)
	if s.peak >= limit<<20 {
		t.Errorf("the daemon has had %d bytes, its limit is %d", s.peak, limit<<20)
	}
	for _, a := range list {
		if s.refused[a.name] == 0 {
			t.Errorf("%s: nothing was refused", a.name)
		}
	}
	daemon.Eventually(t, "nothing is left", func() bool {
		c, err := client.Dial(t.Context(), client.Options{Socket: d.Socket})
		if err != nil {
			return false // it is still full
		}
		defer c.Close()
		for e, err := range c.Scopes(t.Context(), "system") {
			if err != nil || e.Kind == "inbound" && e.Used != 2 { // this connection and that of the pool
				return false
			}
		}
		return true
	})
}
