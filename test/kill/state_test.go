package kill

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/mpool/check"
	testdaemon "github.com/mpool-go/mpool/test/daemon"
)

// noPool is the state of drives without a pool.
const noPool = "no pool"

// media are the drives of a pool as the engine and the checker read them without
// a daemon, past the file system. Their names are their numbers.
type media []*sim.Disk

func (m media) clone() media {
	c := make(media, len(m))
	for i := range m {
		c[i] = m[i].Clone()
	}
	return c
}

func (m media) names() (list []string) {
	for i := range m {
		list = append(list, fmt.Sprint(i))
	}
	return list
}

func (m media) disk(path string) *sim.Disk { return m[slices.Index(m.names(), path)] }

func (m media) options() mpool.Options {
	return mpool.Options{
		MetadataBytes: 64 << 10,
		Open: func(_ context.Context, path string, readOnly bool) (*bdev.Drive, error) {
			return sim.Open(nil, m.disk(path), sim.OpenOptions{ReadOnly: readOnly, Seed: 1})
		},
	}
}

// source is a drive as the checker reads it, and mends it.
type source struct {
	*sim.Disk
	path string
}

func (s source) Path() string { return s.path }
func (source) Close() error   { return nil }
func (source) Flush() error   { return nil }

func (m media) checkOptions() check.Options {
	return check.Options{
		Data: true, Reads: 1,
		Open:       func(_ context.Context, path string) (check.Source, error) { return source{m.disk(path), path}, nil },
		OpenTarget: func(_ context.Context, path string) (check.Target, error) { return source{m.disk(path), path}, nil },
	}
}

// use activates the pool on the drives themselves for f.
func (m media) use(name string, f func(*mpool.Pool) error) error {
	p, err := mpool.Activate(context.Background(), name, m.names(), api.ActivateOptions{}, m.options())
	if err != nil {
		return err
	}
	return errors.Join(f(p), p.Close())
}

// state is all that can be seen of the pool on the drives, of whichever of the
// names: noPool, or a line for each thing. Space that does not add up is an error.
// The pool was activated and closed then.
func (m media) state(names ...string) (string, error) {
	for _, name := range names {
		var lines []string
		err := m.use(name, func(p *mpool.Pool) (err error) {
			lines, err = look(p)
			return err
		})
		if err == nil {
			return strings.Join(lines, "\n"), nil
		}
		if !errors.Is(err, api.ENOENT) {
			return "", fmt.Errorf("pool %s: %w", name, err)
		}
	}
	return noPool, nil
}

func look(p *mpool.Pool) ([]string, error) {
	ctx := context.Background()
	things := make(map[string]string)
	used := int64(0)
	for o, err := range p.Objects(ctx, api.Filter{}) {
		if err != nil {
			return nil, err
		}
		used += o.Used
		if o.Partner != 0 && o.Partner < o.ID {
			continue // the second log of a container
		}
		content, err := lookAt(ctx, p, &o)
		if err != nil {
			return nil, fmt.Errorf("%v: %w", o.ID, err)
		}
		things[fmt.Sprintf("%v %v", o.Kind, o.ID)] = content
	}
	roots, err := p.Roots(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range roots {
		things["root "+r.Name] = r.ID.String()
	}
	info, err := p.Info(ctx)
	for end := time.Now().Add(testdaemon.Patience); err == nil && info.Space.Draining != 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond) // an object of which a crash has left the record only goes in the background
		info, err = p.Info(ctx)
	}
	if err != nil {
		return nil, err
	}
	s := info.Space
	if s.Live != used || s.Uncommitted != 0 || s.Draining != 0 || s.Free+s.Live+s.Spare+s.Overhead+s.Remainder != s.Total {
		return nil, fmt.Errorf("space does not add up: %+v; objects use %d", s, used)
	}
	things["pool"] = fmt.Sprint(info.Name, " ", info.Label, " ", len(info.Drives), " drives of ", s.Total)
	var lines []string
	for _, k := range slices.Sorted(maps.Keys(things)) {
		lines = append(lines, k+": "+things[k])
	}
	return lines, nil
}

// lookAt reads an object and says what is in it.
func lookAt(ctx context.Context, p *mpool.Pool, o *api.ObjectInfo) (string, error) {
	if o.ID.Kind() == layout.KindMblock {
		b, err := p.Mblock(ctx, o.ID)
		if err != nil {
			return "", err
		}
		var got strings.Builder
		_, err = b.WriteTo(&got)
		return fmt.Sprintf("%d bytes, %x", got.Len(), hash([]byte(got.String()))), errors.Join(err, b.Put())
	}
	if o.Partner != 0 {
		c, err := p.OpenMDC(ctx, o.ID)
		if err != nil {
			return "", err
		}
		r, err := c.OpenRead(ctx)
		if err != nil {
			return "", errors.Join(err, c.Close(ctx))
		}
		said, err := lookAtRecords(ctx, r)
		return said, errors.Join(err, r.Close(), c.Close(ctx))
	}
	l, err := p.Mlog(ctx, o.ID)
	if err != nil {
		return "", err
	}
	r, err := l.OpenRead(ctx)
	if err != nil {
		return "", errors.Join(err, l.Put())
	}
	said, err := lookAtRecords(ctx, r)
	return said, errors.Join(err, r.Close(), l.Put())
}

func lookAtRecords(ctx context.Context, r api.LogReader) (string, error) {
	buf := make([]byte, 64<<10)
	var all []byte
	for n := 0; ; n++ {
		k, err := r.Next(ctx, buf)
		if errors.Is(err, io.EOF) {
			return fmt.Sprintf("%d records, %x", n, hash(all)), nil
		}
		if err != nil {
			return "", err
		}
		all = append(fmt.Appendf(all, "%d:", k), buf[:k]...)
	}
}
