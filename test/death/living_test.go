package death

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/test/daemon"
)

// Tags of the test's own objects: their serial is 0.
const (
	sharedTag tag = iota + 1<<8
	ownTag
	uncommittedTag
	logTag
	mdcTag
)

// sharedRecords is how many records the log that all may read has.
const sharedRecords = 20

// living is a client that lives through it all. It holds one of everything, and
// compares it with what it has to be all the time.
type living struct {
	c    *client.Conn
	p    api.Pool
	own  api.Mblock // committed, with a second reference
	twin api.Object

	uncommitted api.Mblock
	half        []byte // what is written of it

	log  api.Mlog
	app  api.Appender
	read api.LogReader

	mdc     api.MDC
	records uint64 // of the log
	inMDC   uint64

	mu       sync.Mutex // taken for one round of work: who holds it has the client idle
	stop     chan struct{}
	done     sync.WaitGroup
	rounds   int
	longest  time.Duration // of one round
	failures []error
}

func newLiving(t *testing.T, d *daemon.Daemon) *living {
	t.Helper()
	ctx := context.Background()
	l := &living{c: d.Dial(), stop: make(chan struct{})}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	l.p, err = l.c.OpenPool(ctx, poolName)
	must(err)
	l.own, err = put(ctx, l.p, ownTag)
	must(err)
	l.twin, err = l.own.Get(ctx)
	must(err)

	l.uncommitted, err = l.p.AllocMblock(ctx, api.AllocOptions{Capacity: 1 << 20, Tag: uint64(uncommittedTag)})
	must(err)
	l.half = make([]byte, 100<<10)
	fill(l.half, 7)
	_, err = l.uncommitted.Write(ctx, l.half)
	must(err)

	l.log, err = l.p.AllocMlog(ctx, api.AllocOptions{Capacity: 32 << 20, Tag: uint64(logTag)})
	must(err)
	must(l.log.Commit(ctx))
	l.app, err = l.log.OpenAppend(ctx)
	must(err)
	l.read, err = l.log.OpenRead(ctx)
	must(err)

	id, err := l.p.CreateMDC(ctx, api.AllocOptions{Capacity: 16 << 20, Tag: uint64(mdcTag)})
	must(err)
	l.mdc, err = l.p.OpenMDC(ctx, id)
	must(err)
	must(l.mdc.CompactStart(ctx))
	must(l.mdc.CompactAppend(ctx, mdcTag.compact(0)))
	l.done.Go(l.run)
	t.Cleanup(l.end)
	return l
}

// put commits the mblock of a tag.
func put(ctx context.Context, p api.Pool, t tag) (api.Mblock, error) {
	data := t.content()
	b, err := p.AllocMblock(ctx, api.AllocOptions{Capacity: int64(len(data)), Tag: uint64(t)})
	if err != nil {
		return nil, err
	}
	if _, err := b.Write(ctx, data); err != nil {
		return nil, err
	}
	return b, b.Commit(ctx)
}

// putShared makes the mblock and the log that all may read.
func putShared(t *testing.T, p api.Pool) (mblock, log layout.ObjectID) {
	t.Helper()
	ctx := context.Background()
	b, err := put(ctx, p, sharedTag)
	if err != nil {
		t.Fatal(err)
	}
	l, err := p.AllocMlog(ctx, api.AllocOptions{Capacity: 1 << 20, Tag: uint64(sharedTag)})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	a, err := l.OpenAppend(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(sharedRecords) {
		if _, err := a.Append(ctx, sharedTag.record(i), false); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(a.Close(ctx), l.Put(), b.Put()); err != nil {
		t.Fatal(err)
	}
	return b.ID(), l.ID()
}

func (l *living) run() {
	rng := rand.New(rand.NewPCG(1, 1))
	for {
		select {
		case <-l.stop:
			return
		default:
		}
		l.mu.Lock()
		began := time.Now()
		err := l.round(context.Background(), rng)
		l.longest = max(l.longest, time.Since(began))
		l.rounds++
		if err != nil {
			l.failures = append(l.failures, err)
		}
		l.mu.Unlock()
		if err != nil {
			return
		}
		time.Sleep(time.Millisecond) // others have something to do, too
	}
}

// round looks at everything once.
func (l *living) round(ctx context.Context, rng *rand.Rand) error {
	if err := ownTag.matches(ctx, l.own); err != nil {
		return fmt.Errorf("own mblock: %w", err)
	}
	again, err := l.p.Mblock(ctx, l.own.ID())
	if err != nil {
		return fmt.Errorf("find own mblock: %w", err)
	}
	if err := again.Put(); err != nil {
		return err
	}
	off := rng.IntN(len(l.half))
	got := make([]byte, rng.IntN(len(l.half)-off)+1)
	n, err := l.uncommitted.ReadAtContext(ctx, got, int64(off))
	if err != nil || n != len(got) || !bytes.Equal(got, l.half[off:off+n]) {
		return fmt.Errorf("own uncommitted mblock: %d of %d bytes at %d, not all of them as written, %w", n, len(got), off, err)
	}
	if l.records < 8_000 { // many more would not fit
		if _, err := l.app.Append(ctx, logTag.record(l.records), rng.IntN(10) == 0); err != nil {
			return fmt.Errorf("append: %w", err)
		}
		buf := make([]byte, 64<<10)
		k, err := l.read.Next(ctx, buf)
		if err != nil || !bytes.Equal(buf[:k], logTag.record(l.records)) {
			return fmt.Errorf("record %d read back: %d bytes, %w", l.records, k, err)
		}
		l.records++
	}
	if rng.IntN(50) == 0 && l.inMDC < 2000 {
		if err := l.mdc.Append(ctx, mdcTag.record(l.inMDC), false); err != nil {
			return fmt.Errorf("append to container: %w", err)
		}
		l.inMDC++
	}
	return nil
}

func (l *living) end() {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.done.Wait()
}

// idle does something while the client is.
func (l *living) idle(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

// finish stops the client and uses everything that it holds for what it is
// there for.
func (l *living) finish(t *testing.T) {
	t.Helper()
	l.end()
	ctx := context.Background()
	for _, err := range l.failures {
		t.Errorf("who lives on: %v", err)
	}
	rest := make([]byte, 12345)
	fill(rest, 8)
	_, err := l.uncommitted.Write(ctx, rest)
	if err = errors.Join(err, l.uncommitted.Commit(ctx)); err != nil {
		t.Errorf("its uncommitted mblock: %v", err)
	}
	whole := append(bytes.Clone(l.half), rest...)
	var got bytes.Buffer
	if _, err := l.uncommitted.WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), whole) {
		t.Errorf("its mblock: %d bytes of %d, %v", got.Len(), len(whole), err)
	}
	l.read.Rewind()
	if n, err := logTag.count(ctx, l.read); err != nil || n != l.records {
		t.Errorf("its log: %d records of %d, %v", n, l.records, err)
	}
	if err := l.mdc.CompactEnd(ctx); err != nil {
		t.Errorf("its compaction: %v", err)
	}
	r, err := l.mdc.OpenRead(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := mdcTag.count(ctx, r); err != nil || n != l.inMDC {
		t.Errorf("its container: %d records of %d, %v", n, l.inMDC, err)
	}
	if err := l.own.Delete(ctx); !errors.Is(err, api.EBUSY) {
		t.Errorf("its mblock with two references was deleted: %v", err)
	}
	if err := errors.Join(l.twin.Put(), l.own.Delete(ctx)); err != nil {
		t.Errorf("its mblock: %v", err)
	}
	if err := l.c.Close(); err != nil {
		t.Error(err)
	}
	t.Logf("who lived on looked at everything %d times, at most %v for one", l.rounds, l.longest)
}
