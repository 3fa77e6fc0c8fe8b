package mblock

import (
	"context"
	"errors"

	"github.com/mpool-go/mpool/bdev"
)

// Sealed is what a sealed mblock's metadata record needs.
type Sealed struct {
	Written    int64    // bytes, exact
	Sums       []uint32 // the checksum of each block, if there are at most layout.MaxInlineSums; else nil
	UsedBlocks uint32   // blocks of the extent that must be kept, at least 1

	// Unflushed says that the content was written and is not flushed: it is
	// durable after a flush of the drive under Ticket. Only of SealWritten.
	Unflushed bool
	Ticket    bdev.Ticket
}

// Seal ends the writing: it lets no new write begin, waits for those under way,
// writes the checksum pages and flushes the drive. When it returns nil, all of
// the mblock's content is durable. It may be called again: after success it
// returns the same, after an error of its context it goes on. Errors: EIO (a
// write or the flush failed: poisoned), ENOENT (the object is being deleted),
// ETIMEDOUT, ECANCELED.
func (w *Writer) Seal(ctx context.Context) (Sealed, error) { return w.seal(ctx, true) }

// SealWritten is Seal, but leaves the flush to the caller where all checksums go
// into the metadata record, by which the content can be found missing. Errors as
// Seal. Either may be called after the other.
func (w *Writer) SealWritten(ctx context.Context) (Sealed, error) { return w.seal(ctx, false) }

func (w *Writer) seal(ctx context.Context, flush bool) (Sealed, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for w.err == nil && (w.sealing || len(w.open) > 0) {
		if w.changed.Wait(ctx) != nil {
			return Sealed{}, w.cfg.ended(ctx, opCommit)
		}
	}
	switch {
	case w.err != nil:
		return Sealed{}, w.poisonedLocked(opCommit)
	case w.sealed != nil:
		return *w.sealed, nil
	}
	s := Sealed{Written: w.next, UsedBlocks: BlocksFor(w.next)}
	blocks := dataBlocks(w.next)
	if pagesFor(blocks) == 0 {
		if s = w.inlineLocked(blocks); !s.Unflushed || !flush {
			return s, nil
		}
		s.Unflushed, s.Ticket = false, bdev.Ticket{}
	}
	w.sealing = true
	sums, ticket := w.sums, w.ticket
	w.mu.Unlock()
	fatal, err := w.makeDurable(ctx, blocks, sums, ticket)
	w.mu.Lock()
	w.sealing = false
	w.changed.Broadcast()
	if err != nil {
		if fatal {
			w.poisonLocked(err)
		}
		return Sealed{}, err
	}
	w.sealed = &s
	return s, nil
}

// SealReady is SealWritten for who must not wait: if it would have to, ready is
// false and nothing has changed. So it is while writes are under way, and where
// checksums are written behind the data. Errors: EIO.
func (w *Writer) SealReady() (s Sealed, ready bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	blocks := dataBlocks(w.next)
	switch {
	case w.err != nil:
		return Sealed{}, true, w.poisonedLocked(opCommit)
	case w.sealed != nil:
		return *w.sealed, true, nil
	case w.sealing || len(w.open) > 0 || pagesFor(blocks) > 0:
		return Sealed{}, false, nil
	}
	w.closed = true
	return w.inlineLocked(blocks), true, nil
}

// inlineLocked describes an mblock all of whose checksums go into its record. What
// is empty needs no flush.
//
// +checklocks:w.mu
func (w *Writer) inlineLocked(blocks uint32) Sealed {
	s := Sealed{Written: w.next, UsedBlocks: BlocksFor(w.next)}
	if blocks == 0 {
		w.sealed = &s
		return s
	}
	s.Sums = append(s.Sums, w.sums[0][:blocks]...)
	s.Unflushed, s.Ticket = true, w.ticket
	return s
}

// makeDurable writes the checksum pages of so many data blocks and flushes. An
// error is fatal if the writes may be lost.
func (w *Writer) makeDurable(ctx context.Context, blocks uint32, sums [][]uint32, ticket bdev.Ticket) (fatal bool, err error) {
	if ctx.Err() != nil {
		return false, w.cfg.ended(ctx, opCommit)
	}
	if pagesFor(blocks) > 0 {
		if !w.cfg.pin() {
			return false, w.cfg.gone(opCommit)
		}
		if err := w.writePages(ctx, blocks, sums); err != nil {
			return ctx.Err() == nil, err
		}
	}
	err = w.cfg.Drive.Flush(ctx, ticket)
	switch {
	case err == nil:
		return false, nil
	case ctx.Err() != nil && !errors.Is(err, bdev.ErrFlushFailed):
		return false, w.cfg.ended(ctx, opCommit)
	default:
		e := w.cfg.ioError(opCommit, err)
		e.Detail = "the drive failed to make the mblock durable: abort it and write it anew"
		return true, e
	}
}

// writePages writes the checksum pages behind the data.
func (w *Writer) writePages(ctx context.Context, blocks uint32, sums [][]uint32) error {
	pages := pagesFor(blocks)
	g := w.newGroup(int(pages) * blockSize)
	if w.cfg.Sched.Simulated() {
		defer g.unwound()
	}
	g.bounce = bdev.AllocBuffer(int(pages) * blockSize)
	for i := range pages {
		EncodePage(g.bounce[i*blockSize:][:blockSize], w.cfg.Birth, i, sums[i][:sumsIn(blocks, i)])
	}
	g.add(g.bounce)
	g.place(blocks)
	return g.run(ctx, opCommit)
}
