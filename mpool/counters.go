package mpool

import (
	"context"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/sched"
)

// The first id counter and birth stamp of a pool, and how many of each a
// checkpoint promises. The metadata logs have birth stamps far above.
const (
	firstID     = 1
	firstBirth  = 1
	counterStep = 4096
)

// counters gives ids and birth stamps. Both lie below limits that are durable
// before the first is given from below them: after a crash counting goes on at
// the limits.
type counters struct {
	pool *Pool

	mu   sched.Mutex
	cond sched.Cond // a checkpoint has ended
	// +checklocks:mu
	nextID uint64
	// +checklocks:mu
	limitID uint64
	// +checklocks:mu
	nextBirth layout.BirthStamp
	// +checklocks:mu
	limitBirth layout.BirthStamp
	// +checklocks:mu
	refilling bool
	// +checklocks:mu
	err error // of the last checkpoint
}

func (c *counters) init(p *Pool) {
	c.pool = p
	c.mu.Init(p.sched, sched.RankObject)
	c.cond.Init(p.sched, &c.mu)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nextID, c.limitID, c.nextBirth, c.limitBirth = firstID, firstID, firstBirth, firstBirth
}

// replay takes a checkpoint of the metadata log.
func (c *counters) replay(id uint64, birth layout.BirthStamp) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limitID, c.limitBirth = max(c.limitID, id), max(c.limitBirth, birth)
	c.nextID, c.nextBirth = c.limitID, c.limitBirth
}

// limits returns the durable limits.
func (c *counters) limits() (uint64, layout.BirthStamp) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.limitID, c.limitBirth
}

// take gives an id counter (unless it is given: then it sees to it that it is
// never given again) and a birth stamp. It waits for a checkpoint only when the
// last one is used up: ErrWouldBlock for who must not.
func (c *counters) take(ctx context.Context, op string, id uint64, wait bool) (uint64, layout.BirthStamp, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.nextBirth >= c.limitBirth || id == 0 && c.nextID >= c.limitID || id >= c.limitID {
		c.refillLocked(max(c.nextID, id+1))
		if !wait {
			return 0, 0, ErrWouldBlock
		}
		if err := c.cond.Wait(ctx); err != nil {
			return 0, 0, api.ContextError(op, err)
		}
		if c.err != nil {
			return 0, 0, notDone(op, c.err)
		}
	}
	if id == 0 {
		id = c.nextID
	}
	if id > layout.MaxCounter {
		return 0, 0, api.Errorf(api.ENOSPC, op, "the pool has given out all its object ids")
	}
	c.nextID = max(c.nextID, id+1)
	birth := c.nextBirth
	c.nextBirth++
	if c.nextBirth+counterStep/2 > c.limitBirth || c.nextID+counterStep/2 > c.limitID {
		c.refillLocked(c.nextID) // ahead of need
	}
	return id, birth, nil
}

// notDone makes the error of a call that did nothing, because something before
// it failed: what is unknown of that is not unknown of the call.
func notDone(op string, err error) error {
	if api.CodeOf(err) != api.EUNKNOWN {
		return err
	}
	return api.Errorf(api.EIO, op, "not done, because of: %v", err)
}

// refillLocked starts a checkpoint unless one is under way. The task ends with
// its transaction.
//
// +checklocks:c.mu
func (c *counters) refillLocked(fromID uint64) {
	if c.refilling {
		return
	}
	c.refilling = true
	id := max(fromID, c.limitID) + counterStep
	birth := c.limitBirth + counterStep
	c.pool.sched.Go("counter checkpoint", func() {
		t := &txn{op: "counter checkpoint", frees: true, ids: []layout.ObjectID{namesID}, apply: func() {
			c.mu.Lock()
			c.limitID, c.limitBirth = max(c.limitID, id), max(c.limitBirth, birth)
			c.mu.Unlock()
		}}
		t.rec.Counter(id, birth)
		err := c.pool.meta.commit(context.Background(), t)
		c.mu.Lock()
		c.refilling, c.err = false, err
		c.cond.Broadcast()
		c.mu.Unlock()
	})
}
