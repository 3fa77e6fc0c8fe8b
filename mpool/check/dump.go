package check

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mlog"
	"github.com/mpool-go/mpool/mpool/omf"
)

// Dump calls f with what is on the devices: the superblocks of each, then of
// each metadata log its tails, its groups of pages, its end, and its records
// with their operations; then what Run would have to say up to there. The lines
// are for people and may change. Errors as Run, and that of f, which ends it.
func Dump(ctx context.Context, devices []string, o Options, f func(*Line) error) error {
	o = o.withDefaults(opDump)
	list, err := openAll(ctx, devices, &o, o.Open)
	if err != nil {
		return err
	}
	d := &dumper{c: newChecker(list, o), out: f}
	err = d.run(ctx)
	d.c.pages.free()
	if d.err != nil {
		err = d.err
	}
	return errors.Join(err, closeAll(list, o.op))
}

// dumper makes lines.
type dumper struct {
	c   *checker
	out func(*Line) error
	err error // of out: nothing is given to it any more

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

func (d *dumper) line(depth int, what string, pairs ...any) {
	if d.err == nil {
		d.err = d.out(&Line{Type: what, Depth: depth, Fields: fields(pairs...)})
	}
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
		d.finding("problem", &p)
	}
	for _, p := range d.c.report.Notes {
		d.finding("note", &p)
	}
	return err
}

func (d *dumper) finding(what string, p *Problem) {
	pairs := []any{"code", p.Code}
	if p.Object != 0 {
		pairs = append(pairs, "object", p.Object.String())
	}
	if p.Device != "" {
		pairs = append(pairs, "device", p.Device, "offset", p.Offset)
	}
	d.line(0, what, append(pairs, "text", p.Text)...)
}

func (d *dumper) device(dev *device) {
	d.line(0, "device", "device", dev.path, "size_bytes", dev.size)
	for i := range dev.sb {
		s := &dev.sb[i]
		if s.sb == nil {
			d.line(1, "superblock", "device", dev.path, "offset", s.offset, "copy", i, "error", s.err.Error())
			continue
		}
		d.superblock(dev, s)
	}
}

func (d *dumper) superblock(dev *device, s *sbCopy) {
	sb := s.sb
	d.line(1, "superblock", "device", dev.path, "offset", s.offset, "copy", sb.Copy,
		"pool", sb.Name, "uuid", sb.Pool.String(), "state", poolState(sb.State),
		"generation", sb.Generation, "epoch", sb.Epoch, "created", time.UnixMilli(int64(sb.Created)).UTC().Format(time.RFC3339Nano),
		"slot", sb.Slot, "drive", sb.Drive.String(), "metadata_slot", sb.MetaSlot,
		"incompatible", hex(sb.Incompat), "read_only_compatible", hex(sb.ROCompat), "compatible", hex(sb.Compat))
	for i, l := range sb.Logs {
		d.line(2, "metadata_log", "log", logName(i), "slot", sb.MetaSlot, "start", l.Start, "blocks", l.Blocks, "birth", hex(uint64(l.Birth)))
	}
	for i := range sb.Drives {
		e := &sb.Drives[i]
		d.line(2, "drive", "slot", e.Slot, "uuid", e.UUID.String(), "class", api.Class(e.Class).String(), "state", driveState(e.State),
			"zone_bytes", int64(1)<<e.ZoneLog2, "sector_bytes", 1<<e.SectorLog2, "size_bytes", e.Size, "end_copy", e.EndCopy)
	}
}

func logName(i int) string { return string(rune('A' + i)) }

func poolState(s omf.PoolState) string {
	if s == omf.StateDestroyed {
		return "destroyed"
	}
	return "normal"
}

func driveState(s omf.DriveState) string {
	switch s {
	case omf.DriveOnline:
		return "online"
	case omf.DriveRemoved:
		return "removed"
	}
	return fmt.Sprintf("unknown (%d)", s)
}

// logs gives both metadata logs.
func (d *dumper) logs(ctx context.Context) error {
	for i, l := range d.c.metadataLogs() {
		d.line(0, "log", "log", logName(i), "device", l.dev.path, "offset", l.extent.Offset(), "blocks", l.extent.Blocks,
			"birth", hex(uint64(l.birth)))
		d.c.visit = d.page
		s, err := d.c.scanLog(ctx, l)
		if err != nil {
			return err
		}
		d.group()
		for i, why := range s.why {
			if why != "" {
				d.line(1, "slot", "number", i, "error", why)
				continue
			}
			p := &s.valid[i]
			d.line(1, "slot", "number", i, "generation", p.Generation, "epoch", p.Epoch, "group", p.Group, "durable", p.Durable,
				"page", p.Index, "first_record", p.First, "fragments", p.Fragments, "clean", p.Clean())
		}
		if s.end != nil {
			d.line(1, "end", "slot", s.end.slot, "pages", s.end.page.Index)
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

// group gives the pages that were taken in.
func (d *dumper) group() {
	switch g := &d.pages; {
	case g.n == 0:
	case g.why != "":
		d.line(1, "pages", "first", g.first, "count", g.n, "error", g.why)
	default:
		d.line(1, "pages", "first", g.first, "count", g.n, "epoch", g.epoch, "group", g.group, "durable", g.durable,
			"first_record", g.from, "records", g.to-g.from, "bytes", g.bytes)
	}
	d.pages = run{}
}

// start, data and end give a log's records.
func (d *dumper) start(l *content) {
	d.line(1, "record", "number", 0, "kind", "start", "replaces_generation", l.replaces)
}

func (d *dumper) end(l *content) {
	d.line(1, "record", "number", l.records-1, "kind", "end", "former_records", l.carried)
}

func (d *dumper) data(number uint64, record []byte) {
	d.line(1, "record", "number", number, "kind", "data", "bytes", len(record))
	err := omf.DecodeRecord(record, func(op *omf.Op) error {
		name, pairs := operation(op)
		d.line(2, "operation", append([]any{"record", number, "op", name}, pairs...)...)
		return nil
	})
	if err != nil {
		d.line(2, "operation", "record", number, "error", err.Error())
	}
}

// operation returns an operation's name and its fields.
func operation(op *omf.Op) (string, []any) {
	o := &op.Object
	object := []any{"id", o.ID.String(), "birth", hex(uint64(o.Birth))}
	place := []any{"drive", o.Extent.Drive, "start", o.Extent.Start, "blocks", o.Extent.Blocks}
	switch op.Type {
	case omf.OpCreate:
		return "create", created(op, append(object, place...))
	case omf.OpDelete:
		return "delete", object
	case omf.OpErase:
		return "erase", append(object, "generation", o.Generation)
	case omf.OpUpdate:
		return "update", append(object, "owner", o.Owner, "tag", hex(o.Tag))
	case omf.OpRelocate:
		return "relocate", append(object, place...)
	case omf.OpRoot:
		return "root", []any{"name", op.Name, "id", o.ID.String()}
	case omf.OpOwner:
		return "owner", []any{"index", op.Index, "parent", op.Parent, "name", op.Name}
	case omf.OpDrive:
		e := &op.Drive
		return "drive", []any{
			"slot", e.Slot, "uuid", e.UUID.String(), "class", api.Class(e.Class).String(), "state", driveState(e.State), "size_bytes", e.Size,
		}
	case omf.OpProperty:
		return "property", []any{"property", propertyName(op.Property), "value", propertyValue(op)}
	case omf.OpCounter:
		return "counter", []any{"next_id", op.NextID, "next_birth", hex(uint64(op.Birth))}
	}
	return "unknown", []any{"number", uint8(op.Type)}
}

// created adds what a create says beside id and place.
func created(op *omf.Op, pairs []any) []any {
	o := &op.Object
	pairs = append(pairs, "kind", o.ID.Kind().String(), "capacity", o.Capacity, "owner", o.Owner, "tag", hex(o.Tag),
		"created", time.UnixMilli(int64(o.Created)).UTC().Format(time.RFC3339Nano))
	if o.ID.Kind() == layout.KindMlog {
		pairs = append(pairs, "generation", o.Generation)
		if o.Partner != 0 {
			pairs = append(pairs, "partner", o.Partner.String())
		}
		return pairs
	}
	sums := make([]string, 0, len(o.Sums))
	for _, s := range o.Sums {
		sums = append(sums, fmt.Sprintf("%08x", s))
	}
	return append(pairs, "written", o.Written, "sums", sums, "unflushed", op.Unflushed)
}

func propertyName(p omf.Property) string {
	names := []string{"", "uid", "gid", "mode", "label", "read_verify", "spare_percent", "shared"}
	if int(p) < len(names) && p > 0 {
		return names[p]
	}
	return fmt.Sprintf("unknown (%d)", p)
}

func propertyValue(op *omf.Op) any {
	if op.Property == omf.PropLabel {
		return op.Name
	}
	if op.Property == omf.PropMode {
		return fmt.Sprintf("%04o", op.Value)
	}
	return op.Value
}
