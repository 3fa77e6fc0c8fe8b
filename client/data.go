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

// piece returns how much of a transfer of n bytes goes next, and, if that is
// more than a message holds, the region for it.
func (l *link) piece(ctx context.Context, op ioctl.Op, n int) (int, *region, error) {
	if n <= ioctl.MaxInline {
		return n, nil, nil
	}
	n = min(n, chunk)
	r, err := l.region(ctx, op, n)
	if errors.Is(err, api.ENOMEM) {
		return ioctl.MaxInline, nil, nil
	}
	return n, r, err
}
