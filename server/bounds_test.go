package server

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/ioctl"
)

// A client that does not read its answers holds up itself alone, and its end
// releases all the same.
//
// proves S43
func TestAnswersNotRead(t *testing.T) {
	r := newRig(t)
	w := r.raw()
	pool := w.openPool()
	m := w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 1 << 20}})
	w.ok(ioctl.OpMblockWrite, &ioctl.MblockWrite{Mblock: m, Data: ioctl.InlinePayload(make([]byte, ioctl.MaxInline))})
	if err := w.conn.SetWriteDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	sent := 0
	for {
		b := message(t, ioctl.OpMblockRead, uint64(100+sent), &ioctl.MblockRead{Mblock: m, Into: ioctl.Window{Length: ioctl.MaxInline}})
		if _, err := w.conn.Write(b); err != nil {
			break
		}
		sent++
		if sent > 100000 {
			t.Fatal("the daemon takes requests without end")
		}
	}
	if _, err := r.open(r.dial()).Info(context.Background()); err != nil {
		t.Errorf("somebody else: %v", err)
	}
	w.conn.Close()
	r.eventually("the mblock is gone", func(p *fakePool) bool { return len(p.objects) == 0 })
}

// No more requests of a session are begun than it may have in flight.
//
// proves S42
func TestRequestsBounded(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.Requests = 8 })
	w := r.raw()
	pool := w.openPool()
	var began atomic.Int32
	hold := make(chan struct{})
	r.b.hook(func(ctx context.Context, _ string) error {
		began.Add(1)
		select {
		case <-hold:
		case <-ctx.Done():
		}
		return nil
	})
	for i := range 30 {
		w.send(ioctl.Header{Op: ioctl.OpPoolShow, Tag: uint64(1000 + i)}, &ioctl.PoolShow{Pool: pool})
	}
	for end := time.Now().Add(inVain); began.Load() < 8; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d began", began.Load())
		}
	}
	// Another session is not held up by this one's.
	w2 := r.raw()
	w2.ok(ioctl.OpVersion, &ioctl.Empty{})
	if n := began.Load(); n != 8 {
		t.Errorf("%d requests in flight, the limit is 8", n)
	}
	close(hold)
	seen := map[uint64]bool{}
	for range 30 {
		h, _, err := w.recv()
		if err != nil || h.Flags != ioctl.FlagReply || seen[h.Tag] {
			t.Fatalf("%+v, %v", h, err)
		}
		seen[h.Tag] = true
	}
}

// A client that leaves while all its slots are taken is noticed, although
// nobody reads its socket and none of its requests ends by itself.
//
// proves S33
func TestLeavesWithAllSlotsTaken(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.Requests = 4 })
	w := r.raw()
	pool := w.openPool()
	w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 1}})
	entered, hold := make(chan struct{}, 10), make(chan struct{})
	r.b.hook(func(_ context.Context, op string) error {
		if op == "pool info" {
			entered <- struct{}{}
			<-hold
		}
		return nil
	})
	for i := range 6 {
		w.send(ioctl.Header{Op: ioctl.OpPoolShow, Tag: uint64(1000 + i)}, &ioctl.PoolShow{Pool: pool})
	}
	for range 4 {
		<-entered
	}
	w.conn.Close()
	if e := r.nextReaped(1); e.DetectedBy != ioctl.SourceSocket || e.Aborted != 1 {
		t.Errorf("%+v", e)
	}
	close(hold)
}

// Whatever clients do, the log does not grow with it without a bound.
func TestComplaintsBounded(t *testing.T) {
	r := newRig(t)
	for range 3 * complaintsMost {
		w := r.raw()
		w.send(ioctl.Header{Op: ioctl.OpHello, Tag: 9}, &ioctl.Hello{MinVersion: 1, MaxVersion: 1})
		w.ended()
	}
	if n := strings.Count(r.log.String(), "client broke the protocol"); n > 2*complaintsMost {
		t.Errorf("%d lines in the log", n)
	}
	c := &complaintCounts{byMessage: map[string]*complaintCount{}}
	now := time.Unix(1000, 0)
	for i := range 100 {
		if ok, held := c.pass("x", now); ok != (i < complaintsMost) || held != 0 {
			t.Fatalf("line %d: %v, %d", i, ok, held)
		}
	}
	if ok, held := c.pass("y", now); !ok || held != 0 {
		t.Errorf("another message: %v, %d", ok, held)
	}
	if ok, held := c.pass("x", now.Add(complaintsWhile)); !ok || held != 100-complaintsMost {
		t.Errorf("later: %v, %d", ok, held)
	}
}

func TestHelloTimeout(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.HelloTimeout = 50 * time.Millisecond })
	silent, greeted := r.rawDial(), r.rawDial()
	for { // it may be late as well
		b := message(t, ioctl.OpHello, 1, &ioctl.Hello{MinVersion: 1, MaxVersion: 1})
		if _, err := greeted.conn.Write(b); err == nil {
			if h, _, err := greeted.recv(); err == nil && h.Flags&ioctl.FlagError == 0 {
				break
			}
		}
		greeted = r.rawDial()
	}
	silent.ended()
	greeted.ok(ioctl.OpVersion, &ioctl.Empty{})
	time.Sleep(100 * time.Millisecond) // longer than the limit, which is over
	greeted.ok(ioctl.OpVersion, &ioctl.Empty{})
}

func TestSessionsBounded(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.Sessions = 2 })
	a := r.raw()
	r.raw()
	_, err := client.Dial(context.Background(), client.Options{Socket: r.socket})
	want(t, api.EAGAIN, err)
	a.conn.Close()
	for end := time.Now().Add(inVain); ; time.Sleep(time.Millisecond) {
		c, err := client.Dial(context.Background(), client.Options{Socket: r.socket})
		if err == nil {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			return
		}
		if !errors.Is(err, api.EAGAIN) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func TestHandlesBounded(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.Handles = 3 })
	w := r.raw()
	pool := w.openPool()
	alloc := &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 1}}
	a := w.opened(ioctl.OpMblockAlloc, alloc)
	w.opened(ioctl.OpMblockAlloc, alloc)
	for _, ask := range []struct {
		op ioctl.Op
		m  ioctl.Message
	}{
		{ioctl.OpMblockAlloc, alloc},
		{ioctl.OpMlogAlloc, alloc},
		{ioctl.OpObjectGet, &ioctl.Target{Handle: a}},
		{ioctl.OpPoolOpen, &ioctl.PoolName{Name: "data"}},
		{ioctl.OpListOpen, &ioctl.ListOpen{Pool: pool}},
	} {
		_, err := w.ask(ask.op, ask.m)
		want(t, api.ENOMEM, err)
	}
	r.eventually("what got no handle is gone", func(p *fakePool) bool { return len(p.objects) == 2 })
	w.ok(ioctl.OpClose, &ioctl.Target{Handle: a})
	w.opened(ioctl.OpMblockAlloc, alloc)
}
