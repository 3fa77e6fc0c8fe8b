package objectcache

import (
	"bytes"
	"errors"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/test/daemon"
)

// ownPools starts a daemon with a pool, which a connection with credits opens twice.
func ownPools(t *testing.T) (d *daemon.Daemon, pools [2]api.Pool) {
	t.Helper()
	drive := daemon.Drive(t, 64<<20)
	d = daemon.Start(t, mpoold, daemon.Options{})
	d.Pool("data", drive, api.CreateOptions{})
	c, err := client.Dial(t.Context(), client.Options{Socket: d.Socket, Credits: &client.CreditOptions{Bytes: 1 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	for i := range pools {
		if pools[i], err = c.OpenPool(t.Context(), "data"); err != nil {
			t.Fatal(err)
		}
	}
	return d, pools
}

// proves G50: what the process itself deletes, through a handle without a credit or
// through another handle of the pool, and makes anew is not read from memory.
func TestOwnDeleteAndMakeAnew(t *testing.T) {
	_, pools := ownPools(t)
	p, ctx := pools[0], t.Context()
	var err error
	write := func(id layout.ObjectID, fill byte, n int) api.Mblock {
		t.Helper()
		var m api.Mblock
		if id == 0 {
			m, err = p.AllocMblock(ctx, api.AllocOptions{Capacity: 64 << 10})
		} else {
			m, err = p.ReallocMblock(ctx, id, api.AllocOptions{Capacity: 64 << 10})
		}
		if err == nil {
			_, err = m.Write(ctx, bytes.Repeat([]byte{fill}, n))
		}
		if err == nil {
			err = m.Commit(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	read := func(p api.Pool, id layout.ObjectID, fill byte, n int) {
		t.Helper()
		m, err := p.Mblock(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, n+10)
		got, err := m.ReadAt(buf, 0)
		if want := bytes.Repeat([]byte{fill}, n); !bytes.Equal(buf[:got], want) {
			t.Errorf("read %d bytes of %d, %v; want %d of %d", got, buf[0], err, n, fill)
		}
		if err := m.Put(); err != nil {
			t.Fatal(err)
		}
	}
	m := write(0, 1, 1000)
	id := m.ID()
	n := 1000
	for i := range 12 {
		fill := byte(i + 1)
		for _, p := range pools {
			read(p, id, fill, n)
			read(p, id, fill, n)
		}
		switch i % 3 {
		case 0: // the handle that made it
		case 1:
			if err := m.Put(); err != nil {
				t.Fatal(err)
			}
			m, err = p.Mblock(ctx, id)
		case 2:
			if err := m.Put(); err != nil {
				t.Fatal(err)
			}
			m, err = pools[1].Mblock(ctx, id)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Delete(ctx); err != nil {
			t.Fatal(err)
		}
		n += 100
		m = write(id, fill+1, n)
	}
}

// proves S15, G49: an mblock that the process has open without the daemon knowing is not
// deleted by the process itself, and is what it was afterwards.
func TestOwnOpenIsInTheWay(t *testing.T) {
	_, pools := ownPools(t)
	ctx := t.Context()
	data := bytes.Repeat([]byte{7}, 1000)
	b, err := pools[0].PutMblock(ctx, api.AllocOptions{}, data)
	if err != nil {
		t.Fatal(err)
	}
	open := func() api.Mblock {
		t.Helper()
		m, err := pools[1].Mblock(ctx, b.ID())
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	buf := make([]byte, len(data))
	read := func(m api.Mblock) {
		t.Helper()
		if _, err := m.ReadAt(buf, 0); err != nil || !bytes.Equal(buf, data) {
			t.Fatalf("read: %v", err)
		}
	}
	m := open()
	read(m) // its bytes are here from now on
	if err := m.Put(); err != nil {
		t.Fatal(err)
	}
	m, n := open(), open()
	for _, x := range []api.Mblock{b, m, n} {
		if err := x.Delete(ctx); !errors.Is(err, api.EBUSY) {
			t.Errorf("delete beside two that are open: %v", err)
		}
		read(m)
	}
	v, err := m.(client.Viewer).View(ctx, 0, 100)
	if err != nil {
		t.Fatalf("a view after a delete that was refused: %v", err)
	}
	if err := errors.Join(n.Put(), m.Put()); err != nil {
		t.Fatal(err)
	}
	if err := b.Delete(ctx); !errors.Is(err, api.EBUSY) {
		t.Errorf("delete of what is in view: %v", err)
	}
	v.Release()
	if err := b.Delete(ctx); err != nil {
		t.Error(err)
	}
	if _, err := pools[1].Mblock(ctx, b.ID()); !errors.Is(err, api.ENOENT) {
		t.Errorf("open of what was deleted: %v", err)
	}
}

// proves G50: two holds tell the same version of a log only if it was not written to
// between them, by whomever.
func TestVersionOfALog(t *testing.T) {
	d, pools := ownPools(t)
	ctx := t.Context()
	others, err := d.Dial().OpenPool(ctx, "data")
	if err != nil {
		t.Fatal(err)
	}
	version := func(id layout.ObjectID) credit.Version {
		t.Helper()
		h, err := pools[1].(client.Credits).AcquireCredit(ctx, id, client.CreditRequest{Modes: client.CreditRead, Try: true})
		if err != nil {
			t.Fatal(err)
		}
		v := h.Version()
		if err := h.Release(); err != nil {
			t.Error(err)
		}
		return v
	}
	l, err := pools[0].AllocMlog(ctx, api.AllocOptions{Capacity: 64 << 10})
	if err == nil {
		err = l.Commit(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	told := make(map[credit.Version]int)
	for i := range 4 {
		a, err := l.OpenAppend(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := a.Append(ctx, []byte("record"), true); err != nil {
				t.Fatal(err)
			}
			if v := version(l.ID()); v != (credit.Version{}) {
				t.Errorf("version %v of a log that is being appended to", v)
			}
		}
		if err := a.Close(ctx); err != nil {
			t.Fatal(err)
		}
		r, err := l.OpenRead(ctx) // a log that nobody has open has no version
		if err != nil {
			t.Fatal(err)
		}
		v := version(l.ID())
		if told[v]++; told[v] > 1 || v == (credit.Version{}) {
			t.Errorf("round %d: version %v, of %v", i, v, told)
		}
		if again := version(l.ID()); again != (credit.Version{}) {
			t.Errorf("version %v of what is cached, and others may have erased", again)
		}
		pools[1].(client.Credits).GiveBackCredit(l.ID())
		if again := version(l.ID()); again != v {
			t.Errorf("version %v, then %v of the same", v, again)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if i%2 == 1 {
			x, err := []api.Pool{others, pools[1]}[i/2].Mlog(ctx, l.ID())
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(x.Erase(ctx, 0), x.Put()); err != nil {
				t.Fatal(err)
			}
			if v := version(l.ID()); told[v] > 0 {
				t.Errorf("version %v again after an erase", v)
			}
		}
	}
}
