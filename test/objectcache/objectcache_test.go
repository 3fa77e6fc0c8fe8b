package objectcache

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/test/daemon"
)

var (
	mpoold string // the daemon's binary, built by TestMain
	rounds = flag.Int("objectcache.rounds", 25, "how often an mblock is deleted and another made in its place")
)

const (
	envReader = "MPOOL_TEST_OBJECTCACHE"
	objects   = 4
	size      = 40_000 // bytes of an mblock, a multiple of 8
	processes = 3
)

func TestMain(m *testing.M) {
	if s := os.Getenv(envReader); s != "" {
		if err := read(s); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	os.Exit(daemon.Main(m, false, &mpoold))
}

// reader is what a process is told, and what it tells in the end.
type reader struct {
	Socket string
	Board  string
	IDs    []layout.ObjectID
	Number int
	Seed   uint64

	Reads uint64
	Stats client.CreditStats
}

// board is shared by all processes: which making of each mblock is committed at
// least, which readers have used their caches and have been called back, and whether
// it is over.
type board struct {
	least [objects]atomic.Uint64
	used  [processes]atomic.Bool
	over  atomic.Bool
}

func (b *board) allUsed() bool {
	for i := range b.used {
		if !b.used[i].Load() {
			return false
		}
	}
	return true
}

func mapBoard(path string) (*board, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Truncate(4096); err != nil {
		return nil, err
	}
	p, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return (*board)(unsafe.Pointer(&p[0])), nil
}

// proves G49, G50: whatever another process deletes and makes anew under the same
// ids, a read through a cache gives bytes of one making, which is no older than what
// was committed before the mblock was opened.
func TestDeleteAndMakeAnew(t *testing.T) {
	drive := daemon.Drive(t, 256<<20)
	d := daemon.Start(t, mpoold, daemon.Options{})
	d.Pool("data", drive, api.CreateOptions{})
	c, err := client.Dial(t.Context(), client.Options{Socket: d.Socket, Credits: &client.CreditOptions{}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p, err := c.OpenPool(t.Context(), "data")
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Log("seed", seed)
	told := reader{Socket: d.Socket, Board: filepath.Join(t.TempDir(), "board")}
	b, err := mapBoard(told.Board)
	if err != nil {
		t.Fatal(err)
	}
	w := &writer{t: t, p: p, b: b, r: rand.New(rand.NewPCG(seed, 0))}
	for i := range objects {
		w.make(i, 0)
	}
	told.IDs = w.ids[:]
	var all sync.WaitGroup
	for i := range processes {
		told.Number, told.Seed = i, seed+uint64(i)
		text, err := json.Marshal(told)
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() { runReader(t, string(text)) })
	}
	deleted := 0
	// What is to come may not have come by then where processors are busy.
	latest := time.Now().Add(daemon.Patience)
	more := func(n int) bool {
		return n < *rounds || (deleted < *rounds/4 || !b.allUsed()) && time.Now().Before(latest)
	}
	for n := 0; more(n) && !t.Failed(); n++ {
		deleted += w.replace(w.r.IntN(objects))
	}
	b.over.Store(true)
	all.Wait()
	t.Logf("%d mblocks replaced, %d deletes were busy", deleted, w.busy)
	if deleted < *rounds/4 {
		t.Errorf("only %d of %d mblocks were replaced", deleted, *rounds)
	}
}

// runReader runs a process that reads.
func runReader(t *testing.T, told string) {
	self, err := os.Executable()
	if err != nil {
		t.Error(err)
		return
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), envReader+"="+told)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	var r reader
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	if err != nil {
		t.Errorf("a reader: %v", err)
		return
	}
	t.Logf("%d reads, %+v", r.Reads, r.Stats)
	if r.Stats.Hits == 0 || r.Stats.CalledBack == 0 {
		t.Error("its cache was not used, or nothing was called back")
	}
}

// writer makes mblocks anew.
type writer struct {
	t    *testing.T
	p    api.Pool
	b    *board
	r    *rand.Rand
	ids  [objects]layout.ObjectID
	last uint64
	busy int
}

// make makes the next making of an mblock; id 0: the first.
func (w *writer) make(i int, id layout.ObjectID) {
	w.t.Helper()
	ctx := w.t.Context()
	o := api.AllocOptions{Capacity: 64 << 10}
	var m api.Mblock
	var err error
	if id == 0 {
		m, err = w.p.AllocMblock(ctx, o)
	} else {
		m, err = w.p.ReallocMblock(ctx, id, o)
		// Who asked for a credit before the delete was over has it after, until its open
		// finds nothing.
		for end := time.Now().Add(daemon.Patience); errors.Is(err, api.EBUSY) && time.Now().Before(end); {
			time.Sleep(100 * time.Microsecond)
			m, err = w.p.ReallocMblock(ctx, id, o)
		}
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.last++
	data := make([]byte, size)
	for at := 0; at < size; at += 8 {
		binary.LittleEndian.PutUint64(data[at:], w.last)
	}
	if _, err := m.Write(ctx, data); err != nil {
		w.t.Fatal(err)
	}
	if err := m.Commit(ctx); err != nil {
		w.t.Fatal(err)
	}
	w.b.least[i].Store(w.last)
	w.ids[i] = m.ID()
	if err := m.Put(); err != nil {
		w.t.Fatal(err)
	}
}

// replace deletes an mblock and makes another in its place: when all others have let
// go, or, as often, if nobody uses it now. 0: somebody does.
func (w *writer) replace(i int) int {
	w.t.Helper()
	ctx, id := w.t.Context(), w.ids[i]
	if w.r.IntN(2) == 0 {
		h, err := w.p.(client.Credits).AcquireCredit(ctx, id, client.CreditRequest{Modes: client.CreditDelete})
		if err != nil {
			w.t.Fatal(err)
		}
		defer func() {
			if err := h.Release(); err != nil {
				w.t.Error(err)
			}
		}()
	}
	m, err := w.p.Mblock(ctx, id)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := m.Delete(ctx); err != nil {
		if !errors.Is(err, api.EBUSY) {
			w.t.Fatal(err)
		}
		w.busy++
		if err := m.Put(); err != nil {
			w.t.Fatal(err)
		}
		return 0
	}
	w.make(i, id)
	return 1
}

// read is a process that reads until it is over, through one cache by several
// goroutines.
func read(text string) error {
	var told reader
	if err := json.Unmarshal([]byte(text), &told); err != nil {
		return err
	}
	b, err := mapBoard(told.Board)
	if err != nil {
		return err
	}
	ctx := context.Background()
	c, err := client.Dial(ctx, client.Options{Socket: told.Socket, Credits: &client.CreditOptions{Cached: 3, Bytes: 3 * size}})
	if err != nil {
		return err
	}
	p, err := c.OpenPool(ctx, "data")
	if err != nil {
		return err
	}
	var reads atomic.Uint64
	var all sync.WaitGroup
	errs := make([]error, 2)
	for g := range errs {
		r := rand.New(rand.NewPCG(told.Seed, uint64(g)))
		all.Go(func() {
			for errs[g] == nil && !b.over.Load() {
				i := r.IntN(objects)
				errs[g] = readOne(ctx, p, r, told.IDs[i], b.least[i].Load())
				reads.Add(1)
				if used := &b.used[told.Number]; !used.Load() {
					s := c.CreditStats()
					used.Store(s.Hits > 0 && s.CalledBack > 0)
				}
			}
		})
	}
	all.Wait()
	told.Reads, told.Stats = reads.Load(), c.CreditStats()
	if err := errors.Join(errors.Join(errs...), p.Close(), c.Close()); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(told)
}

// readOne opens an mblock, reads of it, and gives it up.
func readOne(ctx context.Context, p api.Pool, r *rand.Rand, id layout.ObjectID, least uint64) error {
	m, err := p.Mblock(ctx, id)
	if errors.Is(err, api.ENOENT) || errors.Is(err, api.EBUSY) {
		return nil // being deleted
	}
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	first := uint64(0)
	for range 1 + r.IntN(4) {
		buf := make([]byte, 8*(1+r.IntN(2000)))
		n, err := m.ReadAt(buf, int64(8*r.IntN(size/8)))
		if errors.Is(err, api.EBUSY) {
			break // the writer waits, and the bytes are not here
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read: %w", err)
		}
		for at := 0; at+8 <= n; at += 8 {
			v := binary.LittleEndian.Uint64(buf[at:])
			if first == 0 {
				first = v
			}
			if v != first || v < least {
				return fmt.Errorf("%v: bytes of making %d, beside %d, though %d was committed before", id, v, first, least)
			}
		}
	}
	return m.Put()
}
