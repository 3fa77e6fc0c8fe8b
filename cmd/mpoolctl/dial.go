package main

import (
	"context"
	"fmt"
	"os"
)

func dialDaemon(_ context.Context, socket string) (daemon, error) {
	if socket == "" {
		socket = os.Getenv("MPOOL_SOCKET")
	}
	return nil, fmt.Errorf("%w at %s", errNoDaemon, socket)
}
