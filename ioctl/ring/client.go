package ring

import (
	"math"
	"time"
)

// Client is the client's end of a ring. Put is for one goroutine at a time; Take,
// Ready, Doze, Sleep and Wait are for one at a time, which may be another one. Bell
// and Wake are for any.
type Client struct {
	m         memory
	submitted uint32
	seen      uint32
	least     uint32 // completions that the announced Sleep is for
}

// NewClient makes the client's end over a ring's memory, Size(entries) bytes.
// They are zero; the daemon has not been told of them yet.
func NewClient(mem []byte, entries int) (*Client, error) {
	m, err := newMemory(mem, entries)
	if err != nil {
		return nil, err
	}
	return &Client{m: m}, nil
}

// Put fills the next descriptor. It returns false if the ring is full: the
// daemon has to take some first. A client that never has more requests
// unanswered than the ring has entries does not meet that.
func (c *Client) Put(d *Descriptor) bool {
	if c.submitted-c.m.word(takenAt).Load() >= c.m.entries {
		return false
	}
	d.put(c.m.descriptor(c.submitted))
	c.submitted++
	c.m.word(submittedAt).Store(c.submitted)
	return true
}

// Bell wakes the daemon if it sleeps, and says whether it did. It must follow
// Put, once for any number of descriptors.
func (c *Client) Bell() bool {
	w := c.m.word(bellAt)
	if w.Load() == 0 || !w.CompareAndSwap(1, 0) {
		return false
	}
	wake(w, 1)
	return true
}

// Ready says whether there is a completion.
func (c *Client) Ready() bool { return c.m.word(endedAt).Load() != c.seen }

// Take takes the next completion, if there is one.
func (c *Client) Take(x *Completion) bool {
	if !c.Ready() {
		return false
	}
	x.get(c.m.completion(c.seen))
	c.seen++
	c.m.word(seenAt).Store(c.seen)
	return true
}

// Doze announces a Sleep. Between the two the caller looks once more whether
// there is something to sleep for: a Wake that comes after Doze ends the Sleep.
//
// least is how many completions the Sleep is for, at least 1: the daemon does not
// wake the client for fewer. Those that will be answered on the socket count as
// none: whoever is told of them there calls Wake.
func (c *Client) Doze(least int) {
	c.least = uint32(least)
	c.m.word(wantedAt).Store(c.seen + c.least)
	c.m.word(waiterAt).Store(1)
}

// Sleep sleeps, after Doze, until there are as many completions as that said, Wake
// has been called since, or the time is up (negative: never). It may return for no
// reason.
func (c *Client) Sleep(d time.Duration) {
	w := c.m.word(waiterAt)
	if c.m.word(endedAt).Load()-c.seen < c.least {
		wait(w, 1, d)
	}
	w.Store(0)
}

// Stay takes Doze back: there is no Sleep after all.
func (c *Client) Stay() { c.m.word(waiterAt).Store(0) }

// Wait is Doze and Sleep for one completion, for who has nothing to look at between
// them.
func (c *Client) Wait(d time.Duration) {
	c.Doze(1)
	c.Sleep(d)
}

// Wake ends a Sleep that is under way or announced. Any goroutine may call it
// while the memory is mapped. It is of use only to who sets something first that
// the sleeper looks at after Doze.
func (c *Client) Wake() {
	w := c.m.word(waiterAt)
	w.Store(0)
	wake(w, math.MaxInt32)
}
