package server

import (
	"log/slog"
	"time"

	"github.com/mpool-go/mpool/ioctl/ring"
)

// How often a bell may ring for nothing before the ring is left alone for a
// while, how long that is at first, and how often it doubles.
const (
	emptyBells   = 16
	muteTime     = time.Millisecond
	muteDoubling = 7
)

// listenTime is how long a goroutine waits for a bell before it looks whether it is
// still to do so.
const listenTime = time.Second

// doze announces to the clients of all rings that are looked at that the loop
// will sleep, and stops looking at them. It returns false if there is work after
// all.
func (l *ioLoop) doze() bool {
	ready := true
	kept := l.hot[:0]
	for _, r := range l.hot {
		if r.hot = l.dozeRing(r); r.hot {
			kept = append(kept, r)
			ready = false
		}
	}
	clear(l.hot[len(kept):])
	l.hot = kept
	return ready
}

// dozeRing says whether a ring has to be looked at again at once.
func (l *ioLoop) dozeRing(r *ioRing) bool {
	switch {
	case r.closing || r.set.stopped():
		return false
	case r.isMute:
		return false // its time will come
	}
	word := r.end.Doze()
	if word == nil {
		return l.hasWork(r)
	}
	r.dozed = true
	if !r.armed {
		r.armed = true
		l.listen(r, word)
	}
	return false
}

// hasWork says whether a ring that does not sleep is to be looked at again at
// once. If not, either one of its operations ends and it is looked at then, or
// its client has filled the ring and does not take what is there: it is looked
// at after a while.
func (l *ioLoop) hasWork(r *ioRing) bool {
	n, err := r.takeable()
	switch {
	case err != nil || n > 0 && !r.set.full():
		return true // take says what is wrong
	case n > 0 && r.set.open > 0:
		return false
	default:
		l.mute(r)
		return false
	}
}

// listen waits for a ring's bell: by the queue, or by a goroutine.
func (l *ioLoop) listen(r *ioRing, word *uint32) {
	r.word = word
	if l.words != nil && r.ear == nil && l.words.WaitWord(word, 1, r.bell) {
		return
	}
	if r.ear == nil {
		r.ear = make(chan *uint32, 1)
		l.count.ears.Add(1)
		l.ears.Go(func() { l.earOf(r) })
	}
	r.ear <- word // the goroutine has taken the last one: that wait has ended
}

// earOf waits for a ring's bell as often as it is asked to. It occupies a thread.
func (l *ioLoop) earOf(r *ioRing) {
	rang := func() { r.bell(nil) }
	for word := range r.ear {
		for late := true; late && !r.over.Load(); {
			late = ring.Listen(word, listenTime)
		}
		l.do(rang)
	}
	l.count.ears.Add(-1)
}

// endWait ends the wait for a bell, whatever a hostile client does to that, or
// nearly: it is called again until the wait has ended.
func (l *ioLoop) endWait(r *ioRing) {
	r.end.EndWait()
	if r.ear != nil {
		l.wakeAt(l.clock().Add(muteTime)) // it may come to wait only after this
		return
	}
	l.words.EndWait(r.word)
}

// rangForNothing bears with a bell that rings, or does not hold what it should,
// without anything in the ring, but not for ever.
func (l *ioLoop) rangForNothing(r *ioRing) {
	r.empty++
	l.count.emptied.Add(1)
	if r.empty < emptyBells {
		return
	}
	if !r.scolded {
		r.scolded = true
		l.srv.complaints.Warn("client rings for nothing; it is listened to less", r.set.s.who(), slog.Int("ring", int(r.number)))
	}
	l.mute(r)
}

// mute leaves a ring alone for a while: longer each time, until there is
// something in it.
func (l *ioLoop) mute(r *ioRing) {
	if r.isMute {
		return
	}
	r.isMute = true
	r.empty++
	r.muteUntil = l.clock().Add(muteTime << min(max(r.empty-emptyBells, 0), muteDoubling))
	l.muted = append(l.muted, r)
	l.wakeAt(r.muteUntil)
}

// unmute looks again at rings whose time has come.
func (l *ioLoop) unmute() {
	now := l.clock()
	if !now.Before(l.alarm) {
		l.alarm = time.Time{}
	}
	kept := l.muted[:0]
	for _, r := range l.muted {
		switch {
		case r.closing:
			r.isMute = false
		case now.Before(r.muteUntil):
			kept = append(kept, r)
			l.wakeAt(r.muteUntil)
		default:
			r.isMute = false
			l.heat(r)
		}
	}
	clear(l.muted[len(kept):])
	l.muted = kept
}
