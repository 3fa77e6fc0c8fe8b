package main

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mpool-go/mpool/layout"
)

// rewrite makes golden files anew.
var rewrite = flag.Bool("rewrite", false, "rewrite golden files")

func manifestExample() []manifestEntry {
	id := func(n uint64) layout.ObjectID { return layout.NewObjectID(layout.KindMblock, n) }
	return []manifestEntry{
		{path: "bin/tool", mode: 0o755, length: 7340032, ids: []layout.ObjectID{id(1)}},
		{path: "lib/a \"b\"\n\xff.txt", mode: 0o644, length: 0, ids: []layout.ObjectID{id(2)}},
		{path: "big.img", mode: 0o600, length: 3 << 30, ids: []layout.ObjectID{id(3), id(4), id(1 << 40)}},
	}
}

func TestManifestGolden(t *testing.T) {
	var b bytes.Buffer
	if err := writeManifest(&b, manifestExample()); err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/manifest.golden"
	if *rewrite {
		if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), b.String()); d != "" {
		t.Error(d)
	}
	got, err := readManifest(bytes.NewReader(want))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(manifestExample(), got, cmp.AllowUnexported(manifestEntry{})); d != "" {
		t.Error(d)
	}
}

func TestManifestRefuses(t *testing.T) {
	const id = "0100000000000001"
	for name, text := range map[string]string{
		"empty":         "",
		"other version": "mpool-manifest 2\n",
		"no quotes":     manifestHeader + "\na 0644 1 " + id,
		"parent":        manifestHeader + "\n\"../a\" 0644 1 " + id,
		"absolute":      manifestHeader + "\n\"/a\" 0644 1 " + id,
		"dot":           manifestHeader + "\n\".\" 0644 1 " + id,
		"no ids":        manifestHeader + "\n\"a\" 0644 1 ",
		"an mlog":       manifestHeader + "\n\"a\" 0644 1 0200000000000001",
		"mode":          manifestHeader + "\n\"a\" 9999 1 " + id,
		"length":        manifestHeader + "\n\"a\" 0644 -1 " + id,
		"more":          manifestHeader + "\n\"a\" 0644 1 " + id + " x",
		"twice":         manifestHeader + strings.Repeat("\n\"a\" 0644 1 "+id, 2),
	} {
		if e, err := readManifest(strings.NewReader(text)); err == nil {
			t.Errorf("%s: accepted as %+v", name, e)
		}
	}
}

// FuzzManifest reads any bytes without harm, and what it accepts survives
// writing and reading.
func FuzzManifest(f *testing.F) {
	var b bytes.Buffer
	if err := writeManifest(&b, manifestExample()); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(manifestHeader + "\n# note\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		entries, err := readManifest(bytes.NewReader(text))
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := writeManifest(&b, entries); err != nil {
			t.Fatal(err)
		}
		again, err := readManifest(&b)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(entries, again, cmp.AllowUnexported(manifestEntry{})); d != "" {
			t.Fatal(d)
		}
	})
}
