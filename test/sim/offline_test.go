package sim

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/mpool-go/mpool/bdev"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/mpool/check"
)

// medium is a disk as the offline checker reads it: without the engine.
type medium struct{ *devsim.Disk }

func (m medium) Path() string { return m.Options().Name }
func (medium) Close() error   { return nil }

// offline lets the independent reader look at media: it must find nothing wrong
// with what a crash leaves.
func offline(paths []string, disks devsim.Rack) error {
	return offlineBut(paths, disks, "never")
}

// offlineBut is offline, where problems whose code begins with except are none.
func offlineBut(paths []string, disks devsim.Rack, except string) error {
	r, err := check.Run(ctx, paths, check.Options{
		Data: true, Reads: 1,
		Open: func(_ context.Context, path string) (check.Source, error) { return medium{disks.Disk(path)}, nil },
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range r.Problems {
		if strings.HasPrefix(p.Code, except) {
			continue
		}
		errs = append(errs, &problem{p})
	}
	return errors.Join(errs...)
}

// problem is a finding of the checker.
type problem struct{ check.Problem }

func (p *problem) Error() string { return "check: " + p.String() + " (S45)" }

// isProblem says whether an error is a finding of the checker.
func isProblem(err error) bool {
	var p *problem
	return errors.As(err, &p)
}

// target is a drive that a repair reads and writes.
type target struct {
	d      *bdev.Drive
	ticket bdev.Ticket
}

func (t *target) Path() string { return t.d.Path() }
func (t *target) Size() int64  { return t.d.Geometry().Size }
func (t *target) Close() error { return t.d.Close() }

func (t *target) ReadAt(p []byte, off int64) (int, error) {
	const unit = 4096
	from, end := off&^(unit-1), min((off+int64(len(p))+unit-1)&^(unit-1), t.Size())
	if off >= end {
		return 0, io.EOF
	}
	b := memory(int(end - from))
	if err := t.run(&bdev.Op{Code: bdev.OpRead, Offset: from, Buf: b}); err != nil {
		return 0, err
	}
	n := copy(p, b[off-from:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (t *target) WriteAt(p []byte, off int64) (int, error) {
	b := memory(len(p))
	copy(b, p)
	return len(p), t.run(&bdev.Op{Code: bdev.OpWrite, Offset: off, Buf: b})
}

func (t *target) Flush() error {
	err := t.d.Flush(ctx, t.ticket)
	t.ticket = t.d.Ticket()
	return err
}

func (t *target) run(o *bdev.Op) error { return t.d.Run(ctx, &bdev.Batch{Ops: []*bdev.Op{o}}) }
