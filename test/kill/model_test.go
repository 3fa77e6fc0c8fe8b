package kill

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

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
		durable := rng.IntN(2) == 0
		number, err := a.Append(ctx, record(n, i), durable)
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
			durable = true
		}
		if durable {
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
