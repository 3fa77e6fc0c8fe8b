package main

import (
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of a logQueue.
const (
	maxLogLines = 4096
	maxLogBytes = 4 << 20
)

// logQueue keeps whoever logs from waiting for whoever reads the log: a pipe
// that nobody reads, or a disk that stalls, costs lines and not the daemon.
// Lines are written in order by one goroutine; those there is no room for are
// counted.
type logQueue struct {
	lines   chan []byte
	bytes   atomic.Int64
	dropped atomic.Uint64 // since the start
	told    uint64        // the writer's own: of dropped

	stop sync.Once
	end  chan struct{} // no line comes any more
	done chan struct{} // all lines are written
}

// newLogQueue starts the goroutine that writes to w; close ends it. tell is
// called by it when lines were dropped and others got through, with how many.
func newLogQueue(w io.Writer, tell func(dropped uint64)) *logQueue {
	q := &logQueue{lines: make(chan []byte, maxLogLines), end: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(q.done)
		for {
			select {
			case line := <-q.lines:
				q.write(w, line, tell)
				continue
			default:
			}
			select {
			case line := <-q.lines:
				q.write(w, line, tell)
			case <-q.end:
				q.drain(w)
				return
			}
		}
	}()
	return q
}

func (q *logQueue) write(w io.Writer, line []byte, tell func(uint64)) {
	_, _ = w.Write(line) //nolint:errcheck // there is no other place to tell it
	q.bytes.Add(-int64(len(line)))
	if n := q.dropped.Load(); n != q.told && len(q.lines) < maxLogLines/2 {
		lost := n - q.told
		q.told = n
		tell(lost)
	}
}

// drain writes what is there.
func (q *logQueue) drain(w io.Writer) {
	for {
		select {
		case line := <-q.lines:
			_, _ = w.Write(line) //nolint:errcheck // there is no other place to tell it
		default:
			return
		}
	}
}

// Write implements io.Writer. It takes a whole line and never fails.
func (q *logQueue) Write(line []byte) (int, error) {
	if q.bytes.Add(int64(len(line))) > maxLogBytes {
		q.bytes.Add(-int64(len(line)))
		q.dropped.Add(1)
		return len(line), nil
	}
	select {
	case q.lines <- append([]byte(nil), line...):
	default:
		q.bytes.Add(-int64(len(line)))
		q.dropped.Add(1)
	}
	return len(line), nil
}

// close waits until what was logged is written, but not for long.
func (q *logQueue) close(patience time.Duration) {
	q.stop.Do(func() { close(q.end) })
	select {
	case <-q.done:
	case <-time.After(patience):
	}
}

// logPatience is how long the daemon's end waits for its log.
const logPatience = 500 * time.Millisecond

// startLog makes the daemon's log.
func (d *daemon) startLog(c config) {
	l, err := c.level()
	if err != nil {
		panic("mpoold: a level that was valid is not: " + err.Error())
	}
	d.level.Set(l)
	d.lines = newLogQueue(d.stderr, func(dropped uint64) {
		d.log.Warn("log lines dropped: nobody took them", slog.Uint64("lines", dropped))
	})
	o := &slog.HandlerOptions{Level: &d.level}
	if c.LogFormat == "json" {
		d.log = slog.New(slog.NewJSONHandler(d.lines, o))
	} else {
		d.log = slog.New(slog.NewTextHandler(d.lines, o))
	}
}
