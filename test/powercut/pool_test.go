package powercut

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/mpool/check"
	"github.com/mpool-go/mpool/test/faultfs"
	"github.com/mpool-go/mpool/test/loopdev"
)

const (
	driveBytes  = 64 << 20
	clientsEach = 2                      // processes of each pool
	longestWork = 150 * time.Millisecond // before the daemon is killed
	mostIO      = 300                    // of a drive before it is gone
)

// pool is a pool whose drives lose their power.
type pool struct {
	t       *testing.T
	rng     *rand.Rand
	name    string
	loop    bool // the drives lie under loop devices
	sector  int  // of those, bytes
	drives  []*faultfs.Drive
	loops   []*loopdev.Device
	clients []*child
	tally   tally
}

// tally counts what happened.
type tally struct {
	cuts, kills, acked         int
	volatile, kept, torn, lost int // writes
	stories                    map[string]int
}

func (a *tally) add(b *tally) {
	a.cuts, a.kills, a.acked = a.cuts+b.cuts, a.kills+b.kills, a.acked+b.acked
	a.volatile, a.kept, a.torn, a.lost = a.volatile+b.volatile, a.kept+b.kept, a.torn+b.torn, a.lost+b.lost
	for k, n := range b.stories { // order does not matter
		a.stories[k] += n
	}
}

// newPool makes the drives of a pool and its clients.
func newPool(t *testing.T, n int, seed uint64) *pool {
	t.Helper()
	p := &pool{
		t: t, rng: rand.New(rand.NewPCG(seed, uint64(n))), name: fmt.Sprintf("cut%d", n), loop: n%2 == 0, sector: 512 << (n % 4 * 3 / 2),
		tally: tally{stories: make(map[string]int)},
	}
	for range 1 + n%3/2 {
		o := sim.DiskOptions{Name: p.name, LogicalSector: 512, PhysicalSector: 512, Discard: p.rng.IntN(4) > 0}
		if p.rng.IntN(2) == 0 {
			o.PhysicalSector = 4096
		}
		d := faultfs.New(t, driveBytes, faultfs.Options{Disk: sim.NewDisk(driveBytes, o), Seed: p.rng.Uint64()})
		p.drives = append(p.drives, d)
	}
	for range clientsEach {
		c, err := startChild(len(p.clients))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := c.end(); err != nil {
				t.Errorf("a client: %v\n%s", err, c.log.String())
			}
		})
		p.clients = append(p.clients, c)
	}
	return p
}

// attach returns the devices to be used.
func (p *pool) attach() (paths []string) {
	for _, d := range p.drives {
		path := d.Path
		if p.loop {
			l := loopdev.New(p.t, 0, loopdev.Options{Backing: path, SectorSize: p.sector})
			p.loops, path = append(p.loops, l), l.Path
		}
		paths = append(paths, path)
	}
	return paths
}

// detach takes the loop devices away. Nobody may use them any more.
func (p *pool) detach() {
	for _, l := range p.loops {
		l.Detach(p.t)
	}
	p.loops = nil
}

// create makes the pool.
func (p *pool) create(ctx context.Context, m *client.Conn) error {
	paths := p.attach()
	_, err := m.CreatePool(ctx, p.name, paths[:1], api.CreateOptions{Staging: paths[1:]})
	return err
}

// The stories of a round: what goes wrong beside the power.
var stories = []string{
	"cut", "cut", "cut", "cut", "flush fails", "write fails", "full", "short writes", "stall",
}

// disturb lets a story begin. It says whether a flush may fail: then the power
// must be cut before the pool is activated anew, for what was lost may be read
// until then.
func (p *pool) disturb(story string) (flush bool) {
	d := p.drives[p.rng.IntN(len(p.drives))]
	f := sim.Fault{Skip: p.rng.Uint64N(mostIO / 3), Count: 1}
	switch story {
	case "flush fails":
		f.Code, f.Err, f.Skip = bdev.OpFlush, syscall.EIO, p.rng.Uint64N(30)
		flush = true
	case "write fails":
		f.Code, f.Err = bdev.OpWrite, syscall.EIO
	case "full":
		f.Code, f.Err, f.Count = bdev.OpWrite, syscall.ENOSPC, 1+p.rng.Uint64N(5)
	case "short writes":
		d.Shorten(1 + p.rng.IntN(4))
		return false
	case "stall":
		codes := []bdev.OpCode{bdev.OpWrite, bdev.OpFlush, bdev.OpRead, 0}
		d.Stall(faultfs.Stall{Code: codes[p.rng.IntN(len(codes))], For: time.Duration(1+p.rng.IntN(30)) * time.Millisecond})
		return false
	default:
		return false
	}
	d.Disk().Inject(f)
	return flush
}

// work lets the clients work until the drives or the daemon are gone, which gone
// sees to; idle is closed when all clients have given up.
func (p *pool) work(socket string, gone func(idle <-chan struct{})) error {
	for _, c := range p.clients {
		if err := c.tell(order{Socket: socket, Pool: p.name}); err != nil {
			return err
		}
	}
	errs, acked := make([]error, len(p.clients)), make([]int, len(p.clients))
	var wg sync.WaitGroup
	for i, c := range p.clients {
		wg.Go(func() {
			r, err := c.hear()
			if err != nil {
				errs[i] = fmt.Errorf("client %d, at work: %w", i, err)
			}
			acked[i] = r.Acked
		})
	}
	idle := make(chan struct{})
	go func() {
		wg.Wait()
		close(idle)
	}()
	gone(idle)
	<-idle
	for _, n := range acked {
		p.tally.acked += n
	}
	return errors.Join(errs...)
}

// vanish takes all drives away: one of them at an I/O, the others then, or all
// when that does not come.
func (p *pool) vanish(idle <-chan struct{}) {
	disk := p.drives[p.rng.IntN(len(p.drives))].Disk()
	disk.Inject(sim.Fault{Skip: p.rng.Uint64N(mostIO), Err: syscall.ENODEV})
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for left := 1000; left > 0; left-- {
		if hits := disk.FaultHits(); hits[len(hits)-1] > 0 {
			break
		}
		select {
		case <-tick.C:
		case <-idle:
			left = 0
		}
	}
	for _, d := range p.drives {
		d.Disk().Vanish()
	}
}

// heal ends all that goes wrong.
func (p *pool) heal() {
	for _, d := range p.drives {
		d.Disk().Heal()
		d.Shorten(0)
		d.ReleaseAll()
	}
}

// cut cuts the power of all drives. Nobody uses them.
func (p *pool) cut() {
	p.tally.cuts++
	for _, d := range p.drives {
		c := d.PowerCut(p.t, p.rng, sim.CutOptions{})
		p.tally.volatile += c.Volatile
		p.tally.kept, p.tally.torn, p.tally.lost = p.tally.kept+c.Kept, p.tally.torn+c.Torn, p.tally.lost+c.Lost
	}
}

// medium is a drive as the offline checker reads it, past the file system.
type medium struct{ *sim.Disk }

func (m medium) Path() string { return m.Options().Name }
func (medium) Close() error   { return nil }

// offline runs the independent checker.
func (p *pool) offline(ctx context.Context) error {
	var names []string
	disks := make(map[string]*sim.Disk)
	for i, d := range p.drives {
		names = append(names, fmt.Sprint(i))
		disks[names[i]] = d.Disk()
	}
	r, err := check.Run(ctx, names, check.Options{
		Data: true, Reads: 1,
		Open: func(_ context.Context, path string) (check.Source, error) { return medium{disks[path]}, nil },
	})
	if err != nil {
		return err
	}
	if !r.OK {
		return fmt.Errorf("the checker finds %v", r.Problems)
	}
	return nil
}

// verify holds the pool, which is active, against the ledgers, and adds its
// space up.
func (p *pool) verify(ctx context.Context, socket string, m *client.Conn) error {
	for _, c := range p.clients {
		if err := c.tell(order{Verify: true, Socket: socket, Pool: p.name}); err != nil {
			return err
		}
	}
	var errs []error
	for i, c := range p.clients {
		if _, err := c.hear(); err != nil {
			errs = append(errs, fmt.Errorf("client %d: %w", i, err))
		}
	}
	return errors.Join(append(errs, p.space(ctx, m))...)
}

// space adds up the pool's space.
func (p *pool) space(ctx context.Context, m *client.Conn) error {
	open, err := m.OpenPool(ctx, p.name)
	if err != nil {
		return err
	}
	info, err := open.Info(ctx)
	if err != nil {
		return err
	}
	var used int64
	for o, err := range open.Objects(ctx, api.Filter{}) {
		if err != nil {
			return err
		}
		used += o.Used
	}
	s := info.Space
	if s.Live != used || s.Uncommitted != 0 || s.Total != int64(len(p.drives))*driveBytes ||
		s.Free+s.Live+s.Draining+s.Spare+s.Overhead+s.Remainder != s.Total {
		return fmt.Errorf("space does not add up: %+v; objects use %d", s, used)
	}
	if info.State != "active" || info.Health != "optimal" {
		return fmt.Errorf("the pool is %s and %s", info.State, info.Health)
	}
	return open.Close()
}
