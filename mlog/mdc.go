package mlog

import (
	"context"
	"sync/atomic"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/sched"
)

// The kinds of record in a log of a metadata container: its first byte.
const (
	KindData  = 1 // the user's
	KindStart = 2 // of a compaction: uint64, the generation of the log it replaces
	KindEnd   = 3 // of a compaction: uint64, how many records that log had; from here on this log is the active one

	markSize = 8 // of a mark, behind the kind
)

// MDCConfig says which metadata container, and where it is.
type MDCConfig struct {
	// A and B are its logs. Their OnDurable, OnFailure, Replay and Expect are
	// not used.
	A, B Config
	// Discover says that nobody records the logs' generations: opening finds
	// them on the drives, and an erase is no more than a Format.
	Discover bool
	// Erase, without Discover, erases log A (0) or B (1): it formats the log
	// at the generation and records that.
	Erase func(ctx context.Context, log int, generation uint64) error

	// OnDurable, if set, is called when records with sequence numbers below seq
	// are durable, before anybody who waits for them is told; calls come one
	// after another, with rising numbers and no lock held.
	OnDurable func(seq uint64)
	// OnFailure, if set, is called when the container is poisoned.
	OnFailure func(error)

	// Replay, if set, is called by OpenMDC with each record, in order; the
	// slice is valid until it returns.
	Replay func(record []byte) error
	// Expect, if set, is called by OpenMDC before Replay is, each time: about so
	// many bytes of records will come at most.
	Expect func(bytes int64)
	// Reset undoes all calls of Replay so far: they were records of a
	// compaction that did not end. Needed with Replay.
	Reset func()
}

func (c *MDCConfig) log(i int) Config {
	if i == 0 {
		return c.A
	}
	return c.B
}

// compaction is what a container's compaction is doing.
type compaction uint8

const (
	compactNone    compaction = iota
	compactBusy               // starting or being given up: its task holds it
	compactWriting            // between start and end
	compactSwitch             // appends wait
)

// MDC is an open metadata container. Any number of goroutines may append, sync
// and make readers; compactions are one at a time.
type MDC struct {
	c     MDCConfig
	sched *sched.Sched
	// switches counts the switches from log to log: readers compare it.
	switches atomic.Uint64

	mu   sched.Mutex // held to append to both logs, never across I/O
	cond sched.Cond  // state or appending has changed
	// +checklocks:mu
	active int
	// +checklocks:mu
	logs [2]*Log // the active one, and the new one while a compaction writes
	// +checklocks:mu
	spare *Log // a log that was given up; its last group may be in flight
	// +checklocks:mu
	base uint64 // sequence number of a record of the active log + base = its number there, mod 2^64
	// +checklocks:mu
	endAt uint64 // number of the active log's end mark
	// +checklocks:mu
	appended uint64 // records appended since the container was opened
	// +checklocks:mu
	generation [2]uint64 // of the logs
	// +checklocks:mu
	highest uint64 // generation that was ever tried
	// +checklocks:mu
	state compaction
	// +checklocks:mu
	appending int // CompactAppend calls under way
	// +checklocks:mu
	doomed error // why the compaction cannot end well
	// +checklocks:mu
	result error // of the last switch
	// +checklocks:mu
	failed error // poisoned: it is unknown which log is the active one
	// +checklocks:mu
	closing bool
}

// CreateMDC formats both logs, A with empty content, B without: at their
// generations or, with c.Discover, at 1 and 0. When it returns nil that is
// durable.
func CreateMDC(ctx context.Context, c MDCConfig) error {
	a, b := c.A, c.B
	if c.Discover {
		a.Generation, b.Generation = 1, 0
	}
	for _, l := range []*Config{&a, &b} {
		l.OnDurable, l.OnFailure, l.Replay, l.Expect = nil, nil, nil, nil
		if err := Format(ctx, *l, 0); err != nil {
			return err
		}
	}
	l, err := Open(ctx, a)
	if err != nil {
		return err
	}
	for _, kind := range []byte{KindStart, KindEnd} {
		if _, err := l.mark(kind, 0); err != nil {
			_ = l.Abandon(ctx) //nolint:errcheck // the first error counts
			return err
		}
	}
	return l.Close(ctx)
}

// mark appends a mark.
func (l *Log) mark(kind byte, v uint64) (uint64, error) {
	var b [markSize]byte
	for i := range b {
		b[i] = byte(v >> (8 * i))
	}
	n, _, err := l.try(kind, [][]byte{b[:]}, true, nil, nil)
	return n, err
}

// Append appends a record, given in any number of pieces, and returns its
// sequence number: it counts from 0 since the container was opened and goes on
// across compactions. The record is in memory only until it is synced. While a
// compaction switches logs, appends wait. Errors as Log.Append; EFBIG: compact.
func (m *MDC) Append(ctx context.Context, record ...[]byte) (seq uint64, err error) {
	return m.append(ctx, nil, record)
}

// AppendData is Append of a record that tells of data which was written to the
// container's drive under a ticket, has ended, and need not be durable yet: when
// the record is durable, so is the data. Until then a crash may leave the record
// without the data: see [MDC.Unsure]. Errors as Append; and bdev.ErrFlushFailed:
// a flush has failed since the ticket, and nothing was taken. One that fails
// later fails the record.
func (m *MDC) AppendData(ctx context.Context, data bdev.Ticket, record ...[]byte) (seq uint64, err error) {
	return m.append(ctx, &data, record)
}

func (m *MDC) append(ctx context.Context, data *bdev.Ticket, record [][]byte) (seq uint64, err error) {
	m.mu.Lock()
	for {
		for m.state == compactSwitch && !m.closing {
			if err := m.cond.Wait(ctx); err != nil {
				m.mu.Unlock()
				return 0, api.ContextError(opMDCAppend, err)
			}
		}
		seq, full, err := m.tryLocked(record, data, nil)
		m.mu.Unlock()
		if full == nil {
			return seq, err
		}
		if err := full.waitRoom(ctx); err != nil {
			return 0, err
		}
		m.mu.Lock()
	}
}

const opMDCAppend = "mdc append"

// BeginAppend is Append without waiting, as [Log.BeginAppend] is: done, if not
// nil, is called when the record is durable or will not be.
func (m *MDC) BeginAppend(done func(error), record ...[]byte) (seq uint64, err error) {
	return m.begin(nil, done, record)
}

// BeginAppendData is AppendData without waiting: ErrWouldBlock, and nothing was
// taken, if it would have to. It tells nobody of the end; see [MDC.BeginSyncTo].
func (m *MDC) BeginAppendData(data bdev.Ticket, record ...[]byte) (seq uint64, err error) {
	return m.begin(&data, nil, record)
}

func (m *MDC) begin(data *bdev.Ticket, done func(error), record [][]byte) (seq uint64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state == compactSwitch && !m.closing {
		return 0, ErrWouldBlock
	}
	seq, full, err := m.tryLocked(record, data, done)
	if full != nil {
		err = ErrWouldBlock
	}
	return seq, err
}

// tryLocked appends a record to the active log and, while a compaction writes, to
// the new one too. If one of them has no room just now, it returns that.
//
// +checklocks:m.mu
func (m *MDC) tryLocked(record [][]byte, data *bdev.Ticket, done func(error)) (seq uint64, full *Log, err error) {
	if err := m.usableLocked(opMDCAppend); err != nil {
		return 0, nil, err
	}
	l, other := m.logs[m.active], m.newLocked()
	if other != nil && other.full() {
		return 0, other, nil
	}
	n, wait, err := l.try(KindData, record, false, data, done)
	switch {
	case err != nil:
		return 0, nil, err
	case wait:
		return 0, l, nil
	}
	seq = n - m.base
	m.appended = seq + 1
	if other != nil {
		if _, _, err := other.try(KindData, record, true, data, nil); err != nil {
			m.doomed = err
		}
	}
	return seq, nil, nil
}

// usableLocked says why nothing can be appended.
//
// +checklocks:m.mu
func (m *MDC) usableLocked(op string) error {
	switch {
	case m.closing:
		return &api.Error{Code: api.EBADF, Op: op, Object: m.c.A.ID, Detail: "the container is closed"}
	case m.failed != nil:
		return &api.Error{
			Code: api.EIO, Op: op, Object: m.c.A.ID, Err: m.failed,
			Detail: "a compaction's end could not be written: close the container, and open it again to see what is there",
		}
	}
	return nil
}

// newLocked returns the log that a compaction writes, or nil.
//
// +checklocks:m.mu
func (m *MDC) newLocked() *Log {
	if m.state != compactWriting || m.doomed != nil {
		return nil
	}
	return m.logs[1-m.active]
}

// Sync returns when every record appended before the call is durable. Errors as
// Log.Sync.
func (m *MDC) Sync(ctx context.Context) error { return m.SyncTo(ctx, ^uint64(0)) }

// SyncTo returns when all records with sequence numbers below seq are durable;
// those that were not appended before the call do not count.
func (m *MDC) SyncTo(ctx context.Context, seq uint64) error {
	l, n := m.upTo(seq)
	return l.SyncTo(ctx, n)
}

// Confirm is Log.Confirm of the active log.
func (m *MDC) Confirm() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.logs[m.active].Confirm()
}

// BeginSync is Sync without waiting, as [Log.BeginSync] is.
func (m *MDC) BeginSync(done func(error)) error { return m.BeginSyncTo(^uint64(0), done) }

// BeginSyncTo is SyncTo without waiting, as [Log.BeginSyncTo] is.
func (m *MDC) BeginSyncTo(seq uint64, done func(error)) error {
	l, n := m.upTo(seq)
	return l.BeginSyncTo(n, done)
}

// upTo returns the active log and how many of its records a sync of those below
// seq is of. After a switch the old log still says rightly that they are durable.
func (m *MDC) upTo(seq uint64) (*Log, uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.logs[m.active], min(seq, m.appended) + m.base
}

// Usage returns the payload bytes that are used of the active log, and that it
// has. See [Cost].
func (m *MDC) Usage() (used, capacity int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.logs[m.active]
	return l.Used(), l.Capacity()
}

// Generation returns the active log, A (0) or B (1), and its generation.
func (m *MDC) Generation() (log int, generation uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.active, m.generation[m.active]
}

// Stats returns the active log's counters.
func (m *MDC) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.logs[m.active].Stats()
}

// onDurable is called by the writer of log i.
func (m *MDC) onDurable(i int, records uint64) {
	if m.c.OnDurable == nil {
		return
	}
	m.mu.Lock()
	seq := records - m.base
	mine := i == m.active && int64(seq) > 0
	m.mu.Unlock()
	if mine {
		m.c.OnDurable(seq)
	}
}

// onFailure is called by the writer of log i.
func (m *MDC) onFailure(i int, err error) {
	m.mu.Lock()
	mine := i == m.active
	if !mine && m.doomed == nil {
		m.doomed = err
	}
	m.mu.Unlock()
	if mine && m.c.OnFailure != nil {
		m.c.OnFailure(err)
	}
}

// Close gives up a compaction under way, syncs and closes. Errors as Log.Close.
func (m *MDC) Close(ctx context.Context) error {
	const op = "mdc close"
	m.mu.Lock()
	if m.closing {
		m.mu.Unlock()
		return &api.Error{Code: api.EBADF, Op: op, Object: m.c.A.ID, Detail: "the container is closed already"}
	}
	m.closing = true
	m.cond.Broadcast()
	for m.state == compactBusy || m.state == compactSwitch {
		if err := m.cond.Wait(ctx); err != nil {
			m.mu.Unlock()
			return api.ContextError(op, err)
		}
	}
	if m.state == compactWriting {
		m.giveUpLocked()
	}
	l, spare := m.logs[m.active], m.spare
	m.mu.Unlock()
	if spare != nil {
		if err := spare.Abandon(ctx); err != nil {
			return err
		}
	}
	return l.Close(ctx)
}

// Abandon closes without sync; groups in flight are waited for. It is for a
// container that is poisoned.
func (m *MDC) Abandon() error {
	ctx := context.Background()
	m.mu.Lock()
	m.closing = true
	m.cond.Broadcast()
	for m.state == compactBusy || m.state == compactSwitch {
		if err := m.cond.Wait(ctx); err != nil {
			m.mu.Unlock()
			return err
		}
	}
	if m.state == compactWriting {
		m.giveUpLocked()
	}
	logs := [...]*Log{m.logs[m.active], m.spare}
	m.mu.Unlock()
	for _, l := range logs {
		if l != nil {
			if err := l.Abandon(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}
