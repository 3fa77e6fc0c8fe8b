package mlog

import (
	"context"
	"encoding/binary"
	"errors"
	"io"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/sched"
)

// OpenMDC opens a metadata container: its active log is that of the highest
// generation that has its end mark. Errors as Open; ECORRUPT also when neither
// log has one.
func OpenMDC(ctx context.Context, c MDCConfig) (*MDC, error) {
	const op = "mdc open"
	m := &MDC{c: c, sched: c.A.Sched}
	m.mu.Init(m.sched, sched.RankMDC)
	m.cond.Init(m.sched, &m.mu)
	m.generation = [2]uint64{c.A.Generation, c.B.Generation}
	if c.Discover {
		for i := range m.generation {
			g, err := Discover(ctx, c.log(i))
			if errors.Is(err, api.ENOENT) {
				// Both were formatted, and each erase keeps a tail: this log
				// has rotted, and may be the active one.
				err = &api.Error{
					Code: api.ECORRUPT, Op: op, Object: c.log(i).ID, Err: err,
					Device: c.log(i).Drive.Path(), Offset: c.log(i).Extent.Offset(),
					Detail: "no tail of one of the container's logs is left",
				}
			}
			if err != nil {
				return nil, err
			}
			m.generation[i] = g
		}
	}
	first := 0
	if m.generation[1] > m.generation[0] {
		first = 1
	}
	m.highest = m.generation[first]
	for _, i := range []int{first, 1 - first} {
		l, s, err := m.openLog(ctx, i, m.generation[i])
		if err != nil {
			return nil, err
		}
		if s.ended {
			m.active, m.logs[i] = i, l
			m.base, m.endAt = l.Records(), s.endAt
			return m, nil
		}
		// A compaction that did not end: the other log is as it was.
		if err := l.Abandon(ctx); err != nil {
			return nil, err
		}
		if c.Reset != nil && s.replayed {
			c.Reset()
		}
	}
	return nil, &api.Error{
		Code: api.ECORRUPT, Op: op, Object: c.A.ID, Device: c.A.Drive.Path(), Offset: c.A.Extent.Offset(),
		Detail: "neither log of the container has the end of a compaction: restore it from a copy",
	}
}

// Unsure calls f with each record, in order, of which nothing in the log says
// that it was durable before the container was opened: those of the last group,
// unless it was closed. What [MDC.AppendData] made of such a record may be a
// record without its data. The slice is valid until f returns. It is for
// whoever has opened the container, before anything is appended. Errors as
// Reader.View; that of f.
func (m *MDC) Unsure(ctx context.Context, f func(record []byte) error) error {
	m.mu.Lock()
	l := m.logs[m.active]
	m.mu.Unlock()
	if l.sure == l.Records() {
		return nil
	}
	r := l.NewReader(ReaderOptions{})
	defer r.free()
	if err := r.Seek(ctx, l.sure); err != nil {
		return err
	}
	for {
		b, err := r.View(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		kind, body, err := splitRecord(b)
		if err != nil {
			return r.broken(r.page, err)
		}
		if kind != KindData {
			continue
		}
		if err := f(body); err != nil {
			return err
		}
	}
}

// config returns the configuration of log i at a generation.
func (m *MDC) config(i int, generation uint64) Config {
	c := m.c.log(i)
	c.Generation = generation
	c.OnDurable = func(records uint64) { m.onDurable(i, records) }
	c.OnFailure = func(err error) { m.onFailure(i, err) }
	c.Replay, c.Expect = nil, m.c.Expect
	return c
}

// scan looks at the marks of a log while it is opened.
type scan struct {
	ended    bool
	endAt    uint64
	replayed bool
}

// openLog opens log i at a generation and looks for its marks.
func (m *MDC) openLog(ctx context.Context, i int, generation uint64) (*Log, scan, error) {
	var s scan
	c := m.config(i, generation)
	c.Replay = func(number uint64, record []byte) error {
		kind, body, err := splitRecord(record)
		switch {
		case err != nil:
		case (number == 0) != (kind == KindStart), kind == KindEnd && s.ended:
			err = pageErrorf("mark of kind %d", kind)
		case kind == KindEnd:
			s.ended, s.endAt = true, number
		case kind == KindData && m.c.Replay != nil:
			s.replayed = true
			return m.c.Replay(body)
		}
		if err != nil {
			return &api.Error{
				Code: api.ECORRUPT, Op: "mdc open", Object: c.ID, Device: c.Drive.Path(), Offset: c.Extent.Offset(),
				Detail: "a record is not one of a metadata container", Err: err,
			}
		}
		return nil
	}
	l, err := Open(ctx, c)
	return l, s, err
}

// splitRecord takes a record of a container's log apart.
func splitRecord(record []byte) (kind byte, body []byte, err error) {
	if len(record) == 0 {
		return 0, nil, pageErrorf("a record without a kind")
	}
	kind, body = record[0], record[1:]
	switch kind {
	case KindData:
	case KindStart, KindEnd:
		if len(body) != markSize {
			return 0, nil, pageErrorf("a mark of %d bytes", len(body))
		}
	default:
		return 0, nil, pageErrorf("a record of kind %d", kind)
	}
	return kind, body, nil
}

// MarkValue returns what a start or end mark says: see [KindStart], [KindEnd].
// body is the record without its kind.
func MarkValue(body []byte) uint64 { return binary.LittleEndian.Uint64(body) }
