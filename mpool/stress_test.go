package mpool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/layout"
)

// stress is what goroutines do to shared objects of one pool.
type stress struct {
	t     *testing.T
	p     *Pool
	until time.Time

	mu sync.Mutex
	// +checklocks:mu
	ids []layout.ObjectID
}

// proves S7 S12 S15 S25 S30: many goroutines use, commit, delete and abort the
// same objects at once, with contexts that end; when all have put their handles
// nothing is in use and no byte is missing.
func TestStress(t *testing.T) {
	dir, err := os.MkdirTemp(".", "stress") // on the disk: a temporary folder may have no direct I/O
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "drive")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 64<<20)); err != nil {
		t.Fatal(err)
	}
	for _, engine := range []bdev.EngineKind{bdev.URing, bdev.Pread} {
		opt := Options{MetadataBytes: 128 << 10, Open: func(ctx context.Context, path string, readOnly bool) (*bdev.Drive, error) {
			return bdev.Open(ctx, nil, path, bdev.OpenOptions{ReadOnly: readOnly, Shared: readOnly, Engine: engine})
		}}
		if _, err := Create(bg, "p", []string{path}, api.CreateOptions{Force: true}, opt); err != nil {
			t.Fatal(err)
		}
		p, err := Activate(bg, "p", []string{path}, api.ActivateOptions{}, opt)
		if err != nil {
			t.Fatal(err)
		}
		s := &stress{t: t, p: p, until: time.Now().Add(1500 * time.Millisecond)}
		var wg sync.WaitGroup
		for n := range 16 {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(n), 7))
				for time.Now().Before(s.until) && !t.Failed() {
					s.step(rng)
				}
			})
		}
		wg.Wait()
		p.meta.mu.Lock()
		t.Logf("%d compactions, %d objects", p.meta.compactions, p.table.Len())
		p.meta.mu.Unlock()
		exact(t, p)
		before, err := p.Info(bg)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		if p, err = Activate(bg, "p", []string{path}, api.ActivateOptions{}, opt); err != nil {
			t.Fatal(err)
		}
		exact(t, p)
		after, err := p.Info(bg)
		if err != nil {
			t.Fatal(err)
		}
		if before.Space.Live != after.Space.Live || after.Space.Uncommitted+after.Space.Draining != 0 {
			t.Errorf("%v before, %v after", before.Space, after.Space)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// exact checks that nothing is in use, that the objects' zones are those that
// the space map has, and that the room in the metadata is counted as activation
// counts it.
func exact(t *testing.T, p *Pool) {
	t.Helper()
	if err := p.background.wait(bg); err != nil {
		t.Fatal(err)
	}
	for _, d := range p.drives {
		if err := d.background.wait(bg); err != nil {
			t.Fatal(err)
		}
	}
	p.usesMu.Lock()
	for id, o := range p.uses {
		if st := o.use.Refs(); st != 0 || o.use.Pins() != 0 {
			t.Errorf("object %v has %d references and %d pins", id, st, o.use.Pins())
		}
	}
	p.usesMu.Unlock()
	var live, objects, used int64
	for cursor := uint64(0); ; {
		cursor = p.table.Scan(cursor, 1024, func(o layout.Object) {
			live += createBytes(&o)
			objects++
			used += o.Extent.Size()
		})
		if cursor == 0 {
			break
		}
	}
	p.meta.mu.Lock()
	if ends := objects*deleteCost() + p.names.ends(); p.meta.live != live+p.names.live() || p.meta.ends != ends {
		t.Errorf("the metadata counts %d bytes, and %d for the ends of %d objects; there are %d and %d", p.meta.live, p.meta.ends, objects, live+p.names.live(), ends)
	}
	p.meta.mu.Unlock()
	info, err := p.Info(bg)
	if err != nil {
		t.Fatal(err)
	}
	sp := info.Space
	if sp.Live != used || sp.Free+sp.Live+sp.Uncommitted+sp.Draining+sp.Spare+sp.Overhead+sp.Remainder != sp.Total {
		t.Errorf("space %+v; objects use %d", sp, used)
	}
}

// tolerate fails the test for an error that the others' doing does not explain.
func (s *stress) tolerate(what string, err error) {
	switch api.CodeOf(err) { //nolint:exhaustive // the others fail
	case 0, api.ENOENT, api.EBUSY, api.ESTATE, api.ENOSPC, api.EFBIG, api.ETIMEDOUT, api.ECANCELED, api.EUNKNOWN, api.ESTALE, api.EBADF:
		return
	}
	if errors.Is(err, io.EOF) {
		return
	}
	s.t.Errorf("%s: %v", what, err)
}

func (s *stress) pick(rng *rand.Rand) layout.ObjectID {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ids) == 0 {
		return 0
	}
	return s.ids[rng.IntN(len(s.ids))]
}

func (s *stress) add(id layout.ObjectID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ids = append(s.ids, id); len(s.ids) > 40 {
		s.ids = s.ids[1:]
	}
}

func (s *stress) step(rng *rand.Rand) {
	ctx := bg
	if rng.IntN(2) == 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(bg, time.Duration(rng.IntN(3000))*time.Microsecond)
		defer cancel()
	}
	switch rng.IntN(10) {
	case 0, 1, 2:
		b, err := s.p.AllocMblock(ctx, api.AllocOptions{Capacity: int64(1 + rng.IntN(200000))})
		s.tolerate("alloc", err)
		if err != nil {
			return
		}
		s.add(b.ID())
		_, err = b.Write(ctx, make([]byte, rng.IntN(9000)))
		s.tolerateIO("write", err)
		s.tolerateIO("commit", b.Commit(ctx))
		s.leave(ctx, rng, b)
	case 3:
		l, err := s.p.AllocMlog(ctx, api.AllocOptions{Capacity: 30000})
		s.tolerate("alloc log", err)
		if err == nil {
			s.add(l.ID())
			s.tolerate("commit log", l.Commit(ctx))
			s.leave(ctx, rng, l)
		}
	case 4:
		s.container(ctx, rng)
	case 5:
		id := s.pick(rng)
		if id == 0 {
			return
		}
		s.tolerate("roots", s.p.SetRoots(ctx, []api.Root{{Name: fmt.Sprint("r", rng.IntN(5)), ID: id}}))
	case 6:
		for _, err := range s.p.Objects(ctx, api.Filter{}) {
			s.tolerate("list", err)
		}
		_, err := s.p.Info(ctx)
		s.tolerate("info", err)
	default:
		s.use(ctx, rng)
	}
}

// tolerateIO also tolerates the poison that an ended write leaves.
func (s *stress) tolerateIO(what string, err error) {
	if !errors.Is(err, api.EIO) || !errors.Is(err, context.DeadlineExceeded) {
		s.tolerate(what, err)
	}
}

// leave ends a handle: it deletes, aborts or puts.
func (s *stress) leave(ctx context.Context, rng *rand.Rand, o api.Object) {
	var err error
	switch rng.IntN(3) {
	case 0:
		err = o.Delete(ctx)
	case 1:
		err = o.Abort(ctx)
	default:
		s.tolerate("put", o.Put())
		return
	}
	s.tolerate("end", err)
	if err != nil {
		s.tolerate("put", o.Put())
	}
}

// use does something with an object that others use too.
func (s *stress) use(ctx context.Context, rng *rand.Rand) {
	id := s.pick(rng)
	if id.Kind() == layout.KindMblock {
		b, err := s.p.Mblock(ctx, id)
		s.tolerate("find", err)
		if err != nil {
			return
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := b.ReadAtContext(ctx, make([]byte, 5000), 0)
			s.tolerateIO("read", err)
		})
		wg.Go(func() { s.tolerateIO("commit", b.Commit(ctx)) })
		s.leave(ctx, rng, b)
		wg.Wait()
		return
	}
	if id.Kind() != layout.KindMlog {
		return
	}
	l, err := s.p.Mlog(ctx, id)
	s.tolerate("find", err)
	if err != nil {
		return
	}
	s.log(ctx, rng, l)
	s.leave(ctx, rng, l)
}

func (s *stress) log(ctx context.Context, rng *rand.Rand, l api.Mlog) {
	switch rng.IntN(3) {
	case 0:
		s.tolerate("erase", l.Erase(ctx, 0))
	case 1:
		r, err := l.OpenRead(ctx)
		s.tolerate("open for read", err)
		if err != nil {
			return
		}
		for err == nil {
			_, err = r.Next(ctx, make([]byte, 4096))
		}
		s.tolerate("next", err)
		s.tolerate("close", r.Close())
	default:
		a, err := l.OpenAppend(ctx)
		s.tolerate("open for append", err)
		if err != nil {
			return
		}
		for range 3 {
			_, err := a.Append(ctx, make([]byte, rng.IntN(2000)), rng.IntN(2) == 0)
			s.tolerate("append", err)
		}
		s.tolerate("close", a.Close(ctx))
	}
}

func (s *stress) container(ctx context.Context, rng *rand.Rand) {
	id, err := s.p.CreateMDC(ctx, api.AllocOptions{Capacity: 30000})
	s.tolerate("create container", err)
	if err != nil {
		return
	}
	s.add(id)
	c, err := s.p.OpenMDC(ctx, id)
	s.tolerate("open container", err)
	if err == nil {
		s.tolerate("append", c.Append(ctx, make([]byte, 100), true))
		s.tolerate("compact", c.CompactStart(ctx))
		s.tolerate("compact", c.CompactAppend(ctx, make([]byte, 100)))
		s.tolerate("compact", c.CompactEnd(ctx))
		s.tolerate("close", c.Close(ctx))
	}
	if rng.IntN(4) > 0 {
		s.tolerate("delete container", s.p.DeleteMDC(ctx, id))
	}
}
