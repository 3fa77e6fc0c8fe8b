package mlog

import (
	"context"

	"github.com/mpool-go/mpool/api"
)

// CompactStart begins a compaction: the other log is erased. From when it
// returns until the end, appends go to both logs; what was appended before must
// be written by CompactAppend as far as it still counts. A record that comes
// before the end mark may repeat what the log already says. ESTATE if a
// compaction is under way; errors of Format, Open and the erase.
func (m *MDC) CompactStart(ctx context.Context) error {
	const op = "mdc compact"
	m.mu.Lock()
	if err := m.usableLocked(op); err != nil {
		m.mu.Unlock()
		return err
	}
	if m.state != compactNone {
		m.mu.Unlock()
		return &api.Error{Code: api.ESTATE, Op: op, Object: m.c.A.ID, Detail: "a compaction is under way"}
	}
	m.state = compactBusy
	// Never a generation again, not that of a compaction that was given up
	// either: its pages are still there.
	m.highest++
	which, generation, spare := 1-m.active, m.highest, m.spare
	current, old := m.generation[which], m.generation[m.active]
	m.mu.Unlock()

	l, err := m.compactStart(ctx, spare, which, current, generation)
	if err == nil {
		_, err = l.mark(KindStart, old)
	}

	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = compactNone
	m.cond.Broadcast()
	if err != nil {
		if l != nil {
			m.spare = l
		}
		return err
	}
	m.spare = nil
	m.generation[which] = generation
	m.logs[which], m.doomed = l, nil
	m.state = compactWriting
	return nil
}

func (m *MDC) compactStart(ctx context.Context, spare *Log, which int, current, generation uint64) (*Log, error) {
	if spare != nil {
		// Its writes in flight would otherwise land in the new log.
		if err := spare.Abandon(ctx); err != nil {
			return nil, err
		}
	}
	c := m.config(which, generation)
	c.Since = c.Drive.Ticket() // nothing written before counts
	var err error
	if m.c.Erase != nil && !m.c.Discover {
		err = m.c.Erase(ctx, which, generation)
	} else {
		err = Format(ctx, c, current)
	}
	if err != nil {
		return nil, err
	}
	return Open(ctx, c)
}

// CompactAppend appends a record to the new log only. ESTATE without a
// compaction; after any other error but the context's, only CompactAbort is
// left.
func (m *MDC) CompactAppend(ctx context.Context, record ...[]byte) error {
	l, err := m.writing()
	if err != nil {
		return err
	}
	_, _, err = l.add(ctx, KindData, record, false)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.appending--; m.appending == 0 {
		m.cond.Broadcast()
	}
	if err != nil && ctx.Err() == nil && m.doomed == nil {
		m.doomed = err
	}
	return err
}

// CompactSync returns when everything in the new log is durable, so that the
// end has less to write. Errors as CompactAppend.
func (m *MDC) CompactSync(ctx context.Context) error {
	l, err := m.writing()
	if err != nil {
		return err
	}
	err = l.Sync(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.appending--; m.appending == 0 {
		m.cond.Broadcast()
	}
	return err
}

// writing returns the new log, and keeps the compaction from switching until
// the caller has taken itself off m.appending.
func (m *MDC) writing() (*Log, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usableLocked("mdc compact"); err != nil {
		return nil, err
	}
	if m.state != compactWriting {
		return nil, m.noCompactionLocked()
	}
	if m.doomed != nil {
		return nil, m.doomed
	}
	m.appending++
	return m.logs[1-m.active], nil
}

// +checklocks:m.mu
func (m *MDC) noCompactionLocked() error {
	return &api.Error{Code: api.ESTATE, Op: "mdc compact", Object: m.c.A.ID, Detail: "no compaction is under way"}
}

// CompactEnd makes the new log the active one. After an error the old one still
// is, and the compaction is over; but EUNKNOWN says that it is unknown which,
// because the context ended during the switch (which then goes on), or because
// the end mark could not be written (the container is poisoned). If the context
// ends before the switch, the compaction goes on, and CompactEnd may be called
// again.
func (m *MDC) CompactEnd(ctx context.Context) error {
	const op = "mdc compact"
	// Most of what is to be written is written while appends go on.
	if err := m.CompactSync(ctx); err != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		if ctx.Err() == nil && m.state == compactWriting {
			m.giveUpLocked()
		}
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state != compactWriting {
		return m.noCompactionLocked()
	}
	m.state = compactSwitch
	m.sched.Go("mlog switch", m.doSwitch) // ends with the switch; Close waits for it
	for m.state == compactSwitch {
		if err := m.cond.Wait(ctx); err != nil {
			return &api.Error{
				Code: api.EUNKNOWN, Op: op, Object: m.c.A.ID, Err: err,
				Detail: "the switch between the logs goes on; look at the container's usage to see its end",
			}
		}
	}
	return m.result
}

// doSwitch is the task that switches logs.
func (m *MDC) doSwitch() {
	ctx := context.Background()
	m.mu.Lock()
	for m.appending > 0 {
		if err := m.cond.Wait(ctx); err != nil {
			break // the context never ends
		}
	}
	from, to := m.logs[m.active], m.logs[1-m.active]
	err := m.doomed
	m.mu.Unlock()
	if err == nil {
		err = from.Sync(ctx)
	}
	var endAt uint64
	if err == nil {
		endAt, err = to.mark(KindEnd, from.Records())
	}
	if err != nil {
		m.mu.Lock()
		m.result = err
		m.giveUpLocked()
		m.mu.Unlock()
		return
	}
	if err = to.Sync(ctx); err != nil {
		m.poison(err)
		return
	}
	m.mu.Lock()
	m.logs[m.active] = nil
	m.active = 1 - m.active
	m.base, m.endAt = to.Records()-m.appended, endAt
	m.spare = from
	m.result = nil
	m.switches.Add(1)
	m.mu.Unlock()
	// Nothing of the old log is in flight: this frees its memory.
	err = from.Abandon(ctx)
	m.mu.Lock()
	if err == nil {
		m.spare = nil
	}
	m.state = compactNone
	m.cond.Broadcast()
	m.mu.Unlock()
}

// poison is the end of a switch whose end mark may or may not be durable.
func (m *MDC) poison(cause error) {
	err := &api.Error{
		Code: api.EUNKNOWN, Op: "mdc compact", Object: m.c.A.ID, Err: cause,
		Detail: "the end of the compaction could not be written: which log is the active one is unknown until the container is opened again",
	}
	m.mu.Lock()
	m.failed, m.result = cause, err
	m.mu.Unlock()
	if m.c.OnFailure != nil {
		m.c.OnFailure(cause)
	}
	m.mu.Lock()
	m.giveUpLocked()
	m.mu.Unlock()
}

// giveUpLocked ends a compaction; the active log stays. The new one may have a
// group in flight.
//
// +checklocks:m.mu
func (m *MDC) giveUpLocked() {
	which := 1 - m.active
	m.spare, m.logs[which] = m.logs[which], nil
	m.spare.stop()
	m.state = compactNone
	m.cond.Broadcast()
}

// CompactAbort gives the compaction up; the old content stays. ESTATE if none
// is under way; the context's error, and the compaction is over nevertheless.
func (m *MDC) CompactAbort(ctx context.Context) error {
	m.mu.Lock()
	if m.state != compactWriting {
		err := m.noCompactionLocked()
		m.mu.Unlock()
		return err
	}
	m.giveUpLocked()
	l := m.spare
	m.mu.Unlock()
	return l.Abandon(ctx)
}
