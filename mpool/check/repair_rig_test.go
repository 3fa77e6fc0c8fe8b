package check_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/mpool/check"
)

// names returns the names of n disks, as openers know them.
func names(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("d%d", i)
	}
	return list
}

// written is a write of a repair.
type written struct {
	device      string
	offset, end int64
}

// recorder is a Target that says what was written to it.
type recorder struct {
	check.Target
	list *[]written
}

func (r recorder) WriteAt(p []byte, off int64) (int, error) {
	*r.list = append(*r.list, written{r.Path(), off, off + int64(len(p))})
	return r.Target.WriteAt(p, off)
}

// named gives a simulated drive the name that its opener knows it by.
type named struct {
	check.Target
	path string
}

func (n named) Path() string { return n.path }

// targets opens disks for repair, through simulated drives.
func targets(o devsim.OpenOptions, list *[]written, disks ...*devsim.Disk) func(context.Context, string) (check.Target, error) {
	return func(_ context.Context, path string) (check.Target, error) {
		i := slices.Index(names(len(disks)), path)
		if i < 0 {
			return nil, fmt.Errorf("open %s: no such disk", path)
		}
		d, err := devsim.Open(nil, disks[i], o)
		if err != nil {
			return nil, err
		}
		return recorder{named{check.NewTarget(d), path}, list}, nil
	}
}

// repair repairs disks and returns the report and what was written.
func repair(t *testing.T, disks ...*devsim.Disk) (check.Report, []written) {
	t.Helper()
	return repairWith(t, true, disks...)
}

// repairWith is repair with or without a look at all data.
func repairWith(t *testing.T, data bool, disks ...*devsim.Disk) (check.Report, []written) {
	t.Helper()
	var list []written
	var asked []check.Problem
	r, err := check.Repair(bg, names(len(disks)), check.Options{
		Data: data, Reads: 1, OpenTarget: targets(devsim.OpenOptions{}, &list, disks...),
		Confirm: func(mended []check.Problem) error {
			if len(list) > 0 || len(mended) == 0 {
				t.Errorf("asked for %d after %d writes", len(mended), len(list))
			}
			asked = mended
			return nil
		},
	})
	do(t, err)
	if len(list) > 0 && len(asked) == 0 {
		t.Error("nobody was asked")
	}
	return r, list
}

// tryRepair checks, repairs, checks, and looks that all of it fits together. It
// returns the report of the repair, and whether something was written.
func tryRepair(t *testing.T, disks ...*devsim.Disk) (check.Report, bool) {
	t.Helper()
	was := make([]*devsim.Disk, len(disks))
	for i, d := range disks {
		was[i] = d.Clone()
	}
	before := run(t, disks...)
	wasGood, wasThere := contents(disks...)
	r, list := repair(t, disks...)
	if codes(before.Problems) != codes(r.Problems) {
		t.Fatalf("the check finds %q, the repair %q", codes(before.Problems), codes(r.Problems))
	}
	after := run(t, disks...)
	if codes(after.Problems) != codes(left(r.Problems)) || after.OK != r.OK {
		t.Fatalf("the check finds %q after the repair, which says %q", codes(after.Problems), codes(left(r.Problems)))
	}
	for _, p := range slices.Concat(after.Problems, after.Notes) {
		if !slices.ContainsFunc(slices.Concat(before.Problems, before.Notes), func(b check.Problem) bool {
			return b.Code == p.Code && b.Device == p.Device && b.Offset == p.Offset && b.Object == p.Object
		}) {
			t.Errorf("after the repair: %v", p)
		}
	}
	onlyThere(t, was, disks, list)
	good, there := contents(disks...)
	if wasGood && (!good || there != wasThere) {
		t.Errorf("the repair changed the pool from\n%s to\n%s", wasThere, there)
	}
	if _, again := repair(t, disks...); len(again) > 0 {
		t.Errorf("a second repair writes %v", again)
	}
	return r, len(list) > 0
}

// left returns what is not repaired.
func left(list []check.Problem) []check.Problem {
	var l []check.Problem
	for _, p := range list {
		if !p.Repaired {
			l = append(l, p)
		}
	}
	return l
}

// onlyThere looks that disks differ in the places of the writes only.
func onlyThere(t *testing.T, was, is []*devsim.Disk, list []written) {
	t.Helper()
	const chunk = 256 * page
	a, b := make([]byte, chunk), make([]byte, chunk)
	same := func(i int, off, n int64) bool {
		_, aerr := was[i].ReadAt(a[:n], off)
		_, berr := is[i].ReadAt(b[:n], off)
		return aerr == nil && berr == nil && bytes.Equal(a[:n], b[:n]) || aerr != nil && berr != nil && n == page
	}
	for i := range is {
		for from := int64(0); from < is[i].Size(); from += chunk {
			end := min(from+chunk, is[i].Size())
			if same(i, from, end-from) {
				continue
			}
			for off := from; off < end; off += page {
				if !same(i, off, page) && !slices.ContainsFunc(list, func(w written) bool {
					return w.device == names(len(is))[i] && w.offset <= off && off < w.end
				}) {
					t.Errorf("d%d differs at %d, where nothing was written", i, off)
				}
			}
		}
	}
}

// contents activates the pool of copies of the disks and tells what is in it;
// or why that cannot be.
func contents(disks ...*devsim.Disk) (bool, string) {
	clones := make([]*devsim.Disk, len(disks))
	for i, d := range disks {
		clones[i] = d.Clone()
	}
	r, err := check.Run(bg, names(len(clones)), check.Options{Open: opener(clones...)})
	if err != nil || r.UUID == "" {
		return false, "no pool"
	}
	p, err := mpool.Activate(bg, r.UUID, names(len(clones)), api.ActivateOptions{}, rackOptions(clones...))
	if err != nil {
		return false, err.Error()
	}
	var b strings.Builder
	good := true
	for o, err := range p.Objects(bg, api.Filter{}) {
		if err == nil {
			var sum uint32
			sum, err = digest(p, &o)
			fmt.Fprintf(&b, "%v %v %d %08x\n", o.Kind, o.ID, o.Length, sum)
		}
		if err != nil {
			fmt.Fprintf(&b, "%v: %v\n", o.ID, err)
			good = false
		}
	}
	if err := p.Close(); err != nil {
		return false, err.Error()
	}
	return good, b.String()
}

// digest is a checksum of what an object holds.
func digest(p *mpool.Pool, o *api.ObjectInfo) (uint32, error) {
	h := crc32.NewIEEE()
	if o.Kind == layout.KindMblock {
		b, err := p.Mblock(bg, o.ID)
		if err != nil {
			return 0, err
		}
		_, err = b.WriteTo(h)
		return h.Sum32(), errors.Join(err, b.Put())
	}
	err := readObject(p, o)
	return 0, err
}

// rackOptions opens several disks by their names.
func rackOptions(disks ...*devsim.Disk) mpool.Options {
	o := options(disks[0])
	o.Open = func(_ context.Context, path string, readOnly bool) (*bdev.Drive, error) {
		i := slices.Index(names(len(disks)), path)
		if i < 0 {
			return nil, fmt.Errorf("open %s: no such disk", path)
		}
		return devsim.Open(nil, disks[i], devsim.OpenOptions{ReadOnly: readOnly})
	}
	return o
}
