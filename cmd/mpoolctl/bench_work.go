package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/mpool-go/mpool/api"
)

// benchObject is the most that a bench writes into one mblock, in bytes.
const benchObject = 32 << 20

// noise returns so many bytes that do not compress.
func noise(n int64) []byte {
	buf := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(buf) //nolint:errcheck // it never fails
	return buf
}

// alloc allocates an mblock.
func (b *bench) alloc(ctx context.Context, capacity int64) (api.Mblock, error) {
	return b.p.AllocMblock(ctx, api.AllocOptions{Capacity: capacity, Tag: benchTag})
}

// discard gives up an mblock that was not committed.
func discard(ctx context.Context, m api.Mblock, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeoutForCleanup)
	defer cancel()
	return errors.Join(err, m.Abort(ctx))
}

// store makes an mblock of data, committed.
func (b *bench) store(ctx context.Context, data []byte, capacity int64) (api.Mblock, error) {
	m, err := b.alloc(ctx, capacity)
	if err != nil {
		return nil, err
	}
	for at := int64(0); at < capacity && err == nil; at += int64(len(data)) {
		_, err = m.Write(ctx, data[:min(int64(len(data)), capacity-at)])
	}
	if err == nil {
		err = m.Commit(ctx)
	}
	if err != nil {
		return nil, discard(ctx, m, err)
	}
	return m, nil
}

// read reads from committed mblocks that it makes.
func (b *bench) read(ctx context.Context, c benchCase) (benchView, error) {
	budget, _, err := b.budget(ctx, c.size, max(1<<30, c.size))
	if err != nil {
		return benchView{}, err
	}
	each := min(budget, max(benchObject, c.size))
	each -= each % c.size
	data := noise(min(each, 1<<20) &^ 4095)
	if len(data) == 0 {
		data = noise(each)
	}
	var list []api.Mblock
	defer func() {
		for _, m := range list {
			_ = m.Put() //nolint:errcheck // fails only for a connection that is gone
		}
	}()
	for range max(budget/each, 1) {
		m, err := b.store(ctx, data, each)
		if err != nil {
			return benchView{}, err
		}
		list = append(list, m)
	}
	v, err := b.readFrom(ctx, c, list, each)
	v.DataBytes = each * int64(len(list))
	return v, err
}

// place is where a read begins.
type place struct {
	m   api.Mblock
	off int64
}

// places returns what gives a goroutine the place of its next read.
func places(c benchCase, list []api.Mblock, each int64) func(worker int) place {
	per := each / c.size
	at := func(n int64) place { return place{list[n/per], n % per * c.size} }
	if c.sequential {
		var next atomic.Int64
		return func(int) place { return at((next.Add(1) - 1) % (per * int64(len(list)))) }
	}
	rngs := make([]*rand.Rand, c.depth)
	for i := range rngs {
		rngs[i] = rand.New(rand.NewPCG(uint64(i), uint64(time.Now().UnixNano())))
	}
	return func(w int) place { return at(rngs[w].Int64N(per * int64(len(list)))) }
}

// readFrom reads from mblocks of each bytes.
func (b *bench) readFrom(ctx context.Context, c benchCase, list []api.Mblock, each int64) (benchView, error) {
	next := places(c, list, each)
	switch {
	case b.o.async:
		return b.readSubmitted(ctx, c, next)
	case b.o.zeroCopy:
		return b.readShared(ctx, c, next)
	}
	bufs := make([][]byte, c.depth)
	for i := range bufs {
		bufs[i] = make([]byte, c.size)
	}
	return b.repeat(ctx, c, func(w int) error {
		at := next(w)
		n, err := at.m.ReadAt(bufs[w], at.off)
		if errors.Is(err, io.EOF) && n == len(bufs[w]) {
			return nil
		}
		return err
	})
}

// writer is one goroutine's mblock that is being filled.
type writer struct {
	b        *bench
	m        api.Mblock // or nil
	at       int64      // how much of it is written
	capacity int64
}

// write writes into mblocks, which are committed when they are full, and then
// deleted.
func (b *bench) write(ctx context.Context, c benchCase) (benchView, error) {
	budget, _, err := b.budget(ctx, c.size*int64(c.depth), max(c.size, benchObject)*int64(c.depth))
	if err != nil {
		return benchView{}, err
	}
	capacity := min(budget/int64(c.depth), max(c.size, benchObject))
	capacity -= capacity % c.size
	writers := make([]*writer, c.depth)
	for i := range writers {
		writers[i] = &writer{b: b, capacity: capacity}
	}
	v, err := b.writeTo(ctx, c, writers)
	for _, w := range writers {
		if w.m != nil {
			err = errors.Join(err, discard(ctx, w.m, nil))
		}
	}
	v.DataBytes = capacity * int64(c.depth)
	return v, err
}

func (b *bench) writeTo(ctx context.Context, c benchCase, writers []*writer) (benchView, error) {
	switch {
	case b.o.async:
		return b.writeSubmitted(ctx, c, writers)
	case b.o.zeroCopy:
		return b.writeShared(ctx, c, writers)
	}
	data := noise(c.size)
	return b.repeat(ctx, c, func(w int) error { return writers[w].write(ctx, data) })
}

// write writes one piece.
func (w *writer) write(ctx context.Context, data []byte) error {
	if err := w.room(ctx, int64(len(data))); err != nil {
		return err
	}
	n, err := w.m.Write(ctx, data)
	w.at += int64(n)
	return err
}

// room makes room for so many bytes: a full mblock is replaced by another.
func (w *writer) room(ctx context.Context, size int64) (err error) {
	if w.m != nil && w.at+size > w.capacity {
		if err := w.m.Commit(ctx); err != nil {
			return err
		}
		m := w.m
		w.m = nil
		if err := m.Delete(ctx); err != nil {
			return errors.Join(err, m.Put())
		}
	}
	if w.m == nil {
		w.at = 0
		w.m, err = w.b.alloc(ctx, w.capacity)
	}
	return err
}

// benchLog is the most that a bench appends to a log, in bytes.
const benchLog = 1 << 30

// append appends to a log that it makes.
func (b *bench) append(ctx context.Context, c benchCase) (benchView, error) {
	budget, zone, err := b.budget(ctx, 0, benchLog)
	if err != nil {
		return benchView{}, err
	}
	if budget = max(budget, zone); budget < c.size*int64(c.depth) {
		return benchView{}, api.Errorf(api.ENOSPC, "", "%d records of %s do not fit into a log of %s: want a smaller --size or --depth, or another --data",
			c.depth, formatSize(c.size), formatSize(budget))
	}
	m, err := b.p.AllocMlog(ctx, api.AllocOptions{Capacity: budget, Tag: benchTag})
	if err != nil {
		return benchView{}, err
	}
	if err := m.Commit(ctx); err != nil {
		return benchView{}, errors.Join(err, m.Put())
	}
	v, err := b.appendTo(ctx, c, m)
	v.DataBytes = budget
	return v, errors.Join(err, m.Put())
}

func (b *bench) appendTo(ctx context.Context, c benchCase, m api.Mlog) (benchView, error) {
	log, err := m.OpenAppend(ctx)
	if err != nil {
		return benchView{}, err
	}
	run := b.appendBlocking
	if b.o.async {
		run = b.appendSubmitted
	}
	v, err := run(ctx, c, log)
	v.Durable = !b.o.noSync
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeoutForCleanup)
	defer cancel()
	return v, errors.Join(err, log.Close(closing))
}

func (b *bench) appendBlocking(ctx context.Context, c benchCase, log api.Appender) (benchView, error) {
	record := noise(c.size)
	return b.repeat(ctx, c, func(int) error {
		_, err := log.Append(ctx, record, !b.o.noSync)
		if errors.Is(err, api.EFBIG) {
			return errBenchEnd
		}
		return err
	})
}

// benchCommits is the most objects that a bench commits: deleting them takes
// time.
const benchCommits = 50_000

// commit stores mblocks until the time or the room is over.
func (b *bench) commit(ctx context.Context, c benchCase) (benchView, error) {
	info, err := b.p.Info(ctx)
	if err != nil {
		return benchView{}, err
	}
	whole := (c.size + info.ZoneSize - 1) / info.ZoneSize * info.ZoneSize
	budget, _, err := b.budget(ctx, whole*int64(c.depth), info.Space.Free)
	if err != nil {
		return benchView{}, err
	}
	most := min(budget/whole, benchCommits)
	data := noise(c.size)
	var begun atomic.Int64
	v, err := b.repeat(ctx, c, func(int) error {
		if begun.Add(1) > most {
			return errBenchEnd
		}
		m, err := b.store(ctx, data, c.size)
		if err != nil {
			return err
		}
		return m.Put()
	})
	v.DataBytes, v.Durable = most*whole, true
	if err == nil && v.Operations == 0 {
		err = fmt.Errorf("nothing was committed: %w", errBenchEnd)
	}
	return v, err
}
