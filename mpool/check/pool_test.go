package check_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/mpool/check"
	"github.com/mpool-go/mpool/mpool/omf"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var bg = context.Background()

const (
	diskSize  = 24 << 20
	metaBytes = 96 << 10
)

// image is a disk as a Source.
type image struct {
	*devsim.Disk
	name string
}

func (i image) Path() string { return i.name }
func (i image) Close() error { return nil }

// opener opens disks by the names d0, d1 ...
func opener(disks ...*devsim.Disk) func(context.Context, string) (check.Source, error) {
	return func(_ context.Context, path string) (check.Source, error) {
		var n int
		if _, err := fmt.Sscanf(path, "d%d", &n); err != nil || n >= len(disks) {
			return nil, fmt.Errorf("open %s: no such disk", path)
		}
		return image{disks[n], path}, nil
	}
}

// run checks disks, data and all.
func run(t *testing.T, disks ...*devsim.Disk) check.Report {
	t.Helper()
	var names []string
	for i := range disks {
		names = append(names, fmt.Sprintf("d%d", i))
	}
	r, err := check.Run(bg, names, check.Options{Data: true, Reads: 2, Open: opener(disks...)})
	if err != nil {
		t.Fatal(err)
	}
	if r.OK != (len(r.Problems) == 0) {
		t.Fatalf("OK is %v with %d problems", r.OK, len(r.Problems))
	}
	return r
}

func wantClean(t *testing.T, disks ...*devsim.Disk) check.Report {
	t.Helper()
	r := run(t, disks...)
	for _, p := range r.Problems {
		t.Error(p)
	}
	for _, p := range r.Notes {
		t.Error("note", p)
	}
	if t.Failed() {
		t.FailNow()
	}
	return r
}

func do(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type dice struct{ *rand.Rand }

func (d dice) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(d.Uint32())
	}
	return len(p), nil
}

func options(disk *devsim.Disk) mpool.Options {
	return mpool.Options{
		MetadataBytes: metaBytes, Rand: dice{rand.New(rand.NewPCG(1, 2))},
		Open: func(_ context.Context, _ string, readOnly bool) (*bdev.Drive, error) {
			return devsim.Open(nil, disk, devsim.OpenOptions{ReadOnly: readOnly})
		},
	}
}

// newPool makes a pool and returns its disk.
func newPool(t testing.TB) *devsim.Disk {
	t.Helper()
	disk := devsim.NewDisk(diskSize, devsim.DiskOptions{WriteThrough: true})
	_, err := mpool.Create(bg, "pool", []string{"x"}, api.CreateOptions{}, options(disk))
	do(t, err)
	return disk
}

// use activates the pool, lets f use it, and deactivates it.
func use(t testing.TB, disk *devsim.Disk, f func(p *mpool.Pool)) {
	t.Helper()
	p, err := mpool.Activate(bg, "pool", []string{"x"}, api.ActivateOptions{}, options(disk))
	do(t, err)
	f(p)
	do(t, p.Close())
}

// put makes an mblock of n bytes.
func put(t testing.TB, p *mpool.Pool, n int) layout.ObjectID {
	t.Helper()
	b, err := p.AllocMblock(bg, api.AllocOptions{Capacity: int64(n), Tag: uint64(n)})
	do(t, err)
	if n > 0 {
		_, err = b.Write(bg, pattern(n))
		do(t, err)
	}
	do(t, b.Commit(bg))
	id := b.ID()
	do(t, b.Put())
	return id
}

func pattern(n int) []byte {
	b := make([]byte, n)
	if _, err := io.ReadFull(dice{rand.New(rand.NewPCG(uint64(n), 7))}, b); err != nil {
		panic(err)
	}
	return b
}

// putLog makes a log with records of these sizes, each synced.
func putLog(t testing.TB, p *mpool.Pool, capacity int64, sizes ...int) layout.ObjectID {
	t.Helper()
	l, err := p.AllocMlog(bg, api.AllocOptions{Capacity: capacity})
	do(t, err)
	do(t, l.Commit(bg))
	id := l.ID()
	do(t, l.Put())
	appendLog(t, p, id, sizes...)
	return id
}

func appendLog(t testing.TB, p *mpool.Pool, id layout.ObjectID, sizes ...int) {
	t.Helper()
	l, err := p.Mlog(bg, id)
	do(t, err)
	a, err := l.OpenAppend(bg)
	do(t, err)
	for _, n := range sizes {
		_, err = a.Append(bg, pattern(n), true)
		do(t, err)
	}
	do(t, a.Close(bg))
	do(t, l.Put())
}

// fixture is a pool with something of everything.
type fixture struct {
	disk                               *devsim.Disk
	empty, small, edge, sums, large    layout.ObjectID // mblocks
	log, erased, fresh, container, mdc layout.ObjectID
	objects                            map[layout.ObjectID]layout.Object
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	f := &fixture{disk: newPool(t)}
	use(t, f.disk, func(p *mpool.Pool) {
		f.empty, f.small, f.edge = put(t, p, 0), put(t, p, 10000), put(t, p, 16*4096)
		f.sums, f.large = put(t, p, 16*4096+1), put(t, p, 5<<20-7)
		f.log = putLog(t, p, 60000, 100, 0, 5000, 12000, 1)
		f.erased = putLog(t, p, 60000, 9000, 9000)
		f.fresh = putLog(t, p, 60000)
		l, err := p.Mlog(bg, f.erased)
		do(t, err)
		do(t, l.Erase(bg, 7))
		do(t, l.Put())
		appendLog(t, p, f.erased, 4000, 4000)
		f.mdc, err = p.CreateMDC(bg, api.AllocOptions{Capacity: 40000})
		do(t, err)
		f.container, err = p.CreateMDC(bg, api.AllocOptions{Capacity: 40000})
		do(t, err)
		useContainer(t, p, f.container)
		_, err = p.AddOwner(bg, "tenant", 0)
		do(t, err)
		do(t, p.SetRoots(bg, []api.Root{{Name: "first", ID: f.log}, {Name: "second", ID: f.small}}))
		gone := put(t, p, 50000)
		b, err := p.Mblock(bg, gone)
		do(t, err)
		do(t, b.Delete(bg))
	})
	use(t, f.disk, func(p *mpool.Pool) { put(t, p, 3000) })
	f.learn(t)
	return f
}

func useContainer(t testing.TB, p *mpool.Pool, id layout.ObjectID) {
	t.Helper()
	c, err := p.OpenMDC(bg, id)
	do(t, err)
	for range 5 {
		do(t, c.Append(bg, pattern(1000), true))
	}
	do(t, c.CompactStart(bg))
	do(t, c.CompactAppend(bg, pattern(500)))
	do(t, c.CompactEnd(bg))
	do(t, c.Append(bg, pattern(2000), true))
	do(t, c.Close(bg))
}

// proves S45
func TestCleanPool(t *testing.T) {
	r := wantClean(t, newPool(t))
	if r.Pool != "pool" || r.Superblocks != 3 || r.Objects != 0 || r.Space.Live != 0 {
		t.Fatalf("%+v", r)
	}
	f := newFixture(t)
	r = wantClean(t, f.disk)
	s := r.Space
	if s.Total != diskSize || s.Free+s.Live+s.Overhead+s.Remainder != s.Total {
		t.Fatalf("space does not add up: %+v", s)
	}
	if r.Mblocks != 6 || r.Mlogs != 7 || r.Objects != 13 || r.Records < 10 || r.LogPages < 20 {
		t.Fatalf("%+v", r)
	}
	if want := int64(10000 + 16*4096 + 16*4096 + 1 + 5<<20 - 7 + 3000); r.VerifiedBytes != want {
		t.Fatalf("verified %d bytes, want %d", r.VerifiedBytes, want)
	}
}

// dumped dumps disks as text, and looks that each line is JSON, too.
func dumped(t *testing.T, disks ...*devsim.Disk) string {
	t.Helper()
	var names []string
	for i := range disks {
		names = append(names, fmt.Sprintf("d%d", i))
	}
	var b strings.Builder
	do(t, check.Dump(bg, names, check.Options{Data: true, Open: opener(disks...)}, func(l *check.Line) error {
		b.WriteString(l.String() + "\n")
		j, err := json.Marshal(l)
		do(t, err)
		var v map[string]any
		do(t, json.Unmarshal(j, &v))
		if v["type"] != l.Type || len(v) != 1+len(l.Fields) {
			t.Errorf("%v is %s", l, j)
		}
		return nil
	}))
	return b.String()
}

// A dump shows everything, and goes on where something is broken.
func TestDump(t *testing.T) {
	f := newFixture(t)
	dump := func(disk *devsim.Disk) string {
		return regexp.MustCompile(`created=\S+`).ReplaceAllString(plainText(dumped(t, disk)), "created=xxx")
	}
	golden(t, "dump.golden", dump(f.disk))
	flip(f.disk, f.copyOffset(0)+9)
	flip(f.disk, f.metaOffset(t, 0)+100)
	var r omf.Record
	r.Owner(7, 0, "x")
	r.Update(f.log, 1, 2, 3)
	r.Relocate(f.log, 1, layout.Extent{Start: 5, Blocks: 6})
	r.Drive(&omf.Drive{Slot: 3, Class: 1, State: omf.DriveOnline, Size: 1 << 30})
	f.raw(t, append([]byte(nil), r.Bytes()...))
	f.raw(t, []byte{7})
	golden(t, "dump-broken.golden", dump(f.disk))
}
