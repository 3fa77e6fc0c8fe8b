package server

import (
	"bytes"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

// mappings counts the arenas that are mapped into this process: the daemon's
// and the client's are both its own.
func mappings(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), "memfd:mpool-arena")
}

// A window reaches nothing but the sealed arena that it names.
//
// proves S43
func TestWindows(t *testing.T) {
	r := newRig(t)
	w := r.raw()
	pool := w.openPool()
	m := w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 1 << 20}})
	const size = 1 << 20
	id, mem, fd := w.arena(size)
	write := func(win ioctl.Window) error {
		_, err := w.ask(ioctl.OpMblockWrite, &ioctl.MblockWrite{Mblock: m, Data: ioctl.Payload{Window: win}})
		return err
	}
	want(t, api.EINVAL, write(ioctl.Window{Arena: id, Length: 4096})) // not mapped yet
	w.ok(ioctl.OpArenaMapped, &ioctl.ArenaMapped{Arena: id})
	for _, bad := range []ioctl.Window{
		{Arena: id + 1, Length: 4096},
		{Arena: 65535, Length: 4096},
		{Arena: id, Offset: 1, Length: 4096},
		{Arena: id, Offset: 512, Length: 4096},
		{Arena: id, Offset: 0, Length: size + 1},
		{Arena: id, Offset: size - 4096, Length: 4097},
		{Arena: id, Offset: size, Length: 1},
		{Arena: id, Offset: math.MaxUint32 &^ 4095, Length: 8192},
		{Arena: id, Offset: 4096, Length: math.MaxUint32},
	} {
		want(t, api.EINVAL, write(bad))
		_, err := w.ask(ioctl.OpMblockRead, &ioctl.MblockRead{Mblock: m, Into: bad})
		want(t, api.EINVAL, err)
	}
	for i := range mem {
		mem[i] = byte(i >> 12)
	}
	for _, good := range []ioctl.Window{
		{Arena: id, Offset: size - 4096, Length: 4096},
		{Arena: id, Offset: 0, Length: size - 4096},
	} {
		if err := write(good); err != nil {
			t.Errorf("%+v: %v", good, err)
		}
	}
	if err := write(ioctl.Window{Arena: id, Offset: size, Length: 0}); err != nil {
		t.Errorf("nothing at the end: %v", err)
	}
	reply, ok := w.ok(ioctl.OpMblockRead, &ioctl.MblockRead{Mblock: m, Into: ioctl.Window{Arena: id, Offset: 8192, Length: 4096}}).(*ioctl.MblockReadReply)
	if !ok || reply.N != 4096 || reply.Data != nil || mem[8192] != 255 {
		t.Errorf("%+v, first byte %d", reply, mem[8192])
	}

	// What is sealed stays as it is: the daemon never faults on it.
	if err := unix.Ftruncate(fd, 4096); !errors.Is(err, unix.EPERM) {
		t.Errorf("shrinking: %v", err)
	}
	if err := unix.Ftruncate(fd, 2*size); !errors.Is(err, unix.EPERM) {
		t.Errorf("growing: %v", err)
	}
	if err := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096); !errors.Is(err, unix.EPERM) {
		t.Errorf("a hole by descriptor: %v", err)
	}
	if err := unix.Madvise(mem, unix.MADV_REMOVE); !errors.Is(err, unix.EPERM) {
		t.Errorf("a hole by mapping: %v", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE); !errors.Is(err, unix.EPERM) {
		t.Errorf("another seal: %v", err)
	}
	_, err := w.ask(ioctl.OpArenaMapped, &ioctl.ArenaMapped{Arena: id})
	want(t, api.ENOMEM, err) // twice
}

// A client that shrinks its arena before it is sealed has none.
//
// proves S43
func TestArenaShrunkBeforeSeal(t *testing.T) {
	r := newRig(t)
	w := r.raw()
	id, _, fd := w.arena(1 << 20)
	if err := unix.Ftruncate(fd, 4096); err != nil {
		t.Fatal(err)
	}
	_, err := w.ask(ioctl.OpArenaMapped, &ioctl.ArenaMapped{Arena: id})
	want(t, api.ENOMEM, err)
	m := w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: w.openPool(), Options: api.AllocOptions{Capacity: 1 << 20}})
	_, err = w.ask(ioctl.OpMblockWrite, &ioctl.MblockWrite{Mblock: m, Data: ioctl.Payload{Window: ioctl.Window{Arena: id, Length: 4096}}})
	want(t, api.EINVAL, err)
	// Holes made before the seals are filled again.
	id, mem, fd := w.arena(1 << 20)
	if err := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 1<<20); err != nil {
		t.Fatal(err)
	}
	w.ok(ioctl.OpArenaMapped, &ioctl.ArenaMapped{Arena: id})
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Blocks*512 != int64(len(mem)) {
		t.Errorf("%d bytes are there of %d, %v", st.Blocks*512, len(mem), err)
	}
}

func TestArenaLimits(t *testing.T) {
	r := newRig(t, func(o *Options) {
		o.Limits.ArenaDefault, o.Limits.ArenaSession, o.Limits.ArenaTotal, o.Limits.Arenas = 1<<20, 3<<20, 4<<20, 3
	})
	w := r.raw()
	for _, bad := range []uint64{1, 4095, 4097, 4 << 20, 1 << 40, math.MaxUint64, math.MaxUint64 &^ 4095} {
		_, err := w.ask(ioctl.OpArena, &ioctl.ArenaAsk{Size: bad})
		want(t, api.EINVAL, err)
	}
	if _, mem, _ := w.arena(0); len(mem) != 1<<20 {
		t.Errorf("the default is %d bytes", len(mem))
	}
	_, err := w.ask(ioctl.OpArena, &ioctl.ArenaAsk{Size: 3 << 20})
	want(t, api.EAGAIN, err) // the session's limit
	w.arena(4096)
	w.arena(4096)
	_, err = w.ask(ioctl.OpArena, &ioctl.ArenaAsk{Size: 4096})
	want(t, api.EAGAIN, err) // the number of them
	w2 := r.raw()
	_, err = w2.ask(ioctl.OpArena, &ioctl.ArenaAsk{Size: 3 << 20})
	want(t, api.EAGAIN, err) // the daemon's limit
	w.conn.Close()
	r.nextReaped(1)
	for end := time.Now().Add(inVain); r.srv.arenaBytes.Load() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the memory is still counted")
		}
	}
	w2.arena(3 << 20)
}

// An arena stays mapped while a request uses it, and not longer.
//
// proves S33
func TestArenaOutlivesSession(t *testing.T) {
	before := mappings(t)
	r := newRig(t)
	w := r.raw()
	m := w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: w.openPool(), Options: api.AllocOptions{Capacity: 1 << 20}})
	id, _, _ := w.arena(1 << 20)
	w.ok(ioctl.OpArenaMapped, &ioctl.ArenaMapped{Arena: id})
	entered, hold := make(chan struct{}), make(chan struct{})
	r.b.hook(func(_ context.Context, op string) error {
		if op == "mblock write" {
			close(entered)
			<-hold
		}
		return nil
	})
	w.send(ioctl.Header{Op: ioctl.OpMblockWrite, Tag: 99}, &ioctl.MblockWrite{
		Mblock: m, Data: ioctl.Payload{Window: ioctl.Window{Arena: id, Length: 1 << 20}},
	})
	<-entered
	w.conn.Close()
	if e := r.nextReaped(1); e.Aborted != 0 {
		t.Errorf("an object in use was aborted: %+v", e)
	}
	if n := mappings(t); n != before+2 {
		t.Errorf("%d mappings, want the daemon's and the client's", n-before)
	}
	close(hold) // it copies the whole arena now
	r.eventually("the mblock is gone", func(p *fakePool) bool { return len(p.objects) == 0 })
	for end := time.Now().Add(inVain); mappings(t) != before+1; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d mappings, want the client's only", mappings(t)-before)
		}
	}
}

// Data of every size arrives, whether it travels in messages or in an arena,
// and also when the daemon has no memory to share.
func TestTransfers(t *testing.T) {
	for name, total := range map[string]int64{"arena": 0, "no arena": 8192} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			r := newRig(t, func(o *Options) {
				if o.Limits.ArenaTotal = total; total != 0 {
					o.Limits.ArenaSession, o.Limits.ArenaDefault = 4096, 4096
				}
			})
			p := r.open(r.dial())
			rng := rand.New(rand.NewPCG(1, 2))
			for _, n := range []int{0, 1, 4096, ioctl.MaxInline - 1, ioctl.MaxInline, ioctl.MaxInline + 1, 1 << 20, 3<<20 + 5} {
				data := make([]byte, n)
				for i := range data {
					data[i] = byte(rng.Uint32())
				}
				b := must[api.Mblock](t)(p.AllocMblock(ctx, api.AllocOptions{Capacity: int64(n)}))
				if got, err := b.Write(ctx, data); got != n || err != nil {
					t.Fatalf("wrote %d of %d: %v", got, n, err)
				}
				// More than there is room for is refused whole, however long.
				for _, extra := range []int{1, 2 << 20} {
					got, err := b.Write(ctx, make([]byte, extra))
					if got != 0 {
						t.Errorf("%d bytes past the capacity were taken", got)
					}
					want(t, api.EFBIG, err)
				}
				var got bytes.Buffer
				if _, err := b.WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), data) {
					t.Errorf("%d bytes: %d came back, %v", n, got.Len(), err)
				}
				part := make([]byte, n/2)
				if _, err := b.ReadAt(part, int64(n-len(part))); err != nil || !bytes.Equal(part, data[n-len(part):]) {
					t.Errorf("the second half of %d: %v", n, err)
				}
				if err := b.Abort(ctx); err != nil {
					t.Fatal(err)
				}
			}
			l := must[api.Mlog](t)(p.AllocMlog(ctx, api.AllocOptions{Capacity: 64 << 20}))
			app := must[api.Appender](t)(l.OpenAppend(ctx))
			reader := must[api.LogReader](t)(l.OpenRead(ctx))
			for i, n := range []int{0, 100, ioctl.MaxInline, ioctl.MaxInline + 1, 9 << 20, 100, api.MaxRecord} {
				record := bytes.Repeat([]byte{byte(i + 1)}, n)
				_, err := app.Append(ctx, record, true)
				if total != 0 && n > ioctl.MaxInline {
					want(t, api.ENOMEM, err)
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				buf := make([]byte, api.MaxRecord)
				if got, err := reader.Next(ctx, buf); err != nil || !bytes.Equal(buf[:got], record) {
					t.Errorf("a record of %d bytes: %d came back, %v", n, got, err)
				}
			}
			_, err := app.Append(ctx, make([]byte, api.MaxRecord+1), true)
			want(t, api.EINVAL, err)
			reader.Rewind()
			if reader.Record() != 0 {
				t.Errorf("rewound to %d", reader.Record())
			}
			if err := reader.Seek(ctx, 1); err != nil || reader.Record() != 1 {
				t.Errorf("sought to %d, %v", reader.Record(), err)
			}
			_, err = reader.Next(ctx, make([]byte, 99))
			var e *api.Error
			if !errors.As(err, &e) || e.Code != api.EOVERFLOW || e.Want != 100 || reader.Record() != 1 {
				t.Errorf("a buffer too small: %v", err)
			}
			if n, err := reader.Next(ctx, make([]byte, 100)); n != 100 || err != nil {
				t.Errorf("then: %d, %v", n, err)
			}
		})
	}
}

// While an arena is being sealed, which takes as long as its pages do, nobody waits
// for it: a loop that is asked for a window into it refuses that at once. The end
// of the session does not take it from whoever seals it.
//
// proves S41
// proves S43
func TestArenaWhileItIsSealed(t *testing.T) {
	released := make(map[Resource]int64)
	a, err := newArena(1<<20, func(what Resource, n int64) { released[what] += n })
	if err != nil {
		t.Fatal(err)
	}
	w := ioctl.Window{Arena: 1, Length: 4096}
	fd, mem, err := a.beginSeal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.use(w); !errors.Is(err, api.EINVAL) {
		t.Errorf("use: %v", err)
	}
	if err := a.seal(); !errors.Is(err, unix.EALREADY) {
		t.Errorf("another seal: %v", err)
	}
	a.unuse() // the session's
	huge, err := sealFile(fd, mem)
	if err != nil {
		t.Error(err)
	}
	a.endSeal(huge, err)
	mem[0] = 1
	if _, err := a.use(w); err != nil {
		t.Errorf("use: %v", err)
	}
	a.unuse()
	a.unuse()
	if released[ArenaBytes] != 1<<20 || released[Descriptors] != 0 { // seal's to release
		t.Errorf("released: %v", released)
	}
}
