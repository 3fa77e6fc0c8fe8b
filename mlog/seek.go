package mlog

import (
	"context"

	"github.com/mpool-go/mpool/api"
)

// Seek places the reader before a record, by binary search. ENOENT if record is
// past the end; at the end is allowed. Other errors as Next; the reader then
// stands where it stood.
func (r *Reader) Seek(ctx context.Context, record uint64) error {
	if record == 0 {
		r.Rewind()
		return nil
	}
	was := *r
	r.seen, r.record = 0, record-1
	if err := r.look(); err != nil {
		r.place(was.record, was.page, was.at)
		if api.CodeOf(err) == api.EBADF {
			return err
		}
		e := api.Errorf(api.ENOENT, "mlog seek", "record %d of %d", record, r.seen)
		e.Object = r.l.c.ID
		return e
	}
	if err := r.seek(ctx, record-1); err != nil {
		r.place(was.record, was.page, was.at)
		return err
	}
	return nil
}

// seek places the reader behind a record that is there.
func (r *Reader) seek(ctx context.Context, record uint64) error {
	// The record begins in the last page in or behind which it can begin.
	low, high := uint32(0), r.l.tailPage()
	for low < high {
		mid := low + (high-low+1)/2
		if err := r.load(ctx, mid); err != nil {
			return err
		}
		if r.firstStart() <= record {
			low = mid
		} else {
			high = mid - 1
		}
	}
	if err := r.load(ctx, low); err != nil {
		return err
	}
	n := r.cur.first
	for at := 0; len(r.cur.payload)-at >= FragmentHeader; n++ {
		f := fragmentAt(r.cur.payload, at)
		if n == record && !f.continues() {
			end := place{page: low, used: at}.after(int64(f.Total))
			r.place(record+1, end.page, end.used)
			return nil
		}
		at += FragmentHeader + len(f.Data)
	}
	return r.broken(low, pageErrorf("record %d is not here", record))
}

// firstStart returns the number of the first record that begins in the page at
// hand or behind it.
func (r *Reader) firstStart() uint64 {
	if len(r.cur.payload) >= FragmentHeader {
		if f := fragmentAt(r.cur.payload, 0); f.continues() {
			return r.cur.first + 1
		}
	}
	return r.cur.first
}

func (l *Log) tailPage() uint32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pos.page
}
