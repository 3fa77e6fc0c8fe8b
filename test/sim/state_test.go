package sim

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mpool-go/mpool/api"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/sched"
)

// state says what is durable on disks: what an activation finds, behind the
// offline checker. It changes them.
func (sc *scenario) state(disks devsim.Rack) (found string, later bool, err error) {
	var b strings.Builder
	var problems error
	switch {
	case sc.damage != nil:
	case sc.vague: // a copy that could not be written is mended by the next activation
		problems = offlineBut(disks.Paths(), disks, "superblock-")
	default:
		problems = offline(disks.Paths(), disks)
	}
	r := &play{sc: sc, s: sched.New(sc.seed + 2), disks: disks}
	err = inSim(r.s, func() {
		for _, name := range []string{"p", "q"} {
			p, err := mpool.Activate(ctx, name, disks.Paths(), api.ActivateOptions{}, r.options(devsim.OpenOptions{Inline: true}))
			var e *api.Error
			if code := api.CodeOf(err); code == api.ENOENT ||
				code == api.ESTATE && errors.As(err, &e) && strings.Contains(err.Error(), "metadata drive is missing") {
				continue // never made, destroyed, or not made to the end
			}
			if sc.ruins && name == "p" && err != nil {
				continue
			}
			must(err)
			if !sc.ruins || name != "p" {
				must(problems)
			}
			fmt.Fprintf(&b, "pool %s\n", name)
			later, err = describe(&b, p)
			must(err)
			must(verifyHeld(p))
			must(exact(p))
			must(p.Close())
		}
	})
	return b.String(), later, err
}

// exact adds up what is free, live, overhead and the rest of a pool that was just
// activated.
func exact(p *mpool.Pool) error {
	info, err := p.Info(ctx)
	if err != nil {
		return err
	}
	s := info.Space
	var used int64
	for o, err := range p.Objects(ctx, api.Filter{}) {
		if err != nil {
			return err
		}
		used += o.Used
	}
	if sum := s.Free + s.Live + s.Uncommitted + s.Draining + s.Spare + s.Overhead + s.Remainder; sum != s.Total || used != s.Live || s.Uncommitted != 0 {
		return fmt.Errorf("space does not add up: %+v, objects use %d (S7)", s, used)
	}
	return nil
}

// describe writes all that is in a pool, and says whether the owner is there that
// is made after a failure.
func describe(b *strings.Builder, p *mpool.Pool) (later bool, err error) {
	info, err := p.Info(ctx)
	if err != nil {
		return false, err
	}
	fmt.Fprintf(b, "label %q spare %d total %d\n", info.Label, info.Spare, info.Space.Total)
	roots, err := p.Roots(ctx)
	if err != nil {
		return false, err
	}
	owners, err := p.Owners(ctx)
	if err != nil {
		return false, err
	}
	fmt.Fprintf(b, "roots %v\n", roots)
	for _, o := range owners {
		if later = o.Name == laterOwner; !later {
			fmt.Fprintf(b, "owner %+v\n", o)
		}
	}
	return later, describeObjects(b, p)
}

func describeObjects(b *strings.Builder, p *mpool.Pool) error {
	there := make(map[int]string)
	var order []int
	for o, err := range p.Objects(ctx, api.Filter{}) {
		if err != nil {
			return err
		}
		line, err := content(p, o)
		if err != nil {
			return err
		}
		at := int(o.ID.Counter())
		generation := o.Generation
		if o.Partner != 0 {
			generation = 0 // it rises with every compaction that is tried
		}
		there[at] = fmt.Sprintf("%v class %v tag %d generation %d: %s\n", o.ID, o.Class, o.Tag, generation, line)
		order = append(order, at)
	}
	slices.Sort(order)
	for _, at := range order {
		b.WriteString(there[at])
	}
	return nil
}

// content returns what an object holds.
func content(p *mpool.Pool, o api.ObjectInfo) (string, error) {
	if o.Kind == layout.KindMblock {
		x, err := p.Mblock(ctx, o.ID)
		if err != nil {
			return "", err
		}
		data := memory(int(o.Length))
		if _, err := x.ReadAt(data, 0); err != nil && len(data) > 0 {
			return "", fmt.Errorf("mblock %v: %w", o.ID, err)
		}
		return fmt.Sprintf("%d bytes, %08x", len(data), sum(data)), x.Put()
	}
	var r api.LogReader
	var done func() error
	switch {
	case o.Partner != 0 && o.Partner.Counter() > o.ID.Counter():
		c, err := p.OpenMDC(ctx, o.ID)
		if err != nil {
			return "", err
		}
		done = func() error { return c.Close(ctx) }
		if r, err = c.OpenRead(ctx); err != nil {
			return "", err
		}
	case o.Partner != 0:
		return "the other log", nil
	default:
		l, err := p.Mlog(ctx, o.ID)
		if err != nil {
			return "", err
		}
		done = l.Put
		if r, err = l.OpenRead(ctx); err != nil {
			return "", err
		}
	}
	got, err := readAll(r)
	if err != nil {
		return "", fmt.Errorf("log %v: %w", o.ID, err)
	}
	for i, rec := range got {
		got[i] = fmt.Sprintf("%d:%08x", len(rec), sum([]byte(rec)))
	}
	return strings.Join(got, " "), errors.Join(r.Close(), done())
}
