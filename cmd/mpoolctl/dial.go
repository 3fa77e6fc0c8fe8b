package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/mpool-go/mpool/client"
)

// dialDaemon connects to mpoold.
func dialDaemon(ctx context.Context, o client.Options) (daemon, error) {
	c, err := client.Dial(ctx, o)
	switch {
	case errors.Is(err, client.ErrNoDaemon) && errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w; the mode of the socket or of its directory keeps this user out: see socket_mode", err)
	case errors.Is(err, client.ErrSilent):
		return nil, fmt.Errorf("%w; look at its log, or restart it", err)
	case errors.Is(err, client.ErrNoDaemon):
		return nil, fmt.Errorf("%w; start mpoold, or say where it is with --socket", err)
	case err != nil:
		return nil, err
	}
	return c, nil
}
