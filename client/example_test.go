package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/layout"
)

// A cache of mblocks: what is opened and read again costs no message, and what another
// process deletes is dropped before it is gone.
func Example_cache() {
	ctx := context.Background()
	c, err := client.Dial(ctx, client.Options{Credits: &client.CreditOptions{Bytes: 256 << 20}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	p, err := c.OpenPool(ctx, "data")
	if err != nil {
		log.Fatal(err)
	}
	serve := func(id layout.ObjectID, off int64, buf []byte) (int, error) {
		m, err := p.Mblock(ctx, id)
		if err != nil {
			return 0, err
		}
		n, err := m.ReadAt(buf, off)
		return n, errors.Join(err, m.Put())
	}
	for range 1000 {
		if _, err := serve(0x0100000000000001, 4096, make([]byte, 512)); err != nil {
			log.Print(err)
		}
	}
	s := c.CreditStats()
	fmt.Println(s.Hits, "reads from memory, with", s.Messages, "messages of credits")
}

// A job that nobody else does at the same time, on the whole host. It is given up when
// another process asks for it, and abandoned when it was taken.
func ExampleCredits() {
	ctx := context.Background()
	c, err := client.Dial(ctx, client.Options{Credits: &client.CreditOptions{}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	p, err := c.OpenPool(ctx, "data")
	if err != nil {
		log.Fatal(err)
	}
	const journal layout.ObjectID = 0x0200000000000001
	soon, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	h, err := p.(client.Credits).AcquireCredit(soon, journal, client.CreditRequest{Modes: client.CreditAppend})
	if errors.Is(err, api.ETIMEDOUT) {
		fmt.Println("another process appends")
		return
	}
	if err != nil {
		log.Fatal(err)
	}
	for done := false; !done; {
		select {
		case <-h.Wanted():
			done = true // another process waits: end at a good moment
		case <-h.Lost():
			log.Fatal("it took too long, and the credit was taken")
		default:
			// Append some more.
		}
	}
	if err := h.Release(); err != nil {
		log.Print(err) // ESTALE: it was taken just before
	}
}

// Bytes of an mblock without a copy. The mblock is not deleted before they are released.
func ExampleViewer() {
	ctx := context.Background()
	c, err := client.Dial(ctx, client.Options{Credits: &client.CreditOptions{Bytes: 64 << 20}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	p, err := c.OpenPool(ctx, "data")
	if err != nil {
		log.Fatal(err)
	}
	m, err := p.Mblock(ctx, 0x0100000000000001)
	if err != nil {
		log.Fatal(err)
	}
	if x, ok := m.(client.Viewer); ok { // it is committed, and nobody wants to change it
		v, err := x.View(ctx, 0, 512)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%d bytes begin with %x\n", len(v.Bytes()), v.Bytes()[0])
		v.Release()
	}
	if err := m.Put(); err != nil {
		log.Print(err)
	}
}
