package history

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/test/daemon"
)

const (
	driveBytes = 256 << 20
	logBytes   = 64 << 10
)

// roundsEach is how many rounds one pool sees: what they leave on it must have room.
const roundsEach = 12

// stage is a pool, its daemon and the children.
type stage struct {
	t        *testing.T
	rng      *rand.Rand
	socket   string
	drive    string
	d        *daemon.Daemon
	pool     api.Pool
	children []*child
	values   []uint64
	done     int // rounds
	calls    int
	answered int // with success
	torn     int
	kills    int
}

// child is a client process.
type child struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	rings *json.Encoder
	calls *json.Decoder
	says  bytes.Buffer
}

// start starts the daemon, with the pool if there is one.
func (s *stage) start() {
	args := []string{"--log-level", "error"}
	if s.drive != "" {
		args = append(args, "--activate", poolName+"@"+s.drive)
	}
	s.d = daemon.Start(s.t, mpoold, daemon.Options{Socket: s.socket, Args: args})
}

func newStage(t *testing.T, rng *rand.Rand) *stage {
	t.Helper()
	drive := daemon.Drive(t, driveBytes)
	s := &stage{t: t, rng: rng, socket: filepath.Join(t.TempDir(), "s")}
	s.start()
	_, s.pool = s.d.Pool(poolName, drive, api.CreateOptions{})
	s.drive = drive
	for range 16 {
		m, err := s.pool.PutMblock(t.Context(), api.AllocOptions{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		s.values = append(s.values, m.ID().Counter())
		if err := m.Put(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range processes {
		s.children = append(s.children, newChild(t, i, s.socket))
	}
	return s
}

func newChild(t *testing.T, process int, socket string) *child {
	t.Helper()
	c := &child{cmd: exec.Command("/proc/self/exe")}
	c.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", envProcess, process), envSocket+"="+socket, "GORACE=halt_on_error=1")
	c.cmd.Stderr = &c.says
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.in, c.rings, c.calls = in, json.NewEncoder(in), json.NewDecoder(out)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill() // it has ended, unless the test has failed
		_ = c.cmd.Wait()
	})
	return c
}

// close ends the children and the daemon.
func (s *stage) close() {
	s.t.Helper()
	for i, c := range s.children {
		_ = c.in.Close()
		if err := c.cmd.Wait(); err != nil {
			s.t.Errorf("client process %d: %v\n%s", i, err, &c.says)
		}
	}
	s.d.Stop()
}

// play plays a round, with so many kills, and returns its calls.
func (s *stage) play(r *round, kills int) []*call {
	s.t.Helper()
	for _, c := range s.children {
		if err := c.rings.Encode(r); err != nil {
			s.t.Fatalf("%v\n%s", err, &c.says)
		}
	}
	lists := make(chan []*call, len(s.children))
	for _, c := range s.children {
		go func() { lists <- c.read() }()
	}
	var all []*call
	for range kills {
		time.Sleep(time.Duration(s.rng.Int64N(int64(30 * time.Millisecond)))) // a moment drawn by chance
		k := &call{Do: doKill, Worker: processes * 8, Begin: now()}
		s.d.Kill()
		k.End = now()
		s.start()
		s.kills++
		all = append(all, k)
	}
	ready := now()
	killed := all
	for range s.children {
		var list []*call
		select {
		case list = <-lists:
		case <-s.d.Ended():
			s.t.Fatalf("the daemon has ended, and nobody has killed it:\n%s", s.d.Log())
		}
		if list == nil {
			for _, c := range s.children {
				s.t.Logf("%s", &c.says)
			}
			s.t.Fatal("a client process has ended")
		}
		all = append(all, list...)
	}
	for _, c := range all {
		if c.Do != doKill && c.Code == 0 {
			s.answered++
		}
		if len(killed) > 0 && c.Do != doKill && (c.lost() || c.Code == api.ECONNRESET || c.End >= killed[0].Begin && c.Begin <= ready) {
			c.Torn = true
			s.torn++
		}
		for _, k := range killed {
			if c.Do != doKill && k.End < c.Begin {
				c.Kills++
			}
		}
	}
	s.done++
	s.calls += len(all)
	return all
}

// read reads the calls of a round; nil: the child has ended.
func (c *child) read() []*call {
	list := []*call{}
	for {
		x := &call{}
		if c.calls.Decode(x) != nil {
			return nil
		}
		if x.Do == "" {
			return list
		}
		list = append(list, x)
	}
}

// newRound makes what a round needs.
func (s *stage) newRound() *round {
	s.t.Helper()
	n := uint64(s.done + 1)
	r := &round{Round: s.done, Seed: s.rng.Uint64(), Steps: *steps, Objects: n << 16, Batches: n<<16 + 1<<8, Values: s.values}
	for range 2 {
		l, err := s.pool.AllocMlog(s.t.Context(), api.AllocOptions{Capacity: logBytes})
		if err != nil {
			s.t.Fatal(err)
		}
		if err := l.Commit(s.t.Context()); err != nil {
			s.t.Fatal(err)
		}
		r.Logs = append(r.Logs, uint64(l.ID()))
		if err := l.Put(); err != nil {
			s.t.Fatal(err)
		}
	}
	return r
}

// judge looks for an order that explains the calls of a round.
func (s *stage) judge(r *round, calls []*call) {
	s.t.Helper()
	var killed, ofRoots []*call
	byKey := make(map[uint64][]*call)
	for _, c := range calls {
		switch {
		case c.Do == doKill:
			killed = append(killed, c)
		case c.Key == 0:
			ofRoots = append(ofRoots, c)
		default:
			byKey[c.Key] = append(byKey[c.Key], c)
		}
	}
	m := rootsMachine(ofRoots)
	m.check(s.t, fmt.Sprintf("round %d, roots", r.Round), append(ofRoots, killed...))
	for i := range objectsPerRound {
		m, key := objectMachine(), r.Objects+uint64(i)
		m.check(s.t, fmt.Sprintf("round %d, object %x", r.Round, key), append(byKey[key], killed...))
	}
	for _, key := range r.Logs {
		m := logMachine(1)
		m.check(s.t, fmt.Sprintf("round %d, log %v", r.Round, layout.ObjectID(key)), append(byKey[key], killed...))
	}
}

// proves S9 S12 S15 S20 S21 S22 S24 S25 S30 S31 S36: there is an order of the calls of
// several processes, each done at one moment between its begin and its end, that
// explains what each of them was answered, through kills of the daemon.
func TestHistories(t *testing.T) {
	t.Logf("seed %d: go test ./test/history -run TestHistories -history.seed=%d -history.for=%v -history.steps=%d", *seed, *seed, *runFor, *steps)
	rng := rand.New(rand.NewPCG(*seed, 1))
	began := time.Now()
	var rounds, calls, answered, torn, kills int
	for first := true; first || time.Since(began) < *runFor; first = false {
		n := roundsEach
		if *runFor == 0 {
			n = 5
		}
		t.Run(fmt.Sprintf("pool%d", rounds), func(t *testing.T) {
			s := newStage(t, rng)
			for i := range n {
				r := s.newRound()
				s.judge(r, s.play(r, min(i%3, 1)))
				if t.Failed() {
					break
				}
			}
			s.close()
			rounds, calls, answered, torn, kills = rounds+s.done, calls+s.calls, answered+s.answered, torn+s.torn, kills+s.kills
		})
		if t.Failed() {
			break
		}
	}
	if answered == 0 && !t.Failed() {
		t.Error("no call has succeeded")
	}
	t.Logf("%d rounds, %d calls, %d with success, %d kills of the daemon under %d of them", rounds, calls, answered, kills, torn)
}
