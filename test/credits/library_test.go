package credits

import (
	"context"
	"fmt"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/layout"
)

// library is a session of the client library that does all that it can in a ring, and
// takes credits when it is told to.
type library struct {
	c    *client.Conn
	p    api.Pool
	q    *client.Queue
	buf  *client.Buffer
	m    api.Mblock // that was found, or allocated
	app  api.Appender
	hold *client.Hold
	made int // records that were acknowledged
}

func newLibrary(socket string) (*library, error) {
	c, err := client.Dial(ctx, client.Options{Socket: socket, Credits: &client.CreditOptions{}})
	if err != nil {
		return nil, err
	}
	l := &library{c: c}
	if l.p, err = c.OpenPool(ctx, poolName); err != nil {
		return nil, err
	}
	if l.q, err = c.NewQueue(ctx, client.QueueOptions{Depth: 8}); err != nil {
		return nil, err
	}
	l.buf, err = c.Borrow(ctx, 4096)
	return l, err
}

// reap waits for the one operation that was put in.
func (l *library) reap(err error) (client.Completion, error) {
	if err != nil {
		return client.Completion{}, err
	}
	l.q.Submit()
	out := make([]client.Completion, 1)
	if _, err := l.q.Reap(context.Background(), 1, out); err != nil {
		return out[0], err
	}
	return out[0], out[0].Err
}

func (l *library) open(id layout.ObjectID) error {
	if id.Kind() == layout.KindMblock {
		var err error
		l.m, err = l.p.Mblock(ctx, id)
		return err
	}
	log, err := l.p.Mlog(ctx, id)
	if err == nil {
		l.app, err = log.OpenAppend(ctx)
	}
	return err
}

func (l *library) alloc() (layout.ObjectID, error) {
	c, err := l.reap(l.q.Alloc(l.p, api.AllocOptions{Capacity: 4096}, 0))
	if err != nil {
		return 0, err
	}
	l.m = c.Mblock
	return l.m.ID(), nil
}

func (l *library) append(record string) error {
	if err := l.buf.SetLen(len(record)); err != nil {
		return err
	}
	copy(l.buf.Bytes(), record)
	_, err := l.reap(l.q.Append(l.app, l.buf, true, 0))
	return err
}

// stream appends records with numbers until one is refused.
func (l *library) stream() error {
	for {
		if err := l.append(streamed(l.made)); err != nil {
			return err
		}
		l.made++
	}
}

func streamed(i int) string { return fmt.Sprintf("of the first %d", i) }

func (l *library) do(o *order, r *outcome) error {
	var err error
	switch o.Verb {
	case "ring acquire":
		l.hold, err = l.p.(client.Credits).AcquireCredit(ctx, o.ID, client.CreditRequest{Modes: o.Mode})
		if err == nil {
			r.Token = l.hold.Token()
		}
	case "ring release":
		err = l.hold.Release()
	case "ring open":
		return l.open(o.ID)
	case "ring append":
		return l.append(string(o.Data))
	case "ring stream":
		err = l.stream()
		r.N = l.made
	case "ring alloc":
		r.ID, err = l.alloc()
	case "ring write":
		err = l.buf.SetLen(4096)
		if err == nil {
			_, err = l.reap(l.q.Write(l.m, l.buf, 0))
		}
	case "ring commit":
		_, err = l.reap(l.q.Commit(l.m, 0))
	case "ring read":
		err = l.buf.SetLen(1)
		if err == nil {
			_, err = l.reap(l.q.Read(l.m, l.buf, 0, 0))
		}
	default:
		err = fmt.Errorf("no verb %q", o.Verb)
	}
	return err
}
