package crowd

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/test/daemon"
)

const (
	poolName = "crowd"
	mblocks  = 2           // that each session has a handle on, beside the one on the pool
	handles  = mblocks + 1 // of each session
)

// scene is a daemon with a pool and some committed mblocks.
type scene struct {
	t    *testing.T
	d    *daemon.Daemon
	c    *client.Conn
	p    api.Pool
	plan plan
}

// newScene makes a daemon that has room for all members and some more.
func newScene(t *testing.T) *scene {
	t.Helper()
	drive := daemon.Drive(t, 256<<20)
	s := &scene{t: t}
	s.d = daemon.Start(t, mpoold, daemon.Options{
		Config:   fmt.Sprintf("log_level = 'warn'\n[limits]\nsessions = %d\n", *sessions+100),
		Profiles: true,
	})
	// Else a tenth of what the process may have is kept for other things.
	s.ctl(func([]byte) {}, "scope", "set", "system", "descriptors=unlimited")
	s.c, s.p = s.d.Pool(poolName, drive, api.CreateOptions{})
	var ids []layout.ObjectID
	for range mblocks {
		b, err := s.p.AllocMblock(t.Context(), api.AllocOptions{Capacity: 4096})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Write(t.Context(), make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(b.Commit(t.Context()), b.Put()); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, b.ID())
	}
	s.plan = plan{Socket: s.d.Socket, Pool: poolName, Mblocks: ids}
	return s
}

// gather starts the members.
func (s *scene) gather() []*child {
	s.t.Helper()
	var all []*child
	for i := range *processes {
		p := s.plan
		p.Sessions = *sessions*(i+1) / *processes - *sessions*i / *processes
		all = append(all, start(s.t, roleMember, &p))
	}
	for _, c := range all {
		c.ready(s.t)
	}
	return all
}

// ctl runs mpoolctl and gives each line that it prints, which is JSON, to f. It
// returns its memory when it had written most of them, in bytes.
func (s *scene) ctl(f func(line []byte), args ...string) (resident int64) {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), mpoolctl, append([]string{"--socket", s.d.Socket, "--json"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	in := bufio.NewScanner(out)
	in.Buffer(nil, 1<<20)
	for n := 1; in.Scan(); n++ {
		f(in.Bytes())
		if n%512 == 0 {
			if u, err := daemon.UsageOf(cmd.Process.Pid); err == nil { // it may have ended
				resident = max(resident, u.Resident)
			}
		}
	}
	if err := errors.Join(in.Err(), cmd.Wait()); err != nil {
		s.t.Fatalf("mpoolctl %v: %v", args, err)
	}
	return resident
}

// sessionLine is what a line of client list, client show and handle list has.
type sessionLine struct {
	PID     int    `json:"pid"`
	Session uint64 `json:"session"`
	Object  string `json:"object"`
	Pool    string `json:"pool"`
	Comm    string `json:"comm"`
	Handles *int   `json:"handles"`
	Holds   []struct {
		Session uint64 `json:"session"`
	} `json:"holds"`
}

// lines reads all lines of a list.
func (s *scene) lines(args ...string) (list []sessionLine) {
	s.t.Helper()
	resident := s.ctl(func(line []byte) {
		var v sessionLine
		if err := json.Unmarshal(line, &v); err != nil {
			s.t.Fatalf("%v: %s", err, line)
		}
		list = append(list, v)
	}, args...)
	s.t.Logf("mpoolctl %v: %d lines, %d MiB", args, len(list), resident>>20)
	if resident > 48<<20 {
		s.t.Errorf("mpoolctl %v has %d MiB", args, resident>>20)
	}
	return list
}

// modest reads small pieces of an mblock at a modest pace while something else goes
// on, and returns the times that it took.
func (s *scene) modest(while func()) (p50, p99 time.Duration) {
	s.t.Helper()
	m, err := s.p.Mblock(s.t.Context(), s.plan.Mblocks[0])
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	var took []time.Duration
	go func() {
		defer close(over)
		b := make([]byte, 4096)
		for ctx.Err() == nil {
			began := time.Now()
			if _, err := m.ReadAtContext(context.Background(), b, 0); err != nil {
				s.t.Error(err)
				return
			}
			took = append(took, time.Since(began))
			time.Sleep(time.Millisecond) // its pace
		}
	}()
	func() {
		defer func() { <-over }()
		defer cancel()
		while()
	}()
	if err := m.Put(); err != nil {
		s.t.Error(err)
	}
	return percentiles(took)
}

// proves S30 S43: of thousands of clients the lists have each that is there all the
// while exactly once, with all its handles, also while others come and go; a list
// takes no memory that grows with them, and holds nobody up.
func TestLists(t *testing.T) {
	s := newScene(t)
	heap, usage := s.d.Heap(), s.d.Usage()
	began := time.Now()
	all := s.gather()
	t.Logf("%d sessions of %d processes were made in %v", *sessions, *processes, time.Since(began))
	s.cost(heap, usage)
	alone50, alone99 := s.modest(func() { time.Sleep(500 * time.Millisecond) })
	for range 3 {
		p := s.plan
		p.Mblocks = nil
		start(t, roleChurn, &p).ready(t)
	}
	s.d.ResetPeak()
	before := s.d.Usage()
	p50, p99 := s.modest(func() {
		s.whole(all)
		s.filtered(all)
	})
	after := s.d.Usage()
	t.Logf("the lists took the daemon %v of a processor and %d KiB more than it had; a modest reader waited %v and %v (p99) meanwhile, %v and %v before",
		after.Processor-before.Processor, (after.Peak-before.Resident)>>10, p50, p99, alone50, alone99)
	// A list is a page at a time; the rest is what the collector has not got yet, as
	// much as lives, and those who come and go.
	if extra := after.Peak - before.Resident; extra > 32<<20+int64(*sessions)*8<<10 {
		t.Errorf("the daemon took %d MiB for lists", extra>>20)
	}
}

// cost tells what sessions that do nothing cost.
func (s *scene) cost(heap int64, before daemon.Usage) {
	s.t.Helper()
	n := int64(*sessions)
	perHeap, now, goroutines := (s.d.Heap()-heap)/n, s.d.Usage(), 0
	for _, k := range s.d.Goroutines() {
		goroutines += k
	}
	s.t.Logf("each costs %d bytes of heap, %d of memory, %.2f descriptors, %.2f goroutines; the daemon used %v of a processor for all, and %.4f of one when they do nothing",
		perHeap, (now.Resident-before.Resident)/n, float64(now.Count()-before.Count())/float64(n), float64(goroutines)/float64(n),
		now.Processor-before.Processor, s.d.Load(2*time.Second))
	if perHeap > 16<<10 {
		s.t.Errorf("a session that does nothing costs %d bytes of heap", perHeap)
	}
}

// whole reads whole lists and compares them with what there is.
func (s *scene) whole(all []*child) {
	s.t.Helper()
	seen := map[uint64]int{}
	byPID := map[int]int{}
	for _, v := range s.lines("client", "list") {
		if seen[v.Session]++; seen[v.Session] > 1 {
			s.t.Fatalf("session %d is there twice", v.Session)
		}
		byPID[v.PID]++
	}
	total := 0
	for _, c := range all {
		total += byPID[c.cmd.Process.Pid]
	}
	if total != *sessions {
		s.t.Errorf("%d of %d sessions are listed", total, *sessions)
	}
	held := map[[2]any]int{}
	byPID = map[int]int{}
	for _, v := range s.lines("handle", "list") {
		held[[2]any{v.Session, v.Object}]++
		byPID[v.PID]++
	}
	total = 0
	for _, c := range all {
		total += byPID[c.cmd.Process.Pid]
	}
	if total != *sessions*handles {
		s.t.Errorf("%d of %d handles are listed", total, *sessions*handles)
	}
	for k, n := range held {
		if n > 1 {
			s.t.Fatalf("session %v has %v twice, or is there twice", k[0], k[1])
		}
	}
}

// filtered reads lists of a part.
func (s *scene) filtered(all []*child) {
	s.t.Helper()
	c := all[len(all)/2]
	pid := c.cmd.Process.Pid
	mine := 0
	for _, v := range s.lines("client", "show", strconv.Itoa(pid)) {
		if v.PID != pid || len(v.Holds) != handles || *v.Handles != handles {
			s.t.Fatalf("%+v", v)
		}
		for _, h := range v.Holds {
			if h.Session != v.Session {
				s.t.Fatalf("%+v", v)
			}
		}
		mine++
	}
	if mine != c.sessions {
		s.t.Errorf("%d of %d sessions are shown", mine, c.sessions)
	}
	for _, args := range [][]string{{"handle", "list", "--pid", strconv.Itoa(pid)}, {"handle", "list", poolName, "--pid", strconv.Itoa(pid)}} {
		list := s.lines(args...)
		for _, v := range list {
			if v.PID != pid || v.Pool != poolName {
				s.t.Fatalf("%v: %+v", args, v)
			}
		}
		if len(list) != c.sessions*handles {
			s.t.Errorf("%v: %d of %d handles", args, len(list), c.sessions*handles)
		}
	}
}
