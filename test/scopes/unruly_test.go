package scopes

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/test/daemon"
)

var (
	turns = flag.Int("scopes.turns", 0, "measure p99 alone and beside an unruly client so many times")
	turn  = flag.Duration("scopes.turn", 2*time.Second, "how long each time")
)

// unrulyEnv makes the test's program an unruly client of the daemon at that socket.
const unrulyEnv = "MPOOL_TEST_UNRULY"

// unrulyConfig has the limits that a daemon with such clients may have.
const unrulyConfig = `
log_level = "error"
[scopes.client]
memory = "32MiB"
tasks = 64
inbound = 32
`

// byItsLimits begins the line about a refusal by the limits of a client.
const byItsLimits = "refused by [scopes.\"client\"]"

// unruly asks for everything, of 10,000 handles and 10,000 requests in each of its sessions,
// reads no answers but those that it needs to ask for more, and begins again with another session
// when it gets no further. It prints a line for each kind of refusal.
func unruly(socket string) {
	told := map[string]bool{}
	tell := func(err error) bool {
		if !errors.Is(err, api.EAGAIN) {
			return err == nil
		}
		what := "EAGAIN without a limit: " + err.Error()
		if _, setting, ok := strings.Cut(err.Error(), "; to change: "); ok {
			what = "refused by " + strings.Fields(setting)[0] + " " + strings.TrimSuffix(strings.Fields(setting)[1], ",")
		}
		if !told[what] {
			told[what] = true
			fmt.Println(what)
		}
		return false
	}
	var held []*daemon.Raw
	for {
		w, err := daemon.Greeted(socket)
		if !tell(err) {
			for _, w := range held {
				_ = w.Close() // others are made
			}
			held = nil
			continue
		}
		held = append(held, w)
		pool, err := w.OpenPool("data")
		if !tell(err) {
			continue
		}
		most := [...]int{10_000, 100, 10_000} // how much it may hold is a quota's question
		for k, more := range []func() error{
			func() error { _, _, err := w.Mapped(1 << 20); return err },
			func() error { _, err := w.Alloc(ioctl.OpMblockAlloc, pool, 8192); return err },
			func() error { _, err := w.OpenPool("data"); return err },
		} {
			for i, ok := 0, true; ok && i < most[k]; i++ {
				ok = tell(more())
			}
		}
		_ = w.Conn.SetWriteDeadline(time.Now().Add(300 * time.Millisecond)) // else it waits for longer
		for tag := range uint64(10_000) {
			if w.Send(ioctl.Header{Op: ioctl.OpClientList, Tag: tag + 1e6}, &ioctl.ClientList{}) != nil {
				break
			}
		}
	}
}

// startUnruly starts one, below a command such as chrt, and waits until it has been refused
// everything. stop ends it and returns what refused it.
func startUnruly(t *testing.T, socket string, below ...string) (stop func() []string) {
	t.Helper()
	args := append(slices.Clone(below), os.Args[0])
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), unrulyEnv+"="+socket)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	watchdog := time.AfterFunc(daemon.Patience, func() { _ = cmd.Process.Kill() }) // which ends the lines
	for in := bufio.NewScanner(out); in.Scan(); {
		lines = append(lines, in.Text())
		if strings.HasPrefix(in.Text(), byItsLimits) {
			break
		}
	}
	watchdog.Stop()
	return func() []string {
		_ = cmd.Process.Kill() // it may be dead
		_ = cmd.Wait()         // it was killed
		return lines
	}
}

// modest is a client that does a little of everything, one thing after another.
type modest struct {
	p    api.Pool
	read api.Mblock
	app  api.Appender
}

func newModest(t *testing.T, d *daemon.Daemon, drive string) *modest {
	t.Helper()
	_, p := d.Pool("data", drive, api.CreateOptions{Mode: 0o666})
	m := &modest{p: p}
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	m.read, err = m.put(ctx)
	must(err)
	l, err := p.AllocMlog(ctx, api.AllocOptions{Capacity: 64 << 20})
	must(err)
	must(l.Commit(ctx))
	m.app, err = l.OpenAppend(ctx)
	must(err)
	return m
}

func (m *modest) put(ctx context.Context) (api.Mblock, error) {
	b, err := m.p.AllocMblock(ctx, api.AllocOptions{Capacity: 4096})
	if err != nil {
		return nil, err
	}
	if _, err := b.Write(ctx, make([]byte, 4096)); err != nil {
		return nil, err
	}
	return b, b.Commit(ctx)
}

// run does rounds for a time, at least so many, and returns how long things took.
func (m *modest) run(ctx context.Context, least int, over time.Duration) (map[string][]time.Duration, error) {
	took := map[string][]time.Duration{}
	buf := make([]byte, 4096)
	began := time.Now()
	for n := 0; n < least || time.Since(began) < over; n++ {
		var b api.Mblock
		for _, step := range []struct {
			name string
			do   func() error
		}{
			{"read 4 KiB", func() error { _, err := m.read.ReadAt(buf, 0); return err }},
			{"put 4 KiB", func() (err error) { b, err = m.put(ctx); return err }},
			{"append, synced", func() error { _, err := m.app.Append(ctx, buf[:128], true); return err }},
			{"delete", func() error { return b.Delete(ctx) }},
		} {
			at := time.Now()
			if err := step.do(); err != nil {
				return nil, fmt.Errorf("%s: %w", step.name, err)
			}
			took[step.name] = append(took[step.name], time.Since(at))
		}
	}
	return took, nil
}

// proves G6: an unruly client (asks for everything, never reads its answers, opens ten thousand
// handles, sends ten thousand requests) is refused by limits that are named; one that asks
// for little beside it is refused nothing. With -scopes.turns it says what that takes beside
// it and alone; docs/performance.md has the figures.
func TestBesideUnruly(t *testing.T) {
	drive := daemon.Drive(t, 512<<20)
	d := daemon.Start(t, mpoold, daemon.Options{Config: unrulyConfig})
	m := newModest(t, d, drive)
	stop := startUnruly(t, d.Socket)
	_, err := m.run(t.Context(), 50, 0)
	refused := stop()
	t.Logf("unruly: %q", refused)
	if err != nil {
		t.Error(err)
	}
	if !slices.ContainsFunc(refused, func(s string) bool { return strings.HasPrefix(s, byItsLimits) }) ||
		slices.ContainsFunc(refused, func(s string) bool { return !strings.HasPrefix(s, "refused by") }) {
		t.Error("it was not refused by limits of its own that are named")
	}
	if *turns == 0 {
		return
	}
	p99 := map[string]map[string][]float64{}
	for range *turns {
		for how, below := range map[string][]string{"alone": nil, "beside": {"env"}, "beside, SCHED_IDLE": {"chrt", "-i", "0"}} {
			stop := func() []string { return nil }
			if below != nil {
				stop = startUnruly(t, d.Socket, below...)
			}
			took, err := m.run(t.Context(), 100, *turn)
			stop()
			if err != nil {
				t.Fatal(err)
			}
			for what, list := range took {
				slices.Sort(list)
				if p99[what] == nil {
					p99[what] = map[string][]float64{}
				}
				p99[what][how] = append(p99[what][how], float64(list[len(list)*99/100].Nanoseconds())/1e3)
			}
		}
	}
	for what, by := range p99 {
		alone := median(by["alone"])
		for _, how := range []string{"alone", "beside", "beside, SCHED_IDLE"} {
			t.Logf("%s, %s: p99 %.0f µs [%.0f-%.0f], %.2f of alone", what, how, median(by[how]), slices.Min(by[how]), slices.Max(by[how]), median(by[how])/alone)
		}
	}
}

func median(list []float64) float64 {
	if len(list) == 0 {
		return math.NaN()
	}
	slices.Sort(list)
	return list[len(list)/2]
}
