// Package kill ends the real daemon with SIGKILL under load, again and again,
// and compares what it finds afterwards with what was acknowledged.
package kill

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
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
	"github.com/mpool-go/mpool/test/loopdev"
)

var (
	rounds = flag.Int("kill.rounds", 8, "how often the daemon is killed")
	seed   = flag.Uint64("kill.seed", 0, "seed of the workload and the moments; 0: from the clock")
)

const (
	driveBytes = 256 << 20
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
	deadline := time.Now().Add(20 * time.Second)
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

// model is what was acknowledged, and what was under way.
type model struct {
	mu      sync.Mutex
	live    map[layout.ObjectID]uint64 // hash of the content
	maybe   map[layout.ObjectID]uint64 // commit sent
	leaving map[layout.ObjectID]uint64 // delete sent
	logs    [appenders]layout.ObjectID
	acked   [appenders]uint64 // records below are acknowledged
	sent    [appenders]uint64
}

func content(rng *rand.Rand) []byte {
	b := make([]byte, rng.IntN(200_000))
	for i := 0; i < len(b); i += 8 {
		var w [8]byte
		binary.LittleEndian.PutUint64(w[:], rng.Uint64())
		copy(b[i:], w[:])
	}
	return b
}

func hash(b []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(b) // a hash does not fail
	return h.Sum64()
}

// write puts and deletes mblocks until the daemon is gone.
func (m *model) write(ctx context.Context, p api.Pool, rng *rand.Rand, n int) error {
	for {
		data := content(rng)
		b, err := p.AllocMblock(ctx, api.AllocOptions{Capacity: int64(len(data))})
		if errors.Is(err, api.ENOSPC) {
			if err := m.remove(ctx, p, n); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		for off := 0; off < len(data); off += 64 << 10 {
			if _, err := b.Write(ctx, data[off:min(off+64<<10, len(data))]); err != nil {
				return err
			}
		}
		m.mu.Lock()
		m.maybe[b.ID()] = hash(data)
		m.mu.Unlock()
		if err := b.Commit(ctx); err != nil {
			return err
		}
		m.mu.Lock()
		delete(m.maybe, b.ID())
		m.live[b.ID()] = hash(data)
		m.mu.Unlock()
		if err := b.Put(); err != nil {
			return err
		}
		if rng.IntN(3) == 0 {
			if err := m.remove(ctx, p, n); err != nil {
				return err
			}
		}
	}
}

// remove deletes an mblock of the writer's own: ids are dealt by number.
func (m *model) remove(ctx context.Context, p api.Pool, n int) error {
	var id layout.ObjectID
	m.mu.Lock()
	for x, h := range m.live {
		if int(x.Counter())%writers == n {
			id = x
			delete(m.live, x)
			m.leaving[x] = h
			break
		}
	}
	m.mu.Unlock()
	if id == 0 {
		return nil
	}
	b, err := p.Mblock(ctx, id)
	if err != nil {
		return err
	}
	for {
		err := b.Delete(ctx)
		if errors.Is(err, api.EBUSY) { // its writer has not put it yet
			continue
		}
		if err != nil {
			return err
		}
		m.mu.Lock()
		delete(m.leaving, id)
		m.mu.Unlock()
		return nil
	}
}

// append appends to one log until the daemon is gone or the log is full.
func (m *model) append(ctx context.Context, p api.Pool, rng *rand.Rand, n int) error {
	l, err := p.Mlog(ctx, m.logs[n])
	if err != nil {
		return err
	}
	a, err := l.OpenAppend(ctx)
	if err != nil {
		return err
	}
	for {
		m.mu.Lock()
		i := m.sent[n]
		m.sent[n]++
		m.mu.Unlock()
		number, err := a.Append(ctx, record(n, i), rng.IntN(2) == 0)
		if errors.Is(err, api.EFBIG) {
			m.mu.Lock()
			m.sent[n]--
			m.mu.Unlock()
			<-ctx.Done()
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		if number != i {
			return fmt.Errorf("log %d: record %d has number %d", n, i, number)
		}
		if rng.IntN(4) == 0 {
			if err := a.Sync(ctx); err != nil {
				return err
			}
			m.mu.Lock()
			m.acked[n] = i + 1
			m.mu.Unlock()
		}
	}
}

func record(n int, i uint64) []byte {
	return fmt.Appendf(nil, "log %d record %d %s", n, i, bytes.Repeat([]byte{'x'}, int(i*37%900)))
}

// verify compares the pool with the model and settles what was open.
func (m *model) verify(t *testing.T, p api.Pool) {
	t.Helper()
	ctx := context.Background()
	there := make(map[layout.ObjectID]bool)
	var used int64
	for info, err := range p.Objects(ctx, api.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		used += info.Used
		if info.Kind == layout.KindMblock {
			there[info.ID] = true
		}
	}
	for id, h := range m.live {
		if !there[id] {
			t.Fatalf("mblock %v is lost; its commit was acknowledged", id)
		}
		m.compare(t, p, id, h)
	}
	for _, open := range []map[layout.ObjectID]uint64{m.maybe, m.leaving} {
		for id, h := range open {
			if there[id] {
				m.compare(t, p, id, h)
				m.live[id] = h
			}
			delete(open, id)
		}
	}
	if len(m.live) != len(there) {
		t.Fatalf("%d mblocks are there; %d were committed", len(there), len(m.live))
	}
	for n := range m.logs {
		m.verifyLog(t, p, n)
	}
	info, err := p.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s := info.Space
	if s.Live != used || s.Uncommitted != 0 || s.Total != driveBytes ||
		s.Free+s.Live+s.Draining+s.Spare+s.Overhead+s.Remainder != s.Total {
		t.Fatalf("space does not add up: %+v; objects use %d", s, used)
	}
}

func (m *model) compare(t *testing.T, p api.Pool, id layout.ObjectID, want uint64) {
	t.Helper()
	b, err := p.Mblock(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if _, err := b.WriteTo(&got); err != nil {
		t.Fatal(err)
	}
	if hash(got.Bytes()) != want {
		t.Fatalf("mblock %v has other bytes than were written", id)
	}
	if err := b.Put(); err != nil {
		t.Fatal(err)
	}
}

func (m *model) verifyLog(t *testing.T, p api.Pool, n int) {
	t.Helper()
	ctx := context.Background()
	l, err := p.Mlog(ctx, m.logs[n])
	if err != nil {
		t.Fatal(err)
	}
	r, err := l.OpenRead(ctx)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	i := uint64(0)
	for ; ; i++ {
		k, err := r.Next(ctx, buf)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(buf[:k], record(n, i)) {
			t.Fatalf("log %d: record %d is not what was appended", n, i)
		}
	}
	if i < m.acked[n] || i > m.sent[n] {
		t.Fatalf("log %d has %d records; %d are acknowledged, %d were sent", n, i, m.acked[n], m.sent[n])
	}
	m.acked[n], m.sent[n] = i, i
	if err := errors.Join(r.Close(), l.Put()); err != nil {
		t.Fatal(err)
	}
}

// drive runs the load until the daemon is killed after a random time.
func (m *model) drive(t *testing.T, d *daemon, rng *rand.Rand) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	load := func(what string, f func(ctx context.Context, p api.Pool) error) {
		c, err := client.Dial(ctx, client.Options{Socket: d.socket})
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.OpenPool(ctx, "kill")
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			err := f(ctx, p)
			if !errors.Is(err, api.ECONNRESET) && !errors.Is(err, api.EUNKNOWN) && !errors.Is(err, context.Canceled) {
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
	device := device(t)
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
		l, err := p.AllocMlog(ctx, api.AllocOptions{Capacity: 16 << 20})
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
	bin := filepath.Join(t.TempDir(), "mpoold")
	if msg, err := exec.Command("go", "build", "-o", bin, "../../cmd/mpoold").CombinedOutput(); err != nil {
		t.Fatalf("build mpoold: %v\n%s", err, msg)
	}
	return bin
}

// device is a loop device as root, else a file.
func device(t *testing.T) string {
	t.Helper()
	if os.Geteuid() == 0 {
		return loopdev.New(t, driveBytes, loopdev.Options{SectorSize: 4096}).Path
	}
	dir, err := os.MkdirTemp(".", "kill") //nolint:usetesting // on the disk: a temporary folder may have no direct I/O
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "drive")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, driveBytes)); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMain(m *testing.M) {
	flag.Parse()
	goleak.VerifyTestMain(m)
}
