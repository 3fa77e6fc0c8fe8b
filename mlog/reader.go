package mlog

import (
	"context"
	"io"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
)

// ReaderOptions are the options of a reader.
type ReaderOptions struct {
	Unsynced bool // see records that are not durable yet, too
	// Process, if not 0, is who reads: it sees those while it is who appends (see
	// Log.AppendAs).
	Process uint64
}

// Reader reads a log's records in order. Not safe for concurrent use. Close it
// to give its memory back.
type Reader struct {
	l        *Log
	unsynced bool
	process  uint64

	// The cursor: the record that is read next, and where it begins. at may be
	// the end of its page.
	record uint64
	page   uint32
	at     int

	seen   uint64 // records that the reader may read, as it last looked
	cur    readerPage
	stream stream
	copied []byte // the memory of a page copied from the log's images
	part   []byte // a record that View put together
}

// readerPage is the page that a reader has at hand.
type readerPage struct {
	valid   bool
	index   uint32
	first   uint64
	payload []byte
	image   bool // copied from the log's memory: it may have grown since
	// Of a page from the drive, for the check of the one behind it.
	crc          uint32
	epoch, group uint64
}

// NewReader returns a reader placed at the first record.
func (l *Log) NewReader(o ReaderOptions) *Reader {
	r := &Reader{l: l, unsynced: o.Unsynced, process: o.Process, stream: newStream(&l.c, 0, streamFirst)}
	r.stream.pin = l.pin
	return r
}

// Record returns the number of the record that is read next.
func (r *Reader) Record() uint64 { return r.record }

// Rewind places the reader at the first record.
func (r *Reader) Rewind() { r.place(0, 0, 0) }

func (r *Reader) place(record uint64, page uint32, at int) {
	r.record, r.page, r.at = record, page, at
}

// Close ends the reader.
func (r *Reader) Close() error {
	r.free()
	return nil
}

func (r *Reader) free() {
	r.stream.drop()
	bdev.FreeBuffer(r.copied)
	r.copied, r.part = nil, nil
	r.cur = readerPage{}
}

// Next reads the next record into p and returns its length. Errors: io.EOF at
// the end, where later calls find later records; EOVERFLOW with the size in
// Error.Want; ECORRUPT and EIO with the place; EBADF (the log was closed); the
// context's. After an error the reader stands where it stood.
func (r *Reader) Next(ctx context.Context, p []byte) (int, error) {
	f, err := r.peek(ctx)
	if err != nil {
		return 0, err
	}
	if int(f.Total) > len(p) {
		e := api.Errorf(api.EOVERFLOW, "mlog read", "a buffer of %d bytes for record %d of %d", len(p), r.record, f.Total)
		e.Object, e.Want = r.l.c.ID, int64(f.Total)
		return 0, e
	}
	b, err := r.take(ctx, p[:0], f)
	return len(b), err
}

// NextAppend appends the next record to buf. Errors as Next but EOVERFLOW; buf
// is then returned as it was.
func (r *Reader) NextAppend(ctx context.Context, buf []byte) ([]byte, error) {
	f, err := r.peek(ctx)
	if err != nil {
		return buf, err
	}
	return r.take(ctx, buf, f)
}

// View returns the next record in memory of the reader, which is valid until
// the next call. Errors as Next but EOVERFLOW.
func (r *Reader) View(ctx context.Context) ([]byte, error) {
	f, err := r.peek(ctx)
	if err != nil {
		return nil, err
	}
	if f.Type == FragmentFull {
		r.at += FragmentHeader + len(f.Data)
		r.record++
		return f.Data, nil
	}
	part, err := r.take(ctx, r.part[:0], f)
	if err != nil {
		return nil, err
	}
	r.part = part
	return part, nil
}

// peek returns the first fragment of the next record.
func (r *Reader) peek(ctx context.Context) (Fragment, error) {
	if r.record >= r.seen || r.l.closed.Load() {
		if err := r.look(); err != nil {
			return Fragment{}, err
		}
	}
	if !r.cur.valid || r.cur.index != r.page || len(r.cur.payload)-r.at < FragmentHeader {
		if err := r.settle(ctx); err != nil {
			return Fragment{}, err
		}
	}
	return fragmentAt(r.cur.payload, r.at), nil
}

// look asks the log how many records there are to read.
func (r *Reader) look() error {
	l := r.l
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		return &api.Error{Code: api.EBADF, Op: "mlog read", Object: l.c.ID, Detail: "the log was closed"}
	}
	r.seen = l.durable.records
	if r.unsynced || r.process != 0 && r.process == l.appender {
		r.seen = l.records
	}
	if r.record >= r.seen {
		return io.EOF
	}
	return nil
}

// settle brings the page to hand in which the next record begins.
func (r *Reader) settle(ctx context.Context) error {
	for {
		if err := r.load(ctx, r.page); err != nil {
			return err
		}
		if len(r.cur.payload)-r.at >= FragmentHeader {
			return nil
		}
		// The page is full: a record behind it is known to be there.
		if err := r.load(ctx, r.page+1); err != nil {
			return err
		}
		if err := r.begins(); err != nil {
			return err
		}
		r.page, r.at = r.page+1, 0
	}
}

// begins checks that the next record begins with the page at hand.
func (r *Reader) begins() error {
	if len(r.cur.payload) >= FragmentHeader {
		if f := fragmentAt(r.cur.payload, 0); r.cur.first == r.record && !f.continues() {
			return nil
		}
	}
	return r.broken(r.cur.index, pageErrorf("record %d does not begin here", r.record))
}

// take appends to buf the record that begins with f, and moves on.
func (r *Reader) take(ctx context.Context, buf []byte, f Fragment) ([]byte, error) {
	start := len(buf)
	page, at := r.page, r.at
	for {
		buf = append(buf, f.Data...)
		if !f.open() {
			break
		}
		page++
		if err := r.load(ctx, page); err != nil {
			return buf[:start], err
		}
		total := f.Total
		at = 0
		if len(r.cur.payload) < FragmentHeader || r.cur.first != r.record {
			return buf[:start], r.broken(page, pageErrorf("record %d does not go on here", r.record))
		}
		f = fragmentAt(r.cur.payload, 0)
		have := len(buf) - start + len(f.Data)
		if !f.continues() || f.Total != total || have > int(total) || (have == int(total)) != (f.Type == FragmentLast) {
			return buf[:start], r.broken(page, pageErrorf("record %d does not go on here", r.record))
		}
	}
	r.place(r.record+1, page, at+FragmentHeader+len(f.Data))
	return buf, nil
}

// load brings page k to hand, from the drive or from the log's memory.
func (r *Reader) load(ctx context.Context, k uint32) error {
	if r.cur.valid && r.cur.index == k && !r.cur.image {
		return nil
	}
	r.stream.limit = r.l.durablePages()
	if k >= r.stream.limit {
		ok, err := r.loadImage(k)
		if ok || err != nil {
			return err
		}
		r.stream.limit = r.l.durablePages() // it has become durable
	}
	before := r.cur
	r.cur.valid = false
	b, err := r.stream.page(ctx, k)
	if err != nil {
		return r.l.c.ioError("mlog read", err)
	}
	var p Page
	if err := p.decode(b, r.l.c.Birth); err != nil {
		return r.broken(k, err)
	}
	c := &r.l.c
	switch {
	case p.Tail(), p.Index != k, p.Generation != c.Generation, p.Epoch > c.Epoch:
		return r.broken(k, pageErrorf("page %d of generation %d", p.Index, p.Generation))
	case before.valid && !before.image && before.index+1 == k &&
		(p.Prev != before.crc || p.Epoch < before.epoch || p.Epoch == before.epoch && p.Group < before.group):
		return r.broken(k, pageErrorf("not the page that was written behind the one before it"))
	}
	r.cur = readerPage{
		valid: true, index: k, first: p.First, payload: p.Payload,
		crc: p.CRC, epoch: p.Epoch, group: p.Group,
	}
	return nil
}

// loadImage copies page k from the log's memory. It is false when the page is
// not there: it is durable and on the drive only.
func (r *Reader) loadImage(k uint32) (bool, error) {
	l := r.l
	if r.copied == nil {
		r.copied = bdev.AllocBuffer(PageSize)
	}
	r.cur.valid = false
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closing:
		return false, &api.Error{Code: api.EBADF, Op: "mlog read", Object: l.c.ID, Detail: "the log was closed"}
	case k < l.durable.pages:
		return false, nil
	}
	used := l.pos.used
	first := l.records
	if k < l.pos.page || used > 0 {
		c := l.images.find(k)
		if c == nil {
			panic("mlog: a page of the log is neither durable nor in memory")
		}
		first = c.pages[k-c.base].first
		if k < l.pos.page {
			used = int(c.pages[k-c.base].used)
		}
		copy(r.copied[:used], c.image(k)[HeaderSize:])
	}
	r.cur = readerPage{valid: true, index: k, first: first, payload: r.copied[:used], image: true}
	return true, nil
}

func (l *Log) durablePages() uint32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.durable.pages
}

// broken makes the error of a page that is not what was written.
func (r *Reader) broken(k uint32, cause error) error {
	r.cur.valid = false
	return r.l.c.corrupt("mlog read", offsetOf(r.l.c.Extent, k), "a page of the log is broken: restore the log from a copy", cause)
}
