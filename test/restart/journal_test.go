package restart

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// entry is a line of a client's journal: what it was told.
type entry struct {
	What string          // "live", "gone", "root", "log", "bad", "end"
	ID   layout.ObjectID // of an object; of the log
	Blob blob            // live
	Name string          // of a root

	Acknowledged, Sent uint64 // log: records

	Text string // bad

	// end
	Calls   int
	Longest time.Duration
	Errors  map[string]int // by call and code
}

// blob is what an mblock holds.
type blob struct {
	Seed uint64
	Size int
}

// bytes makes the content.
func (b blob) bytes() []byte {
	rng := rand.New(rand.NewPCG(b.Seed, uint64(b.Size)))
	p := make([]byte, b.Size+7)
	for i := 0; i+8 <= len(p); i += 8 {
		v := rng.Uint64()
		for j := range 8 {
			p[i+j] = byte(v >> (8 * j))
		}
	}
	return p[:b.Size]
}

// record makes the content of a record of a client's log.
func record(n int, number uint64) []byte {
	return fmt.Appendf(nil, "client %d record %d %s", n, number, bytes.Repeat([]byte{'x'}, int(number*37%300)))
}

// journal is where a client says what it was told. Each line is one write: it
// is there when the client is not.
type journal struct {
	mu sync.Mutex
	// +checklocks:mu
	f *os.File
}

func (j *journal) say(e entry) {
	b, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := j.f.Write(append(b, '\n')); err != nil {
		panic(err)
	}
}

// verdict is what all clients were told.
type verdict struct {
	live    map[layout.ObjectID]blob
	gone    map[layout.ObjectID]bool
	roots   map[string]layout.ObjectID
	logs    []entry
	calls   int
	longest time.Duration
	errors  map[string]int
	records uint64
}

func newVerdict() *verdict {
	return &verdict{
		live: make(map[layout.ObjectID]blob), gone: make(map[layout.ObjectID]bool),
		roots: make(map[string]layout.ObjectID), errors: make(map[string]int),
	}
}

// read adds a client's journal.
func (v *verdict) read(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ended := false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var e entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		switch e.What {
		case "live":
			v.live[e.ID] = e.Blob
			delete(v.gone, e.ID)
		case "gone":
			delete(v.live, e.ID)
			v.gone[e.ID] = true
		case "root":
			v.roots[e.Name] = e.ID
		case "log":
			v.logs = append(v.logs, e)
		case "bad":
			t.Errorf("%s: %s", path, e.Text)
		case "end":
			ended = true
			v.calls += e.Calls
			v.longest = max(v.longest, e.Longest)
			for what, n := range e.Errors {
				v.errors[what] += n
			}
		}
	}
	if !ended {
		t.Errorf("%s: the client did not come to its end", path)
	}
}

// compare compares objects, roots and logs.
func (v *verdict) compare(t *testing.T, p api.Pool) {
	t.Helper()
	ctx := t.Context()
	for id, b := range v.live {
		m, err := p.Mblock(ctx, id)
		if err != nil {
			t.Errorf("its commit was acknowledged: %v", err)
			continue
		}
		var got bytes.Buffer
		if _, err := m.WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), b.bytes()) {
			t.Errorf("mblock %v: %d bytes of %d, or others: %v", id, got.Len(), b.Size, err)
		}
		if err := m.Put(); err != nil {
			t.Error(err)
		}
	}
	for id := range v.gone {
		if _, err := p.Mblock(ctx, id); !errors.Is(err, api.ENOENT) {
			t.Errorf("mblock %v was deleted, or its commit was not done, and it is there: %v", id, err)
		}
	}
	n := 0
	for info, err := range p.Objects(ctx, api.Filter{Kind: layout.KindMblock}) {
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := v.live[info.ID]; !ok {
			t.Errorf("mblock %v is nobody's", info.ID)
		}
		n++
	}
	if n != len(v.live) {
		t.Errorf("%d mblocks are listed, %d were committed", n, len(v.live))
	}
	roots, err := p.Roots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(roots) != len(v.roots) {
		t.Errorf("%d roots, want %d", len(roots), len(v.roots))
	}
	for _, r := range roots {
		if v.roots[r.Name] != r.ID {
			t.Errorf("root %s is %v, want %v", r.Name, r.ID, v.roots[r.Name])
		}
	}
	for _, e := range v.logs {
		v.compareLog(t, p, e)
	}
}

func (v *verdict) compareLog(t *testing.T, p api.Pool, e entry) {
	t.Helper()
	l, err := p.Mlog(t.Context(), e.ID)
	if err != nil {
		t.Error(err)
		return
	}
	r, err := l.OpenRead(t.Context())
	if err != nil {
		t.Error(err)
		return
	}
	n, err := strconv.Atoi(e.Name)
	if err != nil {
		t.Fatal(err)
	}
	got, err := readLog(t.Context(), r, n)
	if err != nil {
		t.Errorf("log of client %s: %v", e.Name, err)
	}
	if got < e.Acknowledged || got > e.Sent {
		t.Errorf("the log of client %s has %d records; %d were acknowledged, %d sent", e.Name, got, e.Acknowledged, e.Sent)
	}
	v.records += got
	if err := errors.Join(r.Close(), l.Put()); err != nil {
		t.Error(err)
	}
}

// space checks that every byte is accounted for and nothing is held.
func (v *verdict) space(t *testing.T, p api.Pool) {
	t.Helper()
	var used int64
	for info, err := range p.Objects(t.Context(), api.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		used += info.Used
	}
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) { // polls; nothing depends on its length
		info, err := p.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s := info.Space
		if s.Live == used && s.Uncommitted == 0 && s.Draining == 0 && s.Total == driveBytes &&
			s.Free+s.Live+s.Spare+s.Overhead+s.Remainder == s.Total {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("space does not add up: %+v; objects use %d", s, used)
		}
	}
}

var errOther = errors.New("a record is not what was appended")

// readLog reads a log's records and returns how many there are.
func readLog(ctx context.Context, r api.LogReader, n int) (uint64, error) {
	buf := make([]byte, 4096)
	for i := uint64(0); ; i++ {
		k, err := r.Next(ctx, buf)
		if errors.Is(err, io.EOF) {
			return i, nil
		}
		if err != nil {
			return i, err
		}
		if !bytes.Equal(buf[:k], record(n, i)) {
			return i, fmt.Errorf("%w: number %d", errOther, i)
		}
	}
}
