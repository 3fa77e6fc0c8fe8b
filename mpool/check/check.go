package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mlog"
	"github.com/mpool-go/mpool/mpool/omf"
	"github.com/mpool-go/mpool/sched"
)

const opCheck = "pool check"

// Options say how to check. The zero value checks everything but the data of
// mblocks, on real devices.
type Options struct {
	// Data also reads every mblock and its checksums, and looks at the unused
	// pages of all logs for evidence of lost ones.
	Data bool
	// Open opens a device by path; nil: a real one, for reading only and
	// exclusively.
	Open func(ctx context.Context, path string) (Source, error)
	// Progress, if set, is called with the bytes of data that were verified so
	// far and that there are. Calls come one after another, from Run's caller.
	Progress func(done, total int64)
	// Reads is how many reads of data are under way at once; 0: 8. With 1
	// everything is done by Run's caller.
	Reads int
}

func (o Options) withDefaults() Options {
	if o.Open == nil {
		o.Open = openDevice
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
	Repaired bool            // it was mended since; Run itself mends nothing
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

// Report is what a check found.
type Report struct {
	Pool  string // name
	UUID  string
	Epoch uint64 // of the last activation

	// OK says that there is no problem. Notes do not count.
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
	Space         Space
}

// MaxFindings bounds the problems of a report, and its notes.
const MaxFindings = 10000

// Run checks the pool on devices. It never writes. It fails only when it could
// not look at all: EINVAL (no device), EBUSY (in use), EIO (a device cannot be
// opened), ETIMEDOUT, ECANCELED. Everything else is in the report.
func Run(ctx context.Context, devices []string, o Options) (Report, error) {
	o = o.withDefaults()
	list, err := openAll(ctx, devices, &o)
	if err != nil {
		return Report{}, err
	}
	c := &checker{o: o, devices: list, pages: newPages()}
	err = c.run(ctx)
	c.pages.free()
	if err := errors.Join(err, closeAll(list)); err != nil {
		return Report{}, err
	}
	c.report.OK = len(c.report.Problems) == 0
	return c.report, nil
}

// checker is one run.
type checker struct {
	o       Options
	devices []*device
	pages   *pages

	sb     *omf.Superblock // the newest
	bySlot map[uint16]*drive
	report Report
	mu     sched.Mutex // guards report while data is verified by several

	// visit, if set, is called for each final page that is looked at, with why
	// it does not belong behind the one before it, if it does not.
	visit func(s *scan, k uint32, p *mlog.Page, why string)
}

// run goes from the outside in. Where something is missing that everything
// further rests on, it ends.
func (c *checker) run(ctx context.Context) error {
	ok, err := c.superblocks(ctx)
	if !ok || err != nil {
		return err
	}
	if !c.divide() {
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

func (c *checker) problem(p Problem) { c.keep(&c.report.Problems, p) }
func (c *checker) note(p Problem)    { c.keep(&c.report.Notes, p) }

func (c *checker) keep(list *[]Problem, p Problem) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(*list) == MaxFindings {
		c.report.Dropped++
		return
	}
	*list = append(*list, p)
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
	return api.ContextError(opCheck, context.Cause(ctx))
}
