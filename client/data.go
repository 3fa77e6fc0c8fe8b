package client

import (
	"context"
	"errors"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

// chunk is how much of a longer transfer goes in one request, in bytes.
const chunk = 1 << 20

// release drops a region; nil is none.
func (r *region) release() {
	if r != nil {
		r.drop()
	}
}

// load puts data where the daemon will find it and says in payload where that
// is. The region, if it needs one, is the caller's to release. Without an
// arena, data that is too long for a message is ENOMEM.
func (l *link) load(ctx context.Context, op ioctl.Op, p []byte, payload *ioctl.Payload) (*region, error) {
	if len(p) <= ioctl.MaxInline {
		*payload = ioctl.InlinePayload(p)
		return nil, nil
	}
	r, err := l.region(ctx, op, len(p))
	if err != nil {
		return nil, err
	}
	copy(r.mem, p)
	*payload = ioctl.Payload{Window: r.window(len(p))}
	return r, nil
}

// region takes memory shared with the daemon.
func (l *link) region(ctx context.Context, op ioctl.Op, size int) (*region, error) {
	r, err := l.arenas.take(ctx, size)
	switch {
	case err == nil:
		return r, nil
	case errors.Is(err, errNoArena):
		if dead := l.why(); dead != nil {
			return nil, unsent(op, dead)
		}
		return nil, &api.Error{Code: api.ENOMEM, Op: op.Name(), Err: err, Detail: "the daemon has no memory to share for data of this size"}
	}
	return nil, expired(ctx, op.Name())
}

// carry makes a request with data, which it puts into the payload of m.
func (l *link) carry(ctx context.Context, op ioctl.Op, m ioctl.Message, p []byte, payload *ioctl.Payload, reply ioctl.Message) error {
	hold, err := l.load(ctx, op, p, payload)
	if err != nil {
		return err
	}
	defer hold.release()
	return l.exchange(ctx, op, m, reply, hold, nil)
}

// memory is where the data of a transfer of n bytes lies or goes: in the
// caller's own memory, or in a buffer that it has borrowed.
type memory struct {
	p []byte
	b *Buffer
	n int
}

// piece returns how much of a transfer goes next over the socket and through
// which window, and, if that is none of a buffer's and more than a message
// holds, the region for it.
func (l *link) piece(ctx context.Context, op ioctl.Op, m memory, at int) (int, ioctl.Window, *region, error) {
	n := min(m.n-at, chunk)
	if m.b != nil && n > 0 {
		return n, m.b.window(at, n), nil, nil
	}
	if n > ioctl.MaxInline {
		r, err := l.region(ctx, op, n)
		if err == nil {
			return n, r.window(n), r, nil
		}
		if !errors.Is(err, api.ENOMEM) {
			return 0, ioctl.Window{}, nil, err
		}
		n = ioctl.MaxInline
	}
	return n, ioctl.Window{Length: uint32(n)}, nil, nil
}
