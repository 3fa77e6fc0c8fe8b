// Package faults drives the real daemon on drives that fail (package faultfs)
// and holds it to what it promises then: an error is the right object's alone,
// what was acknowledged stays, what stalls holds up only what needs it, and the
// daemon answers throughout.
package faults

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/mpool/check"
	testdaemon "github.com/mpool-go/mpool/test/daemon"
	"github.com/mpool-go/mpool/test/faultfs"
	"github.com/mpool-go/mpool/test/loopdev"
)

var (
	seed = flag.Uint64("faults.seed", 0, "seed of contents and of power cuts; 0: from the clock")
	race = flag.Bool("faults.race", false, "build the daemon with the race detector")
	long = flag.Duration("faults.stall", time.Second, "how long a stall lasts that is not looked into further; the promise is made for 10 s. From 10s on: the long run")
)

const (
	driveBytes = 64 << 20
	// soon is well above what an operation takes that nothing holds up, on any
	// machine. Stalls end when the test lets them, after what is to come soon: what
	// one holds up does not come at all.
	soon = time.Minute
	// stopTime bounds the wait for the daemon's end.
	stopTime = 3 * time.Minute
)

var mpoold string // the daemon's binary, built by TestMain

func TestMain(m *testing.M) {
	flag.Parse()
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	if err := flag.Set("test.parallel", "8"); err != nil { // they wait more than they work
		panic(err)
	}
	fmt.Printf("seed %d: go test ./test/faults -faults.seed=%d\n", *seed, *seed)
	os.Exit(testdaemon.Main(m, *race, &mpoold))
}

// spec is a pool of a rig.
type spec struct {
	name     string
	capacity int  // drives
	staging  int  // drives
	loop     bool // under loop devices
}

// rig is a daemon with pools on drives that can fail.
type rig struct {
	t      *testing.T
	ctx    context.Context
	rng    *rand.Rand
	socket string
	pools  []*pool
	daemon *daemon
	conn   *client.Conn
}

// pool is a pool of the rig and what was acknowledged in it.
type pool struct {
	api.Pool
	spec

	drives []*faultfs.Drive // capacity, then staging
	paths  []string
	book   *book
}

// newRig makes the pools and a client that has all of them open.
func newRig(t *testing.T, specs ...spec) *rig {
	t.Helper()
	loopdev.RequireRoot(t)
	ctx, cancel := context.WithTimeout(context.Background(), 9*time.Minute)
	t.Cleanup(cancel)
	name := fnv.New64()
	_, _ = name.Write([]byte(t.Name())) // it never fails
	r := &rig{
		t: t, ctx: ctx, rng: rand.New(rand.NewPCG(*seed, name.Sum64())),
		socket: filepath.Join(t.TempDir(), "s"),
	}
	for _, s := range specs {
		p := &pool{spec: s, book: newBook(r.rng.Uint64())}
		for range s.capacity + s.staging {
			d := faultfs.New(t, driveBytes, faultfs.Options{Seed: r.rng.Uint64()})
			path := d.Path
			if s.loop {
				path = loopdev.New(t, 0, loopdev.Options{Backing: path, SectorSize: 4096}).Path
			}
			p.drives, p.paths = append(p.drives, d), append(p.paths, path)
		}
		r.pools = append(r.pools, p)
	}
	t.Cleanup(r.cleanUp)
	r.start(false)
	for _, p := range r.pools {
		_, err := r.conn.CreatePool(ctx, p.name, p.paths[:p.capacity], api.CreateOptions{Staging: p.paths[p.capacity:]})
		r.ok(err)
	}
	r.open()
	return r
}

func (r *rig) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// want fails the test unless the error has one of the codes.
func (r *rig) want(err error, codes ...api.Code) {
	r.t.Helper()
	for _, c := range codes {
		if errors.Is(err, c) {
			return
		}
	}
	r.t.Errorf("%v; want %v", err, codes)
}

// start starts the daemon, with the pools active if they are made.
func (r *rig) start(activate bool) {
	r.t.Helper()
	args := []string{"--socket", r.socket}
	for _, p := range r.pools {
		if activate {
			list := p.paths[0]
			for _, path := range p.paths[1:] {
				list += "," + path
			}
			args = append(args, "--activate", p.name+"@"+list)
		}
	}
	r.daemon = startDaemon(r.t, args...)
	r.conn = r.dial()
}

// open opens all pools.
func (r *rig) open() {
	r.t.Helper()
	for _, p := range r.pools {
		opened, err := r.conn.OpenPool(r.ctx, p.name)
		r.ok(err)
		p.Pool = opened
	}
}

// dial waits until the daemon takes a session. It is closed with the test.
func (r *rig) dial() *client.Conn {
	r.t.Helper()
	for end := time.Now().Add(testdaemon.Patience); ; time.Sleep(5 * time.Millisecond) {
		c, err := client.Dial(r.ctx, client.Options{Socket: r.socket, Hello: testdaemon.Patience, Reconnect: -1})
		if err == nil {
			r.t.Cleanup(func() { _ = c.Close() })
			return c
		}
		if time.Now().After(end) || r.daemon.ended() {
			r.t.Fatalf("the daemon takes no session: %v", err)
		}
	}
}

// heal ends all faults and stalls.
func (r *rig) heal() {
	for _, p := range r.pools {
		for _, d := range p.drives {
			d.Disk().Heal()
			d.Shorten(0)
			d.ReleaseAll()
		}
	}
}

// settle ends the daemon with the power of all drives, and holds what is there
// then against what was acknowledged: offline, and by a daemon that starts anew.
// Last that one is stopped.
func (r *rig) settle() {
	r.t.Helper()
	r.heal()
	r.daemon.kill()
	for _, p := range r.pools {
		for _, d := range p.drives {
			r.t.Logf("pool %s: %v", p.name, d.PowerCut(r.t, r.rng, sim.CutOptions{}))
		}
		r.offline(p)
	}
	r.start(true)
	r.open()
	for _, p := range r.pools {
		p.book.verify(r, p)
	}
	r.ok(r.conn.Close())
	if took, err := r.daemon.stop(); err != nil {
		r.t.Errorf("the daemon stopped after %v, %v", took, err)
	}
	for _, p := range r.pools {
		r.offline(p)
	}
}

// offline runs the independent checker over drives that nobody has active.
func (r *rig) offline(p *pool) {
	r.t.Helper()
	report, err := check.Run(r.ctx, p.paths, check.Options{Data: true})
	r.ok(err)
	if !report.OK {
		r.t.Errorf("pool %s: the checker finds %v", p.name, report.Problems)
	}
}

// cleanUp ends what hangs and the daemon, whatever became of the test.
func (r *rig) cleanUp() {
	r.heal()
	if r.daemon != nil {
		r.daemon.kill()
		if strings.Contains(r.daemon.log.String(), "DATA RACE") {
			r.t.Error("the daemon has a data race")
		}
		if r.t.Failed() {
			r.t.Logf("the last daemon's log:\n%s", r.daemon.log.String())
		}
	}
}

// daemon is a running mpoold.
type daemon struct {
	cmd  *exec.Cmd
	log  testdaemon.Buffer
	done chan struct{} // closed when it has ended
	err  error         // how; valid then
}

func startDaemon(t *testing.T, args ...string) *daemon {
	t.Helper()
	d := &daemon{cmd: exec.Command(mpoold, args...), done: make(chan struct{})}
	d.cmd.Stderr = &d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		d.err = d.cmd.Wait()
		close(d.done)
	}()
	return d
}

func (d *daemon) ended() bool {
	select {
	case <-d.done:
		return true
	default:
		return false
	}
}

func (d *daemon) kill() {
	_ = d.cmd.Process.Kill() // it may have ended
	<-d.done
}

// stop asks the daemon to end and says how long it took, and what was wrong.
func (d *daemon) stop() (time.Duration, error) {
	start := time.Now()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, err
	}
	select {
	case <-d.done:
		return time.Since(start), d.err
	case <-time.After(stopTime):
		return time.Since(start), errors.New("it does not end")
	}
}
