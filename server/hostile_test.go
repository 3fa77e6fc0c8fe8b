package server

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
)

// message encodes one.
func message(t *testing.T, op ioctl.Op, tag uint64, m ioctl.Message) []byte {
	t.Helper()
	b, err := ioctl.Append(nil, ioctl.Header{Op: op, Tag: tag}, m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// An unknown operation is refused and the session goes on.
//
// proves S43
func TestUnknownOperation(t *testing.T) {
	r := newRig(t)
	w := r.raw()
	for _, op := range []ioctl.Op{0, 29, 95, 96, 1000, 65535} {
		b := message(t, ioctl.OpVersion, 9, &ioctl.Empty{})
		b[4], b[5] = byte(op), byte(op>>8)
		if _, err := w.conn.Write(b); err != nil {
			t.Fatal(err)
		}
		h, body, err := w.recv()
		if err != nil || h.Op != op || h.Tag != 9 || h.Flags != ioctl.FlagReply|ioctl.FlagError {
			t.Fatalf("operation %d: %+v, %v", op, h, err)
		}
		var e ioctl.Error
		if err := ioctl.Decode(&e, body); err != nil || e.Code != api.ENOTSUP {
			t.Errorf("operation %d: %v, %v", op, e.API(), err)
		}
	}
	w.ok(ioctl.OpVersion, &ioctl.Empty{})
}

// A breach of the protocol ends the session that did it and nobody else's, and
// what it held is released.
//
// proves S43
func TestBreaches(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.HelloTimeout = time.Hour })
	good := message(t, ioctl.OpVersion, 9, &ioctl.Empty{})
	change := func(i int, v byte) []byte {
		b := bytes.Clone(good)
		b[i] = v
		return b
	}
	longer := append(bytes.Clone(good), 0)
	longer[0]++
	open := message(t, ioctl.OpPoolOpen, 9, &ioctl.PoolName{Name: "data"})
	shorter := bytes.Clone(open[:len(open)-1])
	shorter[0]--
	write := message(t, ioctl.OpMblockWrite, 9, &ioctl.MblockWrite{Data: ioctl.InlinePayload([]byte("x"))})
	write[ioctl.HeaderSize+16+8] = 2 // says there are two bytes
	reply, err := ioctl.Append(nil, ioctl.Header{Op: ioctl.OpVersion, Flags: ioctl.FlagReply}, &ioctl.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	bystander := r.open(r.dial())
	for name, b := range map[string][]byte{
		"one byte":            {1},
		"half a header":       good[:12],
		"zeros":               make([]byte, ioctl.HeaderSize),
		"ones":                bytes.Repeat([]byte{255}, 300),
		"size too large":      change(0, 255),
		"size too small":      change(0, 1),
		"unknown flag":        change(7, 1),
		"a reply":             reply,
		"another version":     change(20, 2),
		"version 0":           change(20, 0),
		"reserved byte":       change(22, 1),
		"body too long":       longer,
		"body too short":      shorter,
		"string too long":     message(t, ioctl.OpPoolOpen, 9, &ioctl.PoolName{Name: strings.Repeat("x", ioctl.MaxName)})[:ioctl.HeaderSize+9],
		"data that is absent": write,
		"hello again":         message(t, ioctl.OpHello, 9, &ioctl.Hello{MinVersion: 1, MaxVersion: 1}),
		"as long as possible": bytes.Repeat([]byte{7}, ioctl.MaxMessage),
		"longer than that":    bytes.Repeat([]byte{7}, ioctl.MaxMessage+1),
		"much longer":         bytes.Repeat([]byte{7}, 3*ioctl.MaxMessage),
	} {
		t.Run(name, func(t *testing.T) {
			w := r.raw()
			w.t = t
			w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: w.openPool(), Options: api.AllocOptions{Capacity: 1}})
			if _, err := w.conn.Write(b); err != nil {
				t.Fatal(err)
			}
			h, body, err := w.recv()
			if err == nil {
				var e ioctl.Error
				if err := ioctl.Decode(&e, body); err != nil || h.Flags&ioctl.FlagError == 0 || e.Code != api.EPROTO {
					t.Errorf("%+v, %v: %v", h, err, e.API())
				}
			} else if !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("no answer but %v", err)
			}
			w.ended()
			r.eventually("the mblock is gone", func(p *fakePool) bool { return len(p.objects) == 0 })
			if _, err := bystander.Info(t.Context()); err != nil {
				t.Errorf("somebody else: %v", err)
			}
		})
	}
	t.Run("before hello", func(t *testing.T) {
		w := r.rawDial()
		if _, err := w.conn.Write(good); err != nil {
			t.Fatal(err)
		}
		w.ended()
	})
	t.Run("nothing", func(t *testing.T) {
		w := r.raw()
		if _, _, err := w.conn.WriteMsgUnix(nil, nil, nil); err != nil {
			t.Fatal(err)
		}
		w.ended()
	})
}

func TestVersions(t *testing.T) {
	r := newRig(t)
	w := r.rawDial()
	_, err := w.ask(ioctl.OpHello, &ioctl.Hello{MinVersion: 2, MaxVersion: 9})
	want(t, api.ENOTSUP, err)
	// It may say hello again in a language that is spoken.
	reply, ok := w.ok(ioctl.OpHello, &ioctl.Hello{MinVersion: 1, MaxVersion: 9, Features: ^uint64(0)}).(*ioctl.HelloReply)
	if !ok || reply.Version != 1 || reply.Features != ioctl.Features || reply.MaxRequests == 0 {
		t.Errorf("%+v", reply)
	}
}

// Who does not know what an error may have beyond the first version gets errors as
// they were then.
func TestErrorsOfOldClients(t *testing.T) {
	in := &api.Error{Code: api.EDQUOT, Refusal: &api.Refusal{Class: "c", Owner: "o", Used: 1, Asked: 2, Limit: 2}}
	for _, features := range []uint64{0, ioctl.FeatureRefusal} {
		s := &session{}
		s.features.Store(features)
		var out ioctl.Error
		if err := ioctl.Decode(&out, s.encode(nil, ioctl.OpMblockAlloc, 1, nil, in)[ioctl.HeaderSize:]); err != nil {
			t.Fatal(err)
		}
		if told := out.Refusal != nil; told != (features != 0) || told && *out.Refusal != *in.Refusal {
			t.Errorf("features %x: %+v", features, out.Refusal)
		}
	}
}

// Descriptors that come with a message are never the daemon's.
//
// proves S43
func TestDescriptorsRefused(t *testing.T) {
	r := newRig(t)
	before := len(descriptors())
	for range 20 {
		w := r.raw()
		f, err := os.Open("/dev/null")
		if err != nil {
			t.Fatal(err)
		}
		fds := []int{int(f.Fd()), int(f.Fd()), int(f.Fd())}
		if _, _, err := w.conn.WriteMsgUnix(message(t, ioctl.OpVersion, 1, &ioctl.Empty{}), unix.UnixRights(fds...), nil); err != nil {
			t.Fatal(err)
		}
		f.Close()
		w.ended()
		w.conn.Close()
	}
	// The sessions' own are closed with them.
	for end := time.Now().Add(inVain); len(descriptors()) > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d descriptors, there were %d", len(descriptors()), before)
		}
	}
}

// Whatever a client sends, others are served and nothing is left behind.
//
// proves S43
func TestRandomMessages(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	r := newRig(t)
	bystander := r.open(r.dial())
	for range 150 {
		w := r.raw()
		pool := w.openPool()
		log := w.opened(ioctl.OpMlogAlloc, &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 1 << 20}})
		for range 1 + rng.IntN(30) {
			var b []byte
			if op := ioctl.Op(rng.IntN(ioctl.NumOps)); op.Valid() && op != ioctl.OpHello && rng.IntN(8) > 0 {
				// A body of the right form with handles that may be real.
				m := op.NewRequest()
				if op == ioctl.OpCredit { // which is of some kind
					m = &ioctl.CreditMessage{Message: credit.Message{Kind: credit.Kind(1 + rng.IntN(18)), Session: 1}}
				}
				b = message(t, op, rng.Uint64N(4), m)
				if len(b) >= ioctl.HeaderSize+8 && rng.IntN(2) == 0 {
					h := []ioctl.Handle{pool, log, log + 1}[rng.IntN(3)]
					for i := range 8 {
						b[ioctl.HeaderSize+i] = byte(h >> (8 * i))
					}
				}
			} else {
				b = make([]byte, 1+rng.IntN(200))
				for i := range b {
					b[i] = byte(rng.Uint32())
				}
			}
			for range rng.IntN(3) {
				b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
			}
			if _, err := w.conn.Write(b); err != nil {
				break // it was ended
			}
		}
		w.conn.Close()
		if _, err := bystander.Info(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
}

// A tag in use cannot be used again; one that was answered can.
func TestTags(t *testing.T) {
	r := newRig(t)
	w := r.raw()
	for range 1000 {
		w.tag = 5
		w.ok(ioctl.OpVersion, &ioctl.Empty{})
	}
	pool := w.openPool()
	entered := make(chan struct{}, 2)
	r.b.hook(func(ctx context.Context, _ string) error {
		entered <- struct{}{}
		<-ctx.Done()
		return nil
	})
	w.send(ioctl.Header{Op: ioctl.OpPoolShow, Tag: 50}, &ioctl.PoolShow{Pool: pool})
	<-entered
	w.send(ioctl.Header{Op: ioctl.OpPoolShow, Tag: 50}, &ioctl.PoolShow{Pool: pool})
	w.ended()
}

// A daemon that stops is not asked for anything any more, but what it was asked
// for it finishes.
func TestShutdownDrains(t *testing.T) {
	r := newRig(t)
	c := r.dial()
	p := r.open(c)
	entered, hold := make(chan struct{}), make(chan struct{})
	r.b.hook(func(_ context.Context, op string) error {
		if op == "pool info" {
			close(entered)
			<-hold
		}
		return nil
	})
	answer := make(chan error, 1)
	go func() {
		_, err := p.Info(context.Background())
		answer <- err
	}()
	<-entered
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		ctx, cancel := context.WithTimeout(context.Background(), inVain)
		defer cancel()
		if err := r.srv.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	}()
	for {
		conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: r.socket, Net: "unixpacket"})
		if err != nil {
			break // it does not listen any more
		}
		conn.Close()
	}
	close(hold)
	if err := <-answer; err != nil {
		t.Errorf("in flight: %v", err)
	}
	<-stopped
	if _, err := p.Info(context.Background()); !errors.Is(err, api.ECONNRESET) {
		t.Errorf("afterwards: %v", err)
	}
}

// Requests that do not end by themselves are cancelled in time.
func TestShutdownCancels(t *testing.T) {
	r := newRig(t)
	c := r.dial()
	p := r.open(c)
	entered := make(chan struct{})
	r.b.hook(func(ctx context.Context, op string) error {
		if op == "pool info" {
			close(entered)
			<-ctx.Done()
		}
		return nil
	})
	answer := make(chan error, 1)
	go func() {
		_, err := p.Info(context.Background())
		answer <- err
	}()
	<-entered
	ctx, cancel := context.WithTimeout(context.Background(), inVain)
	defer cancel()
	if err := r.srv.Shutdown(&hurried{Context: ctx, parts: 1}); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if err := <-answer; !errors.Is(err, api.ECANCELED) && !errors.Is(err, api.ECONNRESET) {
		t.Errorf("in flight: %v", err)
	}
}
