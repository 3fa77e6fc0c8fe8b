package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/client"
)

// jsonResults says what each verb prints with --json; nil: nothing.
var jsonResults = map[string]any{
	"pool create": poolCreated{}, "pool activate": poolView{}, "pool deactivate": pastPool{}, "pool destroy": pastPool{},
	"pool rename": poolView{}, "pool set": poolView{}, "pool list": poolsView{}, "pool show": poolsView{},
	"pool scrub": scrubView{}, "pool scan": scanView{}, "pool check": checkView{}, "pool dump": map[string]any{},
	"root set": rootsView{}, "root list": rootsView{}, "root unset": rootsView{},
	"mblock put": putViews{}, "mblock get": restored{}, "mblock list": objectView{}, "mblock show": objectView{},
	"mblock delete": deletedViews{},
	"mlog create":   mlogCreated{}, "mlog append": appended{}, "mlog read": recordView{}, "mlog list": objectView{},
	"mlog show": objectView{}, "mlog erase": mlogCreated{}, "mlog delete": deletedViews{},
	"client list": clientView{}, "client show": clientHolds{}, "handle list": handleView{}, "scope list": scopeView{}, "scope show": scopeView{}, "scope set": scopeView{}, "event follow": eventView{},
	"quota class define": quotaClassView{}, "quota class list": quotaClassesView{}, "quota class remove": quotaClassView{},
	"quota limit set": quotaUsagesView{}, "quota limit list": quotaLimitsView{}, "quota limit unset": quotaUsagesView{},
	"quota owner add": quotaOwnerView{}, "quota owner list": quotaOwnersView{}, "quota usage": quotaUsagesView{},
	"quota reserve": quotaClaimView{}, "quota provision": quotaClaimView{}, "quota resize": quotaClaimView{},
	"quota release": quotaClaimView{}, "quota transfer": quotaClaimView{}, "quota expire": quotaClaimsView{},
	"quota claims": quotaClaimsView{},
	"credit list":  creditView{}, "credit acquire": creditView{}, "credit release": creditsView{}, "credit revoke": creditsView{},
	"stat": statView{}, "demo": demoView{}, "bench": benchView{}, "version": versionView{}, "completion": nil, "man": nil,
}

// The fields of every verb's result are the contract with scripts. A field that
// goes or changes needs a new jsonVersion; then, and for a new field, the golden
// file is written anew with -rewrite.
func TestJSONFieldsAreKept(t *testing.T) {
	var b strings.Builder
	fmt.Fprintf(&b, "version %d\n", jsonVersion)
	writeFieldsOf(&b, "error", "error", reflect.TypeFor[failureView]())
	walk(newRootCommand(&app{}), func(path string, _ *cobra.Command) {
		v, ok := jsonResults[path]
		if !ok {
			t.Errorf("%s: what does it print with --json?", path)
		}
		if v != nil {
			writeFieldsOf(&b, path, "", reflect.TypeOf(v))
		}
	})
	golden := filepath.Join("testdata", "json.golden")
	if *rewrite {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(b.String(), "\n")); diff != "" {
		t.Error(diff)
	}
}

// writeFieldsOf writes a line for every field of a type as JSON has it: verb,
// path, kind; ? where it may be missing.
func writeFieldsOf(b *strings.Builder, verb, path string, typ reflect.Type) {
	switch typ.Kind() { //nolint:exhaustive // all others are values
	case reflect.Pointer:
		writeFieldsOf(b, verb, path, typ.Elem())
	case reflect.Slice:
		if typ.Elem().Kind() == reflect.Uint8 {
			fmt.Fprintf(b, "%s: %s base64\n", verb, path)
			return
		}
		writeFieldsOf(b, verb, path+"[]", typ.Elem())
	case reflect.Struct:
		for f := range typ.Fields() {
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch {
			case f.Anonymous && f.Type.Kind() == reflect.Pointer:
				writeFieldsOf(b, verb+"?", path, f.Type) // all of them or none
				continue
			case f.Anonymous:
				writeFieldsOf(b, verb, path, f.Type)
				continue
			case !f.IsExported():
				continue
			}
			if strings.Contains(options, "omitempty") {
				name += "?"
			}
			writeFieldsOf(b, verb, strings.TrimPrefix(path+"."+name, "."), f.Type)
		}
	case reflect.Map:
		writeFieldsOf(b, verb, strings.TrimPrefix(path+".line", "."), typ.Elem())
	default:
		fmt.Fprintf(b, "%s: %s %v\n", verb, path, typ.Kind())
	}
}

// What verbs print is what jsonResults says, one document or one per line, with
// every field that is always there.
func TestJSONIsOfItsType(t *testing.T) {
	d := newFakeSessions()
	d.events = []fakeEvent{{event: client.Event{Seq: 1, Time: d.clients[0].Connected, Type: 3}}}
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	log := newLog(t, d)
	const block = "0100000000000002"
	for _, line := range []string{
		"mblock put data " + file, "mblock show data " + block, "mblock list data", "mblock get data " + block + " -o " + file + "2",
		"mlog append data " + log + " " + file, "mlog read data " + log, "mlog show data " + log, "mlog list data",
		"root set data a=" + block, "root list data", "root unset data a",
		"mlog erase data " + log + " --yes", "mlog delete data " + log + " --yes", "mblock delete data --yes " + block,
		"pool list", "pool show data", "pool set data label=x", "stat data", "version",
		"client list", "client show 4711", "handle list", "scope list", "scope show system", "scope set system memory=5%", "pool create more /dev/null", "pool rename data moved", "pool destroy moved --yes",
	} {
		words := strings.Fields(line)
		verb := words[0]
		if len(words) > 1 && jsonResults[verb] == nil {
			verb += " " + words[1]
		}
		out := ok(t, d, append([]string{"--json"}, words...)...)
		dec := json.NewDecoder(strings.NewReader(out))
		dec.DisallowUnknownFields()
		n := 0
		for ; dec.More(); n++ {
			v := reflect.New(reflect.TypeOf(jsonResults[verb]))
			if err := dec.Decode(v.Interface()); err != nil {
				t.Errorf("%s: %v in %s", line, err, out)
				break
			}
		}
		if n == 0 || n != strings.Count(out, "\n") {
			t.Errorf("%s: %d documents on other lines: %s", line, n, out)
		}
	}
}
