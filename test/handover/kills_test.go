package handover

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/test/daemon"
)

// child is a giver or a taker.
type child struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.Closer
	read chan struct{} // closed when it has said all
	work chan struct{} // closed when it is at work

	said     map[uint64]map[string]int // by tag; to be read after read is closed
	mistakes []string
}

func spawn(t *testing.T, d *daemon.Daemon, role string, seed uint64, tokens *os.File) *child {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{
		t: t, cmd: exec.Command(os.Args[0]), read: make(chan struct{}), work: make(chan struct{}),
		said: make(map[uint64]map[string]int),
	}
	c.cmd.Env = append(os.Environ(), envRole+"="+role, envSocket+"="+d.Socket, fmt.Sprintf("%s=%d", envSeed, seed))
	c.cmd.Stderr, c.cmd.ExtraFiles = os.Stderr, []*os.File{w, tokens}
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	go c.listen(r)
	return c
}

func (c *child) listen(r *os.File) {
	defer close(c.read)
	defer r.Close()
	for in := bufio.NewScanner(r); in.Scan(); {
		var what string
		var tag uint64
		if _, err := fmt.Sscanf(in.Text(), "%s %x", &what, &tag); err != nil || what == "E" {
			c.mistakes = append(c.mistakes, in.Text())
			continue
		}
		if what == "r" {
			close(c.work)
			continue
		}
		if c.said[tag] == nil {
			c.said[tag] = make(map[string]int)
		}
		c.said[tag][what]++
	}
}

// end kills the child, or lets it end, and waits for it.
func (c *child) end(kill bool) {
	c.t.Helper()
	if kill {
		if err := c.cmd.Process.Kill(); err != nil {
			c.t.Errorf("kill: %v", err)
		}
	} else if err := c.in.Close(); err != nil {
		c.t.Error(err)
	}
	hang := time.AfterFunc(daemon.Patience, func() { _ = c.cmd.Process.Kill() })
	if err := c.cmd.Wait(); !kill && err != nil {
		c.t.Errorf("a child that was not killed: %v", err)
	}
	hang.Stop()
	<-c.read
	for _, m := range c.mistakes {
		c.t.Error(m)
	}
}

// A giver, a taker or both are killed at any moment while objects pass from the one
// to the other: each is at every time exactly one's, none is lost to the one that
// lives, what was committed is whole, and nothing else is left.
//
// proves S35 S33 S12
func TestKills(t *testing.T) {
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d: go test ./test/handover -run TestKills -handover.seed=%d -handover.rounds=%d", s, s, *rounds)
	rng := rand.New(rand.NewPCG(s, 1))
	drive := daemon.Drive(t, 256<<20)
	d := daemon.Start(t, mpoold, daemon.Options{})
	c, p := d.Pool(poolName, drive, api.CreateOptions{})
	info, err := p.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	free := info.Space.Free
	b := book{t: t, c: c, p: p}
	// Where processors are busy they need longer lives to do anything.
	done, within := 0, []int{10_000, 50_000, 300_000}
	for ; done < *rounds || *rounds >= 10 && done < 2**rounds && (b.accepted == 0 || b.committed == 0); done++ {
		if done >= *rounds {
			within = []int{10_000_000}
		}
		b.round(d, rng, within[rng.IntN(len(within))])
		b.clean(free)
		if t.Failed() {
			break
		}
	}
	t.Logf("%d rounds: %d granted, %d accepted, %d committed, %d cut off in an accept", done, b.granted, b.accepted, b.committed, b.cut)
	if *rounds >= 10 && (b.accepted == 0 || b.committed == 0) {
		t.Error("hardly anything was handed over")
	}
}

// book knows what was promised.
type book struct {
	t                                 *testing.T
	c                                 *client.Conn
	p                                 api.Pool
	granted, accepted, committed, cut int
	giver, taker                      *child
}

// round kills somebody within so many microseconds of when both are at work.
func (b *book) round(d *daemon.Daemon, rng *rand.Rand, within int) {
	b.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	b.giver, b.taker = spawn(b.t, d, "giver", rng.Uint64(), w), spawn(b.t, d, "taker", rng.Uint64(), r)
	r.Close()
	w.Close()
	for _, c := range []*child{b.giver, b.taker} {
		select {
		case <-c.work:
		case <-c.read:
			b.t.Error("a child ends before it is at work")
		}
	}
	time.Sleep(time.Duration(rng.IntN(within)) * time.Microsecond) // the moment of the death, any
	both := []*child{b.giver, b.taker}
	dead := rng.IntN(3) // or both
	if dead < 2 {
		both[dead].end(true)
		time.Sleep(time.Duration(rng.IntN(5_000)) * time.Microsecond)
		both[1-dead].end(false)
	} else {
		i := rng.IntN(2)
		both[i].end(true)
		both[1-i].end(true)
	}
	b.compare()
}

// compare compares what both have said.
func (b *book) compare() {
	for tag, g := range b.giver.said {
		t := b.taker.said[tag]
		b.granted += min(g["g"], 1)
		b.accepted += t["T"]
		if t["t"] > 0 && g["K"]+g["L"]+g["C"]+t["T"] == 0 {
			b.cut++
		}
		switch {
		case t["T"] > 1:
			b.t.Errorf("%x was taken %d times", tag, t["T"])
		case t["T"] > 0 && g["K"]+g["C"] > 0:
			b.t.Errorf("%x is both's: giver %v, taker %v", tag, g, t)
		case g["L"] > 0 && t["t"] == 0:
			b.t.Errorf("%x is nobody's: giver %v, taker %v", tag, g, t)
		}
	}
}

// clean waits until nothing is left of the dead but what they committed, looks at
// that, and deletes it.
func (b *book) clean(free int64) {
	b.t.Helper()
	ctx := context.Background()
	space := func() api.Space {
		info, err := b.p.Info(ctx)
		if err != nil {
			b.t.Fatal(err)
		}
		return info.Space
	}
	daemon.Eventually(b.t, "nothing is left of who ended", func() bool {
		list, err := b.c.Clients(ctx, 0)
		if err != nil {
			b.t.Fatal(err)
		}
		s := space()
		return len(list) == 1 && list[0].Handles == 1 && s.Uncommitted == 0 && s.Draining == 0
	})
	there := make(map[uint64]bool)
	for o, err := range b.p.Objects(ctx, api.Filter{}) {
		if err != nil {
			b.t.Fatal(err)
		}
		g, t := b.giver.said[o.Tag], b.taker.said[o.Tag]
		if there[o.Tag] || g["c"]+t["c"] == 0 || o.State != api.StateCommitted {
			b.t.Errorf("%x is there as %+v: giver %v, taker %v", o.Tag, o, g, t)
		}
		there[o.Tag] = true
		b.look(o, t)
	}
	for _, c := range []*child{b.giver, b.taker} {
		for tag, said := range c.said {
			if said["C"] > 0 && !there[tag] {
				b.t.Errorf("%x was committed and is not there", tag)
			}
		}
	}
	b.committed += len(there)
	daemon.Eventually(b.t, "the space is free again", func() bool { return space().Free == free })
}

// look reads a committed object and deletes it.
func (b *book) look(o api.ObjectInfo, taker map[string]int) {
	b.t.Helper()
	ctx := context.Background()
	m, err := b.p.Mblock(ctx, o.ID)
	if err != nil {
		b.t.Fatal(err)
	}
	want := part(o.Tag, 0)
	if taker["T"] > 0 {
		want = append(want, part(o.Tag, 1)...)
	}
	got := make([]byte, o.Length)
	if _, err := m.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		b.t.Errorf("%x has %d bytes, %v; or other bytes", o.Tag, len(got), err)
	}
	if err := m.Delete(ctx); err != nil {
		b.t.Fatal(err)
	}
}

// A daemon that was restarted knows no grant of the one before.
//
// proves S35 S36
func TestRestart(t *testing.T) {
	drive := daemon.Drive(t, 64<<20)
	d := daemon.Start(t, mpoold, daemon.Options{})
	_, p := d.Pool(poolName, drive, api.CreateOptions{})
	ctx := t.Context()
	b, err := p.AllocMblock(ctx, api.AllocOptions{Capacity: 4096})
	if err != nil {
		t.Fatal(err)
	}
	token, err := b.Grant(ctx, api.MaxGrant)
	if err != nil {
		t.Fatal(err)
	}
	d.Kill()
	again := daemon.Start(t, mpoold, daemon.Options{})
	c := again.Dial()
	if _, err := c.ActivatePool(ctx, poolName, []string{drive}, api.ActivateOptions{}); err != nil {
		t.Fatal(err)
	}
	q, err := c.OpenPool(ctx, poolName)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.Accept(ctx, token); api.CodeOf(err) != api.ENOENT {
		t.Errorf("a token of the daemon before: %v; want ENOENT", err)
	}
	if info, err := q.Info(ctx); err != nil || info.Space.Uncommitted != 0 {
		t.Errorf("%+v, %v", info.Space, err)
	}
}
