package faults

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"sync"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// book is what was acknowledged in a pool, and what may have happened. Content
// follows from the book's seed.
type book struct {
	mu    sync.Mutex
	rng   *rand.ChaCha8
	live  map[layout.ObjectID][]byte // commit acknowledged
	maybe map[layout.ObjectID][]byte // commit or delete of unknown outcome
	logs  map[layout.ObjectID]*logBook
}

type logBook struct {
	sent  [][]byte
	acked int // of sent, durable
}

func newBook(seed uint64) *book {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	return &book{
		rng:  rand.NewChaCha8(key),
		live: make(map[layout.ObjectID][]byte), maybe: make(map[layout.ObjectID][]byte),
		logs: make(map[layout.ObjectID]*logBook),
	}
}

// content makes n bytes that nobody else has.
func (b *book) content(n int) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := make([]byte, n)
	_, _ = b.rng.Read(p) // it never fails
	return p
}

// commit commits an mblock that holds data and notes what became of it.
func (b *book) commit(ctx context.Context, m api.Mblock, data []byte) error {
	err := m.Commit(ctx)
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case err == nil:
		b.live[m.ID()] = data
		delete(b.maybe, m.ID())
	case errors.Is(err, api.EUNKNOWN):
		b.maybe[m.ID()] = data
	}
	return err
}

// write allocates an mblock and writes data to it.
func write(ctx context.Context, p api.Pool, data []byte, o api.AllocOptions) (api.Mblock, error) {
	o.Capacity = int64(len(data))
	m, err := p.AllocMblock(ctx, o)
	if err != nil {
		return nil, err
	}
	_, err = m.Write(ctx, data)
	return m, err
}

// put writes and commits an mblock and keeps its handle.
func (b *book) put(ctx context.Context, p api.Pool, n int, o api.AllocOptions) (api.Mblock, error) {
	data := b.content(n)
	m, err := write(ctx, p, data, o)
	if err != nil {
		return m, err
	}
	return m, b.commit(ctx, m, data)
}

// remove deletes an mblock by its handle.
func (b *book) remove(ctx context.Context, m api.Mblock) error {
	err := m.Delete(ctx)
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case err == nil:
		delete(b.live, m.ID())
	case errors.Is(err, api.EUNKNOWN):
		b.maybe[m.ID()] = b.live[m.ID()]
		delete(b.live, m.ID())
	}
	return err
}

// log makes a log and opens it for append.
func (b *book) log(ctx context.Context, p api.Pool, o api.AllocOptions) (api.Mlog, api.Appender, error) {
	o.Capacity = 64 << 10
	l, err := p.AllocMlog(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	if err := l.Commit(ctx); err != nil {
		return nil, nil, err
	}
	b.mu.Lock()
	b.logs[l.ID()] = &logBook{}
	b.mu.Unlock()
	a, err := l.OpenAppend(ctx)
	return l, a, err
}

// append appends a record and waits until it is durable.
func (b *book) append(ctx context.Context, id layout.ObjectID, a api.Appender) error {
	rec := b.content(1000)
	b.mu.Lock()
	l := b.logs[id]
	l.sent = append(l.sent, rec)
	n := len(l.sent)
	b.mu.Unlock()
	_, err := a.Append(ctx, rec, true)
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		l.acked = max(l.acked, n)
	}
	return err
}

// same says whether an mblock reads as data.
func same(ctx context.Context, m api.Mblock, data []byte) error {
	got := make([]byte, len(data)+1)
	n, err := m.ReadAtContext(ctx, got, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if !bytes.Equal(got[:n], data) {
		return errors.New("other bytes than were written")
	}
	return nil
}

// has says whether a committed mblock reads as it should.
func (b *book) has(ctx context.Context, p api.Pool, id layout.ObjectID) error {
	b.mu.Lock()
	data := b.live[id]
	b.mu.Unlock()
	m, err := p.Mblock(ctx, id)
	if err != nil {
		return err
	}
	return errors.Join(same(ctx, m, data), m.Put())
}

// verify holds a pool against the book.
func (b *book) verify(r *rig, p *pool) {
	r.t.Helper()
	there := make(map[layout.ObjectID]bool)
	var used int64
	for info, err := range p.Objects(r.ctx, api.Filter{}) {
		r.ok(err)
		used += info.Used
		there[info.ID] = true
		_, live := b.live[info.ID]
		_, maybe := b.maybe[info.ID]
		_, log := b.logs[info.ID]
		if !live && !maybe && !log {
			r.t.Errorf("%v is there; its commit was refused or never asked for", info.ID)
		}
	}
	for id, data := range b.live {
		if err := b.has(r.ctx, p, id); err != nil {
			r.t.Errorf("%v of %d bytes, whose commit was acknowledged: %v", id, len(data), err)
		}
	}
	for id, data := range b.maybe {
		if !there[id] {
			continue
		}
		m, err := p.Mblock(r.ctx, id)
		r.ok(err)
		if err := errors.Join(same(r.ctx, m, data), m.Put()); err != nil {
			r.t.Errorf("%v, of unknown outcome, is there: %v", id, err)
		}
	}
	for id, l := range b.logs {
		l.verify(r, p, id)
	}
	info, err := p.Info(r.ctx)
	r.ok(err)
	s := info.Space
	total := int64(len(p.drives)) * driveBytes
	if s.Live != used || s.Uncommitted != 0 || s.Total != total ||
		s.Free+s.Live+s.Draining+s.Spare+s.Overhead+s.Remainder != total {
		r.t.Errorf("space does not add up: %+v; objects use %d", s, used)
	}
	if info.State != "active" || info.Health != "optimal" {
		r.t.Errorf("after a restart on sound drives the pool is %s and %s", info.State, info.Health)
	}
}

// verify reads a log: everything acknowledged, in order, and nothing that was
// not sent.
func (l *logBook) verify(r *rig, p *pool, id layout.ObjectID) {
	r.t.Helper()
	log, err := p.Mlog(r.ctx, id)
	r.ok(err)
	reader, err := log.OpenRead(r.ctx)
	r.ok(err)
	buf := make([]byte, 4096)
	n := 0
	for ; ; n++ {
		k, err := reader.Next(r.ctx, buf)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			r.t.Errorf("log %v, record %d of %d: %v", id, n, l.acked, err)
			break
		}
		if n >= len(l.sent) || !bytes.Equal(buf[:k], l.sent[n]) {
			r.t.Errorf("log %v: record %d is not what was appended", id, n)
			break
		}
	}
	if n < l.acked {
		r.t.Errorf("log %v has %d records; %d were acknowledged", id, n, l.acked)
	}
	r.ok(errors.Join(reader.Close(), log.Put()))
}
