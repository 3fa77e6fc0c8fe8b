package check

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/mlog"
	"github.com/mpool-go/mpool/mpool/omf"
)

// Dump prints what is on the devices: the superblocks, then of each metadata log
// its tails, its groups of pages, its end, and its records with one line for
// each operation; then what Run would have to say up to there. The text is for
// people and may change. Errors as Run, and those of w.
func Dump(ctx context.Context, w io.Writer, devices []string, o Options) error {
	o = o.withDefaults()
	list, err := openAll(ctx, devices, &o)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(w)
	d := &dumper{c: checker{o: o, devices: list, pages: newPages()}, w: out}
	err = d.run(ctx)
	d.c.pages.free()
	if ferr := out.Flush(); err == nil && ferr != nil {
		err = &api.Error{Code: api.EIO, Op: opCheck, Detail: "the text cannot be written", Err: ferr}
	}
	return errors.Join(err, closeAll(list))
}

// dumper prints. Errors of the writer are seen when it is flushed.
type dumper struct {
	c checker
	w *bufio.Writer

	pages run // of one group, not printed yet
}

// run is a run of final pages that one group wrote.
type run struct {
	first, n     uint32 // pages
	epoch, group uint64
	durable      uint64
	from, to     uint64 // numbers of records that begin, go on or end there
	bytes        int
	why          string // they do not belong here
}

// line prints a line. The writer keeps its error for Flush.
func (d *dumper) line(format string, args ...any) {
	fmt.Fprintf(d.w, format+"\n", args...)
}

func (d *dumper) run(ctx context.Context) error {
	ok, err := d.c.superblocks(ctx)
	if err != nil {
		return err
	}
	for _, dev := range d.c.devices {
		d.device(dev)
	}
	if ok && d.c.divide() {
		err = d.logs(ctx)
	}
	for _, p := range d.c.report.Problems {
		d.line("problem %v", p)
	}
	for _, p := range d.c.report.Notes {
		d.line("note %v", p)
	}
	return err
}

func (d *dumper) device(dev *device) {
	d.line("device %s of %d bytes", dev.path, dev.size)
	for i := range dev.sb {
		s := &dev.sb[i]
		if s.sb == nil {
			d.line("  superblock copy %d at %d: %v", i, s.offset, s.err)
			continue
		}
		d.line("  superblock copy %d at %d", i, s.offset)
		d.superblock(s.sb)
	}
}

func (d *dumper) superblock(sb *omf.Superblock) {
	d.line("    pool %q %v state %d created %d", sb.Name, sb.Pool, sb.State, sb.Created)
	d.line("    copy %d slot %d drive %v generation %d epoch %d", sb.Copy, sb.Slot, sb.Drive, sb.Generation, sb.Epoch)
	d.line("    features incompat %#x ro-compat %#x compat %#x", sb.Incompat, sb.ROCompat, sb.Compat)
	for i, l := range sb.Logs {
		d.line("    metadata log %c on drive %d: blocks %d+%d birth %#x", 'A'+i, sb.MetaSlot, l.Start, l.Blocks, uint64(l.Birth))
	}
	for i := range sb.Drives {
		e := &sb.Drives[i]
		d.line("    drive %d: %v class %d state %d zone %d sector %d size %d last copy at %d",
			e.Slot, e.UUID, e.Class, e.State, int64(1)<<e.ZoneLog2, 1<<e.SectorLog2, e.Size, e.EndCopy)
	}
}

// logs prints both metadata logs.
func (d *dumper) logs(ctx context.Context) error {
	for _, l := range d.c.metadataLogs() {
		d.line("%s at %s+%d, %d blocks, birth %#x", l.name, l.dev.path, l.extent.Offset(), l.extent.Blocks, uint64(l.birth))
		d.c.visit = d.page
		s, err := d.c.scanLog(ctx, l)
		if err != nil {
			return err
		}
		d.group()
		for i, why := range s.why {
			if why != "" {
				d.line("  slot %d: %s", i, why)
				continue
			}
			p := &s.valid[i]
			d.line("  slot %d: generation %d epoch %d group %d durable %d page %d records %d+%d%s",
				i, p.Generation, p.Epoch, p.Group, p.Durable, p.Index, p.First, p.Fragments, clean(p))
		}
		if s.end != nil {
			d.line("  ends with slot %d behind %d pages", s.end.slot, s.end.page.Index)
		}
		if _, err := d.c.content(ctx, s, d); err != nil {
			return err
		}
		for _, p := range s.findings {
			d.c.problem(p)
		}
		for _, p := range s.notes {
			d.c.note(p)
		}
	}
	return nil
}

func clean(p *mlog.Page) string {
	if p.Clean() {
		return " clean"
	}
	return ""
}

// page takes in a final page.
func (d *dumper) page(_ *scan, k uint32, p *mlog.Page, why string) {
	g := &d.pages
	if g.n == 0 || g.first+g.n != k || g.why != why || why == "" && (g.epoch != p.Epoch || g.group != p.Group) {
		d.group()
		*g = run{first: k, epoch: p.Epoch, group: p.Group, durable: p.Durable, from: p.First, why: why}
	}
	g.n++
	g.to = p.First + uint64(p.Fragments)
	g.bytes += p.Bytes
}

// group prints the pages that were taken in.
func (d *dumper) group() {
	switch g := &d.pages; {
	case g.n == 0:
	case g.why != "":
		d.line("  pages %d+%d: %s", g.first, g.n, g.why)
	default:
		d.line("  pages %d+%d: epoch %d group %d durable %d records %d+%d, %d bytes",
			g.first, g.n, g.epoch, g.group, g.durable, g.from, g.to-g.from, g.bytes)
	}
	d.pages = run{}
}

// start, data and end print a log's records.
func (d *dumper) start(l *content) { d.line("  record 0: start, replaces generation %d", l.replaces) }

func (d *dumper) end(l *content) {
	d.line("  record %d: end, the log before had %d records", l.records-1, l.carried)
}

func (d *dumper) data(number uint64, record []byte) {
	d.line("  record %d: %d bytes", number, len(record))
	err := omf.DecodeRecord(record, func(op *omf.Op) error {
		d.line("    %s", operation(op))
		return nil
	})
	if err != nil {
		d.line("    %v", err)
	}
}

// operation shows an operation on one line.
func operation(op *omf.Op) string {
	o := &op.Object
	switch op.Type {
	case omf.OpCreate:
		return "create " + describe(o)
	case omf.OpDelete:
		return fmt.Sprintf("delete %v birth %d", o.ID, o.Birth)
	case omf.OpErase:
		return fmt.Sprintf("erase %v birth %d generation %d", o.ID, o.Birth, o.Generation)
	case omf.OpUpdate:
		return fmt.Sprintf("update %v birth %d owner %d tag %#x", o.ID, o.Birth, o.Owner, o.Tag)
	case omf.OpRelocate:
		return fmt.Sprintf("relocate %v birth %d drive %d blocks %d+%d", o.ID, o.Birth, o.Extent.Drive, o.Extent.Start, o.Extent.Blocks)
	case omf.OpRoot:
		return fmt.Sprintf("root %q %v", op.Name, o.ID)
	case omf.OpOwner:
		return fmt.Sprintf("owner %d parent %d %q", op.Index, op.Parent, op.Name)
	case omf.OpDrive:
		return fmt.Sprintf("drive %d %v class %d state %d size %d", op.Drive.Slot, op.Drive.UUID, op.Drive.Class, op.Drive.State, op.Drive.Size)
	case omf.OpProperty:
		if op.Property == omf.PropLabel {
			return fmt.Sprintf("property %d %q", op.Property, op.Name)
		}
		return fmt.Sprintf("property %d %d", op.Property, op.Value)
	case omf.OpCounter:
		return fmt.Sprintf("counter id %d birth %d", op.NextID, op.Birth)
	}
	return fmt.Sprintf("type %d", op.Type)
}
