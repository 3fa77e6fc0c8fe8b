package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/layout"
)

var firstID = layout.NewObjectID(layout.KindMblock, 1)

// proves G41: an mblock that was opened under a credit, and given up, is opened and
// read again without a message of any kind.
func TestCachedOpen(t *testing.T) {
	s := newLender(t, 0)
	c, p := s.open(CreditOptions{Bytes: 1 << 20})
	data := contents(100_000, 1)
	s.put(firstID, data)
	buf := make([]byte, 5000)
	read := func(off int64) {
		t.Helper()
		m, err := p.Mblock(t.Context(), firstID)
		if err != nil {
			t.Fatal(err)
		}
		n, err := m.ReadAt(buf, off)
		want := data[min(off, int64(len(data))):]
		want = want[:min(len(want), len(buf))]
		if !bytes.Equal(buf[:n], want) || errors.Is(err, io.EOF) != (n < len(buf)) || err != nil && !errors.Is(err, io.EOF) {
			t.Errorf("read %d bytes at %d, %v: want %d", n, off, err, len(want))
		}
		if err := m.Put(); err != nil {
			t.Error(err)
		}
		if _, err := m.ReadAt(buf, off); !errors.Is(err, api.EBADF) {
			t.Errorf("read after Put: %v", err)
		}
		if err := m.Put(); !errors.Is(err, api.EBADF) {
			t.Errorf("Put twice: %v", err)
		}
	}
	offsets := []int64{0, 4096, 16000, 97_000, 99_999, 100_000, 100_001}
	for _, off := range offsets {
		read(off)
	}
	asked, sent := s.requests(), c.CreditStats().Messages
	for range 3 {
		for _, off := range offsets[:5] {
			read(off)
		}
	}
	st := c.CreditStats()
	// That the first grant came may be told as late as now.
	if n := s.requests(); n != asked || st.Messages > sent+1 {
		t.Errorf("15 opens and reads cost %d requests and %d messages of credits", n-asked, st.Messages-sent)
	}
	if st.Hits < 15 || st.Idle != 1 || st.Bytes == 0 {
		t.Errorf("counted %+v", st)
	}
}

// A daemon without credits serves all that needs none, as if nobody had asked.
func TestNoCredits(t *testing.T) {
	f := newFake(t)
	c, p := f.open(CreditOptions{Bytes: 1 << 20})
	s := &lender{fake: f}
	s.put(firstID, contents(1000, 1))
	for range 2 {
		m, err := p.Mblock(t.Context(), firstID)
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1000)
		if _, err := m.ReadAt(buf, 0); err != nil || !bytes.Equal(buf, contents(1000, 1)) {
			t.Error(err)
		}
		if err := m.Put(); err != nil {
			t.Error(err)
		}
	}
	if _, err := p.AcquireCredit(t.Context(), firstID, CreditRequest{Modes: CreditRead}); !errors.Is(err, api.ENOTSUP) {
		t.Errorf("a credit of a daemon that has none: %v", err)
	}
	if st := c.CreditStats(); st.Messages > 1 || st.Bytes != 0 {
		t.Errorf("counted %+v", st)
	}
}

// proves G49, G50: a delete calls cached reads back at once, and their bytes go; it
// waits for those that are held, or is refused; and what comes in the mblock's place
// is read, not what was kept.
func TestCachedDelete(t *testing.T) {
	s := newLender(t, 0)
	c, p := s.open(CreditOptions{Bytes: 1 << 20})
	s.put(firstID, contents(1000, 1))
	m, err := p.Mblock(t.Context(), firstID)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1000)
	if _, err := m.ReadAt(buf, 0); err != nil || !bytes.Equal(buf, contents(1000, 1)) {
		t.Fatalf("first read: %v", err)
	}
	if _, err := s.delete(t.Context(), firstID, credit.Try); !errors.Is(err, credit.ErrBusy) {
		t.Errorf("delete of what is held: %v", err)
	}
	if _, err := m.ReadAt(buf, 0); err != nil {
		t.Errorf("read beside a delete that was refused: %v", err)
	}
	deleted := make(chan error, 1)
	go func() {
		h, err := s.delete(context.Background(), firstID, 0)
		if err == nil {
			s.put(firstID, contents(1000, 2)) // the id is given again
			err = h.Release(credit.Version{})
		}
		deleted <- err
	}()
	<-m.(*cachedMblock).hold.Wanted()
	if _, err := m.ReadAt(buf, 0); err != nil || !bytes.Equal(buf, contents(1000, 1)) {
		t.Errorf("read while a delete waits: %v", err)
	}
	if err := m.Put(); err != nil {
		t.Error(err)
	}
	if err := <-deleted; err != nil {
		t.Error(err)
	}
	if n := c.CreditStats().Bytes; n != 0 {
		t.Errorf("%d bytes are kept of what was called back", n)
	}
	if m, err = p.Mblock(t.Context(), firstID); err != nil {
		t.Fatal(err)
	}
	if _, err := m.ReadAt(buf, 0); err != nil || !bytes.Equal(buf, contents(1000, 2)) {
		t.Errorf("read of what came in its place: %v", err)
	}
	if err := m.Put(); err != nil {
		t.Error(err)
	}
	h, err := s.delete(t.Context(), firstID, credit.Try)
	if err != nil {
		t.Fatalf("delete of what is cached: %v", err)
	}
	s.remove(firstID)
	if err := h.Release(credit.Version{}); err != nil {
		t.Error(err)
	}
	if _, err := p.Mblock(t.Context(), firstID); !errors.Is(err, api.ENOENT) {
		t.Errorf("open of what was deleted: %v", err)
	}
}

// proves G42: who holds on past the call-back's deadline has lost the credit; what is
// in the mblock's place then is not read by its handle, nor is what was kept.
func TestCachedFenced(t *testing.T) {
	s := newLender(t, 10*time.Millisecond)
	_, p := s.open(CreditOptions{Bytes: 1 << 20})
	s.put(firstID, contents(1000, 1))
	open := func() *cachedMblock {
		t.Helper()
		m, err := p.Mblock(t.Context(), firstID)
		if err == nil {
			_, err = m.ReadAt(make([]byte, 10), 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		return m.(*cachedMblock)
	}
	if err := open().Put(); err != nil {
		t.Fatal(err)
	}
	m := open()
	if m.inner.Load() != nil {
		t.Fatal("the second open asked the daemon")
	}
	d, err := s.delete(t.Context(), firstID, 0)
	if err != nil {
		t.Fatal(err)
	}
	s.put(firstID, contents(1000, 2))
	if err := d.Release(credit.Version{}); err != nil {
		t.Error(err)
	}
	<-m.hold.Lost()
	if n, err := m.ReadAt(make([]byte, 10), 0); !errors.Is(err, api.ESTALE) {
		t.Errorf("read under a credit that was taken: %d bytes, %v", n, err)
	}
	if err := m.Put(); err != nil {
		t.Error(err)
	}
}

// proves G49: a view keeps its mblock from being deleted, also when the handle is
// given up; who deletes must not have one himself.
func TestCachedView(t *testing.T) {
	s := newLender(t, 0)
	_, p := s.open(CreditOptions{Bytes: 1 << 20})
	data := contents(2*cacheBlock+100, 1)
	s.put(firstID, data)
	m, err := p.Mblock(t.Context(), firstID)
	if err != nil {
		t.Fatal(err)
	}
	view := m.(Viewer).View
	var v *View
	for off := 0; off < len(data); off += len(v.Bytes()) {
		for range 2 { // the second time it is here
			if v, err = view(t.Context(), int64(off), len(data)); err != nil {
				t.Fatal(err)
			}
			if n := len(v.Bytes()); n == 0 || !bytes.Equal(v.Bytes(), data[off:off+n]) {
				t.Errorf("a view of %d bytes at %d is wrong", n, off)
			}
			v.Release()
			v.Release()
		}
	}
	if _, err := view(t.Context(), int64(len(data)), 1); !errors.Is(err, io.EOF) {
		t.Errorf("a view at the end: %v", err)
	}
	if v, err = view(t.Context(), 10, 20); err != nil || len(v.Bytes()) != 20 {
		t.Fatal(err)
	}
	if err := m.Delete(t.Context()); !errors.Is(err, api.EBUSY) {
		t.Errorf("delete of what is in view: %v", err)
	}
	if err := m.Put(); err != nil {
		t.Error(err)
	}
	if _, err := view(t.Context(), 0, 1); !errors.Is(err, api.EBADF) {
		t.Errorf("a view of a handle that was given up: %v", err)
	}
	if _, err := s.delete(t.Context(), firstID, credit.Try); !errors.Is(err, credit.ErrBusy) {
		t.Errorf("another's delete of what is in view: %v", err)
	}
	v.Release()
	h, err := s.delete(t.Context(), firstID, credit.Try)
	if err != nil {
		t.Fatalf("delete when nothing is in view: %v", err)
	}
	if err := h.Release(credit.Version{}); err != nil {
		t.Error(err)
	}
	if m, err = p.Mblock(t.Context(), firstID); err != nil {
		t.Fatal(err)
	}
	if err := m.Delete(t.Context()); err != nil {
		t.Errorf("delete of one's own: %v", err)
	}
	if _, err := p.Mblock(t.Context(), firstID); !errors.Is(err, api.ENOENT) {
		t.Errorf("open of what was deleted: %v", err)
	}
}

// proves G47: what a lost connection held is lost, and said to be; what was kept
// serves the next connection where it is of the same contents.
func TestCreditsReconnect(t *testing.T) {
	s := newLender(t, 0)
	c, p := s.open(CreditOptions{Bytes: 1 << 20})
	s.put(firstID, contents(1000, 1))
	m, err := p.Mblock(t.Context(), firstID)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1000)
	if _, err := m.ReadAt(buf, 0); err != nil {
		t.Fatal(err)
	}
	h, err := p.AcquireCredit(t.Context(), firstID, CreditRequest{Modes: CreditAppend})
	if err != nil || !h.Valid() {
		t.Fatalf("append beside one's own read: %v", err)
	}
	s.drop(true)
	<-h.Lost()
	if h.Valid() {
		t.Error("a credit is valid whose connection is gone")
	}
	if err := h.Release(); err == nil {
		t.Error("a lost credit was released as if it were not")
	}
	if _, err := m.ReadAt(buf, 0); !errors.Is(err, api.EBADF) {
		t.Errorf("read by a handle of the lost connection: %v", err)
	}
	h, err = p.AcquireCredit(t.Context(), firstID, CreditRequest{Modes: CreditRead})
	if err != nil || !h.Valid() {
		t.Fatalf("on the next connection: %v", err)
	}
	if err := h.Release(); err != nil {
		t.Error(err)
	}
	hits := c.CreditStats().Hits
	if m, err = p.Mblock(t.Context(), firstID); err != nil {
		t.Fatal(err)
	}
	if _, err := m.ReadAt(buf, 0); err != nil || c.CreditStats().Hits != hits+1 {
		t.Errorf("what was kept and is of the same contents was not used: %v", err)
	}
	l := c.current.Load()
	s.drop(true)
	c.broken(l)
	s.put(firstID, contents(1000, 2)) // nobody could be called back
	if m, err = p.Mblock(t.Context(), firstID); err != nil {
		t.Fatal(err)
	}
	if _, err := m.ReadAt(buf, 0); err != nil || !bytes.Equal(buf, contents(1000, 2)) {
		t.Errorf("what came in its place without a connection: %v", err)
	}
}

// proves G41: of credits that nobody holds no more are kept than was asked for, and
// what was used longest ago goes first.
func TestCreditsPressure(t *testing.T) {
	s := newLender(t, 0)
	c, p := s.open(CreditOptions{Cached: 3})
	id := func(i int) layout.ObjectID { return layout.NewObjectID(layout.KindMblock, uint64(i)) }
	take := func(i int, local bool) error {
		h, err := p.AcquireCredit(t.Context(), id(i), CreditRequest{Modes: CreditRead, Local: local})
		if err == nil {
			err = h.Release()
		}
		return err
	}
	for i := 1; i <= 5; i++ {
		if err := errors.Join(take(i, false), take(1, i == 1)); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []error{nil, api.EAGAIN, api.EAGAIN, nil, nil} {
		if err := take(i+1, true); !errors.Is(err, want) {
			t.Errorf("credit %d: %v, want %v", i+1, err, want)
		}
	}
	if st := c.CreditStats(); st.Idle != 3 || st.GivenBack < 2 {
		t.Errorf("counted %+v", st)
	}
	for i := range 5 {
		p.GiveBackCredit(id(i + 1))
	}
	for {
		if n, _ := s.root.Size(); n == 0 {
			return
		}
		time.Sleep(time.Millisecond) // what is given back is on its way
	}
}

// proves G50: whatever is deleted and made anew meanwhile by others, a read gives
// bytes of the mblock that was opened.
func TestCachedModel(t *testing.T) {
	s := newLender(t, 0)
	const objects, size = 4, 3 * cacheBlock
	const rounds = 100
	seed := rand.Uint64()
	t.Log("seed", seed)
	var serial atomic.Uint64
	id := func(i int) layout.ObjectID { return layout.NewObjectID(layout.KindMblock, uint64(i+1)) }
	remake := func(i int) {
		n := serial.Add(1)
		p := make([]byte, size)
		for at := 0; at < size; at += 8 {
			number(p[at:], n)
		}
		s.put(id(i), p)
	}
	for i := range objects {
		remake(i)
	}
	var readers, others sync.WaitGroup
	done := make(chan struct{})
	others.Go(func() { // deletes and makes anew
		r := rand.New(rand.NewPCG(seed, 1))
		for {
			select {
			case <-done:
				return
			default:
			}
			i, f := r.IntN(objects), credit.Flags(0)
			if r.IntN(2) == 0 {
				f = credit.Try
			}
			h, err := s.delete(context.Background(), id(i), f)
			if err != nil {
				continue
			}
			s.remove(id(i))
			if r.IntN(4) > 0 {
				remake(i)
			}
			if err := h.Release(credit.Version{}); err != nil {
				t.Error(err)
			}
			s.mu.Lock()
			_, there := s.objects[id(i)]
			s.mu.Unlock()
			if !there {
				remake(i)
			}
		}
	})
	for k := range 3 {
		_, p := s.open(CreditOptions{Cached: 2 + k, Bytes: 5 * cacheBlock})
		for g := range 2 {
			r := rand.New(rand.NewPCG(seed, uint64(10*k+g+2)))
			readers.Go(func() {
				for range rounds {
					readOnce(t, p, r, id(r.IntN(objects)))
				}
			})
		}
	}
	readers.Wait()
	close(done)
	others.Wait()
}

func number(p []byte, n uint64) {
	for i := range 8 {
		p[i] = byte(n >> (8 * i))
	}
}

// readOnce opens an mblock, reads of it and checks that all is of one making.
func readOnce(t *testing.T, p *pool, r *rand.Rand, id layout.ObjectID) {
	m, err := p.Mblock(t.Context(), id)
	if errors.Is(err, api.ENOENT) {
		return
	}
	if err != nil {
		t.Error(err)
		return
	}
	var first []byte
	for range 1 + r.IntN(4) {
		buf := make([]byte, 8*(1+r.IntN(2500)))
		n, err := m.ReadAt(buf, int64(8*r.IntN(3*cacheBlock/8)))
		if err != nil && !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		for at := 0; at < n; at += 8 {
			if first == nil {
				first = buf[at : at+8]
			}
			if !bytes.Equal(buf[at:at+8], first) {
				t.Errorf("bytes of two makings in one mblock: %x and %x", first, buf[at:at+8])
				break
			}
		}
	}
	if err := m.Put(); err != nil {
		t.Error(err)
	}
}
