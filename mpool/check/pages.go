package check

import (
	"context"

	"github.com/mpool-go/mpool/bdev"
)

// Sizes of windows, in blocks.
const (
	windowFirst = 16
	windowMost  = 256 // 1 MiB
)

// pages reads blocks of a device in order, many at a time. One task uses it;
// free gives its memory back. It may be pointed at another place.
type pages struct {
	dev  *device
	base int64  // byte offset of block 0
	end  uint32 // blocks
	buf  []byte
	from uint32 // the window: blocks from .. from+have-1
	have uint32
	size uint32 // of the next window
}

func newPages() *pages { return &pages{buf: bdev.AllocBuffer(windowMost * blockSize)} }

func (p *pages) free() {
	bdev.FreeBuffer(p.buf)
	p.buf = nil
}

// point makes the reader one of n blocks from a byte offset on.
func (p *pages) point(dev *device, base int64, n uint32) {
	p.dev, p.base, p.end = dev, base, n
	p.from, p.have, p.size = 0, 0, windowFirst
}

// block returns block k, which is below the end. It is valid until the next
// call. bad says why it could not be read; err is the context's.
func (p *pages) block(ctx context.Context, k uint32) (b []byte, bad, err error) {
	if k < p.from || k-p.from >= p.have {
		if err := ended(ctx); err != nil {
			return nil, nil, err
		}
		if bad := p.fill(k); bad != nil {
			return nil, bad, nil
		}
	}
	at := int(k-p.from) * blockSize
	return p.buf[at : at+blockSize : at+blockSize], nil, nil
}

// fill reads the window at block k: alone, where its neighbours cannot be read.
func (p *pages) fill(k uint32) error {
	p.from, p.have = k, 0
	off := p.base + int64(k)*blockSize
	n := min(p.size, p.end-k)
	if n > 1 {
		if p.dev.read(p.buf[:n*blockSize], off) == nil {
			p.have, p.size = n, min(p.size*4, windowMost)
			return nil
		}
		p.size = 1
	}
	if err := p.dev.read(p.buf[:blockSize], off); err != nil {
		return err
	}
	p.have, p.size = 1, p.size*2
	return nil
}
