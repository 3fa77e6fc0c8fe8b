package main

import (
	"context"
	"errors"
	"io"

	"github.com/mpool-go/mpool/api"
)

// streamStart is how much of a stream is read before its first mblock is
// allocated: a stream that ends before costs only what it has.
const streamStart = 16 << 20

// store writes one part into an mblock and hands it to the committer.
func (p *putter) store(ctx context.Context, part putPart, buf []byte) error {
	f := p.plan.files[part.file]
	if f.stream != nil {
		return p.storeStream(ctx, part, f)
	}
	src, err := f.open()
	if err != nil {
		return err
	}
	m, err := p.storePart(ctx, part, f, src, buf)
	if err := errors.Join(err, src.Close()); err != nil {
		if m != nil {
			p.abort(ctx, m)
		}
		return err
	}
	p.written <- writtenPart{part: part, mblock: m, cap: part.length}
	return nil
}

// storePart allocates and writes one part. After an error the mblock, if there
// is one, is the caller's to abort.
func (p *putter) storePart(ctx context.Context, part putPart, f putFile, src io.ReaderAt, buf []byte) (api.Mblock, error) {
	o := p.alloc
	o.Capacity = part.length
	m, err := p.pool.AllocMblock(ctx, o)
	if err != nil {
		return nil, wrapPath(f.path, err)
	}
	for done := int64(0); done < part.length; {
		b := buf[:min(int64(len(buf)), part.length-done)]
		n, err := src.ReadAt(b, part.offset+done)
		if n < len(b) {
			if err == nil || errors.Is(err, io.EOF) {
				err = errShrunk(f.path, part.offset+done+int64(n))
			}
			return m, err
		}
		if _, err := m.Write(ctx, b); err != nil {
			return m, wrapPath(f.path, err)
		}
		done += int64(n)
		p.bar.add(int64(n))
	}
	return m, nil
}

// storeStream stores a stream in as many mblocks as it takes: one, unless it
// may be split. Its parts follow each other, so one buffer serves all.
func (p *putter) storeStream(ctx context.Context, part putPart, f putFile) error {
	src, err := f.stream(ctx)
	if err != nil {
		return err
	}
	limit := p.split
	if limit == 0 {
		limit = api.MaxMblockCapacity
	}
	s := &streamReader{src: src, head: make([]byte, 0, min(limit, streamStart))}
	for {
		w, err := p.storeStreamPart(ctx, part, s, limit)
		if err == nil && w.more && p.split == 0 {
			err = usagef("%s is longer than %s: give --split SIZE to store it in several mblocks",
				f.path, formatSize(limit))
		}
		if err != nil || !w.more {
			if err = errors.Join(err, src.Close()); err == nil {
				p.written <- w
				return nil
			}
			if w.mblock != nil {
				p.abort(ctx, w.mblock)
			}
			return wrapPath(f.path, err)
		}
		p.written <- w
		part = putPart{file: part.file, index: part.index + 1, offset: part.offset + w.part.length}
	}
}

// storeStreamPart stores up to limit bytes of a stream.
func (p *putter) storeStreamPart(ctx context.Context, part putPart, s *streamReader, limit int64) (writtenPart, error) {
	w := writtenPart{part: part}
	if err := s.fill(); err != nil {
		return w, err
	}
	var err error
	if w.mblock, w.cap, err = p.allocStream(ctx, s, limit); err != nil {
		return w, err
	}
	for {
		b := s.head[:min(int64(len(s.head)), w.cap-w.part.length)]
		if len(b) > 0 {
			if _, err := w.mblock.Write(ctx, b); err != nil {
				return w, err
			}
		}
		w.part.length += int64(len(b))
		p.bar.add(int64(len(b)))
		s.head = append(s.head[:0], s.head[len(b):]...)
		if err := s.fill(); err != nil {
			return w, err
		}
		if len(s.head) == 0 {
			return w, nil
		}
		if w.part.length == w.cap {
			w.more = true
			return w, w.full(limit)
		}
	}
}

// full is the error of a stream that is longer than what could be allocated.
func (w writtenPart) full(limit int64) error {
	if w.cap == limit {
		return nil
	}
	return &api.Error{
		Code: api.ENOSPC, Want: w.cap + 1, Have: w.cap, Longest: w.cap,
		Detail: "the stream is longer than the longest free run of space; --split SIZE would use shorter ones",
	}
}

// allocStream allocates for a stream: exactly what is left when its end is
// known, else as much as there is, up to limit. Commit gives back what was not
// written.
func (p *putter) allocStream(ctx context.Context, s *streamReader, limit int64) (api.Mblock, int64, error) {
	o := p.alloc
	o.Capacity = limit
	if s.ended {
		o.Capacity = min(limit, int64(len(s.head)))
	}
	for {
		m, err := p.pool.AllocMblock(ctx, o)
		if err == nil {
			return m, o.Capacity, nil
		}
		if !errors.Is(err, api.ENOSPC) || s.ended || o.Capacity/2 < streamStart {
			return nil, 0, err
		}
		o.Capacity = max(o.Capacity/2, min(fitting(err), o.Capacity-4096)) &^ 4095
	}
}

// fitting is the capacity that the longest free run has room for, beside the
// checksums, which take less than this leaves them. Unknown: 0.
func fitting(err error) int64 {
	e, ok := errors.AsType[*api.Error](err)
	if !ok {
		return 0
	}
	return e.Longest - e.Longest>>8 - 256<<10
}

// streamReader reads a stream ahead by what head has room for.
type streamReader struct {
	src   io.Reader
	head  []byte
	ended bool
}

// fill reads until head is full or the stream has ended.
func (s *streamReader) fill() error {
	for !s.ended && len(s.head) < cap(s.head) {
		n, err := s.src.Read(s.head[len(s.head):cap(s.head)])
		s.head = s.head[:len(s.head)+n]
		switch {
		case errors.Is(err, io.EOF):
			s.ended = true
		case err != nil:
			return err
		}
	}
	return nil
}
