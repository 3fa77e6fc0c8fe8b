package mlog

import (
	"time"

	"github.com/mpool-go/mpool/sched"
)

// How the writer waits for appends that come back.
const (
	gatherGap  = 30 * time.Microsecond  // without anybody coming, it is over
	gatherMost = 200 * time.Microsecond // so long for one group at most
	gatherPays = 150 * time.Microsecond // a shorter group is not waited for
	gatherRest = 64                     // groups, at most, that are not waited for after waits that did not pay
)

// gather is when a group begins.
//
// Those who are told of one group's end come with their next appends a moment
// later, but not at once: tasks, half of which another processor takes over when it
// has woken; and those who began an append without waiting ([Log.BeginAppend]), in
// other processes, through rings and threads that have to wake. If the first of
// them began a group, the others would wait for it and then for their own, and
// there would be two flushes for what one can do. So the writer waits a moment for
// as many as it told last time: no longer than half of what a group takes, and not
// while nobody comes. Where that does not pay, as with appenders who think between
// two appends, it is tried rarely.
type gather struct {
	expect int           // how many were told at the end of the last group
	woken  bool          // tasks among them, which may need the writer's processor
	took   time.Duration // what that group took
	rest   int           // groups that are not waited for
	missed int           // waits in a row that did not pay
}

// wait waits until those who were told last have come back, or for as long as it
// pays. waiting returns how many wait.
func (g *gather) wait(s *sched.Sched, waiting func() int) {
	if g.expect < 2 || g.took < gatherPays {
		return
	}
	n := waiting()
	if n == 0 {
		return // the next to come starts a writer
	}
	if g.rest > 0 {
		g.rest--
		return
	}
	start := s.Now()
	last := start
	for n < g.expect {
		if g.woken {
			s.Yield()
		}
		s.Pause()
		was, now := n, s.Now()
		if n = waiting(); n > was {
			last = now
		}
		if now.Sub(last) > gatherGap || now.Sub(start) > min(g.took/2, gatherMost) {
			break
		}
	}
	if n >= g.expect-g.expect/4 {
		g.missed = 0
		return
	}
	g.rest = min(1<<min(g.missed, 16), gatherRest)
	g.missed++
}

// waiting returns how many wait, or more than anybody expects when the next group
// is large enough, or nobody will come.
func (l *Log) waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing || int64(l.pos.page-l.durable.pages)*PageSize >= groupAt {
		return 1 << 30
	}
	return len(l.waiters.list)
}
