package client

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
)

// long returns a committed mblock of so many bytes.
func (s *scene) long(n int) (*mblock, []byte) {
	s.t.Helper()
	data := make([]byte, n)
	must(rand.NewChaCha8([32]byte{2}).Read(data))
	m := must(s.p.AllocMblock(s.t.Context(), api.AllocOptions{Capacity: int64(n)}))
	must(m.Write(s.t.Context(), data))
	if err := m.Commit(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	return m.(*mblock), data
}

// noWindows checks that nothing is read ahead and nothing held for it.
func (s *scene) noWindows(r *sharedRing) {
	s.t.Helper()
	for until := time.Now().Add(inVain); ; time.Sleep(time.Millisecond) {
		must(s.old.ReadAtContext(s.t.Context(), make([]byte, 1), 0)) // reaps what was given up
		if r.l.windows.Load() == 0 || time.Now().After(until) {
			break
		}
	}
	if n := r.l.windows.Load(); n != 0 {
		s.t.Errorf("%d windows", n)
	}
	s.comesIdle(r)
}

// Small reads one after another are served from what was read ahead: all bytes
// and the end, in fewer requests; others do as if there were nothing.
func TestReadAhead(t *testing.T) {
	for _, n := range []int{1, page, windowSize - 1, windowSize, 2 * windowSize, 5*windowSize + 4097} {
		for _, step := range []int{1000, page, 60_000} {
			if n/step > 500 {
				continue
			}
			s := newRingScene(t)
			r := s.c.ringed(t)
			m, data := s.long(n)
			before := s.f.did(ioctl.OpMblockRead)
			var got []byte
			p := make([]byte, step)
			for {
				k, err := m.ReadAt(p, int64(len(got)))
				got = append(got, p[:k]...)
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil || k != step {
					t.Fatalf("%d, %v", k, err)
				}
			}
			if !bytes.Equal(got, data) {
				t.Fatalf("%d bytes by %d: %d others", n, step, len(got))
			}
			asked := s.f.did(ioctl.OpMblockRead) - before
			if most := sequentially + 4 + n/windowSize; n > windowSize && asked > most {
				t.Errorf("%d bytes by %d: %d requests, want at most %d", n, step, asked, most)
			}
			if err := m.Put(); err != nil {
				t.Error(err)
			}
			s.noWindows(r)
		}
	}
}

// What is uncommitted is not read ahead: it may grow.
func TestReadAheadOfUncommitted(t *testing.T) {
	s := newRingScene(t)
	r := s.c.ringed(t)
	m := must(s.p.AllocMblock(t.Context(), api.AllocOptions{Capacity: 1 << 20})).(*mblock)
	p := make([]byte, page)
	for i := range 40 {
		must(m.Write(t.Context(), bytes.Repeat([]byte{byte(i)}, page)))
		if n, err := m.ReadAt(p, int64(i*page)); n != page || p[0] != byte(i) || err != nil && !errors.Is(err, io.EOF) {
			t.Fatalf("%d: %d, %v", i, n, err)
		}
		if r.l.windows.Load() != 0 {
			t.Fatal("read ahead")
		}
	}
}

// Reads of many goroutines, in sequence and not, while windows fail, come late
// or go with their connection: never other bytes, and nothing is left.
//
// proves S36
func TestReadAheadRandom(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for _, breaks := range []bool{false, true} {
		s := newRingScene(t)
		r := s.c.ringed(t)
		m, data := s.long(3*windowSize + 5)
		s.f.mu.Lock()
		s.f.withhold = func(*ring.Descriptor) bool { return rand.IntN(4) == 0 }
		s.f.refuse = func(op ioctl.Op) error {
			if op == ioctl.OpMblockRead && rand.IntN(5) == 0 {
				return api.EIO
			}
			return nil
		}
		s.f.mu.Unlock()
		stop := make(chan struct{})
		var releaser, wg sync.WaitGroup
		releaser.Go(func() {
			for {
				s.f.letGo(all)
				select {
				case <-stop:
					return
				case <-time.After(200 * time.Microsecond):
				}
			}
		})
		for g := range 4 {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(seed, uint64(g)))
				readSome(t, m, data, rng, breaks)
			})
		}
		if breaks {
			time.Sleep(20 * time.Millisecond)
			s.f.drop(true)
		}
		wg.Wait()
		s.f.withholdThose(nil)
		s.f.letGo(all)
		close(stop)
		releaser.Wait()
		s.f.mu.Lock()
		s.f.refuse = nil
		s.f.mu.Unlock()
		if err := m.Put(); err != nil {
			t.Error(err)
		}
		if !breaks {
			s.noWindows(r)
			continue
		}
		s.c.broken(r.l)
		r.idle(t)
		if r.mem != nil {
			t.Error("the ring's memory is not given back")
		}
	}
}

func readSome(t *testing.T, m *mblock, data []byte, rng *rand.Rand, breaks bool) {
	t.Helper()
	p := make([]byte, smallRead)
	for range 30 {
		off := rng.IntN(len(data))
		size := 1 + rng.IntN(len(p))
		for range 1 + rng.IntN(30) {
			n, err := m.ReadAt(p[:size], int64(off))
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, api.EIO) && (!breaks || !errors.Is(err, api.EBADF)) {
				t.Error(err)
				return
			}
			if !bytes.Equal(p[:n], data[off:off+n]) {
				t.Errorf("other bytes: %d at %d", n, off)
				return
			}
			if err == nil && n != size {
				t.Errorf("%d of %d", n, size)
			}
			if off += n; err != nil || off >= len(data) {
				break
			}
		}
	}
}

// stopping writes so many pieces and then fails.
type stopping struct {
	bytes.Buffer
	left int
}

func (w *stopping) Write(p []byte) (int, error) {
	if w.left--; w.left < 0 {
		return 0, io.ErrShortWrite
	}
	return w.Buffer.Write(p)
}

// A copy to a writer is whole, whatever its length, and leaves nothing when the
// writer fails.
func TestWriteToAhead(t *testing.T) {
	for _, n := range []int{0, 1, chunk, 3*chunk + 17} {
		s := newRingScene(t)
		r := s.c.ringed(t)
		m, data := s.long(n)
		var b bytes.Buffer
		if k, err := m.WriteTo(&b); k != int64(n) || err != nil || !bytes.Equal(b.Bytes(), data) {
			t.Errorf("%d: %d, %v", n, k, err)
		}
		w := stopping{left: 1}
		if k, err := m.WriteTo(&w); n > chunk && (k != chunk || !errors.Is(err, io.ErrShortWrite)) {
			t.Errorf("%d: %d, %v", n, k, err)
		}
		s.noWindows(r)
	}
}
