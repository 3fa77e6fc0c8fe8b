package hostile

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/test/daemon"
)

const (
	poolName   = "hostile"
	driveBytes = 1 << 30
	alonePhase = "(alone)"
)

// Limits of the daemon that is attacked.
const (
	sessions   = 300
	requests   = 64
	arenaTotal = 128 << 20
)

var config = fmt.Sprintf(`
log_level = "error"
[limits]
sessions = %d
requests = %d
arena_total = %d
arena_session = 4194304
arena_default = 1048576
hello_timeout = "1s"
`, sessions, requests, arenaTotal)

// messageBytes is the most memory that one request holds in messages: the one
// that asked, its data, its answer.
const messageBytes = 3 * (72 << 10)

// siege is a test of attacks.
type siege struct {
	t      *testing.T
	d      *daemon.Daemon
	c      *client.Conn
	p      api.Pool
	before daemon.Usage
	heap   int64
	gos    map[string]int
	// clients is how many attackers there were at one time, in any phase so far.
	clients int
	// sessions are those of the test itself, at its end.
	sessions uint32
}

func newSiege(t *testing.T) *siege {
	t.Helper()
	drive := daemon.Drive(t, driveBytes)
	d := daemon.Start(t, mpoold, daemon.Options{Config: config, Profiles: true})
	for dir := filepath.Dir(d.Socket); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil { // attackers are other users
			t.Fatal(err)
		}
	}
	s := &siege{t: t, d: d, sessions: 2}
	s.c, s.p = d.Pool(poolName, drive, api.CreateOptions{Mode: 0o666})
	spare := uint8(20)
	if err := s.c.SetPool(context.Background(), poolName, api.PoolSettings{SparePercent: &spare}); err != nil {
		t.Fatal(err)
	}
	return s
}

// proves S42 S43 S44: nothing that clients send brings the daemon down, makes
// it spin or grow, or reaches what is others'; and others are served.
func TestHostile(t *testing.T) {
	n := *seed
	if n == 0 {
		n = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d: go test ./test/hostile -run TestHostile -hostile.seed=%d -hostile.time=%v", n, n, *lasting)
	s := newSiege(t)
	owner, err := s.p.AddOwner(context.Background(), "modest", 0)
	if err != nil {
		t.Fatal(err)
	}
	m := newModest(t, s.d, owner)
	time.Sleep(300 * time.Millisecond) // a warm-up of what is measured
	m.pause(s.remember)
	list := attacks
	if *only != "" {
		list = nil
		for _, x := range attacks {
			if slices.Contains(strings.Split(*only, ","), x.name) {
				list = append(list, x)
			}
		}
	}
	rounds := max(1, int(*lasting/(time.Duration(len(list)+1)*5*time.Second)))
	slot := *lasting / time.Duration(rounds*(len(list)+1))
	for round := range rounds {
		for i := range list {
			s.alone(m, slot/3)
			s.attack(m, list[i].name, slot*2/3, n+uint64(round), list[i:i+1])
			if t.Failed() {
				return
			}
		}
		s.alone(m, slot/3)
		s.attack(m, "(all at once)", max(slot*2/3, time.Second), n+uint64(round), list)
		s.sweep(owner)
		if t.Failed() {
			return
		}
	}
	m.report(t)
	m.pause(s.recovered)
}

// remember takes what the daemon has before it is attacked.
func (s *siege) remember() {
	s.heap = s.d.Heap()
	for same := 0; same < 3; same++ {
		// A connection that the daemon is about to close is not the way it was.
		gos, now := s.d.Goroutines(), s.d.Usage()
		if !maps.Equal(gos, s.gos) || !maps.Equal(now.Descriptors, s.before.Descriptors) {
			s.gos, same = gos, 0
		}
		s.before = now
	}
}

// alone lets the modest clients be.
func (s *siege) alone(m *modest, slot time.Duration) {
	m.enter(alonePhase)
	time.Sleep(slot) // what is measured
	m.enter("")
}

// attack lets attackers be for a while, each kind of them a process, and kills
// them.
func (s *siege) attack(m *modest, phase string, slot time.Duration, seed uint64, list []attack) {
	s.t.Helper()
	s.d.ResetPeak()
	var running []*process
	clients := 0
	for _, x := range list {
		if x.asRoot && os.Geteuid() != 0 {
			continue
		}
		clients += x.clients
		running = append(running, s.start(x.name, seed))
	}
	for _, p := range running {
		p.expect("begun")
	}
	m.enter(phase)
	descriptors, threads := 0, 0
	for end := time.Now().Add(slot); time.Now().Before(end); time.Sleep(20 * time.Millisecond) { // samples
		u := s.d.Usage()
		descriptors, threads = max(descriptors, u.Count()), max(threads, u.Threads)
	}
	m.enter("")
	// Told all at once: the others would go on while one is waited for.
	for _, p := range running {
		p.tell()
	}
	for _, p := range running {
		p.wait()
	}
	u := s.d.Usage()
	s.t.Logf("%-18s peak %d MiB, now %d MiB (shared %d); at most %d threads, %d descriptors; %s", phase, u.Peak>>20,
		u.Resident>>20, u.Shared>>20, threads, descriptors, told(running))
	// Each attacker may have one session ending while the next begins; the
	// collector lets garbage be as much as what is in use, and memory that was
	// used stays for a while.
	s.clients = max(s.clients, clients)
	bound := s.before.Resident + arenaTotal + 2*int64(min(2*s.clients, sessions))*requests*messageBytes + 64<<20
	bound = min(bound, mostResident)
	if *race {
		bound *= 4
	}
	if u.Peak > bound {
		s.t.Errorf("in phase %s the daemon had %d MiB; at most %d are right", phase, u.Peak>>20, bound>>20)
	}
	// A socket and a pidfd for each session, and its arenas before they are mapped.
	if most := s.before.Count() + sessions*6 + 64; descriptors > most {
		s.t.Errorf("in phase %s the daemon had %d descriptors; at most %d are right", phase, descriptors, most)
	}
	if threads > mostThreads {
		s.t.Errorf("in phase %s the daemon had %d threads", phase, threads)
	}
	if !s.d.Running() {
		s.t.Fatalf("the daemon has died in phase %s:\n%s", phase, s.d.Log())
	}
}

// mostResident is the most memory that the daemon may have under any of the
// attacks, whatever more its limits add up to.
const mostResident = 1 << 30

// mostThreads bounds the daemon's threads: Go gives up at 10,000.
const mostThreads = 2000

// sweep deletes what attackers have committed.
func (s *siege) sweep(modest uint32) {
	s.t.Helper()
	ctx := context.Background()
	s.emptied()
	for info, err := range s.p.Objects(ctx, api.Filter{}) {
		if err != nil {
			s.t.Fatal(err)
		}
		if info.Owner == modest {
			continue
		}
		var o api.Object
		if info.Partner != 0 {
			// One of its logs is the container's name.
			if err := s.p.DeleteMDC(ctx, info.ID); err != nil && !errors.Is(err, api.ENOENT) && !errors.Is(err, api.EINVAL) {
				s.t.Errorf("an attacker's container %v: %v", info.ID, err)
			}
			continue
		}
		if o, err = find(ctx, s.p, &info); err == nil {
			err = o.Delete(ctx)
		}
		if err != nil {
			s.t.Errorf("an attacker's object %v: %v", info.ID, err)
		}
	}
}

func find(ctx context.Context, p api.Pool, info *api.ObjectInfo) (api.Object, error) {
	if b, err := p.Mblock(ctx, info.ID); err == nil {
		return b, nil
	}
	return p.Mlog(ctx, info.ID)
}

// emptied waits until only the test's own sessions are left.
func (s *siege) emptied() {
	s.t.Helper()
	daemon.Eventually(s.t, "attackers' sessions end with them", func() bool {
		stat, err := s.c.Stat(context.Background(), "")
		if err != nil {
			s.t.Fatal(err)
		}
		return stat.Sessions == s.sessions
	})
}

// mostHeap is by how much the reachable memory may have grown, in bytes: pools
// of buffers, tables, the last events.
const mostHeap = 8 << 20

// idle is how much of a processor the daemon may use when nobody asks.
const idle = 0.03

// recovered fails unless the daemon is as it was before.
func (s *siege) recovered() {
	s.t.Helper()
	s.emptied()
	var now daemon.Usage
	var gos map[string]int
	var load float64
	defer func() {
		if s.t.Failed() {
			s.t.Logf("descriptors %v, there were %v; goroutines %v, there were %v; load %.2f",
				now.Descriptors, s.before.Descriptors, gos, s.gos, load)
		}
	}()
	daemon.Eventually(s.t, "there are no more descriptors and goroutines than before", func() bool {
		now, gos = s.d.Usage(), s.d.Goroutines()
		return within(gos, s.gos) && within(now.Descriptors, s.before.Descriptors)
	})
	heap := s.d.Heap()
	if heap > s.heap+mostHeap {
		s.t.Errorf("the heap has %d KiB, it had %d", heap>>10, s.heap>>10)
	}
	daemon.Eventually(s.t, "the daemon rests", func() bool {
		load = s.d.Load(500 * time.Millisecond)
		return load < idle
	})
	info, err := s.p.Info(context.Background())
	if err != nil {
		s.t.Fatal(err)
	}
	sp := info.Space
	if sp.Uncommitted != 0 || sp.Draining != 0 || info.State != "active" || info.Health != "optimal" ||
		sp.Free+sp.Live+sp.Spare+sp.Overhead+sp.Remainder != sp.Total {
		s.t.Errorf("%+v", info)
	}
	s.t.Logf("afterwards: heap %d KiB (before %d), resident %d MiB (before %d), load %.3f of a processor",
		heap>>10, s.heap>>10, now.Resident>>20, s.before.Resident>>20, load)
}

// within says whether there is no more of anything than there was. Of a session
// that was about to end there may be less.
func within(now, before map[string]int) bool {
	for what, n := range now {
		if n > before[what] {
			return false
		}
	}
	return true
}

// process is a process of attackers.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.Closer
	out *bufio.Reader
	did string
}

func (s *siege) start(name string, seed uint64) *process {
	s.t.Helper()
	p := &process{t: s.t, cmd: exec.Command("nice", "-n", strconv.Itoa(*nice), os.Args[0])}
	p.cmd.Env = append(os.Environ(), envRole+"=attacker", envSocket+"="+s.d.Socket, envArgs+"="+fmt.Sprint(name, " ", seed))
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	in, err := p.cmd.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	p.in, p.out = in, bufio.NewReader(out)
	if f, ok := out.(*os.File); !ok || f.SetReadDeadline(time.Now().Add(*lasting+daemon.Patience)) != nil {
		s.t.Fatal("a child whose silence would not be noticed")
	}
	if err := p.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		_ = p.cmd.Wait()         // "signal: killed" is what is wanted
	})
	return p
}

func (p *process) line() string {
	p.t.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil {
		p.t.Fatalf("attacker: %v", err)
	}
	return line[:len(line)-1]
}

func (p *process) expect(want string) {
	p.t.Helper()
	if got := p.line(); got != want {
		p.t.Fatalf("attacker says %q, want %q", got, want)
	}
}

// stop ends the attack and reads what it did.
func (p *process) stop() {
	p.t.Helper()
	p.tell()
	p.wait()
}

// tell has the attack end.
func (p *process) tell() {
	p.t.Helper()
	if err := p.in.Close(); err != nil {
		p.t.Fatal(err)
	}
}

// wait reads what the attack did and waits for its end.
func (p *process) wait() {
	p.t.Helper()
	p.did = p.line()
	if p.did == "0 0" {
		p.t.Error("the attackers did nothing")
	}
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("attackers: %v", err)
	}
}

// told adds up what processes did.
func told(list []*process) string {
	var messages, made int64
	for _, p := range list {
		var a, b int64
		if _, err := fmt.Sscan(p.did, &a, &b); err == nil {
			messages += a
			made += b
		}
	}
	return fmt.Sprintf("%d messages in %d sessions", messages, made)
}
