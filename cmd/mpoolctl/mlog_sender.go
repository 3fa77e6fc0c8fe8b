package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"sync"

	"github.com/mpool-go/mpool/api"
)

// recordSender appends records in order. Order needs one append after the
// other; durability does not need to hold them up: one task appends without
// sync while another syncs, again and again as long as something is not
// durable, so that all records appended during one flush share the next.
type recordSender struct {
	w   api.Appender
	bar progress

	wake chan struct{} // one token: look at the fields below

	mu sync.Mutex
	// +checklocks:mu
	ended bool // the input has
	// +checklocks:mu
	appended appended
	// +checklocks:mu
	durable appended
}

func newRecordSender(w api.Appender, bar progress) *recordSender {
	return &recordSender{w: w, bar: bar, wake: make(chan struct{}, 1)}
}

// close closes the log, which makes the rest durable, and returns what is.
func (s *recordSender) close(ctx context.Context) (appended, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeoutForCleanup)
	defer cancel()
	err := s.w.Close(ctx)
	all, durable, _ := s.totals()
	if err == nil {
		durable = all
	}
	return durable, err
}

// totals returns what was appended and what of it is durable.
func (s *recordSender) totals() (all, durable appended, ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.appended, s.durable, s.ended
}

func (s *recordSender) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// append appends one record, not yet durable.
func (s *recordSender) append(ctx context.Context, record []byte) error {
	if _, err := s.w.Append(ctx, record, false); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.appended.Records++
	s.appended.Bytes += int64(len(record))
	return nil
}

// sendWhole appends the whole input as one record and makes it durable.
func (s *recordSender) sendWhole(ctx context.Context, in io.Reader) error {
	record, err := readWhole(in)
	if err != nil {
		return err
	}
	if err := s.append(ctx, record); err != nil {
		return err
	}
	return s.sync(ctx)
}

// sendLines appends each line as a record, with sync making them durable on
// the way.
func (s *recordSender) sendLines(ctx context.Context, in io.Reader, sync bool) error {
	if !sync {
		return errors.Join(s.appendLines(ctx, in), s.sync(ctx))
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	synced := make(chan error, 1)
	go func() {
		err := s.syncLoop(ctx)
		if err != nil {
			fail(err) // appending on would be for nothing
		}
		synced <- err
	}()
	err := s.appendLines(ctx, in)
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.nudge()
	return errors.Join(<-synced, err)
}

// appendLines appends lines until the input ends.
func (s *recordSender) appendLines(ctx context.Context, in io.Reader) error {
	lines := bufio.NewReaderSize(in, 1<<16)
	var line []byte
	for {
		var err error
		line, err = readLine(lines, line)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.append(ctx, line); err != nil {
			return err
		}
		s.nudge()
	}
}

// syncLoop syncs while there is something to sync, until the input has ended
// and all of it is durable.
func (s *recordSender) syncLoop(ctx context.Context) error {
	for range s.wake {
		if err := s.sync(ctx); err != nil {
			return err
		}
		if all, durable, ended := s.totals(); ended && all == durable {
			break
		}
	}
	return nil
}

// sync makes what is appended durable.
func (s *recordSender) sync(ctx context.Context) error {
	all, durable, _ := s.totals()
	if all == durable {
		return nil
	}
	if err := s.w.Sync(ctx); err != nil {
		return err
	}
	s.bar.add(all.Bytes - durable.Bytes)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.durable = all
	return nil
}
