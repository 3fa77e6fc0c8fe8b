package objectcache

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/test/daemon"
)

// lends starts a daemon with a pool in which there is an mblock.
func lends(b *testing.B) (*daemon.Daemon, layout.ObjectID) {
	b.Helper()
	drive := daemon.Drive(b, 256<<20)
	d := daemon.Start(b, mpoold, daemon.Options{})
	_, p := d.Pool("data", drive, api.CreateOptions{})
	m, err := p.PutMblock(b.Context(), api.AllocOptions{}, make([]byte, 64<<10))
	if err != nil {
		b.Fatal(err)
	}
	if err := m.Put(); err != nil {
		b.Fatal(err)
	}
	return d, m.ID()
}

// borrows dials and opens the pool.
func borrows(b *testing.B, d *daemon.Daemon, o client.CreditOptions) (*client.Conn, api.Pool) {
	b.Helper()
	c, err := client.Dial(b.Context(), client.Options{Socket: d.Socket, Credits: &o})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := c.Close(); err != nil {
			b.Error(err)
		}
	})
	p, err := c.OpenPool(b.Context(), "data")
	if err != nil {
		b.Fatal(err)
	}
	return c, p
}

func take(b *testing.B, p api.Pool, id layout.ObjectID, m client.CreditModes) {
	b.Helper()
	h, err := p.(client.Credits).AcquireCredit(b.Context(), id, client.CreditRequest{Modes: m})
	if err == nil {
		err = h.Release()
	}
	if err != nil {
		b.Fatal(err)
	}
}

// BenchmarkAcquire acquires and releases a credit that nobody else wants, and that is
// not cached: the daemon is asked each time. The bound is 20 µs.
func BenchmarkAcquire(b *testing.B) {
	d, id := lends(b)
	_, p := borrows(b, d, client.CreditOptions{Cached: -1})
	take(b, p, id, client.CreditWrite)
	done := processorTime(b, d)
	for b.Loop() {
		take(b, p, id, client.CreditWrite)
	}
	done()
}

// processorTime has what is returned report how much processor time both ends have
// taken since.
func processorTime(b *testing.B, d *daemon.Daemon) func() {
	b.Helper()
	here := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(unix.TimevalToNsec(u.Utime) + unix.TimevalToNsec(u.Stime))
	}
	there := func() time.Duration {
		u, err := daemon.UsageOf(d.PID)
		if err != nil {
			b.Fatal(err)
		}
		return u.Processor
	}
	h, t := here(), there()
	return func() {
		b.ReportMetric(float64((here()-h).Nanoseconds())/1e3/float64(b.N), "client-µs/op")
		b.ReportMetric(float64((there()-t).Nanoseconds())/1e3/float64(b.N), "daemon-µs/op")
	}
}

// BenchmarkOpen opens an mblock and gives it up, under a credit that is cached and
// without.
func BenchmarkOpen(b *testing.B) {
	for _, cached := range []bool{false, true} {
		name := "asked"
		if cached {
			name = "cached"
		}
		b.Run(name, func(b *testing.B) {
			d, id := lends(b)
			c, p := d.Dial(), api.Pool(nil)
			var err error
			if cached {
				c, p = borrows(b, d, client.CreditOptions{})
			} else if p, err = c.OpenPool(b.Context(), "data"); err != nil {
				b.Fatal(err)
			}
			open := func() {
				m, err := p.Mblock(b.Context(), id)
				if err == nil {
					err = m.Put()
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			open()
			sent := c.CreditStats().Messages
			done := processorTime(b, d)
			for b.Loop() {
				open()
			}
			done()
			if n := c.CreditStats().Messages - sent; n != 0 {
				b.Errorf("%d messages were sent", n)
			}
		})
	}
}

// BenchmarkRevoke has a credit called back that 1,000 connections have cached. The
// bound is 100 ms.
func BenchmarkRevoke(b *testing.B) {
	d, id := lends(b)
	_, writer := borrows(b, d, client.CreditOptions{Cached: -1})
	var readers []api.Pool
	for range 1000 {
		_, p := borrows(b, d, client.CreditOptions{})
		readers = append(readers, p)
	}
	for b.Loop() {
		b.StopTimer()
		for _, p := range readers {
			take(b, p, id, client.CreditRead)
		}
		b.StartTimer()
		take(b, writer, id, client.CreditWrite)
	}
}

// BenchmarkRead reads 4 KiB of an mblock at a time: without credits, under one, and
// from the cache of objects.
func BenchmarkRead(b *testing.B) {
	for name, o := range map[string]*client.CreditOptions{"plain": nil, "credit": {}, "cached": {Bytes: 1 << 20}} {
		b.Run(name, func(b *testing.B) {
			d, id := lends(b)
			var p api.Pool
			var err error
			if o != nil {
				_, p = borrows(b, d, *o)
			} else if p, err = d.Dial().OpenPool(b.Context(), "data"); err != nil {
				b.Fatal(err)
			}
			m, err := p.Mblock(b.Context(), id)
			if err != nil {
				b.Fatal(err)
			}
			buf := make([]byte, 4096)
			n := int64(0)
			read := func() {
				if _, err := m.ReadAt(buf, n*5%16*4096); err != nil {
					b.Fatal(err)
				}
				n++
			}
			for range 1000 {
				read() // the ring is there, and what is to be cached
			}
			done := processorTime(b, d)
			for b.Loop() {
				read()
			}
			done()
			if err := m.Put(); err != nil {
				b.Error(err)
			}
		})
	}
}
