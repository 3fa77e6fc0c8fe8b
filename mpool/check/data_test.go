package check_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool/check"
)

// watched tells of reads of mblocks' data.
type watched struct {
	check.Source
	extents []layout.Extent
	read    func() error
}

func (w watched) ReadAt(p []byte, off int64) (int, error) {
	for _, e := range w.extents {
		if off >= e.Offset() && off < e.Offset()+int64(e.Blocks)*page {
			if err := w.read(); err != nil {
				return 0, err
			}
			break
		}
	}
	return w.Source.ReadAt(p, off)
}

// Data of several drives is read at once: a drive that does not answer until all
// others have been read holds up nobody.
//
// proves S42
func TestDataOfDrivesAtOnce(t *testing.T) {
	f := newFleet(t)
	meta := &fixture{disk: f.disks[0]}
	meta.learn(t)
	extents := make(map[string][]layout.Extent)
	var others int64
	for _, o := range meta.objects {
		if o.ID.Kind() != layout.KindMblock || o.Written == 0 {
			continue
		}
		name := names(3)[o.Extent.Drive]
		extents[name] = append(extents[name], o.Extent)
		if name != "d2" {
			others += int64(o.Written)
		}
	}
	if len(extents["d2"]) == 0 || others == 0 {
		t.Fatal("a drive has no data")
	}
	free := make(chan struct{})
	open := opener(f.disks...)
	ctx, cancel := context.WithTimeout(bg, 3*time.Minute)
	defer cancel()
	r, err := check.Run(ctx, names(3), check.Options{
		Data: true, Reads: 2,
		Progress: func(done, _ int64) {
			select {
			case <-free:
			default:
				if done == others {
					close(free)
				}
			}
		},
		Open: func(ctx context.Context, path string) (check.Source, error) {
			s, err := open(ctx, path)
			if err != nil || path != "d2" {
				return s, err
			}
			return watched{s, extents[path], func() error {
				select {
				case <-free:
					return nil
				case <-ctx.Done():
					return errors.New("the other drives were not read")
				}
			}}, nil
		},
	})
	if err != nil && !errors.Is(err, api.ETIMEDOUT) {
		t.Fatal(err)
	}
	if err != nil || !r.OK {
		t.Fatalf("%v: %v", err, r.Problems)
	}
}
