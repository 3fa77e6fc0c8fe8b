package history

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"sync"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// log is the state of a log.
type log struct {
	generation uint64
	records    string // 8 bytes of each
	durable    int    // records that a kill must leave: synced, or read by another process
	cut        bool   // a kill has left some number of records: durable at least
	appender   uint64
	readers    set
	erasing    set // erasures under way: they keep others from opening and erasing it
	killed     bool
}

// logMachine is the model of a log that begins in a generation (S20 to S25).
func logMachine(generation uint64) machine {
	return newMachine(log{generation: generation}, log.next, func(c *call) []part {
		if c.Do == doAppend && c.Sync && c.Code == 0 || c.Do == doErase {
			return []part{second}
		}
		return nil
	})
}

func (l log) len() int { return len(l.records) / 8 }

func (l log) record(n uint64) uint64 {
	return binary.LittleEndian.Uint64([]byte(l.records[8*n:]))
}

// shortened is the log with at most n records.
func (l log) shortened(n int) log {
	l.records = l.records[:8*min(n, l.len())]
	return l
}

func (l log) pushed(record uint64) log {
	l.records += string(binary.LittleEndian.AppendUint64(nil, record))
	return l
}

func (l log) next(s step) []log {
	c := s.call
	switch c.Do {
	case doKill:
		l.appender, l.readers, l.cut, l.killed = 0, set{}, l.cut || l.durable < l.len(), true
		return []log{l}
	case doReader, doUnreader, doNext, doSeek:
		return l.read(c)
	case doErase:
		return l.erase(s)
	case doLogInfo:
		return only(l, c.undone() || c.Code == 0 && c.N == l.generation)
	case doOpen:
		return l.open(c)
	}
	return l.append(s)
}

// erase begins, and ends: others cannot erase it meanwhile.
func (l log) erase(s step) []log {
	c, own := s.call, s.own()
	if s.part == first {
		l.erasing = l.erasing.with(own)
		return []log{l}
	}
	if !l.erasing.has(own) {
		return nil
	}
	l.erasing = l.erasing.without(own)
	busy := l.appender != 0 || l.readers.n > 0
	if c.Code == api.EBUSY {
		return only(l, busy || l.erasing.n > 0)
	}
	erased := only(log{generation: max(l.generation+1, c.Want), erasing: l.erasing, killed: l.killed}, !busy && (c.Code == 0 || c.lost()))
	if c.lost() || c.undone() {
		erased = append(erased, l)
	}
	return erased
}

func (l log) open(c *call) []log {
	switch {
	case c.Code == api.EBUSY:
		return only(l, l.appender != 0 || l.erasing.n > 0)
	case c.undone():
		// The kill may have taken the answer only: until then it was open.
		open := l
		open.appender = c.Given
		return append(only(open, c.Torn && !l.killed && l.appender == 0), l)
	}
	n := int(c.N)
	can := c.Code == 0 && l.appender == 0 && n >= l.durable && (n == l.len() || l.cut && n < l.len())
	if can {
		l = l.shortened(n)
		l.appender, l.cut, l.durable = c.Given, false, n
	}
	return only(l, can)
}

// append is what the appender does: append, sync, close.
func (l log) append(s step) []log {
	c := s.call
	mine := l.appender == c.Handle
	after := l
	switch c.Do {
	case doAppend:
		if s.part == second { // it is durable
			after.durable = max(l.durable, int(c.N)+1)
			return only(after, mine && c.N < uint64(l.len()) && l.record(c.N) == c.Record)
		}
		after = l.pushed(c.Record)
		mine = mine && (c.Code != 0 || c.N == uint64(l.len()))
	case doSync:
		after.durable = max(l.durable, int(c.Want))
	case doClose:
		after.appender, after.durable = 0, l.len()
	default:
		return nil
	}
	switch {
	case c.lost():
		return append(only(after, mine), l)
	case c.Code == api.EBADF:
		return only(l, !mine)
	case c.undone():
		return []log{l}
	}
	return only(after, c.Code == 0 && mine)
}

func (l log) read(c *call) []log {
	has := l.readers.has(c.Handle)
	n := int(c.N)
	// In the writer's process unsynced records are seen, too.
	own := l.appender != 0 && processOf(l.appender) == c.Process
	switch {
	case c.Do == doReader && c.Code == 0:
		l.readers = l.readers.with(c.Given)
		return []log{l}
	case c.Do == doUnreader && c.Code == 0:
		l.readers = l.readers.without(c.Handle)
		return []log{l}
	case c.Code == api.EBADF:
		return only(l, !has)
	case c.undone():
		open := l
		open.readers = l.readers.with(c.Given)
		return append(only(open, c.Do == doReader && c.Torn && !l.killed), l)
	case c.Do == doReader && c.Code == api.EBUSY:
		return only(l, l.erasing.n > 0)
	case !has:
		return nil
	case c.Do == doNext && c.Record == endOfLog, c.Do == doSeek && c.Code == api.ENOENT:
		if c.Do == doSeek {
			n--
		}
		if own {
			return only(l, n >= l.len())
		}
		if l.cut {
			l = l.shortened(max(n, l.durable))
		}
		return only(l, l.durable <= n)
	case c.Code != 0:
		return nil
	}
	need := n
	if c.Do == doNext {
		need++
	}
	if need > l.len() || c.Do == doNext && l.record(c.N) != c.Record {
		return nil
	}
	if !own {
		l.durable = max(l.durable, need)
	}
	return []log{l}
}

// logs appends to, reads and erases a round's logs.
func (a *actor) logs(rng *rand.Rand) {
	ctx := context.Background()
	have := make(map[uint64]api.Mlog)
	for i := 0; i < a.Steps; {
		key := a.Logs[rng.IntN(len(a.Logs))]
		l := have[key]
		if l == nil {
			var err error
			if l, err = a.pool.Mlog(ctx, layout.ObjectID(key)); err != nil {
				i++
				continue // the daemon is killed
			}
			have[key] = l
		}
		var n int
		var stale bool
		switch k := rng.IntN(8); {
		case k < 3:
			n, stale = a.append(ctx, rng, key, l)
		case k < 6:
			n, stale = a.read(ctx, rng, key, l)
		case k == 6:
			c := &call{Do: doErase, Key: key, Want: rng.Uint64N(6)}
			_ = a.call(c, func(*call) error { return l.Erase(ctx, c.Want) }) // recorded
			stale = c.undone() || c.lost()
		default:
			c := &call{Do: doLogInfo, Key: key}
			_ = a.call(c, func(c *call) error { // recorded
				info, err := l.Info(ctx)
				c.N = info.Generation
				return err
			})
			stale = c.undone() || c.lost()
		}
		i += 1 + n
		if stale {
			delete(have, key)
		}
	}
	for _, l := range have {
		_ = l.Put() // its connection may be gone
	}
}

// append opens a log for append and has some tasks append to it. It returns how many
// calls that were, and whether the connection broke.
func (a *actor) append(ctx context.Context, rng *rand.Rand, key uint64, l api.Mlog) (int, bool) {
	open := &call{Do: doOpen, Key: key, Given: a.fresh()}
	var to api.Appender
	if a.call(open, func(c *call) (err error) {
		if to, err = l.OpenAppend(ctx); err == nil {
			c.N, _ = to.Len()
		}
		return err
	}) != nil {
		return 0, open.undone()
	}
	var mu sync.Mutex
	answered := open.N
	var wg sync.WaitGroup
	const tasks, each = 2, 3
	for i := range tasks {
		rng := rand.New(rand.NewPCG(rng.Uint64(), uint64(i)))
		wg.Go(func() {
			for range each {
				if rng.IntN(4) == 0 {
					mu.Lock()
					c := &call{Do: doSync, Key: key, Handle: open.Given, Want: answered}
					mu.Unlock()
					_ = a.call(c, func(*call) error { return to.Sync(ctx) }) // recorded
					continue
				}
				c := &call{Do: doAppend, Key: key, Handle: open.Given, Record: a.fresh(), Sync: rng.IntN(3) == 0}
				if a.call(c, func(c *call) (err error) {
					c.N, err = to.Append(ctx, binary.LittleEndian.AppendUint64(make([]byte, 0, 8), c.Record), c.Sync)
					return err
				}) == nil {
					mu.Lock()
					answered = max(answered, c.N+1)
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	c := &call{Do: doClose, Key: key, Handle: open.Given}
	_ = a.call(c, func(*call) error { return to.Close(ctx) }) // recorded
	return tasks * each, c.undone() || c.lost()
}

// read reads some records of a log's end.
func (a *actor) read(ctx context.Context, rng *rand.Rand, key uint64, l api.Mlog) (int, bool) {
	open := &call{Do: doReader, Key: key, Given: a.fresh()}
	var r api.LogReader
	if a.call(open, func(*call) (err error) {
		r, err = l.OpenRead(ctx)
		return err
	}) != nil {
		return 0, open.undone()
	}
	n := 0
	if seen := a.seen(key, 0); seen > 3 && rng.IntN(2) == 0 {
		n++
		c := &call{Do: doSeek, Key: key, Handle: open.Given, N: seen - 2 + rng.Uint64N(4)}
		_ = a.call(c, func(c *call) error { return r.Seek(ctx, c.N) }) // recorded
	}
	for buf := make([]byte, 16); n < 10; n++ {
		c := &call{Do: doNext, Key: key, Handle: open.Given, N: r.Record()}
		err := a.call(c, func(c *call) error {
			k, err := r.Next(ctx, buf)
			switch {
			case errors.Is(err, io.EOF):
				c.Record = endOfLog
				return nil
			case err == nil && k == 8:
				c.Record = binary.LittleEndian.Uint64(buf)
			}
			return err
		})
		if err != nil || c.Record == endOfLog && rng.IntN(3) > 0 {
			break
		}
	}
	a.seen(key, r.Record())
	c := &call{Do: doUnreader, Key: key, Handle: open.Given}
	_ = a.call(c, func(*call) error { return r.Close() }) // recorded
	return n, c.undone()
}
