package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// mend is one write that mends something: the same is said elsewhere on the
// drives, or what is written over says nothing that counts.
type mend struct {
	findings []Problem // what it mends
	dev      *device
	offset   int64
	log      *logPlace // what it is of; nil: a superblock
	content  []byte    // whole blocks
}

// Repair checks the pool on devices as [Run] does, and mends what has
// redundancy:
//
//   - superblock copies, from the newest superblock;
//   - the lost one of the two copies of a log's last page, from the other;
//   - the log of a container that a compaction has replaced: it is emptied.
//
// What has none is reported and left, and so is everything while it is not
// certain what is right: an unknown format or feature, a drive that is there
// twice, superblocks of one generation that differ without a majority, a
// metadata drive that is missing or behind, a page of an activation that the
// newest superblock does not know of. A copy of another pool is never written
// over.
//
// The devices are opened exclusively, for writing. Each write is made durable
// before the next one, and none is to the only good copy of anything, so a
// repair may be cut off at any moment. What was mended is checked again.
//
// The report has all that was found at first, with Repaired set where it is not
// found any more, and what was found only afterwards. OK says that no problem
// remains. Errors: as Run, and that of [Options].Confirm, with the report of what
// was found. A write that fails is no error: what it was to mend is not repaired,
// and its text says why.
func Repair(ctx context.Context, devices []string, o Options) (Report, error) {
	o = o.withDefaults(opCheck)
	list, err := openAll(ctx, devices, &o, func(ctx context.Context, path string) (Source, error) {
		return o.OpenTarget(ctx, path)
	})
	if err != nil {
		return Report{}, err
	}
	r, err := repair(ctx, list, o)
	return r, errors.Join(err, closeAll(list, o.op))
}

func repair(ctx context.Context, list []*device, o Options) (Report, error) {
	c, err := look(ctx, list, o)
	if err != nil {
		return Report{}, err
	}
	plan := c.plan()
	if len(plan) == 0 {
		return c.report, nil
	}
	var mended []Problem
	for _, m := range plan {
		mended = append(mended, m.findings...)
	}
	if err := o.Confirm(mended); err != nil {
		return c.report, err
	}
	failed, err := writeAll(ctx, plan)
	if err != nil {
		return c.report, err
	}
	for i, d := range list {
		list[i] = newDevice(d.src)
	}
	after, err := look(ctx, list, o)
	if err != nil {
		return c.report, err
	}
	r := after.report
	r.Problems = merged(c.report.Problems, r.Problems, failed)
	r.Notes = merged(c.report.Notes, r.Notes, failed)
	return r, nil
}

// writeAll carries a plan out, but for what is on a device behind a write that
// failed: a later one may rest on it. It returns what was not mended, and why.
// The error is the context's.
func writeAll(ctx context.Context, plan []mend) (map[finding]error, error) {
	failed := make(map[finding]error)
	broken := make(map[*device]error)
	for i := range plan {
		m := &plan[i]
		if err := ended(ctx); err != nil {
			return nil, err
		}
		err := broken[m.dev]
		if err == nil {
			err = m.write()
		}
		if err == nil {
			continue
		}
		broken[m.dev] = err
		for _, p := range m.findings {
			failed[findingOf(&p)] = err
		}
	}
	return failed, nil
}

// write writes and flushes.
func (m *mend) write() error {
	t, ok := m.dev.src.(Target)
	if !ok {
		return fmt.Errorf("%s is open for reading only", m.dev.path)
	}
	if _, err := t.WriteAt(m.content, m.offset); err != nil {
		return err
	}
	return t.Flush()
}

// finding tells problems apart.
type finding struct {
	code, device string
	object       uint64
	offset       int64
}

func findingOf(p *Problem) finding {
	return finding{code: p.Code, device: p.Device, object: uint64(p.Object), offset: p.Offset}
}

// merged returns what was found before, with those marked that are mended and
// not found any more, and what was found only afterwards.
func merged(before, after []Problem, failed map[finding]error) []Problem {
	still := make(map[finding]bool)
	for i := range after {
		still[findingOf(&after[i])] = true
	}
	list, known := slices.Clone(before), make(map[finding]bool)
	for i := range list {
		p := &list[i]
		f := findingOf(p)
		known[f] = true
		switch err := failed[f]; {
		case err != nil:
			p.Text += fmt.Sprintf("; it could not be written anew: %v", err)
		case !still[f] && p.Code != RepairRefused:
			p.Repaired = true
		}
	}
	for i := range after {
		if !known[findingOf(&after[i])] {
			list = append(list, after[i])
		}
	}
	return list
}
