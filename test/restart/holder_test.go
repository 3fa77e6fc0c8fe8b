package restart

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/test/daemon"
)

// holds are the ways in which a client may keep a daemon from ending. Each begins
// and returns; what it began goes on until the process ends. It panics when it cannot
// begin.
var holds = map[string]func(h *hold){
	"full rings":       (*hold).fullRings,
	"busy rings":       (*hold).busyRings,
	"unread answers":   (*hold).unreadAnswers,
	"open logs":        (*hold).openLogs,
	"uncommitted":      (*hold).uncommitted,
	"endless lists":    (*hold).endlessLists,
	"event followers":  (*hold).eventFollowers,
	"attackers":        (*hold).attackers,
	"half a handshake": (*hold).halfHandshake,
}

// hold is a client that keeps what it has.
type hold struct {
	socket string
	ctx    context.Context
	c      *client.Conn
	p      api.Pool
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func try[T any](v T, err error) T {
	must(err)
	return v
}

// holder is the life of a holder: it says that it holds what it is to hold by
// making its journal.
func holder(r *role) {
	ctx := context.Background()
	h := &hold{socket: r.Socket, ctx: ctx}
	h.c = try(client.Dial(ctx, client.Options{Socket: r.Socket, Reconnect: -1}))
	h.p = try(h.c.OpenPool(ctx, poolName))
	for _, what := range r.Hold {
		holds[what](h)
	}
	must(os.WriteFile(r.Journal, nil, 0o600))
	_, _ = io.Copy(io.Discard, os.Stdin) // its end is what is waited for
}

// queues makes queues that are full of reads, which somebody may reap.
func (h *hold) queues(reap bool) {
	const depth = 64
	m := try(h.p.AllocMblock(h.ctx, api.AllocOptions{Capacity: 1 << 20}))
	try(m.Write(h.ctx, make([]byte, 1<<20)))
	must(m.Commit(h.ctx))
	for range 2 {
		q := try(h.c.NewQueue(h.ctx, client.QueueOptions{Depth: depth}))
		var bufs []*client.Buffer
		for range depth {
			bufs = append(bufs, try(h.c.Borrow(h.ctx, 64<<10)))
		}
		for i, b := range bufs {
			must(q.Read(m, b, int64(i%16)<<16, uint64(i)))
		}
		q.Submit()
		if !reap {
			continue
		}
		go func() {
			done := make([]client.Completion, depth)
			for {
				n, err := q.Reap(h.ctx, 1, done)
				if err != nil {
					return
				}
				for _, c := range done[:n] {
					if c.Err != nil || q.Read(m, bufs[c.User], 0, c.User) != nil {
						return
					}
				}
				q.Submit()
			}
		}()
	}
}

func (h *hold) fullRings() { h.queues(false) }
func (h *hold) busyRings() { h.queues(true) }

// unreadAnswers asks without reading until the daemon takes no more, and goes on.
func (h *hold) unreadAnswers() {
	for range 8 {
		w := try(daemon.Greeted(h.socket))
		must(w.Conn.SetDeadline(time.Time{}))
		go func() {
			for tag := uint64(2); ; tag++ {
				if w.Send(ioctl.Header{Op: ioctl.OpVersion, Tag: tag}, &ioctl.Empty{}) != nil {
					return
				}
			}
		}()
	}
}

// openLogs has logs open for append, with records that were not synced.
func (h *hold) openLogs() {
	for range 8 {
		l := try(h.p.AllocMlog(h.ctx, api.AllocOptions{Capacity: 256 << 10}))
		must(l.Commit(h.ctx))
		a := try(l.OpenAppend(h.ctx))
		for range 16 {
			try(a.Append(h.ctx, make([]byte, 1000), false))
		}
	}
}

func (h *hold) uncommitted() {
	for range 32 {
		m := try(h.p.AllocMblock(h.ctx, api.AllocOptions{Capacity: 64 << 10}))
		try(m.Write(h.ctx, make([]byte, 4096)))
	}
}

// endlessLists reads lists of objects, clients and handles again and again, and has
// others that it does not read to their end.
func (h *hold) endlessLists() {
	w := try(daemon.Greeted(h.socket))
	pool := try(w.OpenPool(poolName))
	for range 16 {
		try(w.Open(ioctl.OpListOpen, &ioctl.ListOpen{Pool: pool}))
	}
	go func() {
		for {
			for _, err := range h.p.Objects(h.ctx, api.Filter{}) {
				if err != nil {
					return
				}
			}
		}
	}()
	go func() {
		for {
			for _, err := range h.c.Handles(h.ctx, "", 0) {
				if err != nil {
					return
				}
			}
		}
	}()
}

func (h *hold) eventFollowers() {
	for range 32 {
		go func() {
			for _, err := range h.c.Events(h.ctx, client.EventOptions{Follow: true}) {
				if err != nil && !errors.As(err, new(*client.EventGap)) {
					return
				}
			}
		}()
	}
}

// attackers break the protocol and connect without end.
func (h *hold) attackers() {
	for i := range 4 {
		go func() {
			for {
				w, err := daemon.DialRaw(h.socket)
				if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
					return
				}
				if err != nil {
					continue
				}
				switch i {
				case 0: // nothing but the connection
				case 1:
					_, _ = w.Conn.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
				case 2:
					_ = w.Send(ioctl.Header{Op: ioctl.OpHello}, daemon.Hello())
					_ = w.Send(ioctl.Header{Op: ioctl.OpMblockRead, Tag: 1}, &ioctl.MblockRead{Mblock: 1 << 40})
					_, _ = w.Conn.Write(make([]byte, 60_000))
				default:
					_ = w.Send(ioctl.Header{Op: ioctl.OpStat, Tag: 1}, &ioctl.StatAsk{})
				}
				_ = w.Close()
			}
		}()
	}
}

// halfHandshake connects and says nothing.
func (h *hold) halfHandshake() {
	for range 16 {
		try(net.Dial("unixpacket", h.socket))
	}
}
