package metamorphic

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/sched"
	"github.com/mpool-go/mpool/test/daemon"
	"github.com/mpool-go/mpool/test/loopdev"
)

const (
	driveBytes = 512 << 20
	poolName   = "metamorphic"
)

// config is what must not matter.
type config struct {
	name     string
	zone     int64
	drives   int
	sector   int // of loop devices, which need root; of the simulated drive; 0: files
	sim      bool
	daemon   bool
	engine   bdev.EngineKind // in process
	sockets  bool            // no rings
	credits  bool
	noVerify bool
}

// configs are all of them; the first is what the others are compared with.
func configs() []config {
	list := []config{
		{name: "pread", zone: 64 << 10, drives: 1, engine: bdev.Pread},
		{name: "simulated 512", zone: 64 << 10, drives: 1, sim: true, sector: 512},
		{name: "daemon, rings", zone: 256 << 10, drives: 1, daemon: true},
		{name: "daemon, sockets, credits, no verify", zone: 1 << 20, drives: 2, daemon: true, sockets: true, credits: true, noVerify: true},
		{name: "io_uring, two drives", zone: 512 << 10, drives: 2, engine: bdev.URing},
		{name: "daemon, rings, credits", zone: 128 << 10, drives: 3, daemon: true, credits: true},
		{name: "simulated 4096", zone: 1 << 20, drives: 1, sim: true, sector: 4096},
		{name: "daemon, sockets", zone: 64 << 10, drives: 1, daemon: true, sockets: true},
		{name: "io_uring, no verify", zone: 1 << 20, drives: 1, engine: bdev.URing, noVerify: true},
		{name: "pread, three drives", zone: 128 << 10, drives: 3, engine: bdev.Pread},
	}
	if os.Geteuid() == 0 {
		list = append(list,
			config{name: "io_uring, loop 4096", zone: 64 << 10, drives: 1, sector: 4096, engine: bdev.URing},
			config{name: "pread, loop 512", zone: 256 << 10, drives: 1, sector: 512, engine: bdev.Pread},
			config{name: "daemon, rings, loop 4096", zone: 512 << 10, drives: 2, sector: 4096, daemon: true})
	}
	return list
}

// run does a list with a fresh pool and returns what it gave.
func (c *config) run(t *testing.T, list []op) (results []string) {
	t.Helper()
	// The pool's drives and daemon end with this run, not with the test.
	if !t.Run(c.name, func(t *testing.T) {
		switch {
		case c.sim:
			results = c.simulated(t, list)
		case c.daemon:
			results = c.served(t, list)
		default:
			results = c.inProcess(t, list, mpool.Options{Open: func(ctx context.Context, path string, readOnly bool) (*bdev.Drive, error) {
				return bdev.Open(ctx, nil, path, bdev.OpenOptions{ReadOnly: readOnly, Shared: readOnly, Engine: c.engine})
			}}, c.drivesOf(t))
		}
	}) {
		return nil
	}
	return results
}

// drivesOf makes blank drives.
func (c *config) drivesOf(t *testing.T) []string {
	t.Helper()
	dir, err := os.MkdirTemp(".", "drives") // on the disk: a temporary folder may have no direct I/O
	if err == nil {
		dir, err = filepath.Abs(dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	var paths []string
	for i := range c.drives {
		if c.sector > 0 {
			paths = append(paths, loopdev.New(t, driveBytes, loopdev.Options{SectorSize: c.sector, Dir: dir}).Path)
			continue
		}
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, driveBytes); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

// enlarge makes drives larger, if they are files.
func (c *config) enlarge(paths []string) error {
	if c.sector > 0 || c.sim {
		return nil
	}
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil {
			return err
		}
		if err := os.Truncate(p, info.Size()+16<<20); err != nil {
			return err
		}
	}
	return nil
}

func (c *config) inProcess(t *testing.T, list []op, opt mpool.Options, paths []string) []string {
	t.Helper()
	ctx := context.Background()
	if _, err := mpool.Create(ctx, poolName, paths, api.CreateOptions{ZoneSize: c.zone}, opt); err != nil {
		t.Error(err)
		return nil
	}
	var p *mpool.Pool
	activate := func(o api.ActivateOptions) (api.Pool, error) {
		var err error
		p, err = mpool.Activate(ctx, poolName, paths, o, opt)
		return p, err
	}
	again := func(o api.ActivateOptions) (api.Pool, error) {
		if err := p.Close(); err != nil {
			return p, err
		}
		if err := c.enlarge(paths); o.Resize && err != nil {
			return nil, err
		}
		return activate(o)
	}
	w := &world{
		reopen: func() (api.Pool, error) { return again(api.ActivateOptions{}) },
		grow:   func() (api.Pool, error) { return again(api.ActivateOptions{Resize: true}) },
		restart: func() (api.Pool, error) {
			if err := p.Abandon(ctx); err != nil {
				return p, err
			}
			return activate(api.ActivateOptions{})
		},
	}
	var err error
	if w.pool, err = activate(api.ActivateOptions{}); err != nil {
		t.Error(err)
		return nil
	}
	defer func() { _ = p.Abandon(ctx) }() // nothing is looked at any more
	if c.noVerify {
		off := false
		if err := p.Set(ctx, api.PoolSettings{ReadVerify: &off}); err != nil {
			t.Error(err)
		}
	}
	return w.play(list)
}

type dice struct{ rng *rand.Rand }

func (d dice) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(d.rng.Uint32())
	}
	return len(p), nil
}

func (c *config) simulated(t *testing.T, list []op) (results []string) {
	t.Helper()
	s := sched.New(7)
	disk := devsim.NewDisk(driveBytes, devsim.DiskOptions{LogicalSector: c.sector, PhysicalSector: c.sector, Discard: true})
	opt := mpool.Options{
		Sched: s, Rand: dice{s.Rand()},
		Open: func(context.Context, string, bool) (*bdev.Drive, error) {
			return devsim.Open(s, disk, devsim.OpenOptions{})
		},
	}
	if err := s.Run(func() { results = c.inProcess(t, list, opt, []string{"sim"}) }); err != nil {
		t.Error(err)
	}
	return results
}

// served does a list with a daemon.
func (c *config) served(t *testing.T, list []op) []string {
	t.Helper()
	ctx := context.Background()
	paths := c.drivesOf(t)
	o := daemon.Options{Socket: filepath.Join(t.TempDir(), "s"), Args: []string{"--log-level", "error"}}
	if c.sockets {
		o.Config = "[engine]\nloops = -1\n"
	}
	d := daemon.Start(t, mpoold, o)
	co := client.Options{Socket: o.Socket}
	if c.credits {
		co.Credits = &client.CreditOptions{Cached: 16, Bytes: 1 << 20}
	}
	conn, err := client.Dial(ctx, co)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // nothing is looked at any more
	if _, err := conn.CreatePool(ctx, poolName, paths, api.CreateOptions{ZoneSize: c.zone}); err != nil {
		t.Fatal(err)
	}
	if c.noVerify {
		off := false
		if err := conn.SetPool(ctx, poolName, api.PoolSettings{ReadVerify: &off}); err != nil {
			t.Fatal(err)
		}
	}
	var p api.Pool
	open := func(err error) (api.Pool, error) {
		if err == nil {
			p, err = conn.OpenPool(ctx, poolName)
		}
		return p, err
	}
	again := func(o api.ActivateOptions) (api.Pool, error) {
		if err := p.Close(); err != nil {
			return p, err
		}
		if err := conn.DeactivatePool(ctx, poolName); err != nil {
			if p, oerr := open(nil); oerr == nil {
				return p, err
			}
			return nil, err
		}
		if err := c.enlarge(paths); o.Resize && err != nil {
			return nil, err
		}
		_, err := conn.ActivatePool(ctx, poolName, paths, o)
		return open(err)
	}
	w := &world{
		reopen: func() (api.Pool, error) { return again(api.ActivateOptions{}) },
		grow:   func() (api.Pool, error) { return again(api.ActivateOptions{Resize: true}) },
		restart: func() (api.Pool, error) {
			d.Kill()
			d = daemon.Start(t, mpoold, o)
			_, err := conn.ActivatePool(ctx, poolName, paths, api.ActivateOptions{})
			return open(err)
		},
	}
	if w.pool, err = open(nil); err != nil {
		t.Fatal(err)
	}
	return w.play(list)
}
