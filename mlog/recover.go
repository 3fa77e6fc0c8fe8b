package mlog

import (
	"context"

	"github.com/mpool-go/mpool/api"
)

// tail is a candidate for the end of the log: a valid tail slot.
type tail struct {
	slot    *slot
	matches bool   // the final pages before it are there, and are those it was written behind
	bytes   int64  // record data in the pages before it
	heard   uint64 // the highest group that its own activation called durable
	sure    uint64 // records in final pages of which it knows that they were durable
}

// knows says whether a page of a log that ends with the tail was durable, with
// all that was to become so with it, as far as the tail's activation says: what
// an earlier one left was settled before this one's first group could stand. A
// later activation is no witness. It calls durable what it has found, and its
// first group, which settles what that is worth, may have been cut off.
func (t *tail) knows(p *Page) bool {
	return p.Epoch < t.slot.page.Epoch || p.Group <= t.heard
}

// claim is what a page says of others: when epoch wrote it, the group was known
// to be durable.
type claim struct{ epoch, group uint64 }

func (c claim) less(o claim) bool {
	return c.epoch < o.epoch || c.epoch == o.epoch && c.group < o.group
}

// met says whether a log that ends with this tail has what the claim says. A
// tail of a later activation was written on top of everything that was durable
// before it.
func (c claim) met(t *Page) bool { return t.Epoch > c.epoch || t.Group >= c.group }

// recovery finds the end of a log: it walks the final pages as far as they are
// a chain, and takes the newest tail that stands on it. See "Recovery" in the
// package comment.
type recovery struct {
	c      *Config
	tails  []tail // newest first
	ch     chain  // the border behind the last valid page
	stream stream

	claim  claim  // the strongest
	group  uint64 // the highest seen
	epoch  uint64 // the highest seen
	broken error  // why the page behind the border is not valid; nil at the extent's end

	replay  func(number uint64, record []byte) error
	settled uint32 // pages below are part of the log whichever tail is taken
	records assembler

	replayFailed bool // the walk's error is that of replay
}

func newRecovery(c *Config, list []*slot, start chain) *recovery {
	r := &recovery{c: c, ch: start}
	last := uint32(0)
	r.settled = ^uint32(0)
	for _, s := range list {
		r.tails = append(r.tails, tail{slot: s})
		r.settled = min(r.settled, s.page.Index)
		last = max(last, s.page.Index)
	}
	for _, s := range list {
		r.see(&s.page)
	}
	// One page more than any tail needs: usually it is not valid, and ends the
	// walk.
	r.stream = newStream(c, min(last+1, finalPages(c.Extent.Blocks)), streamMost)
	return r
}

func (r *recovery) see(p *Page) {
	r.group = max(r.group, p.Group)
	r.epoch = max(r.epoch, p.Epoch)
	if c := (claim{p.Epoch, p.Durable}); r.claim.less(c) {
		r.claim = c
	}
	for i := range r.tails {
		if t := &r.tails[i]; t.slot.page.Epoch == p.Epoch {
			t.heard = max(t.heard, p.Durable)
		}
	}
}

// walk goes over the final pages from the border on, as far as they are valid.
// The error is a context's, the drive's, or that of replay.
func (r *recovery) walk(ctx context.Context) error {
	finals := finalPages(r.c.Extent.Blocks)
	var p Page
	for {
		r.match()
		k := r.ch.index
		if k == finals {
			return nil
		}
		if k == r.stream.limit {
			r.stream.limit = min(k+streamFirst, finals)
		}
		if err := r.final(ctx, &p, k); err != nil || r.broken != nil {
			return err
		}
		r.see(&p)
		r.ch.add(&p)
		for i := range r.tails {
			if t := &r.tails[i]; t.knows(&p) {
				t.sure = r.ch.next
			}
		}
		if k < r.settled && r.replay != nil {
			if err := r.records.add(&p, r.replay); err != nil {
				r.replayFailed = true
				return err
			}
		}
	}
}

// final reads the page behind the border; r.broken is set when it is not valid.
func (r *recovery) final(ctx context.Context, p *Page, k uint32) error {
	b, err := r.stream.page(ctx, k)
	switch {
	case err == nil:
		r.broken = r.checkFinal(p, b)
	case unreadable(err):
		r.broken = err
	default:
		return err
	}
	return nil
}

func (r *recovery) checkFinal(p *Page, b []byte) error {
	if err := p.decode(b, r.c.Birth); err != nil {
		return err
	}
	if p.Tail() {
		if p.Generation == r.ch.generation {
			r.see(p) // a write that went astray: what it says is true all the same
		}
		return pageErrorf("a tail slot among the final pages")
	}
	return r.ch.check(p)
}

// match looks which tails stand on the border.
func (r *recovery) match() {
	for i := range r.tails {
		t := &r.tails[i]
		if t.slot.page.Index == r.ch.index && r.ch.check(&t.slot.page) == nil {
			t.matches = true
			t.bytes = r.ch.bytes
		}
	}
}

// newest returns the newest tail that matches, or nil.
func (r *recovery) newest() *tail {
	for i := range r.tails {
		if r.tails[i].matches {
			return &r.tails[i]
		}
	}
	return nil
}

// end returns the tail that is the end of the log, after the walk. It is
// ECORRUPT when there is none, or when a page says that more was durable.
func (r *recovery) end() (*tail, error) {
	const op = "mlog open"
	t := r.newest()
	if t != nil && r.claim.met(&t.slot.page) {
		return t, nil
	}
	// Where is the break? Some tail stands on more pages than are valid, or on
	// other ones, or the tail that is meant is itself gone.
	for i := range r.tails {
		p := &r.tails[i].slot.page
		switch {
		case r.tails[i].matches:
		case p.Index > r.ch.index:
			return nil, r.c.corrupt(op, offsetOf(r.c.Extent, r.ch.index),
				"a page that was durable is broken: restore the log from a copy, or erase it", r.broken)
		case p.Index > 0:
			return nil, r.c.corrupt(op, offsetOf(r.c.Extent, p.Index-1),
				"a page is not the one that was durable: restore the log from a copy, or erase it", r.broken)
		}
	}
	return nil, r.c.corrupt(op, r.c.Extent.Offset(),
		"the newest tail is gone, though it was durable: restore the log from a copy, or erase it", r.broken)
}

// surely returns how many records of a log that ends with the tail t are known
// to have been durable: all but those of the last group, if nothing says that
// it was.
func (r *recovery) surely(t *tail) uint64 {
	end := &t.slot.page
	n := min(t.sure, end.First)
	for i := range r.tails {
		if p := &r.tails[i].slot.page; r.tails[i].matches && (p.Clean() || t.knows(p)) {
			n = max(n, p.First+uint64(p.Fragments))
		}
	}
	return min(n, end.First+uint64(end.Fragments))
}

// replayRest replays what the walk did not: pages that belonged to the log only
// with this tail, and the tail itself.
func (r *recovery) replayRest(ctx context.Context, t *tail) error {
	var p Page
	r.stream.limit = max(r.stream.limit, t.slot.page.Index)
	for k := r.settled; k < t.slot.page.Index; k++ {
		b, err := r.stream.page(ctx, k)
		if err != nil {
			return r.c.ioError("mlog open", err)
		}
		if err := p.decode(b, r.c.Birth); err != nil {
			return r.c.corrupt("mlog open", offsetOf(r.c.Extent, k), "a page changed while it was read", err)
		}
		if err := r.records.add(&p, r.replay); err != nil {
			return err
		}
	}
	return r.records.add(&t.slot.page, r.replay)
}

// fenced says whether a later activation has written to the log.
func (r *recovery) fenced() error {
	if r.epoch <= r.c.Epoch {
		return nil
	}
	return api.Errorf(api.ESTALE, "mlog open",
		"a page was written by activation %d and this is %d: another activation of the pool owns the log", r.epoch, r.c.Epoch)
}

// assembler puts records together from the pages of a log, in order. The pages'
// structure was checked.
type assembler struct {
	part []byte // of a record that is open
}

// add calls fn with each record that ends in the page. The slice is valid until
// fn returns.
func (a *assembler) add(p *Page, fn func(number uint64, record []byte) error) error {
	n := p.First
	for at := 0; at < len(p.Payload); n++ {
		f := fragmentAt(p.Payload, at)
		at += FragmentHeader + len(f.Data)
		record := f.Data
		if f.Type != FragmentFull {
			if f.Type == FragmentFirst {
				a.part = a.part[:0]
			}
			a.part = append(a.part, f.Data...)
			if f.open() {
				continue
			}
			record = a.part
		}
		if err := fn(n, record); err != nil {
			return err
		}
	}
	return nil
}
