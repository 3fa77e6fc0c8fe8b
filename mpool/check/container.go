package check

import (
	"context"
	"slices"

	"github.com/mpool-go/mpool/mlog"
)

// content is what a log of a metadata container says.
type content struct {
	*scan
	records  uint64 // marks included
	replaces uint64 // by the start mark: generation of the log before
	ended    bool   // there is an end mark
	carried  uint64 // by the end mark: how many records the log before had
}

// consumer takes what a container's log says.
type consumer interface {
	start(l *content)
	data(number uint64, record []byte)
	end(l *content)
}

// content reads a log of a container. Where its end was not found, there is
// none.
func (c *checker) content(ctx context.Context, s *scan, to consumer) (*content, error) {
	l := &content{scan: s}
	if s.end == nil {
		return l, nil
	}
	malformed := func(number uint64, why string) {
		s.find(ContainerRecord, s.extent.Offset(), "record %d %s", number, why)
	}
	err := c.records(ctx, s, func(number uint64, record []byte) {
		l.records++
		switch {
		case len(record) == 0:
			malformed(number, "has no kind")
		case record[0] == mlog.KindData && number > 0:
			if to != nil {
				to.data(number, record[1:])
			}
		case record[0] != mlog.KindStart && record[0] != mlog.KindEnd || len(record) != 9:
			malformed(number, "is neither data nor a mark")
		case (record[0] == mlog.KindStart) != (number == 0):
			malformed(number, "is a start mark and not the first, or the first and none")
		case record[0] == mlog.KindStart:
			l.replaces = mlog.MarkValue(record[1:])
			if to != nil {
				to.start(l)
			}
		case l.ended:
			malformed(number, "is a second end mark")
		default:
			l.ended, l.carried = true, mlog.MarkValue(record[1:])
			if to != nil {
				to.end(l)
			}
		}
	})
	return l, err
}

// active judges the two logs of a container and returns the one that counts, or
// nil. b is the one of the higher generation, or, where they have the same, the
// one that is looked at first.
func (c *checker) active(a, b *content) *content {
	c.take(a.scan)
	c.take(b.scan)
	for _, p := range b.findings {
		c.problem(p)
	}
	whole := b.end != nil && len(b.findings) == 0 && b.ended
	gone := len(a.tails) == 0 && a.discover // of what generation it was is unknown
	closed := whole && b.end.page.Clean() && b.end.page.Epoch == c.sb.Epoch
	// What tells of a lost change is no rot.
	later := slices.ContainsFunc(a.findings, func(p Problem) bool { return p.Code == LogEpoch || p.Code == LogAhead })
	for i := range a.findings {
		p := &a.findings[i]
		if !whole || gone || later {
			c.problem(*p)
			continue
		}
		p.Code = LogFormer
		p.Text += "; the other log of the container replaced it, so nothing is lost"
		c.note(*p)
	}
	if whole && !later && (!gone || closed) && len(a.findings) > 0 {
		c.mends = append(c.mends, emptied(a.scan, c.sb.Epoch))
	}
	switch {
	case b.end == nil || gone && !closed:
		return nil
	case b.ended:
		c.handedOver(a, b)
		return b
	case a.ended:
		return a
	case a.end == nil:
		return nil
	}
	c.problem(a.problem(ContainerNone, a.extent.Offset(), "neither this log nor %s has the end of a compaction", b.name))
	return nil
}

// take takes over what a scan of a log has counted and noted.
func (c *checker) take(s *scan) {
	c.report.LogPages += s.pages
	for _, p := range s.notes {
		c.note(p)
	}
	if len(s.findings) == 0 {
		c.mends = append(c.mends, s.mends...)
	}
}

// handedOver compares what the active log says of the one before with that.
func (c *checker) handedOver(a, b *content) {
	switch {
	case a.generation == b.generation && a.ended:
		c.problem(b.problem(ContainerTwice, b.extent.Offset(), "this log and %s both have generation %d and an end mark", a.name, a.generation))
	case a.ended && b.replaces == a.generation && a.generation > 0 && a.records != b.carried:
		c.problem(b.problem(ContainerHandover, b.extent.Offset(), "the compaction ended when %s had %d records; it has %d", a.name, b.carried, a.records))
	case b.replaces >= b.generation:
		c.problem(b.problem(ContainerRecord, b.extent.Offset(), "the log has generation %d and replaces generation %d", b.generation, b.replaces))
	}
}
