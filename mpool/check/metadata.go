package check

import (
	"context"
	"fmt"

	"github.com/mpool-go/mpool/layout"
)

// metadataLogs says where the two metadata logs lie.
func (c *checker) metadataLogs() [2]*logPlace {
	var l [2]*logPlace
	for i, p := range c.sb.Logs {
		l[i] = &logPlace{
			dev: c.bySlot[c.sb.MetaSlot].dev, name: fmt.Sprintf("metadata log %c", 'A'+i), discover: true, birth: p.Birth,
			extent: layout.Extent{Drive: c.sb.MetaSlot, Start: p.Start, Blocks: p.Blocks},
		}
	}
	return l
}

// metadata reads both metadata logs and returns the pool's state by the active
// one, or nil when there is none.
//
// Both are replayed. A compaction must leave what it found: at its end mark the
// new log says the same as the old one does at its end, where that is still
// there.
func (c *checker) metadata(ctx context.Context) (*state, error) {
	logs := c.metadataLogs()
	var scans [2]*scan
	for i, l := range logs {
		var err error
		if scans[i], err = c.scanLog(ctx, l); err != nil {
			return nil, err
		}
		c.tailed = c.tailed || len(scans[i].tails) > 0
	}
	low, high := scans[1], scans[0]
	if low.generation > high.generation {
		low, high = high, low
	}
	before := newState(low.logPlace)
	a, err := c.content(ctx, low, before)
	if err != nil {
		return nil, err
	}
	if a.ended && low.end != nil {
		before.content = a
	}
	st := newState(high.logPlace)
	st.former = before
	b, err := c.content(ctx, high, st)
	if err != nil {
		return nil, err
	}
	switch c.active(a, b) {
	case b:
		c.report.Records = int64(b.records)
	case a:
		c.report.Records = int64(a.records)
		st = before
	default:
		return nil, nil
	}
	st.former = nil
	c.cutOff(st)
	for _, p := range st.findings {
		c.problem(p)
	}
	return st, nil
}
