package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/pprof"
	"time"
)

// measured starts the profiles, if there are to be any: what comes before is
// not in them.
func (o *options) measured() error {
	if o.profile == "" {
		return nil
	}
	runtime.SetMutexProfileFraction(5)
	runtime.SetBlockProfileRate(10_000)
	cpu, err := os.Create(o.profile + ".cpu")
	if err != nil {
		return fmt.Errorf("write profile: %w", err)
	}
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return fmt.Errorf("start profile: %w", err)
	}
	daemon := make(chan error, 1)
	go func() { daemon <- o.profileDaemon() }()
	o.stop = func() error {
		pprof.StopCPUProfile()
		for _, name := range []string{"mutex", "block", "allocs"} {
			f, err := os.Create(o.profile + "." + name)
			if err != nil {
				return fmt.Errorf("write profile: %w", err)
			}
			if err := pprof.Lookup(name).WriteTo(f, 0); err != nil {
				return fmt.Errorf("write profile: %w", err)
			}
			if err := f.Close(); err != nil {
				return fmt.Errorf("write profile: %w", err)
			}
		}
		return errors.Join(cpu.Close(), <-daemon)
	}
	return nil
}

// profileDaemon takes a profile of the daemon's processor time for as long as
// the task takes or, if the task is not limited by time, for a second; then one
// of its allocations. It does nothing without a daemon.
func (o *options) profileDaemon() error {
	if o.metrics == "" {
		return nil
	}
	seconds := max(1, int(o.plan.Time.Seconds()))
	err := o.fetch(fmt.Sprintf("profile?seconds=%d", seconds), "daemon.cpu")
	return errors.Join(err, o.fetch("allocs", "daemon.allocs"))
}

// fetch writes one of the daemon's profiles to a file.
func (o *options) fetch(profile, suffix string) error {
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", o.metrics)
		},
	}
	defer t.CloseIdleConnections()
	c := &http.Client{Transport: t, Timeout: time.Minute}
	resp, err := c.Get("http://mpoold/debug/pprof/" + profile)
	if err != nil {
		return fmt.Errorf("the daemon's profile: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the daemon's profile: %s", resp.Status)
	}
	f, err := os.Create(o.profile + "." + suffix)
	if err != nil {
		return fmt.Errorf("write profile: %w", err)
	}
	_, err = io.Copy(f, resp.Body)
	return errors.Join(err, f.Close())
}
