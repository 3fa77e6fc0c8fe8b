package mlog

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/sched"
)

// Bounds of what is appended and not yet durable, in bytes of full pages.
const (
	groupAt = 1 << 20 // a group starts by itself
	blockAt = 4 << 20 // appends wait for one to end
)

// Log is an open log. Any number of goroutines may append, sync and make
// readers; each log has at most one writer, and only while there is something to
// write: a task, or one of those who wait.
type Log struct {
	c      Config
	finals uint32      // final pages of the extent
	run    func()      // the writer task's body
	closed atomic.Bool // set with closing, for readers
	sure   uint64      // records that the log itself said were durable, when it was opened

	mu   sched.Mutex // held to copy records into page images, never across I/O
	idle sched.Cond  // a group or the writer has ended
	// +checklocks:mu
	pos place // where the next record goes
	// +checklocks:mu
	records uint64
	// +checklocks:mu
	bytes int64 // of records
	// +checklocks:mu
	appender uint64 // the process that appends: see AppendAs
	// +checklocks:mu
	images images

	// +checklocks:mu
	durable mark // what is durable
	// +checklocks:mu
	flight uint32 // pages below are durable or in the group in flight
	// +checklocks:mu
	want uint64 // records that shall become durable
	// +checklocks:mu
	waiters waiters
	// +checklocks:mu
	writing bool // there is a writer
	// +checklocks:mu
	owes bool // the next group's flush is to cover data, too
	// +checklocks:mu
	owed bdev.Ticket // of the oldest of that
	// +checklocks:mu
	dirty bool // appended to since the last clean close
	// +checklocks:mu
	unsaid bool // no page says yet that the last group with records was durable
	// +checklocks:mu
	say bool // a group shall say so
	// +checklocks:mu
	closing bool // no more appends and syncs
	// +checklocks:mu
	abandoned bool // and no more groups
	// +checklocks:mu
	failed error // why the log is poisoned
	// +checklocks:mu
	failedEnd uint64 // records below were in the group that failed
	// +checklocks:mu
	stats Stats
	// +checklocks:mu
	reading int // reads of the log's readers under way

	w writer // the writer's own
}

// mark is a position in the log.
type mark struct {
	pages   uint32 // full pages
	records uint64
	bytes   int64
}

// Stats counts what a log did since it was opened.
type Stats struct {
	Records uint64 // appended
	Bytes   uint64 // of those records
	Groups  uint64 // made durable; several logs' may share a flush
	Pages   uint64 // final pages written
}

// AppendAs says which process appends from now on; 0: none that readers are of. Who
// calls it sees to it that what was appended before is durable, or lost.
func (l *Log) AppendAs(process uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.appender = process
}

// Append appends a record, given in any number of pieces, and returns its
// number, counted from 0 within the log's generation. The record is in memory
// only; a crash may lose it, but never records before it and not it. It waits
// only while more than 4 MiB are unwritten. Errors: EINVAL (longer than
// MaxRecord); EFBIG (it does not fit; nothing was taken); EIO (the log is
// poisoned); EBADF (closed); ETIMEDOUT and ECANCELED (nothing was taken).
func (l *Log) Append(ctx context.Context, record ...[]byte) (number uint64, err error) {
	number, _, err = l.add(ctx, 0, record, false)
	return number, err
}

// AppendSync is Append and then SyncTo of the record. When the context ends
// after the record was taken, the error is EUNKNOWN and wraps the context's.
func (l *Log) AppendSync(ctx context.Context, record ...[]byte) (number uint64, err error) {
	number, w, err := l.add(ctx, 0, record, true)
	if err != nil {
		return 0, err
	}
	err = l.await(ctx, w)
	if err != nil && api.CodeOf(err) != api.EUNKNOWN && api.CodeOf(err) != api.EIO {
		err = &api.Error{
			Code: api.EUNKNOWN, Op: "mlog append", Object: l.c.ID, Err: err,
			Detail: "the record was taken, and whether it is durable is unknown",
		}
	}
	return number, err
}

// ErrWouldBlock is returned by the calls that begin something when they would
// have to wait: nothing was begun. The call that waits does the same.
var ErrWouldBlock = errors.New("the log takes no record without waiting")

// BeginAppend is Append without waiting, and with done AppendSync: done is called
// when the record is durable or the write that was to make it so has failed. It
// is called exactly once, by whichever task writes the log, with no lock held,
// possibly before BeginAppend has returned, and at the latest when Close or
// Abandon return without a context's error. It must not block: all who append to the
// log wait meanwhile, and with Config.Writers to any log of the drive. Those whose records one group made durable are told one right after
// another. Errors, after which nothing was taken and done is not called:
// ErrWouldBlock, and those of Append; done gets EUNKNOWN or EBADF (abandoned).
func (l *Log) BeginAppend(done func(error), record ...[]byte) (number uint64, err error) {
	number, full, err := l.try(0, record, false, nil, done)
	if full {
		err = ErrWouldBlock
	}
	return number, err
}

// add appends a record, with a byte before it unless kind is 0, and, with sync,
// makes a waiter for it.
func (l *Log) add(ctx context.Context, kind byte, record [][]byte, sync bool) (number uint64, w *waiter, err error) {
	size := recordSize(kind, record)
	l.mu.Lock()
	for {
		if err := l.admitLocked(size); err != nil {
			l.mu.Unlock()
			return 0, nil, err
		}
		if !l.fullLocked() {
			break
		}
		if err := l.waitRoomLocked(ctx); err != nil {
			l.mu.Unlock()
			return 0, nil, err
		}
	}
	number = l.putLocked(kind, record, size)
	if sync {
		w = l.joinLocked(ctx, l.records)
	}
	l.mu.Unlock()
	return number, w, nil
}

// try is add without waiting. It is full, and nothing was taken, when appends
// must wait for a group to end, unless it is forced. data, if not nil, is the
// ticket of what was written to the log's drive, has ended, and must be durable
// with the record: bdev.ErrFlushFailed, and nothing was taken, if it may be
// lost. done, if not nil, is called when the record is durable or will not be.
func (l *Log) try(kind byte, record [][]byte, force bool, data *bdev.Ticket, done func(error)) (number uint64, full bool, err error) {
	size := recordSize(kind, record)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.admitLocked(size); err != nil {
		return 0, false, err
	}
	if !force && l.fullLocked() {
		l.wantLocked(l.records) // so that there is room soon
		return 0, true, nil
	}
	if data != nil {
		if *data != l.c.Drive.Ticket() {
			return 0, false, bdev.ErrFlushFailed
		}
		if !l.owes {
			l.owes, l.owed = true, *data // later ones are no older
		}
	}
	number = l.putLocked(kind, record, size)
	if done != nil {
		l.callLocked(l.records, done)
	}
	return number, false, nil
}

// full says whether appends must wait for a group to end.
func (l *Log) full() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fullLocked()
}

// waitRoom waits until appends need not wait.
func (l *Log) waitRoom(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.fullLocked() && !l.closing {
		if err := l.waitRoomLocked(ctx); err != nil {
			return err
		}
	}
	return nil
}

func recordSize(kind byte, record [][]byte) int64 {
	size := int64(0)
	if kind != 0 {
		size = 1
	}
	for _, piece := range record {
		size += int64(len(piece))
	}
	return size
}

// admitLocked says why a record of that size cannot be appended, ever.
//
// +checklocks:l.mu
func (l *Log) admitLocked(size int64) error {
	const op = "mlog append"
	switch {
	case l.closing:
		return &api.Error{Code: api.EBADF, Op: op, Object: l.c.ID, Detail: "the log is closed"}
	case l.failed != nil:
		return l.failureLocked(op, l.records+1)
	case size > MaxRecord:
		e := api.Errorf(api.EINVAL, op, "a record of %d bytes; at most %d", size, MaxRecord)
		e.Object = l.c.ID
		return e
	case !l.pos.after(size).fits(l.finals):
		e := api.Errorf(api.EFBIG, op, "the log has no room for a record of %d bytes: erase or compact it", size)
		e.Object = l.c.ID
		return e
	}
	return nil
}

// fullLocked says whether appends must wait for a group to end.
//
// +checklocks:l.mu
func (l *Log) fullLocked() bool {
	return l.failed == nil && int64(l.pos.page-l.durable.pages)*PageSize >= blockAt
}

// waitRoomLocked waits for a group to end.
//
// +checklocks:l.mu
func (l *Log) waitRoomLocked(ctx context.Context) error {
	l.wantLocked(l.records)
	if err := l.idle.Wait(ctx); err != nil {
		e := api.ContextError("mlog append", err)
		e.Object = l.c.ID
		return e
	}
	return nil
}

// putLocked copies a record into page images. It fits.
//
// +checklocks:l.mu
func (l *Log) putLocked(kind byte, record [][]byte, size int64) (number uint64) {
	if l.pos.starts(size) != l.pos {
		l.closePageLocked()
	}
	src := pieces{kind: kind, rest: record}
	rest := int(size)
	for kindOf := FragmentFull; ; {
		img, info := l.imageLocked(rest)
		if l.pos.used == 0 {
			info.first = l.records
		}
		here := min(rest, PayloadSize-l.pos.used-FragmentHeader)
		rest -= here
		switch {
		case rest > 0 && kindOf == FragmentFull:
			kindOf = FragmentFirst
		case rest > 0:
			kindOf = FragmentMiddle
		case kindOf != FragmentFull:
			kindOf = FragmentLast
		}
		at := HeaderSize + l.pos.used
		putFragmentHeader(img[at:], kindOf, here, int(size))
		src.copyTo(img[at+FragmentHeader : at+FragmentHeader+here])
		l.pos.used += FragmentHeader + here
		if PayloadSize-l.pos.used < FragmentHeader {
			l.closePageLocked()
		}
		if rest == 0 {
			break
		}
	}
	number = l.records
	l.records++
	l.bytes += size
	l.dirty = true
	l.stats.Records++
	l.stats.Bytes += uint64(size)
	if int64(l.pos.page-l.flight)*PageSize >= groupAt {
		l.wantLocked(l.records)
	}
	return number
}

// imageLocked returns the image of the page that is being filled; rest is what
// remains to be written of a record.
//
// +checklocks:l.mu
func (l *Log) imageLocked(rest int) ([]byte, *pageInfo) {
	k := l.pos.page
	c := l.images.find(k)
	if c == nil {
		// A busy log, and a long record, get larger chunks.
		n := max(k-l.durable.pages, uint32(rest/dataPerPage), 1)
		c = l.images.grow(k, min(n, chunkMost, l.finals-k))
	}
	return c.image(k), &c.pages[k-c.base]
}

// closePageLocked makes the page that is being filled a full one.
//
// +checklocks:l.mu
func (l *Log) closePageLocked() {
	c := l.images.find(l.pos.page)
	c.pages[l.pos.page-c.base].used = uint16(l.pos.used)
	clear(c.image(l.pos.page)[HeaderSize+l.pos.used:])
	l.pos = place{page: l.pos.page + 1}
}

// pieces gives the bytes of a record one after another.
type pieces struct {
	kind byte // comes first, unless 0
	rest [][]byte
	cur  []byte
}

func (s *pieces) copyTo(dst []byte) {
	if s.kind != 0 && len(dst) > 0 {
		dst[0] = s.kind
		dst, s.kind = dst[1:], 0
	}
	for len(dst) > 0 {
		for len(s.cur) == 0 {
			s.cur, s.rest = s.rest[0], s.rest[1:]
		}
		n := copy(dst, s.cur)
		dst, s.cur = dst[n:], s.cur[n:]
	}
}

// failureLocked makes the error of somebody who needs records below n.
//
// +checklocks:l.mu
func (l *Log) failureLocked(op string, n uint64) error {
	e := l.c.ioError(op, l.failed)
	e.Detail = "an earlier write of the log failed: close it, and open it again to see what is there"
	if n <= l.failedEnd {
		e.Code, e.Detail = api.EUNKNOWN, "the write failed: whether the records are durable is unknown until the log is opened again"
	}
	return e
}
