package main

import (
	"flag"
	"fmt"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/multiformats/go-multiaddr"

	"github.com/mpool-go/mpool/test/bench/measure"
)

// Between two looks at the clock there are so many operations, of so many bytes.
const (
	scopeBatch = 1000
	scopeBytes = 4096
)

// libp2p measures go-libp2p's resource manager at its best: without metrics and
// traces. A worker has a connection of its own; the peer's scope and the system's are
// everybody's. A span of the connection is the fourth scope.
func libp2p(args []string) error {
	f := flag.NewFlagSet("libp2p", flag.ContinueOnError)
	var p measure.Plan
	f.DurationVar(&p.Time, "time", 0, "how long")
	f.IntVar(&p.Workers, "flight", 1, "goroutines")
	kind := f.String("kind", "reserve", "reserve, or span")
	if err := f.Parse(args); err != nil {
		return err
	}
	limits := rcmgr.DefaultLimits
	m, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits.Scale(64<<30, 1<<16)), rcmgr.WithMetricsDisabled())
	if err != nil {
		return fmt.Errorf("make resource manager: %w", err)
	}
	defer m.Close()
	at, err := multiaddr.NewMultiaddr("/ip4/127.0.0.1/tcp/1")
	if err != nil {
		return fmt.Errorf("make address: %w", err)
	}
	connections, spans := make([]network.ResourceScope, p.Workers), make([]network.ResourceScope, p.Workers)
	for w := range p.Workers {
		c, err := m.OpenConnection(network.DirInbound, false, at)
		if err != nil {
			return fmt.Errorf("open connection: %w", err)
		}
		if err := c.SetPeer(peer.ID("peer")); err != nil {
			return fmt.Errorf("set peer: %w", err)
		}
		connections[w] = c
		if spans[w], err = c.BeginSpan(); err != nil {
			return fmt.Errorf("begin span: %w", err)
		}
	}
	r, err := measure.RunShort(p, scopeBatch, func(w int) error {
		if *kind == "span" {
			return spanDone(connections[w])
		}
		return reserveRelease(spans[w])
	})
	if err != nil {
		return err
	}
	return r.Print()
}

func reserveRelease(s network.ResourceScope) error {
	for range scopeBatch {
		if err := s.ReserveMemory(scopeBytes, network.ReservationPriorityAlways); err != nil {
			return fmt.Errorf("reserve: %w", err)
		}
		s.ReleaseMemory(scopeBytes)
	}
	return nil
}

func spanDone(s network.ResourceScope) error {
	for range scopeBatch {
		n, err := s.BeginSpan()
		if err != nil {
			return fmt.Errorf("begin span: %w", err)
		}
		if err := n.ReserveMemory(scopeBytes, network.ReservationPriorityAlways); err != nil {
			return fmt.Errorf("reserve: %w", err)
		}
		n.Done()
	}
	return nil
}
