package rot

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/mpool/check"
)

// verdict is what came of a change of the drive.
type verdict uint8

const (
	whole     verdict = iota // everything is as it was acknowledged
	detected                 // ECORRUPT, at activation or of the object concerned
	lastGroup                // the exception: what was written last is not there, as if it had been cut off
)

func (v verdict) String() string { return [...]string{"whole", "detected", "last group"}[v] }

// judge activates the pool on disks, reads everything and closes it. The error
// is a broken promise: wrong bytes, something lost without a word, an error that
// is not the right one.
func (im *image) judge(ctx context.Context, d sim.Rack) (verdict, error) {
	p, err := mpool.Activate(ctx, poolName, d.Paths(), api.ActivateOptions{}, options(d))
	if errors.Is(err, api.ECORRUPT) {
		return detected, nil
	}
	if err != nil {
		return 0, wrongf("activate: %w", err)
	}
	v, err := im.compare(ctx, p)
	if err == nil {
		err = im.scrubbed(ctx, p, v)
	}
	if err != nil {
		return v, errors.Join(err, p.Abandon(ctx))
	}
	if err := p.Close(); err != nil {
		return v, wrongf("close: %w", err)
	}
	return v, nil
}

// scrubbed scrubs the pool: it must find something where reading did, and nothing
// where everything was whole.
func (im *image) scrubbed(ctx context.Context, p *mpool.Pool, v verdict) error {
	var from api.ScrubCursor
	var found []api.ScrubProblem
	for {
		step, err := p.Scrub(ctx, from, api.MaxScrubStep)
		if err != nil {
			return wrongf("scrub: %w", err)
		}
		found, from = append(found, step.Problems...), step.Next
		if step.Skipped > 0 {
			return wrongf("the scrub has left something out, which nobody uses")
		}
		if step.Done {
			break
		}
	}
	switch {
	case v == detected && len(found) == 0:
		return wrongf("it is %v, and the scrub finds nothing", v)
	case v != detected && len(found) > 0:
		return wrongf("it is %v, and the scrub finds %+v", v, found)
	}
	return nil
}

// compare compares everything in the pool with what was acknowledged.
func (im *image) compare(ctx context.Context, p *mpool.Pool) (verdict, error) {
	v, err := im.compareList(ctx, p)
	if err != nil {
		return v, err
	}
	ended := 0                      // objects that are not as they were last
	for id, x := range im.objects { // order does not matter
		got, err := x.compare(ctx, p, id)
		switch {
		case err != nil:
			return v, wrongf("%v %v: %w", x.kind, id, err)
		case got == detected, v == whole:
			v = got
		}
		if got == lastGroup {
			ended++
		}
	}
	if ended > 1 && im.trouble == nil {
		return v, wrongf("%d objects are gone or shorter", ended)
	}
	return v, nil
}

// compareList looks at which objects there are, and at the root.
func (im *image) compareList(ctx context.Context, p *mpool.Pool) (v verdict, err error) {
	for info, err := range p.Objects(ctx, api.Filter{}) {
		if err != nil {
			return v, err
		}
		x := im.objects[info.ID]
		if x == nil && info.Partner != 0 {
			x = im.objects[info.Partner]
		}
		switch {
		case x != nil:
		case im.gone[info.ID]:
			v = lastGroup
		case im.trouble == nil:
			return v, wrongf("%v is there; it was never made", info.ID)
		}
	}
	roots, err := p.Roots(ctx)
	if err != nil {
		return v, err
	}
	switch {
	case im.root == 0, im.trouble != nil:
	case len(roots) == 0:
		v = lastGroup
	case roots[0].ID != im.root:
		return v, wrongf("the root is %v, not %v", roots[0].ID, im.root)
	}
	return v, nil
}

// compare compares one object.
func (x *expected) compare(ctx context.Context, p *mpool.Pool, id layout.ObjectID) (verdict, error) {
	var err error
	var v verdict
	switch x.kind {
	case anMblock:
		v, err = x.compareMblock(ctx, p, id)
	case aLog:
		v, err = x.compareLog(ctx, p, id)
	case aContainer:
		v, err = x.compareContainer(ctx, p, id)
	}
	switch {
	case errors.Is(err, api.ENOENT) && x.maybe:
		return whole, nil
	case errors.Is(err, api.ENOENT):
		return lastGroup, nil
	case errors.Is(err, api.ECORRUPT):
		if e, ok := errors.AsType[*api.Error](err); !ok || e.Object != id && x.kind != aContainer || e.Device == "" {
			return v, wrongf("an error that does not say where: %w", err)
		}
		return detected, nil
	}
	return v, err
}

func (x *expected) compareMblock(ctx context.Context, p *mpool.Pool, id layout.ObjectID) (verdict, error) {
	m, err := p.Mblock(ctx, id)
	if err != nil {
		return whole, err
	}
	got := make([]byte, len(x.data)+1)
	n, err := m.ReadAtContext(ctx, got, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return whole, errors.Join(err, m.Put())
	}
	if !bytes.Equal(got[:n], x.data) {
		return whole, errors.Join(wrongf("other bytes than were written"), m.Put())
	}
	return whole, m.Put()
}

func (x *expected) compareLog(ctx context.Context, p *mpool.Pool, id layout.ObjectID) (verdict, error) {
	l, err := p.Mlog(ctx, id)
	if err != nil {
		return whole, err
	}
	r, err := l.OpenRead(ctx)
	if err != nil {
		return whole, errors.Join(err, l.Put())
	}
	got, err := readAll(ctx, r)
	if err := errors.Join(err, r.Close(), l.Put()); err != nil {
		return whole, err
	}
	if len(got) > len(x.records) {
		return whole, wrongf("%d records, %d were appended", len(got), len(x.records))
	}
	for i, rec := range got {
		if !bytes.Equal(rec, x.records[i]) {
			return whole, wrongf("record %d is not what was appended", i)
		}
	}
	switch {
	case len(got) >= len(x.records), x.maybe:
		return whole, nil
	case len(got) < len(x.records)-1:
		return whole, wrongf("%d records; %d were made durable, each by a group of its own", len(got), len(x.records))
	}
	return lastGroup, nil
}

func (x *expected) compareContainer(ctx context.Context, p *mpool.Pool, id layout.ObjectID) (verdict, error) {
	c, err := p.OpenMDC(ctx, id)
	if err != nil {
		return whole, err
	}
	r, err := c.OpenRead(ctx)
	if err != nil {
		return whole, errors.Join(err, c.Close(ctx))
	}
	got, err := readAll(ctx, r)
	if err := errors.Join(err, r.Close(), c.Close(ctx)); err != nil {
		return whole, err
	}
	same := len(got) == len(x.records)
	for i, rec := range got {
		if !x.has(rec) {
			return whole, wrongf("record %d is none that was appended", i)
		}
		same = same && bytes.Equal(rec, x.records[i])
	}
	if !same && !x.maybe {
		return lastGroup, nil
	}
	return whole, nil
}

func readAll(ctx context.Context, r api.LogReader) (records [][]byte, err error) {
	buf := make([]byte, 16<<10)
	for {
		n, err := r.Next(ctx, buf)
		if errors.Is(err, io.EOF) {
			return records, nil
		}
		if err != nil {
			return nil, err
		}
		records = append(records, bytes.Clone(buf[:n]))
	}
}

// medium is a disk as the offline checker reads it.
type medium struct{ *sim.Disk }

func (m medium) Path() string { return m.Options().Name }
func (medium) Close() error   { return nil }

func checked(d sim.Rack) check.Options {
	return check.Options{
		Data: true, Reads: 1,
		Open: func(_ context.Context, path string) (check.Source, error) { return medium{d.Disk(path)}, nil },
	}
}

// offline runs the independent checker.
func offline(ctx context.Context, d sim.Rack) (check.Report, error) {
	return check.Run(ctx, d.Paths(), checked(d))
}
