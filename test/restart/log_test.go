package restart

import (
	"errors"
	"math/rand/v2"
	"strconv"

	"github.com/mpool-go/mpool/api"
)

// appending is a client's work on its log. Its numbers: records below
// acknowledged must be there; none from sent on can be.
type appending struct {
	*worker
	rng                *rand.Rand
	acknowledged, sent uint64
	full               bool
}

// log appends to the client's log and reads it, through all restarts.
func (w *worker) log() {
	a := &appending{worker: w, rng: rand.New(rand.NewPCG(w.Seed, 3))}
	for !w.stop.Load() {
		a.session()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.j.say(entry{What: "log", ID: w.Log, Name: strconv.Itoa(w.N), Acknowledged: a.acknowledged, Sent: a.sent})
}

// session opens the log and works until the connection breaks.
func (a *appending) session() {
	var l api.Mlog
	if a.call("find log", func() (err error) { l, err = a.p.Mlog(a.ctx, a.Log); return err }, api.ECONNRESET) != nil {
		return
	}
	defer func() { _ = a.call("put log", l.Put) }()
	var out api.Appender
	err := a.call("open log", func() (err error) { out, err = l.OpenAppend(a.ctx); return err }, api.ECONNRESET, api.EBADF)
	if err != nil {
		return
	}
	next, _ := out.Len()
	if next < a.acknowledged || next > a.sent {
		a.bad("the log has %d records; %d were acknowledged, %d sent", next, a.acknowledged, a.sent)
	}
	// What is there after the daemon's death is durable.
	a.acknowledged = next
	for !a.stop.Load() {
		if a.rng.IntN(20) == 0 || a.full {
			if !a.readAll(l) {
				break
			}
		} else if !a.append(out, &next) {
			break
		}
		think(a.rng)
	}
	err = a.call("close log", func() error { return out.Close(a.ctx) }, api.EBADF, api.EUNKNOWN)
	if err == nil {
		a.acknowledged = next
	}
}

// append appends a record; false: the connection broke.
func (a *appending) append(out api.Appender, next *uint64) bool {
	var got uint64
	sync := a.rng.IntN(2) == 0
	was := a.sent
	a.sent = max(a.sent, *next+1)
	err := a.call("append", func() (err error) {
		got, err = out.Append(a.ctx, record(a.N, *next), sync)
		return err
	}, api.EBADF, api.EUNKNOWN, api.EFBIG)
	var e *api.Error
	switch {
	case errors.Is(err, api.EFBIG):
		a.sent, a.full = was, true
		return true
	case errors.Is(err, api.EUNKNOWN):
		if !errors.As(err, &e) || e.Records != *next {
			a.bad("the error says that %d records are acknowledged, want %d: %v", e.Records, *next, err)
		}
		return false
	case err != nil:
		a.sent = was
		return false
	case got != *next:
		a.bad("record %d has number %d", *next, got)
	}
	*next++
	if sync {
		a.acknowledged = *next
	}
	if a.rng.IntN(8) == 0 {
		err := a.call("sync", func() error { return out.Sync(a.ctx) }, api.EBADF, api.EUNKNOWN)
		if err != nil {
			return false
		}
		a.acknowledged = *next
	}
	return true
}

// readAll reads the log; false: the connection broke.
func (a *appending) readAll(l api.Mlog) bool {
	var r api.LogReader
	err := a.call("open log for read", func() (err error) { r, err = l.OpenRead(a.ctx); return err }, api.ECONNRESET, api.EBADF)
	if err != nil {
		return false
	}
	var n uint64
	err = a.call("read log", func() (err error) { n, err = readLog(a.ctx, r, a.N); return err }, api.ECONNRESET, api.EBADF)
	if err == nil && (n < a.acknowledged || n > a.sent) {
		a.bad("the log has %d records; %d were acknowledged, %d sent", n, a.acknowledged, a.sent)
	}
	_ = a.call("close reader", r.Close)
	return err == nil
}
