package credits

import (
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/test/daemon"
)

// BenchmarkAcquire acquires a credit that nobody else wants of the daemon, and gives
// it back to the daemon.
func BenchmarkAcquire(b *testing.B) {
	w, id := benchWire(b)
	for b.Loop() {
		h, err := w.acquire(ctx, id, credit.Read, 0, credit.End, 0)
		if err != nil {
			b.Fatal(err)
		}
		if err := h.Release(credit.Version{}); err != nil {
			b.Fatal(err)
		}
		w.owner.GiveBack(h.Resource(), h.Credit())
	}
}

// BenchmarkAsk makes a request that the daemon does nothing for, to compare with.
func BenchmarkAsk(b *testing.B) {
	w, _ := benchWire(b)
	for b.Loop() {
		if _, err := w.ask(ioctl.OpVersion, &ioctl.Empty{}); err != nil {
			b.Fatal(err)
		}
	}
}

// benchWire returns a session for the life of a benchmark, and an mblock.
func benchWire(b *testing.B) (*wire, layout.ObjectID) {
	b.Helper()
	drive := daemon.Drive(b, 32<<20)
	d := daemon.Start(b, mpoold, daemon.Options{})
	_, p := d.Pool(poolName, drive, api.CreateOptions{ZoneSize: 64 << 10})
	m, err := p.PutMblock(ctx, api.AllocOptions{}, []byte("content"))
	if err != nil {
		b.Fatal(err)
	}
	w, err := dialWire(d.Socket, poolName)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(w.end)
	return w, m.ID()
}
