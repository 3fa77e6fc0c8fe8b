package main

import (
	"context"
	"iter"
	"strings"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
)

// Scopes gives those of a small daemon.
func (d *fakeDaemon) Scopes(_ context.Context, name string) iter.Seq2[client.ScopeInfo, error] {
	return func(yield func(client.ScopeInfo, error) bool) {
		found := name == ""
		for _, e := range []client.ScopeInfo{
			{Scope: "client:0/1", Kind: "memory", Used: 3 << 20, Limit: "unlimited", Origin: "none"},
			{Scope: "client:0/1", Kind: "tasks", Limit: "unlimited", Origin: "none"},
			{Scope: "system", Kind: "memory", Used: 3 << 20, Limit: "1073741824", Origin: "file", Refused: 7},
			{Scope: "system", Kind: "inbound", Used: 1, Limit: "block", Origin: "set"},
		} {
			if name != "" && e.Scope != name {
				continue
			}
			found = true
			if !yield(e, nil) {
				return
			}
		}
		if err := d.err; err != nil {
			yield(client.ScopeInfo{}, err)
		} else if !found {
			yield(client.ScopeInfo{}, api.Errorf(api.ENOENT, "", "no scope %q is open", name))
		}
	}
}

// SetScope tells what was asked.
func (d *fakeDaemon) SetScope(_ context.Context, name string, limits []client.ScopeLimit) ([]client.ScopeInfo, error) {
	var list []client.ScopeInfo
	for _, l := range limits {
		list = append(list, client.ScopeInfo{Scope: name, Kind: l.Kind, Limit: l.Limit, Origin: "set"})
	}
	return list, d.err
}

func TestScopeVerbs(t *testing.T) {
	for line, want := range map[string]string{
		"scope list": `SCOPE KIND USED LIMIT REFUSED ORIGIN
client:0/1 memory 3MiB unlimited 0 none
system memory 3MiB 1GiB 7 file
system inbound 1 block 0 set
`,
		"scope show client:0/1": `SCOPE KIND USED LIMIT REFUSED ORIGIN
client:0/1 memory 3MiB unlimited 0 none
client:0/1 tasks 0 unlimited 0 none
`,
		"--json scope show system": `{"scope":"system","kind":"memory","used":3145728,"limit":1073741824,"origin":"file","refused":7}
{"scope":"system","kind":"inbound","used":1,"limit":"block","origin":"set","refused":0}
`,
		"--json scope set user:1 tasks=3 memory=unlimited tasks=4": `{"scope":"user:1","kind":"memory","used":0,"limit":"unlimited","origin":"set","refused":0}
{"scope":"user:1","kind":"tasks","used":0,"limit":4,"origin":"set","refused":0}
`,
	} {
		out := ok(t, newFakeDaemon(), strings.Fields(line)...)
		if !strings.HasPrefix(line, "--json") {
			var rows []string
			for row := range strings.Lines(out) {
				rows = append(rows, strings.Join(strings.Fields(strings.ReplaceAll(row, " MiB", "MiB")), " ")+"\n")
			}
			out = strings.ReplaceAll(strings.Join(rows, ""), " GiB", "GiB")
		}
		if out != want {
			t.Errorf("%s:\n%s\nwant:\n%s", line, out, want)
		}
	}
}
