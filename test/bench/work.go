package main

import (
	"context"
	"flag"
	"fmt"
	"strconv"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/test/bench/measure"
)

// task is what a measured process does. Its flags are set before it runs; it
// calls measured around what counts if the profile is to have that only.
type task func(ctx context.Context, o *options) (*measure.Result, error)

// options are the flags of all tasks.
type options struct {
	dev       string
	plan      measure.Plan
	size      int64 // bytes
	blocking  bool
	objects   int64
	percent   int
	kind      string
	dir       string
	noDiscard bool
	profile   string
	stop      func() error // ends the profiles

	socket  string                // the daemon's, for clients
	metrics string                // the socket of the daemon's profiles, or ""
	credits *client.CreditOptions // of clients; nil: none
	zone    int64                 // of the pool that the task has made or activated, in bytes
}

func tasks() map[string]task {
	return map[string]task{
		"read-fill":      readFill,
		"read":           read,
		"durable":        durable,
		"commit":         commit,
		"files":          files,
		"mlog":           mlogWork,
		"churn-fill":     churnFill,
		"churn":          churnWork,
		"activate-fill":  activateFill,
		"activate-place": activatePlace,
		"activate":       activateWork,
		"memory":         memoryWork,
		"scope":          scopeWork,
		"quota":          quotaWork,
		"quota-memory":   quotaMemoryWork,
		"credit":         creditWork,
		"credit-revoke":  creditRevokeWork,
		"floor":          floorWork,
		"floor-peer":     floorPeer,

		"client-read":    clientReadWork,
		"client-write":   clientWriteWork,
		"client-scan":    clientScanWork,
		"client-durable": clientDurable,
		"client-commit":  clientCommit,
		"client-mlog":    clientMlogWork,
		"client-logs":    clientLogsWork,
		"client-log":     clientLogWork,
		"logs":           logsWork,
		"client-idle":    clientIdleWork,
		"client-reclaim": clientReclaimWork,
		"client-storm":   clientStormWork,
		"client-victim":  clientVictimWork,
		"client-credit":  clientCreditWork,
	}
}

// work runs one task and prints its result.
func work(ctx context.Context, name string, args []string) error {
	t := tasks()[name]
	if t == nil {
		return fmt.Errorf("no task %q", name)
	}
	var o options
	f := flag.NewFlagSet("work "+name, flag.ContinueOnError)
	f.StringVar(&o.dev, "dev", "", "device; its content is lost")
	f.DurationVar(&o.plan.Time, "time", 0, "how long; 0: as long as -ops says")
	f.Int64Var(&o.plan.Ops, "ops", 0, "how many operations; 0: as long as -time says")
	f.IntVar(&o.plan.Workers, "flight", 1, "operations in flight")
	f.Int64Var(&o.size, "size", 0, "bytes, of what the task says")
	f.BoolVar(&o.blocking, "blocking", false, "use the blocking calls")
	f.Int64Var(&o.objects, "objects", 0, "how many objects")
	f.IntVar(&o.percent, "percent", 0, "how full the pool is held")
	f.StringVar(&o.kind, "kind", "", "which variant")
	f.StringVar(&o.dir, "dir", "", "folder")
	f.BoolVar(&o.noDiscard, "no-discard", false, "leave freed zones as they are")
	f.StringVar(&o.profile, "profile", "", "beginning of the names of profiles to write")
	f.StringVar(&o.socket, "socket", "", "the daemon's socket")
	f.IntVar(&o.plan.Daemon, "daemon", 0, "the daemon's process")
	f.StringVar(&o.metrics, "metrics", "", "socket of the daemon's profiles")
	f.Func("credits", "the client takes credits, and keeps so many bytes under them; -: none", func(s string) error {
		if s == noCredits {
			return nil
		}
		n, err := strconv.ParseInt(s, 10, 64)
		o.credits = &client.CreditOptions{Bytes: n}
		return err
	})
	if err := f.Parse(args); err != nil {
		return err
	}
	o.stop = func() error { return nil }
	r, err := t(ctx, &o)
	if err != nil {
		return err
	}
	if err := o.stop(); err != nil {
		return err
	}
	r.Zone = o.zone
	return r.Print()
}

// poolName is the name of every pool that is made here.
const poolName = "bench"

// poolOptions are those of a daemon's pool.
func (o *options) poolOptions() mpool.Options { return mpool.Options{NoDiscard: o.noDiscard} }

// fresh makes a pool on the device, whatever is on it, and activates it.
func (o *options) fresh(ctx context.Context, c api.CreateOptions) (*mpool.Pool, error) {
	c.Force = true
	if _, err := mpool.Create(ctx, poolName, []string{o.dev}, c, o.poolOptions()); err != nil {
		return nil, err
	}
	return o.activate(ctx)
}

// activate activates the pool that is on the device.
func (o *options) activate(ctx context.Context) (*mpool.Pool, error) {
	p, err := o.activateOnly(ctx)
	if err != nil {
		return nil, err
	}
	info, err := p.Info(ctx)
	o.zone = info.ZoneSize
	return p, err
}

// activateOnly is activate without a look at the pool.
func (o *options) activateOnly(ctx context.Context) (*mpool.Pool, error) {
	return mpool.Activate(ctx, poolName, []string{o.dev}, api.ActivateOptions{}, o.poolOptions())
}
