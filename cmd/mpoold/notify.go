package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/server"
)

// tell tells systemd, if it is there.
func (d *daemon) tell(state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		d.log.Warn("cannot notify systemd", slog.Any("error", err))
	}
}

// tellReady tells systemd that the daemon serves, and what.
func (d *daemon) tellReady(srv *server.Server) {
	d.tell(fmt.Sprintf("%s\nSTATUS=%d pools active", sd.SdNotifyReady, len(srv.Snapshot().Pools)))
}

// tellReloading tells systemd that the configuration is being read; tellReady
// ends it.
func (d *daemon) tellReloading() {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		d.log.Warn("cannot read the clock", slog.Any("error", err))
		return
	}
	d.tell(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", sd.SdNotifyReloading, now.Nano()/int64(time.Microsecond)))
}

// watchdog tells systemd again and again that the daemon is well, if it wants
// to know. Well is who can take a snapshot: it needs all locks that requests
// need and no drive, so that a stalled drive is no reason to be killed.
func (d *daemon) watchdog(ctx context.Context, srv *server.Server) {
	interval, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		d.log.Warn("no watchdog", slog.Any("error", err))
	}
	if interval <= 0 {
		return
	}
	beat := time.NewTicker(max(interval/3, time.Millisecond))
	go func() { // ends with the context
		defer beat.Stop()
		for {
			srv.Snapshot()
			d.tell(sd.SdNotifyWatchdog)
			select {
			case <-beat.C:
			case <-ctx.Done():
				return
			}
		}
	}()
}
