package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
)

// enough bounds loops that end when something is full.
const enough = 100_000

// proves S41 S7: a full pool says what is free and which drive is full, refuses
// what does not fit and nothing else, and deletes give the space back.
func TestFullPool(t *testing.T) {
	t.Parallel()
	r := newRig(t, spec{name: "a", capacity: 1})
	p := r.pools[0]
	l, a, err := p.book.log(r.ctx, p, api.AllocOptions{})
	r.ok(err)
	before, err := p.Info(r.ctx)
	r.ok(err)
	var all []api.Mblock
	for range enough {
		m, err := p.book.put(r.ctx, p, 4<<20-64<<10, api.AllocOptions{})
		if err != nil {
			r.full(err, 4<<20)
			break
		}
		all = append(all, m)
	}
	for range enough { // to the last zone
		m, err := p.AllocMblock(r.ctx, api.AllocOptions{Capacity: 4096})
		if err != nil {
			r.full(err, 64<<10)
			break
		}
		r.ok(m.Put())
	}
	info, err := p.Info(r.ctx)
	r.ok(err)
	if info.Space.Free != 0 {
		t.Errorf("%d bytes are free in a full pool", info.Space.Free)
	}
	// What needs no space goes on.
	r.ok(p.book.append(r.ctx, l.ID(), a))
	r.ok(p.SetRoots(r.ctx, []api.Root{{Name: "x", ID: l.ID()}}))
	r.ok(same(r.ctx, all[0], p.book.live[all[0].ID()]))
	r.answers()
	for _, m := range all {
		r.ok(p.book.remove(r.ctx, m))
	}
	for o, err := range p.Objects(r.ctx, api.Filter{State: api.StateUncommitted}) {
		r.ok(err)
		m, err := p.Mblock(r.ctx, o.ID)
		r.ok(err)
		r.ok(m.Abort(r.ctx))
	}
	for end := time.Now().Add(soon); ; time.Sleep(time.Millisecond) { // zones are discarded before they are free
		info, err = p.Info(r.ctx)
		r.ok(err)
		if info.Space.Free == before.Space.Free || time.Now().After(end) {
			break
		}
	}
	if info.Space.Free != before.Space.Free {
		t.Errorf("%d bytes are free, as many as at first would be %d", info.Space.Free, before.Space.Free)
	}
	r.settle()
}

// full checks an ENOSPC.
func (r *rig) full(err error, atLeast int64) {
	r.t.Helper()
	r.want(err, api.ENOSPC)
	var e *api.Error
	if !errors.As(err, &e) || e.Device == "" || e.Want < atLeast || e.Longest > e.Have || e.Want <= e.Longest {
		r.t.Errorf("%v does not say what is missing where: %+v", err, e)
	}
}

// proves S41 S27: with the metadata full, what would add to it is refused, and
// says so; reads, appends and deletes go on.
func TestFullMetadata(t *testing.T) {
	t.Parallel()
	if *long < 10*time.Second {
		t.Log("eleven thousand owners take half a minute: only in the long run, -faults.stall=10s")
		return
	}
	r := newRig(t, spec{name: "a", capacity: 1})
	p := r.pools[0]
	l, a, err := p.book.log(r.ctx, p, api.AllocOptions{})
	r.ok(err)
	var all []api.Mblock
	for range 100 {
		m, err := p.book.put(r.ctx, p, 5000, api.AllocOptions{})
		r.ok(err)
		all = append(all, m)
	}
	made := 0
	for err == nil && made < enough {
		made++
		// Owners are what adds most to it, for the least.
		_, err = p.AddOwner(r.ctx, fmt.Sprintf("%063d", made), 0)
	}
	r.want(err, api.ENOSPC)
	t.Logf("full with %d owners: %v", made-1, err)
	m, err := write(r.ctx, p, make([]byte, 5000), api.AllocOptions{})
	r.ok(err)
	r.want(m.Commit(r.ctx), api.ENOSPC)
	r.ok(m.Abort(r.ctx))
	r.ok(p.book.append(r.ctx, l.ID(), a))
	r.ok(same(r.ctx, all[0], p.book.live[all[0].ID()]))
	r.answers()
	for _, m := range all {
		r.ok(p.book.remove(r.ctx, m))
	}
	_, err = p.book.put(r.ctx, p, 5000, api.AllocOptions{})
	r.ok(err)
	r.settle()
}

// proves S41 S24: a full log takes nothing of a record and says so.
func TestFullLog(t *testing.T) {
	t.Parallel()
	r := newRig(t, spec{name: "a", capacity: 1})
	p := r.pools[0]
	id, err := p.CreateMDC(r.ctx, api.AllocOptions{Capacity: 64 << 10})
	r.ok(err)
	c, err := p.OpenMDC(r.ctx, id)
	r.ok(err)
	n := 0
	for ; err == nil && n < enough; n++ {
		err = c.Append(r.ctx, make([]byte, 1000), false)
	}
	r.want(err, api.EFBIG)
	r.ok(c.Sync(r.ctx))
	reader, err := c.OpenRead(r.ctx)
	r.ok(err)
	for i := range n - 1 {
		if _, err := reader.Next(r.ctx, make([]byte, 1000)); err != nil {
			t.Fatalf("record %d of %d: %v", i, n-1, err)
		}
	}
	// A compaction makes room.
	r.ok(errors.Join(c.CompactStart(r.ctx), c.CompactEnd(r.ctx), c.Append(r.ctx, make([]byte, 1000), true)))
	r.ok(errors.Join(reader.Close(), c.Close(r.ctx), p.DeleteMDC(r.ctx, id)))
	r.settle()
}

// proves S41: without descriptors the daemon takes no new session and says why;
// the sessions it has go on, and new ones are taken when others end.
func TestNoDescriptors(t *testing.T) {
	t.Parallel()
	r := newRig(t, spec{name: "a", capacity: 1})
	p := r.pools[0]
	pid := r.daemon.cmd.Process.Pid
	open, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "fd"))
	r.ok(err)
	limit := unix.Rlimit{Cur: uint64(len(open)) + 6, Max: 4096}
	r.ok(unix.Prlimit(pid, unix.RLIMIT_NOFILE, &limit, nil))
	var more []*client.Conn
	var refused error
	for refused == nil && len(more) < 100 {
		ctx, cancel := context.WithTimeout(r.ctx, 200*time.Millisecond)
		var c *client.Conn
		c, refused = client.Dial(ctx, client.Options{Socket: r.socket, Reconnect: -1})
		cancel()
		if refused == nil {
			more = append(more, c)
		}
	}
	if refused == nil {
		t.Fatal("the daemon has more sessions than descriptors")
	}
	// It says so as long as it can take the connection; then that waits.
	r.want(refused, api.ENOMEM, api.ETIMEDOUT)
	t.Logf("after %d sessions: %v", len(more), refused)
	// Nothing else stops: also not data that travels through an arena, which
	// the session made before or does without.
	r.quickly("a session that was there", func(ctx context.Context) error {
		m, err := p.book.put(ctx, p, 20_000, api.AllocOptions{})
		if err != nil {
			return err
		}
		_, err = r.conn.Clients(ctx, 0)
		return errors.Join(same(ctx, m, p.book.live[m.ID()]), p.book.remove(ctx, m), err)
	})
	big, err := p.book.put(r.ctx, p, 1<<20, api.AllocOptions{})
	if err != nil {
		r.want(err, api.ENOMEM)
		if big != nil {
			r.ok(big.Abort(r.ctx))
		}
	}
	for _, c := range more {
		r.ok(c.Close())
	}
	r.quickly("a new session", func(ctx context.Context) error {
		for {
			c, err := client.Dial(ctx, client.Options{Socket: r.socket, Reconnect: -1})
			if err == nil {
				return c.Close()
			}
			if ctx.Err() != nil {
				return fmt.Errorf("although descriptors are free: %w", err)
			}
		}
	})
	r.goesOn(p, api.AllocOptions{})
	r.settle()
}
