package embedded

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/quota"
)

const (
	compactUsed    = 60 // percent of the log used, from which on a compaction is worth while ...
	compactGarbage = 20 // ... if so many percent of it no longer count
	compactChunk   = 8  // changes of one record of a compaction
	mayRemember    = 10 // percent of the log that requests of ended claims may take, the latest of them
	mayLive        = 60 // percent of the log that records, and the room for their ends, may take

	// endBytes bounds what the end of a claim takes of the log, its request included,
	// if it comes in a record of its own.
	endBytes = headerSize + changeHeader + 17 + 32 + quota.MaxName
)

// cost bounds what a record of n bytes takes of the log, with what the log adds.
func cost(n int) int64 { return int64(n) + int64(n)/256 + 32 }

// sizeOf returns what a change takes of a compacted log.
func sizeOf(change any) int64 {
	var e encoder
	e.reset()
	e.add(change)
	return cost(len(e.b))
}

// measureLocked adds up what all records take of a compacted log.
//
// +checklocks:s.mu
func (s *Store) measureLocked() int64 {
	sum := sizeOf(nextID{})
	for _, c := range s.books.Classes() {
		sum += sizeOf(quota.PutClass{Class: c})
	}
	if s.opt.Owners == nil {
		for _, o := range s.books.Owners() {
			sum += sizeOf(quota.PutOwner{Owner: o})
		}
	}
	for _, l := range s.books.Limits() {
		sum += sizeOf(quota.PutLimit{Limit: l})
	}
	for _, c := range s.books.Claims() {
		sum += sizeOf(quota.PutClaim{Claim: c})
	}
	return sum
}

// growthLocked returns by how much changes make a compacted log larger, and how many
// claims there are more.
//
// +checklocks:s.mu
func (s *Store) growthLocked(changes []quota.Change) (bytes, claims int64) {
	seen := make(map[quota.ID]int64) // what the changes before left of a claim
	for _, c := range changes {
		switch c := c.(type) {
		case quota.PutClass:
			bytes += sizeOf(c)
			if old, ok := s.books.Class(c.Class.Name); ok {
				bytes -= sizeOf(quota.PutClass{Class: old})
			}
		case quota.DropClass:
			if old, ok := s.books.Class(c.Name); ok {
				bytes -= sizeOf(quota.PutClass{Class: old})
			}
		case quota.PutOwner:
			if _, ok := s.books.Owner(c.Owner.Name); !ok && s.opt.Owners == nil {
				bytes += sizeOf(c)
			}
		case quota.PutLimit:
			if _, ok := s.books.Limit(c.Limit.Owner, c.Limit.Class); !ok {
				bytes += sizeOf(c)
			}
		case quota.DropLimit:
			if l, ok := s.books.Limit(c.Owner, c.Class); ok {
				bytes -= sizeOf(quota.PutLimit{Limit: quota.OwnerLimit{Owner: c.Owner, Class: c.Class, Limit: l}})
			}
		case quota.PutClaim:
			size := sizeOf(c)
			old, n := s.claimSizeLocked(seen, c.Claim.ID)
			bytes, claims = bytes+size-old, claims+1-n
			seen[c.Claim.ID] = size
		case quota.DropClaim:
			old, n := s.claimSizeLocked(seen, c.ID)
			bytes, claims = bytes-old, claims-n
			seen[c.ID] = 0
		}
	}
	return bytes, claims
}

// +checklocks:s.mu
func (s *Store) claimSizeLocked(seen map[quota.ID]int64, id quota.ID) (size, n int64) {
	if size, ok := seen[id]; ok {
		return size, min(size, 1)
	}
	if old, ok := s.books.Claim(id); ok {
		return sizeOf(quota.PutClaim{Claim: old}), 1
	}
	return 0, 0
}

// admit says whether changes can be made now, and encodes them: ErrConflict; what
// Books.Check says of changes that no ledger sends; ErrFull; errRoom, after so many
// compactions. live is the growth of a compacted log.
func (s *Store) admit(expect quota.Generation, changes []quota.Change) (live int64, compactions uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.books.Generation() != expect:
		return 0, 0, quota.ErrConflict
	case len(changes) == 0:
		return 0, 0, nil
	case len(changes) > maxChanges:
		return 0, 0, fmt.Errorf("%w: %d changes at once: at most %d", quota.ErrInvalid, len(changes), maxChanges)
	}
	if err := s.books.Check(changes); err != nil {
		return 0, 0, err
	}
	s.enc.reset()
	for _, c := range changes {
		if _, ok := c.(quota.PutOwner); ok && s.opt.Owners != nil {
			continue
		}
		if !s.enc.add(c) {
			return 0, 0, fmt.Errorf("%w: no record has a change of type %T", quota.ErrInvalid, c)
		}
	}
	live, more := s.growthLocked(changes)
	used, capacity := s.mdc.Usage()
	ends := (int64(s.books.Count()) + max(more, 0)) * cost(endBytes)
	need := cost(len(s.enc.b)) + int64(layout.BlockSize) // with an end mark, and the last page's rest
	if more >= 0 && live > 0 {
		if s.live+live+ends > capacity/100*mayLive {
			return 0, 0, quota.ErrFull
		}
		need += ends
	}
	switch {
	case s.live+capacity/100*mayRemember+need > capacity, len(s.enc.b) > api.MaxRecord:
		return 0, 0, quota.ErrFull // also after a compaction
	case used+need > capacity:
		s.compactLocked()
		return 0, s.compactions, errRoom
	}
	return live, 0, nil
}

// compacted returns when there were more compactions than before, the last of which
// has made room.
func (s *Store) compacted(ctx context.Context, before uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.compactions == before {
		// Before it waits: there may be no compaction, and nobody who wakes it.
		if err := s.usableLocked(ctx); err != nil {
			return err
		}
		if err := s.cond.Wait(ctx); err != nil {
			return err
		}
	}
	if s.compactErr != nil {
		if err := s.usableLocked(ctx); err != nil {
			return err // it was given up
		}
		return fmt.Errorf("%w: %w", quota.ErrFull, s.compactErr)
	}
	return nil
}

// compactLocked starts a compaction unless one is under way. Its task is the store's,
// and ends with it: Close gives it up and waits for that.
//
// +checklocks:s.mu
func (s *Store) compactLocked() {
	if s.compacting || s.closing || s.failed != nil {
		return
	}
	ctx, giveUp := s.opt.Sched.WithCancel(context.Background())
	s.compacting, s.giveUp = true, giveUp
	s.opt.Sched.Go("quota compaction", func() {
		defer giveUp()
		err := s.compact(ctx)
		if err != nil && ctx.Err() == nil && !errors.Is(err, api.EFBIG) && !errors.Is(err, api.ENOSPC) {
			s.fail(err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.compacting, s.compactErr, s.giveUp = false, err, nil
		s.compactions++
		s.cond.Broadcast()
	})
}

// compact writes what counts to the other log and switches to it.
func (s *Store) compact(ctx context.Context) error {
	if err := s.mdc.CompactStart(ctx); err != nil {
		return err
	}
	err := s.copy(ctx)
	if err == nil {
		return s.mdc.CompactEnd(ctx)
	}
	_ = s.mdc.CompactAbort(ctx) //nolint:errcheck // the old log is the active one; the error is what counts
	return err
}

// look looks at one record, which may be gone by then: nil.
type look func(*quota.Books) any

// copy writes all records. Each is read and written in the turn: what the new log has
// of it is the newest, or is followed by it. The requests of claims that have ended
// come last: a claim that ends before it is copied leaves them there.
func (s *Store) copy(ctx context.Context) error {
	if err := s.copyAll(ctx, s.recordsLocked); err != nil {
		return err
	}
	return s.copyAll(ctx, s.endedLocked)
}

// copyAll writes what there is to look at.
func (s *Store) copyAll(ctx context.Context, locked func() []look) error {
	if err := s.inTurn(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	list := locked()
	s.mu.Unlock()
	s.leaveTurn()
	for len(list) > 0 {
		n := min(len(list), compactChunk)
		if err := s.copyChunk(ctx, list[:n]); err != nil {
			return err
		}
		list = list[n:]
	}
	return nil
}

// recordsLocked looks at all records.
//
// +checklocks:s.mu
func (s *Store) recordsLocked() []look {
	list := []look{func(b *quota.Books) any { return nextID{b.NextID()} }}
	for _, c := range s.books.Classes() {
		list = append(list, func(b *quota.Books) any {
			if c, ok := b.Class(c.Name); ok {
				return quota.PutClass{Class: c}
			}
			return nil
		})
	}
	if s.opt.Owners == nil {
		for _, o := range s.books.Owners() { // for ever
			list = append(list, func(*quota.Books) any { return quota.PutOwner{Owner: o} })
		}
	}
	for _, l := range s.books.Limits() {
		list = append(list, func(b *quota.Books) any {
			n, ok := b.Limit(l.Owner, l.Class)
			if !ok {
				return nil
			}
			return quota.PutLimit{Limit: quota.OwnerLimit{Owner: l.Owner, Class: l.Class, Limit: n}}
		})
	}
	for _, c := range s.books.Claims() {
		list = append(list, func(b *quota.Books) any {
			if c, ok := b.Claim(c.ID); ok {
				return quota.PutClaim{Claim: c}
			}
			return nil
		})
	}
	return list
}

// endedLocked looks at the requests of claims that have ended.
//
// +checklocks:s.mu
func (s *Store) endedLocked() []look {
	_, capacity := s.mdc.Usage()
	var list []look
	for _, r := range lastEnded(s.books.Ended(), capacity/100*mayRemember) {
		e := ended{s.books.EndedClaim(r.ID), r}
		list = append(list, func(*quota.Books) any { return e })
	}
	return list
}

// lastEnded returns the latest requests of a list, of so many bytes in the log.
func lastEnded(list []quota.Request, bytes int64) []quota.Request {
	for i, r := range slices.Backward(list) {
		if bytes -= sizeOf(ended{0, r}); bytes < 0 {
			return list[i+1:]
		}
	}
	return list
}

// inTurn is takeTurn for the compaction, which goes on while the store is closing.
func (s *Store) inTurn(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.taken {
		if err := s.cond.Wait(ctx); err != nil {
			return err
		}
	}
	s.taken = true
	return nil
}

func (s *Store) copyChunk(ctx context.Context, list []look) error {
	if err := s.inTurn(ctx); err != nil {
		return err
	}
	defer s.leaveTurn()
	s.enc.reset()
	s.mu.Lock()
	for _, at := range list {
		if c := at(s.books); c != nil {
			s.enc.add(c)
		}
	}
	s.mu.Unlock()
	if s.enc.n == 0 {
		return nil
	}
	return s.mdc.CompactAppend(ctx, s.enc.bytes())
}
