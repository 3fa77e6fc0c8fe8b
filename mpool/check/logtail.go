package check

import (
	"slices"

	"github.com/mpool-go/mpool/mlog"
)

// overtaken takes in a page of another generation. An erase writes the first tail
// of the next one and then records it; only then does anything follow.
func (s *scan) overtaken(p *mlog.Page, offset int64) {
	if p.Generation > s.generation && p.Group > 1 && p.Generation > s.ahead.epoch {
		s.ahead = claim{epoch: p.Generation, offset: offset}
	}
}

// join looks which tails were written at the border.
func (s *scan) join() {
	for i := range s.tails {
		t := &s.tails[i]
		t.joined = t.joined || t.page.Index == s.border.index && s.border.refuses(&t.page) == ""
	}
}

// choose takes the newest tail with all pages before it as the end of the log,
// unless something says that more was durable.
func (s *scan) choose() {
	for i := range s.tails {
		t := &s.tails[i]
		if t.joined && (s.end == nil || s.end.page.Epoch < t.page.Epoch ||
			s.end.page.Epoch == t.page.Epoch && s.end.page.Group < t.page.Group) {
			s.end = t
		}
	}
	switch {
	case s.end == nil:
		s.find(LogBroken, s.lostAt(), "a page that was durable is broken (%s), and no tail is left that ends before it", s.broken)
	case s.end.claim.group > 0:
		s.find(LogBroken, s.lostAt(), "group %d of activation %d is the last that is whole; the page at %d says that group %d was durable (%s)",
			s.end.page.Group, s.end.page.Epoch, s.end.claim.offset, s.end.claim.group, s.broken)
		s.end = nil
	}
	if s.end != nil {
		s.sureTails()
	}
}

// sureOf says whether a page of the log was durable when some other page of it
// was written: only the last group may be cut off, and of what an earlier
// activation left, nothing was where a page of a later one is the log's. A later
// activation whose pages are not is no witness: it may have found that what the
// last group tells of is not there, and have been cut off before it said so.
func (s *scan) sureOf(p *mlog.Page) bool {
	return p.Clean() || p.Epoch < s.end.page.Epoch || p.Group <= s.end.heard
}

// sureTails takes in what the tails say of the records below which all were
// durable. Final pages may say more.
func (s *scan) sureTails() {
	for i := range s.tails {
		if t := &s.tails[i]; t.joined && s.sureOf(&t.page) {
			s.sure = max(s.sure, t.page.First+uint64(t.page.Fragments))
		}
	}
	s.sure = min(s.sure, s.end.page.First+uint64(s.end.page.Fragments))
}

// lostAt returns the place of the first page that is not what a tail needs.
func (s *scan) lostAt() int64 {
	for i := range s.tails {
		if t := &s.tails[i]; !t.joined && t.page.Index > s.border.index {
			return s.offset(s.border.index)
		}
	}
	for i := range s.tails {
		if t := &s.tails[i]; !t.joined && t.page.Index > 0 {
			return s.offset(t.page.Index - 1)
		}
	}
	return s.extent.Offset()
}

// reasons joins why the slots hold no tail, each once.
func (s *scan) reasons() string {
	text := ""
	for i, why := range s.why {
		if slices.Contains(s.why[:i], why) {
			continue
		}
		if text != "" {
			text += "; "
		}
		text += why
	}
	return text
}

// copies notes a lost copy of the end: the log is whole, but for a second loss.
// Both copies were there once a later page of the same activation says that the
// end was durable; else it may be that its write was cut off.
func (s *scan) copies() {
	if s.end == nil {
		return
	}
	mate := s.end.slot ^ 1
	why := s.why[mate]
	if why == "" && s.valid[mate].CRC == s.end.page.CRC {
		return
	}
	if why == "" {
		why = "it is another page"
	}
	if !s.end.proven {
		why += "; a crash while it was written leaves it so"
	}
	p := s.problem(LogCopy, s.slotOffset(mate),
		"one of the two copies of the last page is lost: %s; the next group that is written makes it good", why)
	s.notes = append(s.notes, p)
	if s.idle(mate) {
		page := slices.Clone(s.slots[s.end.slot*blockSize : (s.end.slot+1)*blockSize])
		s.mends = append(s.mends, mend{findings: []Problem{p}, dev: s.dev, offset: p.Offset, log: s.logPlace, content: page})
	}
}

// idle says whether the log says nothing by what is in a slot: no page of it, or
// one from before its end.
func (s *scan) idle(slot int) bool {
	p, e := &s.valid[slot], &s.end.page
	switch {
	case p.Group == 0: // no page of the log
		return true
	case p.Generation != e.Generation:
		return p.Generation < e.Generation
	case p.Epoch != e.Epoch:
		return p.Epoch < e.Epoch
	}
	return p.Group < e.Group
}

func (l *logPlace) slotOffset(slot int) int64 { return l.extent.Offset() + int64(slot)*blockSize }
