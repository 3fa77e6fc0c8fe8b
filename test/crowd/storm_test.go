package crowd

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/test/daemon"
)

// percentiles returns the 50th and the 99th of some times.
func percentiles(list []time.Duration) (p50, p99 time.Duration) {
	if len(list) == 0 {
		return 0, 0
	}
	slices.Sort(list)
	return list[len(list)/2], list[len(list)*99/100]
}

// deathLine is a line of event follow.
type deathLine struct {
	Seq        uint64  `json:"seq"`
	Type       string  `json:"type"`
	PID        int     `json:"pid"`
	Session    uint64  `json:"session"`
	Cause      string  `json:"cause"`
	Signal     int     `json:"signal"`
	DetectedBy string  `json:"detected_by"`
	References int     `json:"references"`
	Latency    int64   `json:"latency_us"`
	Missed     *uint64 `json:"missed"`
}

// follower is a running mpoolctl event follow.
type follower struct {
	cmd   *exec.Cmd
	lines chan deathLine
}

func follow(t *testing.T, socket string, args ...string) *follower {
	t.Helper()
	f := &follower{
		cmd:   exec.Command(mpoolctl, append([]string{"--socket", socket, "--json", "event", "follow"}, args...)...),
		lines: make(chan deathLine, 64),
	}
	f.cmd.Stderr = os.Stderr
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(f.lines)
		in := bufio.NewScanner(out)
		for in.Scan() {
			var v deathLine
			if err := json.Unmarshal(in.Bytes(), &v); err != nil {
				t.Errorf("%v: %s", err, in.Bytes())
				return
			}
			f.lines <- v
		}
	}()
	t.Cleanup(func() { f.interrupt(t) })
	return f
}

// interrupt ends it, as a user does: that is no failure.
func (f *follower) interrupt(t *testing.T) {
	t.Helper()
	if f.cmd.ProcessState != nil {
		return
	}
	_ = f.cmd.Process.Signal(os.Interrupt) // it may have ended
	for range f.lines {
		continue // until the end
	}
	if err := f.cmd.Wait(); err != nil {
		t.Errorf("event follow: %v", err)
	}
}

// deaths reads lines until all members' sessions have ended, each of which must be
// told once.
func (f *follower) deaths(t *testing.T, all []*child) (latency []time.Duration) {
	t.Helper()
	want, left := map[int]int{}, *sessions
	for _, c := range all {
		want[c.cmd.Process.Pid] = c.sessions
	}
	seen := map[uint64]bool{}
	last := uint64(0)
	patience := time.After(daemon.Patience)
	for left > 0 {
		var v deathLine
		var ok bool
		select {
		case v, ok = <-f.lines:
		case <-patience:
			t.Fatalf("%d of %d ends were not told", left, *sessions)
		}
		switch {
		case !ok:
			t.Fatal("the follower has ended")
		case v.Missed != nil:
			t.Fatalf("%d are missed after %d: as many are kept as there are sessions", *v.Missed, v.Seq)
		case v.Seq <= last:
			t.Fatalf("number %d after %d", v.Seq, last)
		}
		last = v.Seq
		if v.Type != "client_reaped" || want[v.PID] == 0 {
			continue // of others
		}
		want[v.PID]--
		left--
		if seen[v.Session] {
			t.Fatalf("the end of session %d is told twice", v.Session)
		}
		seen[v.Session] = true
		// Whoever is told by the socket may not know the signal yet.
		if v.Cause != "signal" && v.Cause != "unknown" || v.Cause == "signal" && v.Signal != int(syscall.SIGKILL) || v.References != handles {
			t.Errorf("%+v", v)
		}
		latency = append(latency, time.Duration(v.Latency)*time.Microsecond)
	}
	return latency
}

// proves S33: thousands of clients that are killed at one time are all told of, each
// once, to those who follow, to one who comes after, and to one who was away
// meanwhile; nothing of them is left.
func TestStorm(t *testing.T) {
	s := newScene(t)
	before := s.d.Usage()
	all := s.gather()
	at := time.Now()
	f := follow(t, s.d.Socket, "--since", at.UTC().Format(time.RFC3339Nano))
	away := follow(t, s.d.Socket, "--since", at.UTC().Format(time.RFC3339Nano))
	if err := away.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for _, c := range all {
		if err := c.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	latency := f.deaths(t, all)
	p50, p99 := percentiles(latency)
	t.Logf("%d ends were told %v after the kill; each was reclaimed within %v (p50), %v (p99)", *sessions, time.Since(began), p50, p99)
	follow(t, s.d.Socket, "--since", at.UTC().Format(time.RFC3339Nano)).deaths(t, all)
	if err := away.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	away.deaths(t, all)
	if n := len(s.lines("handle", "list")); n > 16 {
		t.Errorf("%d handles are left", n)
	}
	f.interrupt(t)
	away.interrupt(t)
	daemon.Eventually(t, "descriptors are as before", func() bool { return s.d.Usage().Count() <= before.Count()+4 })
}
