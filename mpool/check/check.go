package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mlog"
	"github.com/mpool-go/mpool/mpool/omf"
	"github.com/mpool-go/mpool/sched"
)

// The operations that errors name.
const (
	opCheck = "pool check"
	opDump  = "pool dump"
	opScan  = "pool scan"
)

// Options say how to check. The zero value checks everything but the data of
// mblocks, on real devices.
type Options struct {
	// Data also reads every mblock and its checksums, and looks at the unused
	// pages of all logs for evidence of lost ones.
	Data bool
	// Open opens a device by path; nil: a real one, for reading only and
	// exclusively, since what an active pool writes cannot be checked. [Scan] and
	// [Find] take it from nobody then, and do not mind that somebody has it.
	Open func(ctx context.Context, path string) (Source, error)
	// OpenTarget opens a device that Repair writes to; nil: a real one,
	// exclusively. Others do not use it.
	OpenTarget func(ctx context.Context, path string) (Target, error)
	// Confirm, if set, is called by Repair, before it writes anything, with the
	// problems and notes that it is going to mend; never with none. An error
	// ends the repair, and is returned.
	Confirm func(mended []Problem) error
	// Progress, if set, is called with the bytes of data that were verified so
	// far and that there are. Calls come one after another, from Run's caller.
	// Repair starts again at 0 when it checks what it has mended.
	Progress func(done, total int64)
	// Reads is how many reads of data are under way at once on each drive; 0: 8.
	// With 1 and one drive everything is done by Run's caller.
	Reads int

	op string // that errors name
}

func (o Options) withDefaults(op string) Options {
	o.op = op
	if o.Open == nil {
		o.Open = func(ctx context.Context, path string) (Source, error) {
			return openSource(ctx, op, path, bdev.OpenOptions{ReadOnly: true, BusyRetry: busyRetry})
		}
	}
	if o.OpenTarget == nil {
		o.OpenTarget = openTarget
	}
	if o.Confirm == nil {
		o.Confirm = func([]Problem) error { return nil }
	}
	if o.Progress == nil {
		o.Progress = func(int64, int64) {}
	}
	if o.Reads <= 0 {
		o.Reads = 8
	}
	return o
}

// Problem is one finding.
type Problem struct {
	Code     string          // stable; see the package comment
	Object   layout.ObjectID // or 0
	Device   string          // path, or ""
	Offset   int64           // on the device, in bytes; only with Device
	Text     string          // one sentence
	Repaired bool            // Repair has mended it
}

func (p Problem) String() string {
	s := p.Code
	if p.Object != 0 {
		s += fmt.Sprintf(" object %v", p.Object)
	}
	if p.Device != "" {
		s += fmt.Sprintf(" at %s+%d", p.Device, p.Offset)
	}
	return s + ": " + p.Text
}

// Space accounts for every byte of the drives that were there:
// Free + Live + Overhead + Remainder = Total.
type Space struct {
	Total     int64
	Free      int64
	Live      int64 // zones of objects
	Overhead  int64 // zones of superblocks and metadata logs
	Remainder int64 // the end of each drive that is no whole zone
}

// add adds another drive's space.
func (s *Space) add(o Space) {
	s.Total += o.Total
	s.Free += o.Free
	s.Live += o.Live
	s.Overhead += o.Overhead
	s.Remainder += o.Remainder
}

// DriveReport is what a check found of one drive of the pool.
type DriveReport struct {
	Path       string // "": it was not given
	UUID       string
	Slot       uint16
	Class      api.Class
	Metadata   bool   // the metadata logs lie on it
	Generation uint64 // the highest of its own superblock copies; 0: it was not given
	Epoch      uint64 // of that one
	Space      Space  // zero when the drive was not given, or the check ended before
}

// Report is what a check found.
type Report struct {
	Pool  string // name
	UUID  string
	Epoch uint64 // of the last activation

	// OK says that there is no problem, or none that is not repaired. Notes do
	// not count.
	OK       bool
	Problems []Problem
	// Notes are what a crash may leave and the next activation mends, and what
	// is worth knowing.
	Notes []Problem
	// Dropped is how many problems and notes beyond the first MaxFindings of
	// each were not kept.
	Dropped int

	Superblocks   int   // valid copies
	Records       int64 // of the active metadata log, marks included
	Objects       int64
	Mblocks       int64
	Mlogs         int64
	LogPages      int64 // pages of logs that were read and found whole
	VerifiedBytes int64 // of mblocks' data that was read and found right
	Space         Space // of all drives that were there
	Drives        []DriveReport
}

// MaxFindings bounds the problems of a report, and its notes.
const MaxFindings = 10000

// Run checks the pool on devices, of one drive each, in any order. It never
// writes. It fails only when it could not look at all: EINVAL (no device, or it
// is none), ENOENT, EPERM, EBUSY (in use), EIO (a device cannot be opened),
// ETIMEDOUT, ECANCELED. Everything else is in the report.
func Run(ctx context.Context, devices []string, o Options) (Report, error) {
	o = o.withDefaults(opCheck)
	list, err := openAll(ctx, devices, &o, o.Open)
	if err != nil {
		return Report{}, err
	}
	c, err := look(ctx, list, o)
	if err := errors.Join(err, closeAll(list, o.op)); err != nil {
		return Report{}, err
	}
	return c.report, nil
}

// look checks devices that are open.
func look(ctx context.Context, list []*device, o Options) (*checker, error) {
	c := newChecker(list, o)
	err := c.run(ctx)
	c.pages.free()
	c.report.OK = len(c.report.Problems) == 0
	return c, err
}

// checker is one run.
type checker struct {
	o       Options
	devices []*device
	pages   *pages

	sb     *omf.Superblock   // the newest
	bySlot map[uint16]*drive // as they are divided
	fork   bool              // a copy is older than the newest, and of a later epoch
	tailed bool              // a metadata log has a tail
	mends  []mend            // of logs: what can be written again, if all else is certain

	mu sched.Mutex // guards report while data is verified by several
	// +checklocks:mu
	seen   map[string]bool // codes of problems, kept or dropped
	report Report

	// visit, if set, is called for each final page that is looked at, with why
	// it does not belong behind the one before it, if it does not.
	visit func(s *scan, k uint32, p *mlog.Page, why string)
}

func newChecker(list []*device, o Options) *checker {
	c := &checker{o: o, devices: list, pages: newPages()}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = make(map[string]bool)
	return c
}

// run goes from the outside in. Where something is missing that everything
// further rests on, it ends.
func (c *checker) run(ctx context.Context) error {
	ok, err := c.superblocks(ctx)
	if c.sb == nil || err != nil {
		return err
	}
	c.account()
	if !ok || !c.divide() {
		return nil
	}
	st, err := c.metadata(ctx)
	if st == nil || err != nil {
		return err
	}
	extents := c.objects(st)
	if err := c.userLogs(ctx, st); err != nil {
		return err
	}
	if c.o.Data {
		return c.data(ctx, st, extents)
	}
	return nil
}

func (c *checker) problem(p Problem) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[p.Code] = true
	c.keepLocked(&c.report.Problems, p)
}

func (c *checker) note(p Problem) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keepLocked(&c.report.Notes, p)
}

// +checklocks:c.mu
func (c *checker) keepLocked(list *[]Problem, p Problem) {
	if len(*list) == MaxFindings {
		c.report.Dropped++
		return
	}
	*list = append(*list, p)
}

// found says whether there was a problem of a code.
func (c *checker) found(code string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen[code]
}

// sortFrom puts the problems from an index on into the order of devices and
// places: several tasks found them.
func (c *checker) sortFrom(first int) {
	slices.SortStableFunc(c.report.Problems[first:], func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Object, b.Object))
	})
}

// ended says whether the context has ended, with the error to return.
func ended(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return api.ContextError("", context.Cause(ctx))
}
