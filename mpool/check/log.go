package check

import (
	"context"
	"errors"
	"fmt"

	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mlog"
)

// logPlace says which log, and where it lies.
type logPlace struct {
	dev        *device
	name       string          // for messages
	id         layout.ObjectID // 0: a metadata log
	extent     layout.Extent
	birth      layout.BirthStamp
	generation uint64
	discover   bool // the generation is the highest of the tails
}

func (l *logPlace) offset(page uint32) int64 {
	return l.extent.Offset() + (mlog.SlotPages+int64(page))*blockSize
}

// finals returns how many final pages the log has.
func (l *logPlace) finals() uint32 { return l.extent.Blocks - mlog.SlotPages }

func (l *logPlace) problem(code string, offset int64, format string, args ...any) Problem {
	return Problem{
		Code: code, Object: l.id, Device: l.dev.path, Offset: offset,
		Text: l.name + ": " + fmt.Sprintf(format, args...),
	}
}

// claim is what a page says of the log as it was when the page was written: an
// activation had made a group durable.
type claim struct {
	epoch, group uint64
	offset       int64 // of the page
}

// tail is a tail slot that may be the end of the log.
type tail struct {
	slot   int
	page   mlog.Page
	joined bool   // the final pages before it are those it was written behind
	claim  claim  // that refutes it, if its group is not 0
	proven bool   // its own activation said later that it was durable
	heard  uint64 // the highest group that its own activation called durable
}

// hear takes in a claim. Whatever was durable in an earlier activation was there
// when a later one began to write; in one activation, groups are durable one
// after the other.
func (t *tail) hear(c claim) {
	if t.page.Epoch <= c.epoch && t.page.Group < c.group && t.claim.group < c.group {
		t.claim = c
	}
	if c.epoch == t.page.Epoch {
		t.heard = max(t.heard, c.group)
	}
	t.proven = t.proven || t.page.Epoch == c.epoch && t.page.Group <= c.group
}

// scan is a log as it was found.
type scan struct {
	*logPlace
	slots  []byte // the four slots' pages; tails refer to them
	why    [mlog.SlotPages]string
	valid  [mlog.SlotPages]mlog.Page // those of the log's birth, of any generation
	tails  []tail
	border border // behind the last final page that belongs here
	broken string // why the page behind it does not, or "" at the extent's end
	pages  int64  // read and found whole
	epoch  claim  // the highest epoch that was seen
	ahead  claim  // epoch: the highest generation of pages that tell of records

	end      *tail  // the end of the log, or nil
	sure     uint64 // records below were durable: pages of the log say so
	findings []Problem
	notes    []Problem
	mends    []mend // of what the notes are of
}

// scanLog reads a log and finds its end. Findings are the scan's, for the caller
// to report.
func (c *checker) scanLog(ctx context.Context, l *logPlace) (*scan, error) {
	s := &scan{logPlace: l, slots: make([]byte, mlog.SlotPages*blockSize)}
	if err := c.readSlots(ctx, s); err != nil {
		return nil, err
	}
	if len(s.tails) == 0 {
		which := fmt.Sprintf("generation %d", l.generation)
		if l.discover {
			which = "any generation"
		}
		s.find(LogNoTail, l.extent.Offset(), "no tail of %s is left: %s", which, s.reasons())
	} else {
		if err := c.walk(ctx, s); err != nil {
			return nil, err
		}
		s.choose()
		s.copies()
	}
	if s.ahead.epoch > 0 {
		s.find(LogAhead, s.ahead.offset, "a page tells of records of generation %d, and the log is known to be in %d: an erase was lost",
			s.ahead.epoch, s.generation)
	}
	if s.epoch.epoch > c.sb.Epoch {
		s.find(LogEpoch, s.epoch.offset, "a page was written by activation %d; the superblock knows of %d", s.epoch.epoch, c.sb.Epoch)
	}
	return s, nil
}

func (s *scan) find(code string, offset int64, format string, args ...any) {
	s.findings = append(s.findings, s.problem(code, offset, format, args...))
}

// readSlots reads the four tail slots.
func (c *checker) readSlots(ctx context.Context, s *scan) error {
	c.pages.point(s.dev, s.extent.Offset(), mlog.SlotPages)
	var found uint64
	var have [mlog.SlotPages]bool
	for i := range s.valid {
		b, bad, err := c.pages.block(ctx, uint32(i))
		if err != nil {
			return err
		}
		if bad != nil {
			s.why[i] = bad.Error()
			continue
		}
		own := s.slots[i*blockSize : (i+1)*blockSize]
		copy(own, b)
		p, perr := mlog.DecodePage(own, s.birth)
		switch {
		case perr != nil:
			s.why[i] = perr.Error()
		case !p.Tail():
			s.why[i] = "a final page in the place of a tail"
		case p.Index > s.finals() || p.Index == s.finals() && p.Used > 0:
			s.why[i] = fmt.Sprintf("a tail of page %d in a log of %d pages", p.Index, s.finals())
		default:
			s.valid[i], have[i] = p, true
			found = max(found, p.Generation)
		}
	}
	if s.discover {
		s.generation = found
	}
	for i := range s.valid {
		switch {
		case !have[i]:
		case s.valid[i].Generation == s.generation:
			s.tails = append(s.tails, tail{slot: i, page: s.valid[i]})
		default:
			s.why[i] = fmt.Sprintf("a tail of generation %d", s.valid[i].Generation)
			s.overtaken(&s.valid[i], s.slotOffset(i))
		}
	}
	for i := range s.tails {
		t := &s.tails[i]
		s.heard(&t.page, s.slotOffset(t.slot))
	}
	return nil
}

// heard takes in what a page of the log's generation says.
func (s *scan) heard(p *mlog.Page, offset int64) {
	s.pages++
	if p.Epoch > s.epoch.epoch {
		s.epoch = claim{epoch: p.Epoch, offset: offset}
	}
	for i := range s.tails {
		s.tails[i].hear(claim{epoch: p.Epoch, group: p.Durable, offset: offset})
	}
}

// walk reads final pages: as far as one belongs behind the other, at least to
// where the tails are, and all of them when data is verified. Pages that do not
// belong tell what was durable nevertheless.
func (c *checker) walk(ctx context.Context, s *scan) error {
	need := uint32(0)
	for i := range s.tails {
		need = max(need, s.tails[i].page.Index)
	}
	if c.o.Data {
		need = s.finals()
	}
	c.pages.point(s.dev, s.offset(0), s.finals())
	s.join()
	for k := uint32(0); k < s.finals() && (k < need || s.broken == ""); k++ {
		b, bad, err := c.pages.block(ctx, k)
		if err != nil {
			return err
		}
		p, why := s.final(b, bad, k)
		if c.visit != nil {
			c.visit(s, k, &p, why)
		}
		switch {
		case s.broken != "":
		case why != "":
			s.broken = why
		default:
			s.border.pass(&p)
			s.join()
		}
	}
	return nil
}

// final takes in a final page. why says that it does not belong at the border.
func (s *scan) final(b []byte, bad error, k uint32) (p mlog.Page, why string) {
	if bad == nil {
		p, bad = mlog.DecodePage(b, s.birth)
	}
	if bad != nil {
		return p, bad.Error()
	}
	if why := s.foreign(&p, k); why != "" {
		if p.Tail() && p.Generation == s.generation {
			s.heard(&p, s.offset(k)) // a write that went astray: what it says is true
		}
		return p, why
	}
	s.heard(&p, s.offset(k))
	return p, s.border.refuses(&p)
}

// foreign says why a page is no final page of the log in its place, or "".
func (s *scan) foreign(p *mlog.Page, k uint32) string {
	switch {
	case p.Tail():
		return "a tail in the place of a final page"
	case p.Generation != s.generation:
		s.overtaken(p, s.offset(k))
		return fmt.Sprintf("it is of generation %d, not %d", p.Generation, s.generation)
	case p.Index != k:
		return fmt.Sprintf("it is page %d, not %d", p.Index, k)
	}
	return ""
}

// errChanged is why a page cannot be read the second time as it was the first.
var errChanged = errors.New("the page is not what it was a moment ago")

// records calls f with each record of a log whose end was found, in order. The
// slice is valid during the call.
func (c *checker) records(ctx context.Context, s *scan, f func(number uint64, record []byte)) error {
	c.pages.point(s.dev, s.offset(0), s.finals())
	var at border
	var part []byte
	take := func(p *mlog.Page) {
		for number, g := range p.All() {
			switch g.Type {
			case mlog.FragmentFull:
				f(number, g.Data)
			case mlog.FragmentFirst:
				part = append(part[:0], g.Data...)
			case mlog.FragmentMiddle:
				part = append(part, g.Data...)
			case mlog.FragmentLast:
				part = append(part, g.Data...)
				f(number, part)
			}
		}
	}
	for k := range s.end.page.Index {
		b, bad, err := c.pages.block(ctx, k)
		if err != nil {
			return err
		}
		var p mlog.Page
		if bad == nil {
			p, bad = mlog.DecodePage(b, s.birth)
		}
		if bad == nil && (s.foreign(&p, k) != "" || at.refuses(&p) != "") {
			bad = errChanged
		}
		if bad != nil {
			s.find(LogBroken, s.offset(k), "%v", bad)
			s.end = nil
			return nil
		}
		at.pass(&p)
		if s.sureOf(&p) {
			s.sure = max(s.sure, at.next)
		}
		take(&p)
	}
	take(&s.end.page)
	return nil
}
