package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// completions gives what a shell would offer after a command line.
func completions(t *testing.T, d *fakeDaemon, args ...string) []string {
	t.Helper()
	var got []string
	for l := range strings.Lines(ok(t, d, append([]string{"__completeNoDesc"}, args...)...)) {
		if !strings.HasPrefix(l, ":") {
			got = append(got, strings.TrimSpace(l))
		}
	}
	return got
}

func TestCompletion(t *testing.T) {
	d := newFakeSessions()
	d.pools["logs"] = newFakePool("logs")
	p := d.pools["data"]
	p.roots["tree"] = layout.NewObjectID(layout.KindMblock, 1)
	p.roots["journal"] = layout.NewObjectID(layout.KindMlog, 2)
	p.owners = append(p.owners, api.Owner{Index: 1, Name: "web"})
	for args, want := range map[string]string{
		"pool show":                 "data logs",
		"mblock put":                "data logs",
		"mblock put data":           "", // files
		"pool rename":               "data logs",
		"pool rename data":          "",
		"pool create":               "",
		"pool activate":             "",
		"mblock get":                "data logs",
		"mblock get data":           "@tree",
		"mblock get data @tree":     "@tree",
		"mlog read data":            "@journal",
		"mlog read data @journal":   "",
		"mlog append data @journal": "", // a file
		"root unset data":           "journal tree",
		"root unset data tree":      "journal tree",
		"root list":                 "data logs",
		"handle list":               "data logs",
		"scope show":                "client service session user client:0/1 system",
		"scope set system":          "memory= inbound= outbound= connections= descriptors= tasks_high= tasks_medium= tasks_low= tasks=",
		"client show":               "4711 9",
		"handle list --pid":         "4711 9",
		"mblock put --owner":        "",
		"mblock put data --owner":   "pool web",
		"mlog create data --class":  "capacity staging",
		"mblock list data --state":  "uncommitted committed deleting",
		"pool set data":             "uid= gid= mode= label= read_verify= shared= spare_percent=",
		"stat":                      "data logs",
		"demo":                      "data logs",
		"bench":                     "data logs",
		"bench data":                "append client-read client-read-qd1 client-seq commit commit-rate mblock-durable mlog-client read write",
		"completion":                "bash zsh fish",
		"mblock get nopool":         "",
	} {
		if got := completions(t, d, append(strings.Fields(args), "")...); strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
	d.err = api.Errorf(api.ECONNRESET, "", "gone")
	if got := completions(t, d, "pool", "show", ""); len(got) != 0 {
		t.Errorf("without a daemon: %q", got)
	}
}

func TestCompletionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if out := ok(t, newFakeDaemon(), "completion", shell); !strings.Contains(out, "mpoolctl") {
			t.Errorf("%s: %q", shell, out)
		}
	}
	if r := ctl(t, newFakeDaemon(), "", "completion", "tcsh"); r.code != exitUsage {
		t.Errorf("tcsh: %+v", r)
	}
}

// The owner at the top is meant by a name that several have.
func TestOwnerByName(t *testing.T) {
	p := newFakePool("data")
	p.owners = []api.Owner{
		{Index: 0, Name: ""},
		{Index: 1, Name: "a"},
		{Index: 2, Parent: 1, Name: "b"},
		{Index: 3, Parent: 2, Name: "b"},
		{Index: 4, Name: "b"},
		{Index: 5, Parent: 4, Name: "c"},
		{Index: 6, Parent: 1, Name: "a"},
	}
	o, err := readOwners(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	var got []uint32
	for _, name := range []string{"a", "b", "c", "3"} {
		i, ok := o.find(name)
		if !ok {
			t.Errorf("%s is not found", name)
		}
		got = append(got, i)
	}
	if !slices.Equal(got, []uint32{1, 4, 5, 3}) {
		t.Errorf("%v", got)
	}
	if i, ok := o.find("7"); ok {
		t.Errorf("owner 7 is %d", i)
	}
}
