package server_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/server"
)

// benchPool calls f with a pool on a regular file, in process and through a
// socket.
func benchPool(b *testing.B, f func(b *testing.B, p api.Pool)) {
	b.Helper()
	ctx := context.Background()
	for _, where := range []string{"in process", "socket"} {
		b.Run(where, func(b *testing.B) {
			dir, err := os.MkdirTemp(".", "drive")
			if err != nil {
				b.Fatal(err)
			}
			defer os.RemoveAll(dir)
			path := filepath.Join(dir, "drive")
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				b.Fatal(err)
			}
			if err := os.Truncate(path, 512<<20); err != nil {
				b.Fatal(err)
			}
			if where == "in process" {
				if _, err := mpool.Create(ctx, "p", []string{path}, api.CreateOptions{}, mpool.Options{}); err != nil {
					b.Fatal(err)
				}
				p, err := mpool.Activate(ctx, "p", []string{path}, api.ActivateOptions{}, mpool.Options{})
				if err != nil {
					b.Fatal(err)
				}
				defer p.Close()
				f(b, p)
				return
			}
			srv, err := server.New(server.Options{Backend: server.Engine{}})
			if err != nil {
				b.Fatal(err)
			}
			l, err := server.Listen(filepath.Join(dir, "s"), 0o600)
			if err != nil {
				b.Fatal(err)
			}
			go func() {
				if err := srv.Serve(l); err != nil {
					b.Error(err)
				}
			}()
			defer srv.Shutdown(ctx)
			c, err := client.Dial(ctx, client.Options{Socket: filepath.Join(dir, "s")})
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			if _, err := c.CreatePool(ctx, "p", []string{path}, api.CreateOptions{}); err != nil {
				b.Fatal(err)
			}
			p, err := c.OpenPool(ctx, "p")
			if err != nil {
				b.Fatal(err)
			}
			f(b, p)
		})
	}
}

// parallel runs f b.N times in all from so many goroutines.
func parallel(b *testing.B, depth int, f func(g, i int)) {
	b.Helper()
	b.ResetTimer()
	var wg sync.WaitGroup
	for g := range depth {
		wg.Go(func() {
			for i := g; i < b.N; i += depth {
				f(g, i)
			}
		})
	}
	wg.Wait()
}

func BenchmarkRead(b *testing.B) {
	ctx := context.Background()
	benchPool(b, func(b *testing.B, p api.Pool) {
		b.Helper()
		m, err := p.AllocMblock(ctx, api.AllocOptions{Capacity: 64 << 20})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := m.Write(ctx, make([]byte, 64<<20)); err != nil {
			b.Fatal(err)
		}
		if err := m.Commit(ctx); err != nil {
			b.Fatal(err)
		}
		defer m.Put()
		for _, c := range []struct{ size, depth int }{{4096, 1}, {4096, 32}, {1 << 20, 1}, {1 << 20, 8}} {
			b.Run(fmt.Sprintf("%dK-qd%d", c.size>>10, c.depth), func(b *testing.B) {
				b.SetBytes(int64(c.size))
				bufs := make([][]byte, c.depth)
				for i := range bufs {
					bufs[i] = make([]byte, c.size)
				}
				parallel(b, c.depth, func(g, i int) {
					off := int64(i*7919*c.size) % (64 << 20)
					if _, err := m.ReadAtContext(ctx, bufs[g], off); err != nil {
						b.Error(err)
					}
				})
			})
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	ctx := context.Background()
	benchPool(b, func(b *testing.B, p api.Pool) {
		b.Helper()
		buf := make([]byte, 32<<20)
		b.SetBytes(int64(len(buf)))
		for b.Loop() {
			m, err := p.AllocMblock(ctx, api.AllocOptions{Capacity: int64(len(buf))})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := m.Write(ctx, buf); err != nil {
				b.Fatal(err)
			}
			if err := m.Abort(ctx); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkAppendSync(b *testing.B) {
	ctx := context.Background()
	benchPool(b, func(b *testing.B, p api.Pool) {
		b.Helper()
		for _, depth := range []int{1, 32} {
			b.Run(fmt.Sprintf("qd%d", depth), func(b *testing.B) {
				l, err := p.AllocMlog(ctx, api.AllocOptions{Capacity: 128 << 20})
				if err != nil {
					b.Fatal(err)
				}
				if err := l.Commit(ctx); err != nil {
					b.Fatal(err)
				}
				a, err := l.OpenAppend(ctx)
				if err != nil {
					b.Fatal(err)
				}
				record := make([]byte, 128)
				parallel(b, depth, func(int, int) {
					if _, err := a.Append(ctx, record, true); err != nil {
						b.Error(err)
					}
				})
				b.StopTimer()
				if err := a.Close(ctx); err != nil {
					b.Error(err)
				}
				if err := l.Delete(ctx); err != nil {
					b.Error(err)
				}
			})
		}
	})
}

func BenchmarkVersion(b *testing.B) {
	ctx := context.Background()
	dir := b.TempDir()
	srv, err := server.New(server.Options{Backend: server.Engine{}})
	if err != nil {
		b.Fatal(err)
	}
	l, err := server.Listen(filepath.Join(dir, "s"), 0o600)
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		if err := srv.Serve(l); err != nil {
			b.Error(err)
		}
	}()
	defer srv.Shutdown(ctx)
	c, err := client.Dial(ctx, client.Options{Socket: filepath.Join(dir, "s")})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	for _, depth := range []int{1, 32} {
		b.Run(fmt.Sprintf("qd%d", depth), func(b *testing.B) {
			b.ReportAllocs()
			parallel(b, depth, func(int, int) {
				if _, err := c.Version(ctx); err != nil {
					b.Error(err)
				}
			})
		})
	}
}
