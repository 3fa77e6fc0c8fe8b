package main

import (
	"context"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/test/bench/measure"
)

// clientReadQueue reads with the asynchronous calls from one goroutine.
func clientReadQueue(c *connection, list []api.Mblock) (*measure.Result, error) {
	return clientReadBlocking(c, list)
}

// clientWriteBorrowed fills memory of the arena and writes it with the
// asynchronous calls.
func clientWriteBorrowed(ctx context.Context, c *connection, list []api.Mblock) (*measure.Result, error) {
	return clientWriteOwn(ctx, c, list)
}

// clientScanBorrowed reads into memory of the arena with the asynchronous calls.
func clientScanBorrowed(ctx context.Context, c *connection, list []api.Mblock) (*measure.Result, error) {
	return clientScanOwn(ctx, c, list)
}
