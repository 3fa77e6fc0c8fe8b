package restart

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/test/daemon"
)

var (
	returners = flag.Int("restart.returners", 20, "client processes that lose their daemon at one moment")
	returning = flag.Int("restart.returning", 10, "connections of each of them")
)

// returnTally is when the connections of a returner were back.
type returnTally struct {
	First, Last time.Time
	Back        int
}

// returner has connections that wait for events, and so notice at once that their
// daemon is gone. It says when they are there, and ends when all have found the
// next one.
func returner(r *role) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	over := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // all are back, if not all have heard of it
		close(over)
	}()
	var mu sync.Mutex
	var tally returnTally
	var wg sync.WaitGroup
	for range r.Sessions {
		c := try(client.Dial(ctx, client.Options{Socket: r.Socket, Reconnect: patience}))
		try(c.Version(ctx))
		since := time.Now()
		wg.Go(func() {
			for _, err := range c.Events(ctx, client.EventOptions{Since: since, Follow: true}) {
				if gap, ok := errors.AsType[*client.EventGap](err); ok && gap.Restarted {
					break
				}
				if err != nil {
					panic(err)
				}
			}
			now := time.Now()
			mu.Lock()
			defer mu.Unlock()
			if tally.Back == 0 {
				tally.First = now
			}
			tally.Last = now
			tally.Back++
		})
	}
	must(os.WriteFile(r.Journal, nil, 0o600))
	wg.Wait()
	must(json.NewEncoder(os.Stdout).Encode(&tally))
	<-over // the connections stay
}

// proves S36: many clients that lose their daemon at one moment find the next one by
// themselves, soon, without a stampede: each makes one session, not one after the
// other, and the daemon answers others meanwhile.
func TestReturn(t *testing.T) {
	for _, way := range []string{"killed", "replaced on a kept socket"} {
		t.Run(way, func(t *testing.T) { testReturn(t, way != "killed") })
	}
}

func testReturn(t *testing.T, kept bool) {
	t.Helper()
	d := newServed(t)
	n := *returners * *returning
	d.end()
	d.config = filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(d.config, fmt.Appendf(nil, "[limits]\nsessions = %d\n", n+10), 0o600); err != nil {
		t.Fatal(err)
	}
	if kept {
		d.socket = filepath.Join(t.TempDir(), "kept")
		d.kept = keptSocket(t, d.socket)
	}
	d.start()
	dir := t.TempDir()
	var all []*process
	for i := range *returners {
		c := child(t, role{
			Kind: kindReturner, N: i, Socket: d.socket, Journal: filepath.Join(dir, fmt.Sprint(i)), Sessions: *returning,
		})
		t.Cleanup(func() { _ = c.cmd.Process.Kill() })
		all = append(all, c)
	}
	for _, c := range all {
		daemon.Eventually(t, "all are connected", func() bool {
			_, err := os.Stat(c.journal)
			return err == nil
		})
	}
	if kept {
		d.end()
	} else {
		d.kill()
	}
	gone := time.Now()
	d.start()
	ready := time.Now()
	look := d.dial()
	var longest time.Duration
	daemon.Eventually(t, "all are back", func() bool {
		began := time.Now()
		list, err := look.Clients(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		longest = max(longest, time.Since(began))
		return len(list) == n+1
	})
	list, err := look.Clients(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	made := list[len(list)-1].Session
	usage, err := daemon.UsageOf(d.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	var last time.Time
	for _, c := range all {
		c.stdin.Close()
		c.wait(t)
		var v returnTally
		if err := json.Unmarshal(c.out.Bytes(), &v); err != nil {
			t.Fatalf("%v: %s", err, &c.out)
		}
		if v.Last.After(last) {
			last = v.Last
		}
	}
	t.Logf("%d connections of %d processes: the daemon was gone for %v, all were back %v after it answered; it made %d sessions and used %v of a processor; a list took %v at most",
		n, *returners, ready.Sub(gone), last.Sub(ready), made, usage.Processor, longest)
	// Two are this test's own. Some may have met the old daemon's end twice.
	if made > uint64(n+n/2+5) {
		t.Errorf("%d sessions were made for %d connections", made, n)
	}
	d.end()
}
