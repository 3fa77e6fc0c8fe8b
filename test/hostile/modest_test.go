package hostile

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/test/daemon"
)

// modest is a client that does what a client does, a little of it, and checks
// every answer.
type modest struct {
	t     *testing.T
	p     api.Pool
	owner uint32
	data  []byte
	block api.Mblock
	log   api.Mlog
	app   api.Appender
	read  api.LogReader
	n     uint64 // records

	stop chan struct{}
	done sync.WaitGroup
	idle sync.Mutex // held during a round

	mu     sync.Mutex
	phase  string
	took   map[string]map[string][]time.Duration // by phase, then by what it did
	full   int                                   // times that the pool was full
	errors []error
}

// newModest starts a client, whose objects are an owner's that attackers are
// not.
func newModest(t *testing.T, d *daemon.Daemon, owner uint32) *modest {
	t.Helper()
	ctx := context.Background()
	m := &modest{t: t, owner: owner, stop: make(chan struct{}), took: map[string]map[string][]time.Duration{}}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	c, err := client.Dial(ctx, client.Options{Socket: d.Socket, Reconnect: -1})
	must(err)
	t.Cleanup(func() { _ = c.Close() }) // its daemon may be gone
	m.p, err = c.OpenPool(ctx, poolName)
	must(err)
	m.data = make([]byte, 256<<10)
	rng := rand.New(rand.NewPCG(1, uint64(owner)))
	for i := range m.data {
		m.data[i] = byte(rng.Uint32())
	}
	m.block, err = m.p.AllocMblock(ctx, m.options(int64(len(m.data))))
	must(err)
	_, err = m.block.Write(ctx, m.data)
	must(err)
	must(m.block.Commit(ctx))
	m.log, err = m.p.AllocMlog(ctx, m.options(16<<20))
	must(err)
	must(m.log.Commit(ctx))
	m.app, err = m.log.OpenAppend(ctx)
	must(err)
	m.read, err = m.log.OpenRead(ctx)
	must(err)
	m.done.Go(m.run)
	t.Cleanup(m.end)
	return m
}

// options are those of an allocation that attackers do not keep from it: they
// may fill the pool, but for the spare share.
func (m *modest) options(capacity int64) api.AllocOptions {
	return api.AllocOptions{Capacity: capacity, Owner: m.owner, UseSpare: true}
}

func (m *modest) end() {
	select {
	case <-m.stop:
	default:
		close(m.stop)
	}
	m.done.Wait()
}

// enter begins a phase; "" is none, in which nothing is measured.
func (m *modest) enter(phase string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.phase = phase
}

func (m *modest) run() {
	rng := rand.New(rand.NewPCG(2, 2))
	ctx := context.Background()
	for {
		select {
		case <-m.stop:
			return
		default:
		}
		if !m.round(ctx, rng) {
			return
		}
		time.Sleep(2 * time.Millisecond) // it is modest
	}
}

// pause does something while the client asks nothing.
func (m *modest) pause(f func()) {
	m.idle.Lock()
	defer m.idle.Unlock()
	f()
}

// round does everything once, and says whether to go on.
func (m *modest) round(ctx context.Context, rng *rand.Rand) bool {
	m.idle.Lock()
	defer m.idle.Unlock()
	for _, x := range []struct {
		what string
		do   func(context.Context, *rand.Rand) error
	}{
		{"read", m.readBlock}, {"append", m.append}, {"find", m.find}, {"commit", m.commit},
	} {
		began := time.Now()
		bounded, cancel := context.WithTimeout(ctx, starved)
		err := x.do(bounded, rng)
		cancel()
		m.note(x.what, time.Since(began), err)
		if err != nil && !errors.Is(err, api.ENOSPC) {
			return false
		}
	}
	return true
}

func (m *modest) note(what string, took time.Duration, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case errors.Is(err, api.ENOSPC):
		m.full++
	case err != nil:
		m.errors = append(m.errors, fmt.Errorf("%s: %w", what, err))
	case m.phase != "":
		if m.took[m.phase] == nil {
			m.took[m.phase] = map[string][]time.Duration{}
		}
		m.took[m.phase][what] = append(m.took[m.phase][what], took)
	}
}

// readBlock reads 4 KiB of its mblock.
func (m *modest) readBlock(ctx context.Context, rng *rand.Rand) error {
	got := make([]byte, 4096)
	off := rng.IntN(len(m.data) - len(got))
	n, err := m.block.ReadAtContext(ctx, got, int64(off))
	if err != nil || !bytes.Equal(got[:n], m.data[off:off+len(got)]) {
		return fmt.Errorf("%d bytes at %d, not all as written: %w", n, off, err)
	}
	return nil
}

// append appends a record, durably, and reads it back.
func (m *modest) append(ctx context.Context, _ *rand.Rand) error {
	rec := binary.LittleEndian.AppendUint64(make([]byte, 100), m.n)
	_, err := m.app.Append(ctx, rec, true)
	if errors.Is(err, api.EFBIG) { // it has had its time
		if err := errors.Join(m.app.Close(ctx), m.read.Close(), m.log.Erase(ctx, 0)); err != nil {
			return err
		}
		if m.app, err = m.log.OpenAppend(ctx); err != nil {
			return err
		}
		m.read, err = m.log.OpenRead(ctx)
		return err
	}
	if err != nil {
		return err
	}
	got := make([]byte, 4096)
	n, err := m.read.Next(ctx, got)
	if err != nil || !bytes.Equal(got[:n], rec) {
		return fmt.Errorf("record %d came back as %x: %w", m.n, got[:n], err)
	}
	m.n++
	return nil
}

// find takes another handle on its mblock.
func (m *modest) find(ctx context.Context, _ *rand.Rand) error {
	b, err := m.p.Mblock(ctx, m.block.ID())
	if err != nil {
		return err
	}
	info, err := b.Info(ctx)
	if err == nil && info.Length != int64(len(m.data)) {
		err = fmt.Errorf("its mblock is %+v", info)
	}
	return errors.Join(err, b.Put())
}

// commit makes an mblock, durably, and deletes it.
func (m *modest) commit(ctx context.Context, _ *rand.Rand) error {
	b, err := m.p.AllocMblock(ctx, m.options(4096))
	if err != nil {
		return err
	}
	if _, err := b.Write(ctx, m.data[:4096]); err != nil {
		return err
	}
	if err := b.Commit(ctx); err != nil {
		return errors.Join(err, b.Abort(ctx))
	}
	return b.Delete(ctx)
}

// starved is how long an operation may take at most, whatever attackers do, on any
// machine: one that attackers hold up for good takes longer.
const starved = 2 * time.Minute

// report logs the latencies and returns the worst.
func (m *modest) report(t *testing.T) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, err := range m.errors {
		t.Errorf("a modest client: %v", err)
	}
	if m.full > 0 {
		t.Logf("the pool was full for the modest client %d times", m.full)
	}
	alone := m.took[alonePhase]
	var phases []string
	for phase := range m.took {
		phases = append(phases, phase)
	}
	slices.Sort(phases)
	for _, phase := range phases {
		var line strings.Builder
		for _, what := range []string{"read", "append", "find", "commit"} {
			l := m.took[phase][what]
			if len(l) == 0 { // the phase was too short to tell
				continue
			}
			slices.Sort(l)
			p50, p99, worst := at(l, 50), at(l, 99), l[len(l)-1]
			fmt.Fprintf(&line, "  %s %v/%v", what, round(p50), round(p99))
			if a := alone[what]; len(a) > 0 && phase != alonePhase {
				slices.Sort(a)
				fmt.Fprintf(&line, " ×%.1f", float64(p99)/float64(at(a, 99)))
			}
			if worst > starved {
				t.Errorf("in phase %s a %s took %v", phase, what, worst)
			}
		}
		t.Logf("%-18s p50/p99, ×p99 alone:%s  (%d rounds)", phase, line.String(), len(m.took[phase]["read"]))
	}
}

func at(sorted []time.Duration, percent int) time.Duration {
	return sorted[min(len(sorted)*percent/100, len(sorted)-1)]
}

func round(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }
