// Command anchors appends durable records to the logs that ours is compared
// with, and reserves memory with the resource manager that our scopes are
// compared with. It is a module of its own, so that they are no dependency of
// mpool; scripts/bench.sh builds it, the program bench starts it.
//
//	anchors etcd|pebble|pebble-log -dir FOLDER -time D -flight N -size BYTES
//	anchors libp2p -time D -flight N -kind reserve|span
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/mpool-go/mpool/test/bench/measure"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "anchors:", err)
		os.Exit(1)
	}
}

// appender is a log that appends durable records.
type appender interface {
	// append returns when the record is durable. Any number of goroutines may
	// call it.
	append(record []byte) error
	close() error
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("usage: anchors etcd|pebble|pebble-log|libp2p [flags]")
	}
	if args[0] == "libp2p" {
		return libp2p(args[1:])
	}
	f := flag.NewFlagSet(args[0], flag.ContinueOnError)
	dir := f.String("dir", "", "where to make the log")
	var p measure.Plan
	f.DurationVar(&p.Time, "time", 0, "how long")
	f.IntVar(&p.Workers, "flight", 1, "appenders")
	size := f.Int("size", 128, "bytes of a record")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	top, err := os.MkdirTemp(*dir, args[0])
	if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	defer os.RemoveAll(top)
	var a appender
	switch args[0] {
	case "etcd":
		a, err = newEtcd(top)
	case "pebble":
		a, err = newPebbleDB(top)
	case "pebble-log":
		a, err = newPebbleLog(top)
	default:
		err = fmt.Errorf("no anchor %q", args[0])
	}
	if err != nil {
		return err
	}
	record := make([]byte, *size)
	for i := range record {
		record[i] = byte(i*i + i)
	}
	if err := a.append(record); err != nil {
		return err
	}
	r, err := measure.Run(p, func(int) error { return a.append(record) })
	if err != nil {
		return err
	}
	r.Bytes = r.Ops * int64(*size)
	if err := a.close(); err != nil {
		return err
	}
	return r.Print()
}
