package hostile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/test/daemon"
)

// attack is one kind of hostility.
type attack struct {
	name    string
	run     func(a *attacker) // once; it is called again until the attack is over
	clients int               // that run it at the same time
	// asRoot says that it needs rights, and leaves pools alone.
	asRoot bool
}

// attacker is one hostile client of several in a process.
type attacker struct {
	ctx      context.Context
	socket   string
	poolName string
	rng      *rand.Rand
	sent     *atomic.Int64 // messages
	made     *atomic.Int64 // sessions
	buf      []byte
	patience time.Duration // with a call

	block, log, mdc layout.ObjectID // that it keeps for its next session
	puts            int             // mblocks that it has asked to be put, which stay
}

func newAttacker(ctx context.Context, socket string, seed, number uint64, sent, made *atomic.Int64) *attacker {
	return &attacker{
		ctx: ctx, socket: socket, poolName: poolName, rng: rand.New(rand.NewPCG(seed, number)), sent: sent, made: made,
		buf: make([]byte, 4*ioctl.MaxMessage), patience: soon,
	}
}

// nobody is the user that attackers are.
const nobody = 65534

// attackerMain makes one attack until its standard input ends, and says then
// how much it did.
func attackerMain() {
	var name string
	var seed uint64
	check2(fmt.Sscan(os.Getenv(envArgs), &name, &seed))
	var x attack
	for _, y := range attacks {
		if y.name == name {
			x = y
		}
	}
	if os.Geteuid() == 0 && !x.asRoot {
		check(syscall.Setgroups(nil))
		check(syscall.Setgid(nobody))
		check(syscall.Setuid(nobody))
	}
	ctx, cancel := context.WithCancel(context.Background())
	var sent, made atomic.Int64
	var wg sync.WaitGroup
	for i := range x.clients {
		a := newAttacker(ctx, os.Getenv(envSocket), seed, uint64(i), &sent, &made)
		wg.Go(func() {
			for a.on() {
				x.run(a)
			}
		})
	}
	fmt.Println("begun")
	_, _ = io.Copy(io.Discard, os.Stdin) // it ends all the same
	cancel()
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(soon): // a sender that the daemon does not hear
	}
	fmt.Println(sent.Load(), made.Load())
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func check2(_ int, err error) { check(err) }

// on says whether the attack goes on.
func (a *attacker) on() bool { return a.ctx.Err() == nil }

// soon is a deadline for what may never happen.
const soon = 500 * time.Millisecond

// dial connects without a word. It returns nil if it cannot, after a while.
func (a *attacker) dial() *daemon.Raw {
	w, err := daemon.DialRaw(a.socket)
	if err != nil {
		time.Sleep(5 * time.Millisecond) // the daemon's backlog is full
		return nil
	}
	a.made.Add(1)
	_ = w.Conn.SetDeadline(time.Now().Add(a.patience)) // then the next call fails
	return w
}

// greet connects and says hello, or returns nil. Who is patient tries again: where
// processors are busy it may be late.
func (a *attacker) greet() *daemon.Raw {
	for end := time.Now().Add(a.patience - soon); ; {
		if w := a.dial(); w != nil {
			if _, err := a.ask(w, ioctl.OpHello, daemon.Hello()); err == nil {
				return w
			}
			w.Conn.Close()
			time.Sleep(5 * time.Millisecond) // there are sessions enough
		}
		if !time.Now().Before(end) || !a.on() {
			return nil
		}
	}
}

// open makes a session with the pool open, or returns nil.
func (a *attacker) open() (*daemon.Raw, ioctl.Handle) {
	w := a.greet()
	if w == nil {
		return nil, 0
	}
	a.sent.Add(1)
	h, err := w.OpenPool(a.poolName)
	if err != nil {
		w.Conn.Close()
		return nil, 0
	}
	return w, h
}

func (a *attacker) ask(w *daemon.Raw, op ioctl.Op, m ioctl.Message) (ioctl.Message, error) {
	a.sent.Add(1)
	return w.Ask(op, m)
}

// give makes a request that gives a handle, 0 if it does not.
func (a *attacker) give(w *daemon.Raw, op ioctl.Op, m ioctl.Message) ioctl.Handle {
	a.sent.Add(1)
	h, err := w.Open(op, m)
	if err != nil {
		return 0
	}
	return h
}

// throw sends bytes as they are, with control data, and says whether the
// daemon's socket took them.
func (a *attacker) throw(w *daemon.Raw, b, oob []byte) bool {
	a.sent.Add(1)
	_, _, err := w.Conn.WriteMsgUnix(b, oob, nil)
	return err == nil
}

// drain reads answers as long as there are any at once.
func (a *attacker) drain(w *daemon.Raw) {
	_ = w.Conn.SetReadDeadline(time.Now().Add(time.Millisecond)) // then Read fails
	for {
		if _, err := w.Conn.Read(a.buf); err != nil {
			break
		}
	}
	_ = w.Conn.SetDeadline(time.Now().Add(a.patience)) // then the next call fails
}

// message encodes a request of an operation, known or not.
func (a *attacker) message(op ioctl.Op, tag uint64, m ioctl.Message) []byte {
	b, err := ioctl.Append(nil, ioctl.Header{Op: op, Tag: tag}, m)
	check(err)
	return b
}

// blank encodes a request of an operation that asks for nothing in particular.
func (a *attacker) blank(op ioctl.Op, tag uint64) []byte {
	m := op.NewRequest()
	if c, ok := m.(*ioctl.CreditMessage); ok {
		c.Message.Kind = credit.Hello // it must be of some kind
	}
	return a.message(op, tag, m)
}

// bytes makes n random bytes.
func (a *attacker) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(a.rng.Uint32())
	}
	return b
}

// op draws an operation, now and then one that there is not.
func (a *attacker) op() ioctl.Op {
	if a.rng.IntN(20) == 0 {
		return ioctl.Op(a.rng.Uint32())
	}
	return ioctl.Op(a.rng.IntN(ioctl.NumOps))
}

// strangerMain has another's socket as descriptor 3 and talks on it.
func strangerMain() {
	for tag := uint64(1 << 40); ; tag++ {
		b, err := ioctl.Append(nil, ioctl.Header{Op: ioctl.OpVersion, Tag: tag}, &ioctl.Empty{})
		check(err)
		if err := unix.Sendmsg(3, b, nil, nil, unix.MSG_NOSIGNAL); err != nil {
			if strings.Contains(err.Error(), "resource") || errors.Is(err, unix.EINTR) {
				continue
			}
			return
		}
	}
}
