package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
)

// playUser goes through a pool's life on a drive: everything that a user without
// rights does, in its own process.
func playUser(socket, drive string) int {
	if err := userLife(socket, drive); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func userLife(socket, drive string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*stopTime)
	defer cancel()
	c, err := client.Dial(ctx, client.Options{Socket: socket, Hello: stopTime, Reconnect: -1})
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.CreatePool(ctx, "mine", []string{drive}, api.CreateOptions{}); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	p, err := c.OpenPool(ctx, "mine")
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	b, err := p.AllocMblock(ctx, api.AllocOptions{Capacity: 1 << 20})
	if err != nil {
		return fmt.Errorf("alloc: %w", err)
	}
	data := pattern(1 << 20) // by shared memory
	if _, err := b.Write(ctx, data); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if err := b.Commit(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	var got bytes.Buffer
	if _, err := b.WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), data) {
		return fmt.Errorf("read %d bytes, %w", got.Len(), err)
	}
	if err := b.Delete(ctx); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	if err := p.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	if err := c.DeactivatePool(ctx, "mine"); err != nil {
		return fmt.Errorf("deactivate: %w", err)
	}
	if _, err := c.ActivatePool(ctx, "mine", []string{drive}, api.ActivateOptions{}); err != nil {
		return fmt.Errorf("activate: %w", err)
	}
	if err := c.DestroyPool(ctx, "mine"); err != nil {
		return fmt.Errorf("destroy: %w", err)
	}
	return nil
}

// writersCount is how many clients playWriters plays.
const writersCount = 100

// playWriters writes, commits, reads and deletes through many connections to
// the pool "data" until the daemon is gone. It says "writing" when all do.
func playWriters(socket string) int {
	var begun, all sync.WaitGroup
	failed := make(chan error, writersCount)
	begun.Add(writersCount)
	for range writersCount {
		all.Go(func() {
			var once sync.Once
			defer once.Do(begun.Done)
			if err := writer(socket, func() { once.Do(begun.Done) }); err != nil {
				failed <- err
			}
		})
	}
	begun.Wait()
	fmt.Fprintln(os.Stderr, "writing")
	all.Wait()
	close(failed)
	code := 0
	for err := range failed {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// writer returns nil when the daemon has gone or stops.
func writer(socket string, begun func()) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*stopTime)
	defer cancel()
	c, err := client.Dial(ctx, client.Options{Socket: socket, Hello: stopTime, Reconnect: -1})
	if err != nil {
		return err
	}
	defer c.Close()
	p, err := c.OpenPool(ctx, "data")
	if err != nil {
		return err
	}
	data := pattern(128 << 10)
	for {
		err := writeOnce(ctx, p, data)
		begun()
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return fmt.Errorf("hangs: %w", err)
		case errors.Is(err, api.ECONNRESET), errors.Is(err, api.EUNKNOWN), errors.Is(err, api.EBADF), errors.Is(err, client.ErrNoDaemon):
			return nil
		default:
			return err
		}
	}
}

func writeOnce(ctx context.Context, p api.Pool, data []byte) error {
	b, err := p.AllocMblock(ctx, api.AllocOptions{Capacity: int64(len(data))})
	if err != nil {
		return err
	}
	if _, err := b.Write(ctx, data); err != nil {
		return err
	}
	if err := b.Commit(ctx); err != nil {
		return err
	}
	if _, err := b.ReadAtContext(ctx, make([]byte, len(data)), 0); err != nil {
		return err
	}
	return b.Delete(ctx)
}

// playTenant says which owners' objects of the pool "data" it sees, and as which
// one it stores its own, which it deletes again.
func playTenant(socket string) int {
	text, err := tenant(socket)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Fprintln(os.Stderr, text)
	return 0
}

func tenant(socket string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*stopTime)
	defer cancel()
	c, err := client.Dial(ctx, client.Options{Socket: socket, Hello: stopTime, Reconnect: -1})
	if err != nil {
		return "", err
	}
	defer c.Close()
	p, err := c.OpenPool(ctx, "data")
	if err != nil {
		return "", err
	}
	var sees []uint32
	for o, err := range p.Objects(ctx, api.Filter{}) {
		if err != nil {
			return "", err
		}
		sees = append(sees, o.Owner)
	}
	b, err := p.AllocMblock(ctx, api.AllocOptions{})
	if err != nil {
		return "", err
	}
	info, err := b.Info(ctx)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("sees %v, stores as %d", sees, info.Owner), b.Abort(ctx)
}
