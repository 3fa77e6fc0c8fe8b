package server

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Of each complaint so many lines are written in a while: how many there are is
// the clients' choice.
const (
	complaintsMost  = 20
	complaintsWhile = 10 * time.Second
)

// complaints is a handler of log lines that clients cause. Of each message it
// passes on the first few in a while, and with the next one how many it did
// not.
type complaints struct {
	slog.Handler
	counts *complaintCounts
}

func newComplaints(h slog.Handler) *slog.Logger {
	return slog.New(complaints{h, &complaintCounts{byMessage: make(map[string]*complaintCount)}})
}

// complaintCounts has an entry for each message, which is one of a few
// constants.
type complaintCounts struct {
	mu sync.Mutex
	// +checklocks:mu
	byMessage map[string]*complaintCount
}

type complaintCount struct {
	begun time.Time // of the while
	told  int       // lines in it
	held  int       // lines since the last one that was passed on
}

// pass says whether a line is passed on, and how many before it were not.
func (c *complaintCounts) pass(message string, now time.Time) (ok bool, held int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.byMessage[message]
	if n == nil {
		n = &complaintCount{begun: now}
		c.byMessage[message] = n
	}
	if now.Sub(n.begun) >= complaintsWhile {
		n.begun, n.told = now, 0
	}
	if n.told >= complaintsMost {
		n.held++
		return false, 0
	}
	n.told++
	held, n.held = n.held, 0
	return true, held
}

// Handle implements [slog.Handler].
func (c complaints) Handle(ctx context.Context, r slog.Record) error {
	ok, held := c.counts.pass(r.Message, r.Time)
	if !ok {
		return nil
	}
	if held > 0 {
		r.AddAttrs(slog.Int("held_back", held))
	}
	return c.Handler.Handle(ctx, r)
}

// WithAttrs implements [slog.Handler].
func (c complaints) WithAttrs(attrs []slog.Attr) slog.Handler {
	return complaints{c.Handler.WithAttrs(attrs), c.counts}
}

// WithGroup implements [slog.Handler].
func (c complaints) WithGroup(name string) slog.Handler {
	return complaints{c.Handler.WithGroup(name), c.counts}
}
