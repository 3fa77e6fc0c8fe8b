package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/mpool-go/mpool/client"
)

// dialDaemon connects to mpoold.
func dialDaemon(ctx context.Context, socket string) (daemon, error) {
	c, err := client.Dial(ctx, client.Options{Socket: socket})
	switch {
	case errors.Is(err, client.ErrNoDaemon):
		return nil, fmt.Errorf("%w; start mpoold, or say where it is with --socket", err)
	case err != nil:
		return nil, err
	}
	return c, nil
}
