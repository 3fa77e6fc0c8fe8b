package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/mpool-go/mpool/server"
)

// entrance is the daemon's socket before and while it listens: one that it claims
// by its path, or one that it was started with.
type entrance struct {
	claim     *server.Claim    // by path
	inherited *server.Listener // or this
}

// newEntrance claims the socket, or takes the one that the process was started
// with. release ends it.
func (d *daemon) newEntrance(c *config) (*entrance, error) {
	switch len(d.inherited) {
	case 0:
		claim, err := server.NewClaim(c.Socket)
		if errors.Is(err, os.ErrPermission) {
			err = fmt.Errorf("%w; say --socket, or let this user write there", err)
		}
		if err != nil {
			return nil, err
		}
		return &entrance{claim: claim}, nil
	case 1:
		l, early, err := server.Inherit(d.inherited[0])
		if err != nil {
			return nil, fmt.Errorf("socket activation: %w", err)
		}
		if early {
			d.log.Warn("the socket does not pass credentials by itself: clients that came before now are turned away; set PassCredentials=yes in its unit",
				slog.String("socket", l.Path()))
		}
		return &entrance{inherited: l}, nil
	}
	for _, f := range d.inherited {
		_ = f.Close() // nothing was read from or written to it
	}
	return nil, fmt.Errorf("socket activation: %d descriptors were passed; want one", len(d.inherited))
}

// listen makes the socket, unless it is there already.
func (e *entrance) listen(c *config) (*server.Listener, error) {
	if e.inherited != nil {
		return e.inherited, nil
	}
	mode, err := c.mode()
	if err != nil {
		return nil, err
	}
	return e.claim.Listen(mode)
}

// release gives the socket up when all that was served through it has ended.
func (e *entrance) release() error {
	if e.inherited != nil {
		return e.inherited.Close()
	}
	return e.claim.Release()
}

// turnAway sends those away who wait on an inherited socket for a daemon that
// will not serve them.
func (e *entrance) turnAway() {
	if e.inherited != nil {
		e.inherited.TurnAway()
	}
}
