package mlog

import (
	"context"

	"github.com/mpool-go/mpool/sched"
)

// Open opens a log and finds its end. It writes nothing, but flushes, so that
// what it found stays. When a flush of the drive has failed (see Config.Since)
// it refuses with EIO: what can be read may be lost with the power. Errors: EINVAL; ECORRUPT, with the place; ESTALE (a later
// activation of the pool has written to the log); EIO; the context's; that of
// c.Replay.
func Open(ctx context.Context, c Config) (*Log, error) {
	const op = "mlog open"
	if err := c.validate(op); err != nil {
		return nil, err
	}
	s, err := readSlots(ctx, &c)
	if err != nil {
		return nil, c.ioError(op, err)
	}
	defer s.free()
	list := s.of(c.Generation)
	if len(list) == 0 {
		return nil, c.corrupt(op, c.Extent.Offset(), "no tail of the log is left: restore it from a copy, or erase it", s.why(c.Generation))
	}
	r := newRecovery(&c, list, chain{generation: c.Generation})
	defer r.stream.end(ctx)
	r.replay = c.Replay
	if c.Expect != nil {
		c.Expect((int64(list[0].page.Index) + 1) * PayloadSize)
	}
	t, err := r.run(ctx)
	if err != nil {
		return nil, err
	}
	// What was found may be in the drive's cache only, left by a process that
	// died. From here on it counts as durable.
	if err := c.Drive.Flush(ctx, c.Since); err != nil {
		return nil, c.ioError(op, err)
	}
	return newLog(c, r, t), nil
}

// run walks the log and chooses its end.
func (r *recovery) run(ctx context.Context) (*tail, error) {
	if err := r.fenced(); err != nil {
		return nil, err
	}
	if err := r.walk(ctx); err != nil {
		if r.replayFailed {
			return nil, err
		}
		return nil, r.c.ioError("mlog open", err)
	}
	if err := r.fenced(); err != nil {
		return nil, err
	}
	t, err := r.end()
	if err != nil {
		return nil, err
	}
	if unreadable(r.broken) {
		// A torn write may have left the page so. A drive that is failing just
		// now may, too: then its tail cannot be read either.
		if err := r.c.probe(ctx, t.slot.pair); err != nil {
			return nil, r.c.ioError("mlog open", err)
		}
	}
	if r.replay != nil {
		if err := r.replayRest(ctx, t); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// newLog makes the open log that ends with t.
func newLog(c Config, r *recovery, t *tail) *Log {
	p := &t.slot.page
	l := &Log{c: c, finals: finalPages(c.Extent.Blocks)}
	l.mu.Init(c.Sched, sched.RankLog)
	l.idle.Init(c.Sched, &l.mu)
	l.run = l.write
	l.pos = place{page: p.Index, used: int(p.Used)}
	l.records = p.First + uint64(p.Fragments)
	l.sure = r.surely(t)
	l.unsaid = l.sure < l.records
	l.bytes = t.bytes + int64(p.Bytes)
	l.durable = mark{pages: p.Index, records: l.records, bytes: l.bytes}
	l.flight = p.Index
	l.want = l.records
	l.dirty = false
	if p.Used > 0 {
		tail := l.images.grow(p.Index, 1)
		tail.pages[0].first = p.First
		copy(tail.buf[HeaderSize:], p.Payload)
	}
	l.w = writer{group: r.group, durable: p.Group, prev: p.Prev, pair: 1 - t.slot.pair}
	return l
}
