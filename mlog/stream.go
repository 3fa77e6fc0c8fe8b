package mlog

import (
	"context"
	"errors"
	"sync/atomic"
	"syscall"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/sched"
)

// Window sizes of a stream, in pages.
const (
	streamFirst = 16  // after a jump
	streamMost  = 256 // 1 MiB
)

// stream reads final pages of an extent: in windows that grow, and one window
// ahead of a reader that goes on in order. One task uses it. close ends it.
type stream struct {
	sched  *sched.Sched
	drive  *bdev.Drive
	extent layout.Extent
	pin    func(n int) // told of reads that begin (1) and end (-1), or nil
	limit  uint32      // pages from here on are not read
	size   uint32      // of the next window; starts at streamFirst or streamMost

	cur, ahead *window
}

// window is a run of pages that are read at once. The task that reads it and
// the stream that wants it both hold it; state says who frees its memory.
type window struct {
	from, pages uint32
	buf         []byte
	err         error // after done
	done        sched.Completion
	state       atomic.Uint32
}

// The states of a window.
const (
	windowReading uint32 = iota
	windowRead           // the stream frees it
	windowDropped        // the reading task frees it
)

func newStream(c *Config, limit, size uint32) stream {
	return stream{sched: c.Sched, drive: c.Drive, extent: c.Extent, limit: limit, size: size}
}

// page returns final page k as it is on the drive. The bytes are valid until
// the next call. k must be below limit. An error is the context's, or the
// drive's: see unreadable.
func (s *stream) page(ctx context.Context, k uint32) ([]byte, error) {
	switch {
	case s.cur.has(k):
	case s.ahead.has(k):
		s.cur.drop()
		s.cur, s.ahead = s.ahead, nil
		s.readAhead()
	case s.cur != nil && k == s.cur.from+s.cur.pages:
		// In order from one window to the next.
		s.drop()
		s.cur = s.read(k)
		s.readAhead()
	default:
		first := s.cur == nil
		s.drop()
		if !first {
			s.size = streamFirst
		}
		s.cur = s.read(k)
		if s.size == streamMost {
			s.readAhead()
		}
	}
	w := s.cur
	if err := w.done.Wait(ctx); err != nil {
		return nil, err
	}
	if w.err == nil {
		at := int(k-w.from) * PageSize
		return w.buf[at : at+PageSize : at+PageSize], nil
	}
	if !unreadable(w.err) {
		return nil, w.err
	}
	return s.single(ctx, k)
}

// single reads page k alone, after its window could not be read: a bad page
// must not hide its neighbours. A failure is tried once more.
func (s *stream) single(ctx context.Context, k uint32) ([]byte, error) {
	for try := 0; ; try++ {
		s.drop()
		s.size = 1
		s.cur = s.read(k)
		if err := s.cur.done.Wait(ctx); err != nil {
			return nil, err
		}
		err := s.cur.err
		if err == nil {
			return s.cur.buf, nil
		}
		if try == 1 || !unreadable(err) {
			s.drop()
			return nil, err
		}
	}
}

// read starts reading a window at page k.
func (s *stream) read(k uint32) *window {
	w := &window{from: k, pages: min(s.size, s.limit-k)}
	s.size = min(s.size*4, streamMost)
	w.buf = bdev.AllocBuffer(int(w.pages) * PageSize)
	w.done.Init(s.sched)
	drive, offset, pin := s.drive, offsetOf(s.extent, k), s.pin
	if pin != nil {
		pin(1)
	}
	// The task ends with the read. It owns the memory if the stream drops the
	// window first.
	s.sched.Go("mlog read", func() {
		w.err = readAt(context.Background(), drive, w.buf, offset, nil)
		if pin != nil {
			pin(-1)
		}
		if !w.state.CompareAndSwap(windowReading, windowRead) {
			bdev.FreeBuffer(w.buf)
			return
		}
		w.done.Done()
	})
	return w
}

// readAhead starts reading the window behind the current one.
func (s *stream) readAhead() {
	if next := s.cur.from + s.cur.pages; next < s.limit && s.ahead == nil {
		s.ahead = s.read(next)
	}
}

// drop gives the windows up.
func (s *stream) drop() {
	s.cur.drop()
	s.ahead.drop()
	s.cur, s.ahead = nil, nil
}

// end is drop, and waits for the reads under way or the end of the context.
func (s *stream) end(ctx context.Context) {
	for _, w := range []*window{s.cur, s.ahead} {
		if w != nil && w.done.Wait(ctx) != nil {
			break // the task that reads frees the memory
		}
	}
	s.drop()
}

func (w *window) has(k uint32) bool { return w != nil && k >= w.from && k-w.from < w.pages }

func (w *window) drop() {
	if w != nil && !w.state.CompareAndSwap(windowReading, windowDropped) {
		bdev.FreeBuffer(w.buf)
	}
}

// readAt reads len(p) bytes from a drive. If the context ends first (the error
// is then bdev.ErrDetached), release is called when the drive has done with p.
func readAt(ctx context.Context, d *bdev.Drive, p []byte, offset int64, release func()) error {
	b := bdev.Batch{Ops: []*bdev.Op{{Code: bdev.OpRead, Offset: offset, Buf: p}}, Detached: release}
	return d.Run(ctx, &b)
}

// unreadable says whether an error of a read is the medium's at that place:
// such a page is no valid page, for a torn write may leave one so. Anything
// else, such as a device that is gone, says nothing about the page.
func unreadable(err error) bool {
	return errors.Is(err, syscall.EIO) || errors.Is(err, syscall.ENODATA) || errors.Is(err, syscall.EILSEQ)
}
