// Package kill ends the real daemon with SIGKILL under load, again and again,
// and compares what it finds afterwards with what was acknowledged.
package kill

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool/check"
	testdaemon "github.com/mpool-go/mpool/test/daemon"
)

var (
	rounds = flag.Int("kill.rounds", 8, "how often the daemon is killed")
	seed   = flag.Uint64("kill.seed", 0, "seed of the workload and the moments; 0: from the clock")
)

const (
	driveBytes = 96 << 20
	writers    = 4
	appenders  = 2
)

// daemon is a running mpoold.
type daemon struct {
	cmd    *exec.Cmd
	socket string
	logs   bytes.Buffer
}

// start runs mpoold with the pool active and waits until it accepts.
func start(t *testing.T, bin, socket, device string) *daemon {
	t.Helper()
	d := &daemon{socket: socket}
	args := []string{"--socket", socket}
	if device != "" {
		args = append(args, "--activate", "kill@"+device)
	}
	d.cmd = exec.Command(bin, args...)
	d.cmd.Stderr = &d.logs
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(testdaemon.Patience)
	for {
		c, err := client.Dial(context.Background(), client.Options{Socket: socket})
		if err == nil {
			pools, perr := c.Pools(context.Background())
			_ = c.Close() // only a probe
			if perr == nil && (device == "" || len(pools) == 1) {
				return d
			}
		}
		if time.Now().After(deadline) {
			d.kill()
			t.Fatalf("mpoold does not become ready: %v\n%s", err, d.logs.String())
		}
		time.Sleep(5 * time.Millisecond) // polls for readiness; nothing depends on its length
	}
}

func (d *daemon) kill() {
	_ = d.cmd.Process.Kill() // it may be dead already
	_ = d.cmd.Wait()         // "signal: killed" is what is wanted
}

// drive runs the load until the daemon is killed after a random time.
func (m *model) drive(t *testing.T, d *daemon, rng *rand.Rand) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	load := func(what string, f func(ctx context.Context, p api.Pool) error) {
		c, err := client.Dial(ctx, client.Options{Socket: d.socket, Reconnect: -1})
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.OpenPool(ctx, "kill")
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			err := f(ctx, p)
			if !errors.Is(err, api.ECONNRESET) && !errors.Is(err, api.EUNKNOWN) && !errors.Is(err, api.EBADF) &&
				!errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", what, err)
			}
			_ = c.Close() // the daemon is dead
		})
	}
	for n := range writers {
		r := rand.New(rand.NewPCG(rng.Uint64(), 1))
		load(fmt.Sprintf("writer %d", n), func(ctx context.Context, p api.Pool) error { return m.write(ctx, p, r, n) })
	}
	for n := range appenders {
		r := rand.New(rand.NewPCG(rng.Uint64(), 2))
		load(fmt.Sprintf("appender %d", n), func(ctx context.Context, p api.Pool) error { return m.append(ctx, p, r, n) })
	}
	time.Sleep(time.Duration(rng.IntN(400)) * time.Millisecond) // the moment of the kill; any will do
	d.kill()
	cancel()
	wg.Wait()
}

// proves S12 S15 S21 S22 S36: what was acknowledged is there after the daemon's
// death at any moment, what was not is there whole or not at all, the space
// adds up and the offline checker finds nothing.
func TestKillDaemon(t *testing.T) {
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d: go test ./test/kill -kill.seed=%d -kill.rounds=%d", s, s, *rounds)
	rng := rand.New(rand.NewPCG(s, 3))
	bin := build(t)
	dir := t.TempDir()
	device := testdaemon.Drive(t, driveBytes)
	socket := filepath.Join(dir, "sock")
	ctx := context.Background()
	m := &model{live: map[layout.ObjectID]uint64{}, maybe: map[layout.ObjectID]uint64{}, leaving: map[layout.ObjectID]uint64{}}

	d := start(t, bin, socket, "")
	prepare(t, d, device, m)
	for round := range *rounds {
		m.drive(t, d, rng)
		if t.Failed() {
			return
		}
		if round%10 == 0 {
			offline(t, device)
		}
		d = start(t, bin, socket, device)
		c, err := client.Dial(ctx, client.Options{Socket: socket})
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.OpenPool(ctx, "kill")
		if err != nil {
			t.Fatal(err)
		}
		m.verify(t, p)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	d.kill()
	offline(t, device)
	t.Logf("%d kills, %d mblocks and %v records at the end, nothing lost", *rounds, len(m.live), m.acked)
}

// prepare makes the pool and its logs.
func prepare(t *testing.T, d *daemon, device string, m *model) {
	t.Helper()
	ctx := context.Background()
	c, err := client.Dial(ctx, client.Options{Socket: d.socket})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreatePool(ctx, "kill", []string{device}, api.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	p, err := c.OpenPool(ctx, "kill")
	if err != nil {
		t.Fatal(err)
	}
	for n := range m.logs {
		l, err := p.AllocMlog(ctx, api.AllocOptions{Capacity: 8 << 20})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(l.Commit(ctx), l.Put()); err != nil {
			t.Fatal(err)
		}
		m.logs[n] = l.ID()
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

// offline runs the independent checker over the drive that nobody has active.
func offline(t *testing.T, device string) {
	t.Helper()
	report, err := check.Run(context.Background(), []string{device}, check.Options{Data: true})
	if err != nil {
		t.Fatal(err)
	}
	if !report.OK {
		t.Fatalf("the checker finds %+v", report.Problems)
	}
}

func build(t *testing.T) string {
	t.Helper()
	bin, err := testdaemon.Build(t.TempDir(), false)
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

func TestMain(m *testing.M) {
	flag.Parse()
	goleak.VerifyTestMain(m)
}
