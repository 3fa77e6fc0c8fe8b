package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/quota"
	"github.com/mpool-go/mpool/sched"
)

// Options are what a store runs on. The zero value is the real world, with owners of
// its own.
type Options struct {
	// Sched is nil in the real world, else the simulation.
	Sched *sched.Sched
	// Owners, if set, are kept elsewhere: the log has none.
	Owners Owners
	// External returns what is used of an external class; nil: there are none. It is
	// called under Store.mu, and must not wait.
	External func(owner, class string) quota.Sum
	// Changed, if set, is called at the end of Open and after each change, in their
	// order, by whoever made it. It must not wait, and must not call the store.
	// changes is nil at the end of Open.
	Changed func(r quota.Reader, changes []quota.Change)
}

// Owners is a table of owners outside of the store.
type Owners interface {
	// List returns all of them.
	List(ctx context.Context) ([]quota.Owner, error)
	// Add adds one for ever. What is there already is no error.
	Add(ctx context.Context, o quota.Owner) error
}

// Store implements [quota.Store].
type Store struct {
	opt Options
	mdc api.MDC

	mu   sched.Mutex
	cond sched.Cond
	// +checklocks:mu
	taken bool // the turn: who has it may append
	// +checklocks:mu
	failed error
	// +checklocks:mu
	compacting bool
	// +checklocks:mu
	giveUp context.CancelFunc // ends the compaction that is under way
	// +checklocks:mu
	compactions uint64
	// +checklocks:mu
	compactErr error // of the last one
	// +checklocks:mu
	closing bool
	// +checklocks:mu
	books *quota.Books
	// +checklocks:mu
	live int64 // bytes of a compacted log

	enc encoder // guarded by the turn
}

// Open reads a container that holds a store, or nothing. The container is the store's
// until Close, which closes it; if Open fails it is the caller's to close. Errors:
// ECORRUPT (what it holds is no store's), and those of reading.
func Open(ctx context.Context, mdc api.MDC, opt Options) (*Store, error) {
	s := &Store{opt: opt, mdc: mdc}
	s.mu.Init(opt.Sched, sched.RankAdmin)
	s.cond.Init(opt.Sched, &s.mu)
	m, err := load(ctx, mdc)
	if err != nil {
		return nil, err
	}
	var owners []quota.Owner
	if opt.Owners != nil {
		if owners, err = opt.Owners.List(ctx); err != nil {
			return nil, err
		}
		owners = append([]quota.Owner{}, owners...)
	}
	books, err := m.books(owners)
	if err != nil {
		return nil, &api.Error{Code: api.ECORRUPT, Op: "quota open", Err: err, Detail: "the quotas' records do not fit together"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.books = books
	s.live = s.measureLocked()
	if opt.Changed != nil {
		opt.Changed(s.readerLocked(), nil)
	}
	return s, nil
}

// load reads all records.
func load(ctx context.Context, mdc api.MDC) (*image, error) {
	r, err := mdc.OpenRead(ctx)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	m := newImage()
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Next(ctx, buf)
		switch e := (*api.Error)(nil); {
		case errors.Is(err, io.EOF):
			return m, nil
		case errors.As(err, &e) && e.Code == api.EOVERFLOW && e.Want <= api.MaxRecord:
			buf = make([]byte, e.Want)
		case err != nil:
			return nil, err
		default:
			if err := decode(buf[:n], m.apply); err != nil {
				return nil, &api.Error{Code: api.ECORRUPT, Op: "quota open", Err: err, Detail: fmt.Sprintf("record %d before this place", r.Record())}
			}
		}
	}
}

// reader is the books with the usage of external classes.
type reader struct {
	*quota.Books
	external func(owner, class string) quota.Sum
}

func (r reader) Used(owner, class string) quota.Sum {
	if c, ok := r.Class(class); ok && c.External && r.external != nil {
		return r.external(owner, class)
	}
	return r.Books.Used(owner, class)
}

// +checklocks:s.mu
func (s *Store) readerLocked() quota.Reader { return reader{s.books, s.opt.External} }

// usableLocked says why nothing can be done.
//
// +checklocks:s.mu
func (s *Store) usableLocked(ctx context.Context) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case s.closing:
		return api.Errorf(api.EBADF, "", "the quota store is closed")
	case s.failed != nil:
		return &api.Error{
			Code: api.EROFS, Err: errors.New(s.failed.Error()), // not its code
			Detail: "the quota store could not be written and is closed; deactivate and activate the pool",
		}
	}
	return nil
}

// View implements [quota.Store].
func (s *Store) View(ctx context.Context, f func(quota.Reader)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usableLocked(ctx); err != nil {
		return err
	}
	f(s.readerLocked())
	return nil
}

// Verify says whether the sums are those of the records.
func (s *Store) Verify() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if live := s.measureLocked(); live != s.live {
		return fmt.Errorf("the records take %d bytes, not %d", live, s.live)
	}
	return s.books.Verify()
}

// takeTurn waits for the turn. After an error it is not taken.
func (s *Store) takeTurn(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.taken {
		if err := s.cond.Wait(ctx); err != nil {
			return err
		}
	}
	if err := s.usableLocked(ctx); err != nil {
		return err
	}
	s.taken = true
	return nil
}

func (s *Store) leaveTurn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken = false
	s.cond.Broadcast()
}

// Apply implements [quota.Store].
func (s *Store) Apply(ctx context.Context, expect quota.Generation, changes []quota.Change) error {
	for overrun := 0; ; {
		compactions, err := s.applyInTurn(ctx, expect, changes)
		if errors.Is(err, errRoom) {
			err = s.compacted(ctx, compactions)
			if err == nil {
				continue
			}
			// What others appended meanwhile may have filled the new log.
			if overrun++; errors.Is(err, api.EFBIG) && overrun < maxOverrun {
				continue
			}
		}
		if err != nil {
			return err
		}
		return s.durable(ctx)
	}
}

// durable waits until all that was appended is.
func (s *Store) durable(ctx context.Context) error {
	err := s.mdc.Sync(ctx)
	if err == nil {
		return nil
	}
	if ctx.Err() == nil {
		s.fail(err)
	}
	return fmt.Errorf("%w: %w", quota.ErrUnknown, err)
}

func (s *Store) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = err
	}
	s.cond.Broadcast()
}

// maxOverrun bounds how many compactions without room in the new log one change sees.
const maxOverrun = 16

// errRoom says that a compaction makes room.
var errRoom = errors.New("no room before the next compaction")

func (s *Store) applyInTurn(ctx context.Context, expect quota.Generation, changes []quota.Change) (compactions uint64, err error) {
	if err := s.takeTurn(ctx); err != nil {
		return 0, err
	}
	defer s.leaveTurn()
	live, compactions, err := s.admit(expect, changes)
	if err != nil || len(changes) == 0 {
		return compactions, err
	}
	for _, c := range changes {
		if o, ok := c.(quota.PutOwner); ok && s.opt.Owners != nil {
			if err := s.opt.Owners.Add(ctx, o.Owner); err != nil {
				return 0, err
			}
		}
	}
	if s.enc.n > 0 {
		switch err := s.mdc.Append(ctx, s.enc.bytes(), false); {
		case errors.Is(err, api.EFBIG):
			return 0, fmt.Errorf("%w: %w", quota.ErrFull, err)
		case err != nil && ctx.Err() != nil:
			return 0, err
		case err != nil:
			s.fail(err)
			return 0, err
		}
	}
	if err := s.made(changes, live); err != nil {
		// They were checked: memory is not what the log says any more.
		s.fail(err)
		return 0, fmt.Errorf("%w: %w", quota.ErrUnknown, err)
	}
	return 0, nil
}

// made makes changes in memory that the log has taken.
func (s *Store) made(changes []quota.Change, live int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.books.Apply(changes); err != nil {
		return err
	}
	s.live += live
	if s.opt.Changed != nil {
		s.opt.Changed(s.readerLocked(), changes)
	}
	used, capacity := s.mdc.Usage()
	if used > capacity/100*compactUsed && used-s.live > capacity/100*compactGarbage {
		s.compactLocked()
	}
	return nil
}

// Close gives up a compaction, waits for what else is under way, and closes the
// container.
func (s *Store) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	if s.giveUp != nil {
		s.giveUp()
	}
	s.cond.Broadcast()
	for s.compacting || s.taken {
		if err := s.cond.Wait(ctx); err != nil {
			s.mu.Unlock()
			return err
		}
	}
	s.mu.Unlock()
	return s.mdc.Close(ctx)
}
