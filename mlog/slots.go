package mlog

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
)

// slot is one of the four tail slots as it was found.
type slot struct {
	page Page
	pair int
	err  error // why it is no valid tail of the log's birth
}

// slots are the tail slots of a log. free gives their memory back.
type slots struct {
	buf  []byte
	list [SlotPages]slot
}

func (s *slots) free() {
	bdev.FreeBuffer(s.buf)
	s.buf = nil
}

// readSlots reads the tail slots. The error is a context's or the drive's, not
// that of a slot.
func readSlots(ctx context.Context, c *Config) (*slots, error) {
	s := &slots{buf: bdev.AllocBuffer(SlotPages * PageSize)}
	all := s.read(ctx, c, 0, SlotPages)
	if all != nil && !unreadable(all) {
		return nil, all
	}
	for i := range s.list {
		l := &s.list[i]
		l.pair = i / PairPages
		b := s.buf[i*PageSize : (i+1)*PageSize]
		if all != nil {
			l.err = s.read(ctx, c, i, 1)
			if l.err != nil && unreadable(l.err) {
				l.err = s.read(ctx, c, i, 1)
			}
			if l.err != nil && !unreadable(l.err) {
				return nil, l.err
			}
		}
		if l.err == nil {
			l.err = l.decode(c, b)
		}
	}
	return s, nil
}

// read reads n slot pages. After an error other than unreadable, s is freed, or
// will be when the drive has done with it.
func (s *slots) read(ctx context.Context, c *Config, first, n int) error {
	p := s.buf[first*PageSize : (first+n)*PageSize]
	err := readAt(ctx, c.Drive, p, c.Extent.Offset()+int64(first)*PageSize, s.free)
	if err != nil && !unreadable(err) && !errors.Is(err, bdev.ErrDetached) {
		s.free()
	}
	return err
}

// probe reads a page of a pair whose content does not matter.
func (c *Config) probe(ctx context.Context, pair int) error {
	b := bdev.AllocBuffer(PairPages * PageSize)
	err := readAt(ctx, c.Drive, b[:PageSize], c.pairOffset(pair), func() { bdev.FreeBuffer(b) })
	if err != nil && unreadable(err) {
		err = readAt(ctx, c.Drive, b[PageSize:], c.pairOffset(pair)+PageSize, func() { bdev.FreeBuffer(b) })
	}
	if !errors.Is(err, bdev.ErrDetached) {
		bdev.FreeBuffer(b)
	}
	return err
}

func (l *slot) decode(c *Config, b []byte) error {
	if err := l.page.decode(b, c.Birth); err != nil {
		return err
	}
	finals := finalPages(c.Extent.Blocks)
	switch {
	case !l.page.Tail():
		return pageErrorf("a final page in a tail slot")
	case l.page.Index > finals || l.page.Index == finals && l.page.Used > 0:
		return pageErrorf("tail of page %d in a log of %d", l.page.Index, finals)
	}
	return nil
}

// of returns the valid tails of one generation, newest first.
func (s *slots) of(generation uint64) []*slot {
	var list []*slot
	for i := range s.list {
		if l := &s.list[i]; l.err == nil && l.page.Generation == generation {
			list = append(list, l)
		}
	}
	slices.SortStableFunc(list, func(a, b *slot) int {
		return cmp.Or(cmp.Compare(b.page.Epoch, a.page.Epoch), cmp.Compare(b.page.Group, a.page.Group))
	})
	return list
}

// why returns why there is no valid tail of a generation: that a slot cannot be
// read, if so, because it may hold one.
func (s *slots) why(generation uint64) error {
	why := s.list[0].err
	for i := range s.list {
		l := &s.list[i]
		switch {
		case l.err != nil && unreadable(l.err):
			return l.err
		case l.err == nil && l.page.Generation != generation:
			why = pageErrorf("tail of generation %d", l.page.Generation)
		}
	}
	return why
}

// Discover returns the highest generation that has a valid tail slot of the
// log's birth. c.Generation and c.Epoch are ignored. ENOENT if there is none:
// the extent was never formatted for this log, or all its slots are broken.
func Discover(ctx context.Context, c Config) (generation uint64, err error) {
	const op = "mlog discover"
	if err := c.validate(op); err != nil {
		return 0, err
	}
	s, err := readSlots(ctx, &c)
	if err != nil {
		return 0, c.ioError(op, err)
	}
	defer s.free()
	found := false
	for i := range s.list {
		if l := &s.list[i]; l.err == nil {
			found = true
			generation = max(generation, l.page.Generation)
		}
	}
	if found {
		return generation, nil
	}
	why := s.why(0)
	if unreadable(why) {
		return 0, c.ioError(op, why)
	}
	return 0, &api.Error{
		Code: api.ENOENT, Op: op, Object: c.ID, Device: c.Drive.Path(), Offset: c.Extent.Offset(),
		Detail: "no valid tail of this log", Err: why,
	}
}

// Format writes the empty tail of c.Generation and flushes it. It begins a new
// log, and is the first half of an erase: the caller records the generation
// afterwards. current is the log's generation until then (0: a new log, or one
// that was formatted at 0); the tail that an Open at that generation would
// choose is left alone, so that a crash at any moment leaves one of the two
// logs whole. Nobody may have the log open.
func Format(ctx context.Context, c Config, current uint64) error {
	const op = "mlog format"
	if err := c.validate(op); err != nil {
		return err
	}
	keep, err := pairToKeep(ctx, &c, current)
	if err != nil {
		return err
	}
	buf := bdev.AllocBuffer(PairPages * PageSize)
	h := Header{Flags: FlagTail, Birth: c.Birth, Generation: c.Generation, Epoch: c.Epoch, Group: 1}
	clear(buf)
	h.seal(buf[:PageSize])
	copy(buf[PageSize:], buf[:PageSize])
	ticket := c.Drive.Ticket()
	batch := bdev.Batch{
		Ops:      []*bdev.Op{{Code: bdev.OpWrite, Offset: c.pairOffset(1 - keep), Buf: buf}},
		Detached: func() { bdev.FreeBuffer(buf) },
	}
	err = c.Drive.Run(ctx, &batch)
	if !errors.Is(err, bdev.ErrDetached) {
		bdev.FreeBuffer(buf)
	}
	if err == nil {
		err = c.Drive.Flush(ctx, ticket)
	}
	if err != nil {
		return c.ioError(op, err)
	}
	return nil
}

// hidden returns the pair that may hold a tail which cannot be read just now, or
// pair B if all can be read and none is one. EIO if both may.
func (s *slots) hidden(c *Config) (int, error) {
	keep, found := 1, false
	for i := range s.list {
		l := &s.list[i]
		if l.err == nil || !unreadable(l.err) {
			continue
		}
		if found && l.pair != keep {
			return 0, c.ioError("mlog format", l.err)
		}
		keep, found = l.pair, true
	}
	return keep, nil
}

// pairToKeep returns the pair that holds the tail which Open would choose, or, of a
// log that Open would refuse, the pair that makes it do so; pair B when there is no
// tail.
func pairToKeep(ctx context.Context, c *Config, current uint64) (int, error) {
	const op = "mlog format"
	s, err := readSlots(ctx, c)
	if err != nil {
		return 0, c.ioError(op, err)
	}
	defer s.free()
	list := s.of(current)
	if len(list) == 0 {
		if current == 0 {
			return 1, nil
		}
		return s.hidden(c)
	}
	// A tail may be in the drive's cache only, left by a process that died,
	// and the other pair be the one that is durable.
	if err := c.Drive.Flush(ctx, c.Since); err != nil {
		return 0, c.ioError(op, err)
	}
	// The newest tail is the one, unless pages are missing that its group
	// wrote: those behind the oldest candidate.
	first := slices.MinFunc(list, func(a, b *slot) int { return cmp.Compare(a.page.Index, b.page.Index) })
	r := newRecovery(c, list, chainAtTail(&first.page))
	defer r.stream.end(ctx)
	if err := r.walk(ctx); err != nil {
		return 0, c.ioError(op, err)
	}
	if t := r.newest(); t != nil && r.claim.met(&t.slot.page) {
		return t.slot.pair, nil
	}
	// The log is broken: it stays so, if the tail stays that says the most of what
	// was durable.
	return list[0].pair, nil
}
