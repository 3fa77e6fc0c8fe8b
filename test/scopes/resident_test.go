package scopes

import (
	"errors"
	"flag"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/test/daemon"
)

var (
	crowd   = flag.Int("scopes.clients", 200, "sessions that hoard at one time")
	handles = flag.Int("scopes.handles", 300, "handles that each opens, at most")
)

// limit is the memory that the daemon may have.
const limit = 160 << 20

const config = `
log_level = "error"
[limits]
sessions = 4000
handles = 10000
[scopes.system]
memory = "160MiB"
[scopes.client]
memory = "unlimited"
`

// hoarder stands for clients that ask for everything, or much of something, and give
// nothing back.
type hoarder struct {
	socket  string
	refused atomic.Int64
	named   atomic.Int64 // refusals that name a limit and its setting
}

func (h *hoarder) count(err error) bool {
	if errors.Is(err, api.EAGAIN) {
		h.refused.Add(1)
		if s := err.Error(); strings.Contains(s, "limit of") && strings.Contains(s, "mpoolctl scope set") {
			h.named.Add(1)
		}
	}
	return err == nil
}

func (h *hoarder) run(i int, keep func(*daemon.Raw)) {
	w, err := daemon.Greeted(h.socket)
	if !h.count(err) {
		return
	}
	keep(w)
	pool, err := w.OpenPool("data")
	if !h.count(err) {
		return
	}
	l, err := w.Alloc(ioctl.OpMlogAlloc, pool, 8192)
	if h.count(err) {
		_, err = w.Ask(ioctl.OpObjectCommit, &ioctl.Target{Handle: l})
		h.count(err)
	}
	for range *handles {
		if _, err := w.Open(ioctl.OpObjectGet, &ioctl.Target{Handle: l}); !h.count(err) {
			break
		}
	}
	for range 50 * (i % 2) {
		if _, err := w.Open(ioctl.OpMlogOpenRead, &ioctl.Target{Handle: l}); !h.count(err) {
			break
		}
	}
	for range 4 * (i % 3) {
		_, mem, err := w.Mapped(1 << 20)
		if !h.count(err) {
			break
		}
		for i := 0; i < len(mem); i += 4096 {
			mem[i] = 1
		}
	}
	// Ten thousand requests, whose answers nobody reads.
	if err := w.Conn.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return
	}
	for tag := range uint64(10_000) {
		if w.Send(ioctl.Header{Op: ioctl.OpClientList, Tag: tag + 1000}, &ioctl.ClientList{}) != nil {
			break
		}
	}
}

// proves G6: clients that ask for everything, read no answer and give nothing back are
// refused, by a limit that is named with its setting, and the daemon's resident memory,
// not only its count of it, never comes to its limit.
func TestResidentBelowLimit(t *testing.T) {
	drive := daemon.Drive(t, 512<<20)
	d := daemon.Start(t, mpoold, daemon.Options{Config: config})
	d.Pool("data", drive, api.CreateOptions{Mode: 0o666})
	h := &hoarder{socket: d.Socket}
	var mu sync.Mutex
	var open []*daemon.Raw
	var wg sync.WaitGroup
	for i := range *crowd {
		wg.Go(func() {
			h.run(i, func(w *daemon.Raw) {
				mu.Lock()
				defer mu.Unlock()
				open = append(open, w)
			})
		})
	}
	over := make(chan struct{})
	go func() {
		wg.Wait()
		close(over)
	}()
	var peak int64
	for done := false; !done; {
		select {
		case <-over:
			done = true
		case <-time.After(20 * time.Millisecond):
		}
		peak = max(peak, d.Usage().Resident)
		if peak >= limit {
			t.Fatalf("the daemon has %d bytes, its limit is %d", peak, limit)
		}
	}
	t.Logf("%d sessions, %d requests refused, at most %d MiB resident of %d", len(open), h.refused.Load(), peak>>20, limit>>20)
	if h.refused.Load() == 0 || h.named.Load() != h.refused.Load() {
		t.Errorf("%d requests were refused, %d by a limit that is named with its setting", h.refused.Load(), h.named.Load())
	}
	for _, w := range open {
		_ = w.Close() // the test is over
	}
	daemon.Eventually(t, "nothing is left", func() bool {
		c := d.Dial()
		defer c.Close()
		for e, err := range c.Scopes(t.Context(), "system") {
			if err != nil || e.Kind == "inbound" && e.Used != 2 { // this connection and that of the pool
				return false
			}
		}
		return true
	})
}
