package embedded_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/quota"
	"github.com/mpool-go/mpool/quota/embedded"
	"github.com/mpool-go/mpool/sched"
)

var bg = context.Background()

const rootName = ".quota"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type dice struct{ rng *rand.Rand }

func (d dice) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(d.rng.Uint32())
	}
	return len(p), nil
}

// options are those of a pool on one disk, in a simulation or in the real world.
func options(s *sched.Sched, disk *sim.Disk, o sim.OpenOptions) mpool.Options {
	opt := mpool.Options{
		Sched: s,
		Open: func(_ context.Context, _ string, readOnly bool) (*bdev.Drive, error) {
			o := o
			o.ReadOnly = readOnly
			return sim.Open(s, disk, o)
		},
	}
	if s != nil {
		opt.Rand = dice{s.Rand()}
	}
	return opt
}

// open opens the store of the pool on a disk.
func open(s *sched.Sched, disk *sim.Disk, o sim.OpenOptions, capacity int64, opt embedded.Options) (*mpool.Pool, *embedded.Store, error) {
	return openOn(s, disk, o, capacity, opt, func(mdc api.MDC) api.MDC { return mdc })
}

// openOn is open with something between the store and its container.
func openOn(s *sched.Sched, disk *sim.Disk, o sim.OpenOptions, capacity int64, opt embedded.Options, between func(api.MDC) api.MDC) (*mpool.Pool, *embedded.Store, error) {
	p, err := mpool.Activate(bg, "p", []string{"sim"}, api.ActivateOptions{}, options(s, disk, o))
	if err != nil {
		return nil, nil, fmt.Errorf("activate: %w", err)
	}
	mdc, err := p.SystemContainer(bg, rootName, capacity)
	if err != nil {
		return nil, nil, fmt.Errorf("container: %w", err)
	}
	opt.Sched = s
	st, err := embedded.Open(bg, between(mdc), opt)
	if err != nil {
		return nil, nil, fmt.Errorf("open the store: %w", err)
	}
	return p, st, nil
}

func newDisk(tb testing.TB, s *sched.Sched) *sim.Disk {
	tb.Helper()
	return newDiskOf(tb, s, 16<<20)
}

func newDiskOf(tb testing.TB, s *sched.Sched, size int64) *sim.Disk {
	tb.Helper()
	disk := sim.NewDisk(size, sim.DiskOptions{})
	create := func() {
		if _, err := mpool.Create(bg, "p", []string{"sim"}, api.CreateOptions{}, options(s, disk, sim.OpenOptions{})); err != nil {
			tb.Fatal(err)
		}
	}
	if s == nil {
		create()
	} else if err := s.Run(create); err != nil {
		tb.Fatal(err)
	}
	return disk
}

// dump writes all records, in one text.
func dump(r quota.Reader) string {
	var b strings.Builder
	for _, c := range r.Classes() {
		fmt.Fprintf(&b, "%+v\n", c)
	}
	for _, o := range r.Owners() {
		fmt.Fprintf(&b, "%+v\n", o)
	}
	for _, l := range r.Limits() {
		fmt.Fprintf(&b, "%+v\n", l)
	}
	for _, c := range r.Claims() {
		fmt.Fprintf(&b, "%+v\n", *c)
	}
	return b.String()
}
