package mlog

import (
	"context"

	"github.com/mpool-go/mpool/api"
)

// MDCReader reads the records of a container's active log in order. After a
// compaction every call gets ESTALE until Rewind. Not safe for concurrent use.
type MDCReader struct {
	m        *MDC
	o        ReaderOptions
	r        *Reader
	switches uint64
	endAt    uint64
}

// NewReader returns a reader placed at the first record.
func (m *MDC) NewReader(o ReaderOptions) *MDCReader {
	r := &MDCReader{m: m, o: o}
	r.Rewind()
	return r
}

// Rewind places the reader at the first record of the active log.
func (r *MDCReader) Rewind() {
	m := r.m
	m.mu.Lock()
	l := m.logs[m.active]
	switches, endAt := m.switches.Load(), m.endAt
	m.mu.Unlock()
	if r.r != nil && r.switches == switches {
		r.r.Rewind()
		return
	}
	r.close()
	r.r, r.switches, r.endAt = l.NewReader(r.o), switches, endAt
}

func (r *MDCReader) close() {
	if r.r != nil {
		r.r.free()
	}
}

// Close ends the reader.
func (r *MDCReader) Close() error {
	r.close()
	return nil
}

// Record returns the number of the record that is read next, counted from 0
// within the active log.
func (r *MDCReader) Record() uint64 {
	n := r.r.Record()
	switch {
	case n > r.endAt:
		return n - 2
	case n > 0:
		return n - 1
	}
	return 0
}

// Seek places the reader before a record. Errors as Reader.Seek.
func (r *MDCReader) Seek(ctx context.Context, record uint64) error {
	if err := r.stale(nil); err != nil {
		return err
	}
	// Behind the start mark. No log has records near the highest number.
	n := min(record, 1<<64-3) + 1
	if n >= r.endAt {
		n++
	}
	return r.stale(r.r.Seek(ctx, n))
}

// stale returns ESTALE after a switch, else err.
func (r *MDCReader) stale(err error) error {
	if r.m.switches.Load() == r.switches {
		return err
	}
	return &api.Error{Code: api.ESTALE, Op: "mdc read", Object: r.m.c.A.ID, Detail: "the container was compacted: rewind"}
}

// View returns the next record in memory of the reader, which is valid until
// the next call. Errors as Reader.View; ESTALE.
func (r *MDCReader) View(ctx context.Context) ([]byte, error) {
	if err := r.stale(nil); err != nil {
		return nil, err
	}
	for {
		b, err := r.r.View(ctx)
		if err != nil {
			return nil, r.stale(err)
		}
		kind, body, err := splitRecord(b)
		if err != nil {
			return nil, r.stale(r.r.broken(r.r.page, err))
		}
		if kind == KindData {
			return body, nil
		}
	}
}

// NextAppend appends the next record to buf. Errors as View.
func (r *MDCReader) NextAppend(ctx context.Context, buf []byte) ([]byte, error) {
	b, err := r.View(ctx)
	return append(buf, b...), err
}

// Next reads the next record into p and returns its length. Errors as View;
// EOVERFLOW with the size in Error.Want, and the reader stands where it stood.
func (r *MDCReader) Next(ctx context.Context, p []byte) (int, error) {
	record, page, at := r.r.record, r.r.page, r.r.at
	b, err := r.View(ctx)
	if err != nil {
		return 0, err
	}
	if len(b) > len(p) {
		r.r.place(record, page, at)
		e := api.Errorf(api.EOVERFLOW, "mdc read", "a buffer of %d bytes for a record of %d", len(p), len(b))
		e.Object, e.Want = r.m.c.A.ID, int64(len(b))
		return 0, e
	}
	return copy(p, b), nil
}
