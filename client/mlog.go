package client

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
)

// mlog implements [api.Mlog].
type mlog struct{ object }

// Get implements [api.Object].
func (l *mlog) Get(ctx context.Context) (api.Object, error) {
	o, err := l.get(ctx)
	if err != nil {
		return nil, err
	}
	return o.mlog(), nil
}

// Commit implements [api.Object].
func (l *mlog) Commit(ctx context.Context) error { return l.commit(ctx) }

// OpenAppend implements [api.Mlog].
func (l *mlog) OpenAppend(ctx context.Context) (api.Appender, error) {
	const op = ioctl.OpMlogOpenAppend
	reply := &ioctl.AppenderOpened{}
	over := l.change()
	if err := l.ask(ctx, op, &ioctl.Target{Handle: l.h}, reply); err != nil {
		over(false)
		return nil, err
	}
	return &appender{
		handle:  handle{l: l.l, h: reply.Appender},
		over:    sync.OnceFunc(func() { over(true) }),
		records: reply.Records, bytes: reply.Bytes, acknowledged: reply.Records,
	}, nil
}

// OpenRead implements [api.Mlog].
func (l *mlog) OpenRead(ctx context.Context) (api.LogReader, error) {
	return openReader(ctx, &l.handle, ioctl.OpMlogOpenRead)
}

// Erase implements [api.Mlog].
func (l *mlog) Erase(ctx context.Context, minGeneration uint64) error {
	const op = ioctl.OpMlogErase
	defer l.change()(true)
	return l.ask(ctx, op, &ioctl.MlogErase{Mlog: l.h, MinGeneration: minGeneration}, &ioctl.Empty{})
}

// appender implements [api.Appender].
type appender struct {
	handle
	over func() // it changes the log no more

	mu sync.Mutex
	// +checklocks:mu
	records uint64
	// +checklocks:mu
	bytes int64
	// acknowledged is one above the highest number of a record that was in the
	// log at the opening or that was answered.
	//
	// +checklocks:mu
	acknowledged uint64
}

// Append implements [api.Appender].
func (a *appender) Append(ctx context.Context, record []byte, sync bool) (uint64, error) {
	reply := &ioctl.Appended{}
	if err := a.append(ctx, ioctl.OpAppend, record, sync, reply); err != nil {
		return 0, a.unknown(err)
	}
	a.answered(reply)
	return reply.Record, nil
}

// answered takes note of an append's answer. Answers may overtake each other.
func (a *appender) answered(m *ioctl.Appended) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.acknowledged = max(a.acknowledged, m.Record+1)
	a.records, a.bytes = max(a.records, m.Records), max(a.bytes, m.Bytes)
}

// unknown puts into an EUNKNOWN which records were acknowledged.
func (a *appender) unknown(err error) error {
	var e *api.Error
	if errors.As(err, &e) && e.Code == api.EUNKNOWN {
		a.mu.Lock()
		defer a.mu.Unlock()
		e.Records = a.acknowledged
	}
	return err
}

// append makes a request that carries a record.
func (h *handle) append(ctx context.Context, op ioctl.Op, record []byte, sync bool, reply ioctl.Message) error {
	if err := h.live(op); err != nil {
		return err
	}
	if len(record) > api.MaxRecord {
		return tooLong(op, len(record))
	}
	if r := h.l.ring(); r != nil && op != ioctl.OpMDCCompactAppend {
		if err := r.append(ctx, h, op, record, sync, reply); !errors.Is(err, errNoRegion) {
			return err
		}
	}
	m := &ioctl.AppendRecord{To: h.h, Sync: sync}
	return h.orStale(op, h.l.carry(ctx, op, m, record, &m.Data, reply))
}

func tooLong(op ioctl.Op, n int) error {
	return api.Errorf(api.EINVAL, op.Name(), "a record of %d bytes: at most %d", n, api.MaxRecord)
}

// Sync implements [api.Appender].
func (a *appender) Sync(ctx context.Context) error { return a.unknown(a.sync(ctx, ioctl.OpSync)) }

// sync makes a request that ends when all that was appended is durable.
func (h *handle) sync(ctx context.Context, op ioctl.Op) error {
	r := h.l.ring()
	if r == nil {
		return h.do(ctx, op)
	}
	if err := h.live(op); err != nil {
		return err
	}
	q := &request{Descriptor: ring.Descriptor{Op: uint16(op), Handle: uint64(h.h)}}
	return h.orStale(op, r.one(ctx, q, nil))
}

// Len implements [api.Appender].
func (a *appender) Len() (records uint64, bytes int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.records, a.bytes
}

// Close implements [api.Appender].
func (a *appender) Close(ctx context.Context) error {
	defer a.over()
	return a.unknown(a.closeLog(ctx))
}

// reader implements [api.LogReader].
type reader struct {
	handle
	next   uint64 // number of the next record
	rewind bool   // to be done with the next request
	large  int    // length of the last record if no message held it, or 0
}

func openReader(ctx context.Context, h *handle, op ioctl.Op) (api.LogReader, error) {
	reply := &ioctl.Opened{}
	if err := h.ask(ctx, op, &ioctl.Target{Handle: h.h}, reply); err != nil {
		return nil, err
	}
	return &reader{handle: handle{l: h.l, h: reply.Handle}}, nil
}

// Next implements [api.LogReader].
func (r *reader) Next(ctx context.Context, p []byte) (int, error) {
	if err := r.live(ioctl.OpReadNext); err != nil {
		return 0, err
	}
	// Most records fit into a message; a longer one is asked for again, and
	// the next one is expected to be as long.
	room := min(len(p), max(ioctl.MaxInline, r.large))
	for {
		n, err := r.nextInto(ctx, p[:room])
		var e *api.Error
		if errors.As(err, &e) && e.Code == api.EOVERFLOW && int64(room) < e.Want && e.Want <= int64(len(p)) {
			room = int(e.Want)
			continue
		}
		if err == nil {
			r.large = 0
			if n > ioctl.MaxInline {
				r.large = n
			}
		}
		return n, err
	}
}

// nextInto reads the next record into p, all of which the daemon may fill.
func (r *reader) nextInto(ctx context.Context, p []byte) (n int, err error) {
	const op = ioctl.OpReadNext
	m := &ioctl.ReadNext{Reader: r.h, Rewind: r.rewind, Into: ioctl.Window{Length: uint32(len(p))}}
	var hold *region
	if len(p) > ioctl.MaxInline {
		hold, err = r.l.region(ctx, op, len(p))
		if lostIn(err) != nil {
			return 0, stale(op)
		}
		if err != nil {
			return 0, err
		}
		defer hold.release()
		m.Into = hold.window(len(p))
	}
	reply := &ioctl.ReadNextReply{}
	err = r.exchange(ctx, op, m, reply, hold, func() { n = copy(p, reply.Data) })
	if errors.Is(err, api.EOVERFLOW) {
		r.rewind = false // it was done before
	}
	switch {
	case err != nil:
		return 0, err
	case int64(reply.N) > int64(len(p)) || hold == nil && n != int(reply.N):
		return 0, api.Errorf(api.EPROTO, op.Name(), "the daemon read %d bytes of %d asked for", reply.N, len(p))
	case hold != nil:
		n = copy(p, hold.mem[:reply.N])
	}
	r.rewind, r.next = false, reply.Next
	if reply.EOF {
		return 0, io.EOF
	}
	return n, nil
}

// Record implements [api.LogReader].
func (r *reader) Record() uint64 { return r.next }

// Seek implements [api.LogReader].
func (r *reader) Seek(ctx context.Context, record uint64) error {
	const op = ioctl.OpReadSeek
	err := r.ask(ctx, op, &ioctl.ReadSeek{Reader: r.h, Record: record, Rewind: r.rewind}, &ioctl.Empty{})
	if err == nil {
		r.rewind, r.next = false, record
	}
	return err
}

// Rewind implements [api.LogReader].
func (r *reader) Rewind() { r.rewind, r.next = true, 0 }

// Close implements [api.LogReader].
func (r *reader) Close() error { return r.close() }

// mdc implements [api.MDC].
type mdc struct{ handle }

// Append implements [api.MDC].
func (m *mdc) Append(ctx context.Context, record []byte, sync bool) error {
	return m.append(ctx, ioctl.OpMDCAppend, record, sync, &ioctl.Empty{})
}

// Sync implements [api.MDC].
func (m *mdc) Sync(ctx context.Context) error { return m.sync(ctx, ioctl.OpMDCSync) }

// OpenRead implements [api.MDC].
func (m *mdc) OpenRead(ctx context.Context) (api.LogReader, error) {
	return openReader(ctx, &m.handle, ioctl.OpMDCOpenRead)
}

// CompactStart implements [api.MDC].
func (m *mdc) CompactStart(ctx context.Context) error { return m.do(ctx, ioctl.OpMDCCompactStart) }

// CompactAppend implements [api.MDC].
func (m *mdc) CompactAppend(ctx context.Context, record []byte) error {
	return m.append(ctx, ioctl.OpMDCCompactAppend, record, false, &ioctl.Empty{})
}

// CompactEnd implements [api.MDC].
func (m *mdc) CompactEnd(ctx context.Context) error { return m.do(ctx, ioctl.OpMDCCompactEnd) }

// CompactAbort implements [api.MDC].
func (m *mdc) CompactAbort(ctx context.Context) error { return m.do(ctx, ioctl.OpMDCCompactAbort) }

// Usage implements [api.MDC]. When the daemon cannot be asked it returns zeros.
func (m *mdc) Usage() (used, capacity int64) {
	ctx, cancel := polite()
	defer cancel()
	reply := &ioctl.MDCUsage{}
	if m.ask(ctx, ioctl.OpMDCUsage, &ioctl.Target{Handle: m.h}, reply) != nil {
		return 0, 0
	}
	return reply.Used, reply.Capacity
}

// Close implements [api.MDC].
func (m *mdc) Close(ctx context.Context) error { return m.closeLog(ctx) }
