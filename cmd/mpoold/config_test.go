package main

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

// What is wrong in a configuration file is told with the file, the line and the
// key, all of it at once.
func TestConfigErrors(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string // "LINE: text" of each
	}{
		{"syntax", "[limits\n", []string{"1: expected ']'"}},
		{"unknown keys", "a = 1\n[limits]\nsesions = 2\n[[owner]]\npool = 'p'\nuid = 1\nowner = 'o'\nx = 1\n", []string{
			"1: a: there is no such key", "3: limits.sesions: there is no such key", "8: owner.x: there is no such key",
		}},
		{"twice", "log_level = 'info'\nlog_level = 'warn'\n", []string{"2: log_level: key log_level is already defined"}},
		{"types", "log_level = 3\n", []string{"1: log_level is a TOML integer: want a string"}},
		{"types of numbers", "[limits]\nsessions = 'x'\n", []string{"2: limits.sessions is a TOML string: want an integer"}},
		{"types of truths", "pprof = 1\n", []string{"1: pprof is a TOML integer: want true or false"}},
		{"duration", "\n\n[limits]\nhello_timeout = '5'\n", []string{"4: limits.hello_timeout: time: missing unit"}},
		{"values", "socket_mode = '888'\nlog_format = 'x'\nlog_level = 'x'\nshutdown_timeout = '0s'\nmetrics = ':9090'\n" +
			"[limits]\nrequests = 0\n[engine]\nqueue_depth = 0\n", []string{
			`1: socket_mode is "888": want octal`, `2: log_format is "x"`, `3: log_level is "x"`,
			"4: shutdown_timeout is 0s: want 1ms to 1h", `5: metrics is ":9090", which other hosts may reach`,
			"7: limits.requests is 0: want 1 to 4096", "9: engine.queue_depth is 0: want 1 to 16384",
		}},
		{"pprof without metrics", "pprof = true\n", []string{"1: pprof is true, but there is no metrics address"}},
		{"engine", "engine.io = 'aio'\n", []string{`1: engine.io is "aio": want auto, io_uring or pread`}},
		{"scopes", "[scopes.system]\nmemory = '5%'\ntasks = '5%'\ncores = 3\n[scopes.\"user:1000\"]\nmemory = -1\ninbound = true\n", []string{
			"3: scopes.system.tasks limit 5% of tasks", `4: scopes.system.cores there is no kind "cores"`,
			`6: scopes.user:1000.memory limit "-1"`, "7: scopes.user:1000.inbound is true: want a number or a string",
		}},
		{"pools", "[[activate]]\n[[activate]]\npool = 'a'\n[[activate]]\npool = 'a'\ndevices = ['']\n", []string{
			"1: activate[0].pool is empty", `5: activate[2].pool is "a" a second time`, "6: activate[2].devices has an empty path",
		}},
		{"pools in one line", "log_level = 'info'\nactivate = [{pool = ''}]\n", []string{"2: activate[0].pool is empty"}},
		{"owners", "[[owner]]\npool = 'p'\nuid = 'root'\nowner = 'o'\n[[owner]]\npool = ''\nuid = -1\nowner = ''\n" +
			"[[owner]]\npool = 'p'\nowner = 'o'\n[[owner]]\npool = 'p'\nuid = 'no-such-user'\nowner = 'o'\n" +
			"[[owner]]\npool = 'p'\nuid = 0\nowner = 'o'\n[[owner]]\npool = 'p'\nuid = 1.5\nowner = 'o'\n", []string{
			`6: owner[1].pool is ""`, "7: owner[1].uid is -1: want 0 to 4294967294", `8: owner[1].owner is ""`,
			"9: owner[2].uid is not set", `14: owner[3].uid is "no-such-user": there is no such user`,
			"16: owner[4] says the same as one before it", "22: owner[5].uid is 1.5: want a number or a user's name",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := writeFile(t, filepath.Join(t.TempDir(), "conf"), c.text)
			_, err := load(path)
			if err == nil {
				t.Fatal("it was taken")
			}
			lines := strings.Split(err.Error(), "\n")
			for i, want := range c.want {
				if i >= len(lines) || !strings.HasPrefix(lines[i], path+":"+want) {
					t.Errorf("line %d does not begin with %q:\n%v", i, want, err)
				}
			}
			if len(lines) != len(c.want) {
				t.Errorf("%d lines, want %d:\n%v", len(lines), len(c.want), err)
			}
		})
	}
}

// A configuration that cannot be read is told by its path.
func TestConfigUnreadable(t *testing.T) {
	dir := t.TempDir()
	for name, path := range map[string]string{
		"none":   filepath.Join(dir, "none"),
		"folder": dir,
		"large":  writeFile(t, filepath.Join(dir, "large"), strings.Repeat("#\n", maxConfig)),
	} {
		if _, err := load(path); err == nil || !strings.Contains(err.Error(), "read configuration") || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// keys returns all keys of a configuration's type, "owner[].uid" for one of an
// array of tables.
func keys(typ reflect.Type, prefix string) []string {
	var list []string
	for f := range typ.Fields() {
		key := prefix + f.Tag.Get("toml")
		switch {
		case f.Type.Kind() == reflect.Struct:
			list = append(list, keys(f.Type, key+".")...)
		case f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct:
			list = append(list, keys(f.Type.Elem(), key+"[].")...)
		default:
			list = append(list, key)
		}
	}
	return list
}

// flatKeys returns the keys that a document sets.
func flatKeys(v any, prefix string, into map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		into[prefix] = true
		for k, e := range v {
			flatKeys(e, strings.TrimPrefix(prefix+"."+k, "."), into)
		}
	case []any:
		into[prefix] = true
		for _, e := range v {
			if m, ok := e.(map[string]any); ok {
				flatKeys(m, prefix+"[]", into)
			}
		}
	default:
		into[prefix] = true
	}
}

// What is printed has every key, and reads back as the same.
func TestPrintedConfigReads(t *testing.T) {
	text := "socket = '/s'\nmetrics = 'unix:/m'\npprof = true\n[scopes.client]\nmemory = '3%'\ntasks = 7\n[[activate]]\npool = 'a'\n[[activate]]\npool = 'b'\ndevices = ['/dev/x', '/dev/y']\noptional = true\n" +
		"[[owner]]\npool = 'a'\nuid = 7\nowner = 'o'\n[[owner]]\npool = 'a'\nuid = 'root'\nowner = 'o'\n"
	c, err := load(writeFile(t, filepath.Join(t.TempDir(), "conf"), text))
	if err != nil {
		t.Fatal(err)
	}
	var out, again bytes.Buffer
	if err := c.print(&out); err != nil {
		t.Fatal(err)
	}
	back, err := load(writeFile(t, filepath.Join(t.TempDir(), "conf"), out.String()))
	if err != nil {
		t.Fatal(err)
	}
	if err := back.print(&again); err != nil {
		t.Fatal(err)
	}
	if out.String() != again.String() {
		t.Errorf("printed:\n%s\nread back:\n%s", out.String(), again.String())
	}
	var doc map[string]any
	if err := toml.Unmarshal(out.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	set := make(map[string]bool)
	flatKeys(doc, "", set)
	for _, key := range keys(reflect.TypeFor[config](), "") {
		if !set[key] {
			t.Errorf("%s is not printed", key)
		}
	}
}

// The example that is shipped says what is so without it, and shows every key.
func TestExampleConfig(t *testing.T) {
	const path = "../../scripts/mpoold.toml.example"
	c, err := load(path)
	if err != nil {
		t.Fatal(err)
	}
	def := defaults()
	def.Socket = c.Socket
	if !reflect.DeepEqual(c, def) {
		t.Errorf("the example says\n%+v\nthe defaults are\n%+v", c, def)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// What is commented out is TOML, too: "#key = value".
	all := make(map[string]any)
	uncommented := string(bytes.ReplaceAll(text, []byte("\n#"), []byte("\n")))
	var lines []string
	for l := range strings.Lines(uncommented) {
		if !strings.HasPrefix(l, " ") { // "# text"
			lines = append(lines, l)
		}
	}
	if err := toml.Unmarshal([]byte(strings.Join(lines, "")), &all); err != nil {
		t.Fatal(err)
	}
	set := make(map[string]bool)
	flatKeys(all, "", set)
	for _, key := range keys(reflect.TypeFor[config](), "") {
		if !set[key] {
			t.Errorf("the example does not show %s", key)
		}
	}
	if _, err := load(writeFile(t, filepath.Join(t.TempDir(), "conf"), strings.Join(lines, ""))); err != nil {
		t.Errorf("with all that is commented out: %v", err)
	}
}

// What another configuration changes that a running daemon does not take is
// named.
func TestChanges(t *testing.T) {
	a := defaults()
	b := defaults()
	b.LogLevel, b.Shutdown, b.Owners = "debug", a.Shutdown+1, []ownerRule{{Pool: "p", UID: int64(1), Owner: "o"}}
	if got, err := changes(&a, &b); err != nil || len(got) != 0 {
		t.Errorf("live keys: %v, %v", got, err)
	}
	b.Metrics, b.Limits.Requests, b.Engine.NoDiscard = "unix:/m", 1, true
	b.Activate = []activation{{Pool: "p"}}
	want := []string{"activate", "engine.no_discard", "limits.requests", "metrics"}
	if got, err := changes(&a, &b); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("changes are %v, %v, want %v", got, err, want)
	}
}

// Flags win over the file: a pool that both name is activated as the flag says.
func TestActivateFlagWins(t *testing.T) {
	path := writeFile(t, filepath.Join(t.TempDir(), "conf"), "[[activate]]\npool = 'a'\noptional = true\n[[activate]]\npool = 'b'\n")
	f := flags{config: path, activate: []activation{{Pool: "a", Devices: []string{"/dev/x"}}}}
	c, err := effective(f, func() (string, error) { return "/s", nil }, func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	want := []activation{{Pool: "b"}, {Pool: "a", Devices: []string{"/dev/x"}}}
	if !reflect.DeepEqual(c.Activate, want) {
		t.Errorf("activates %+v, want %+v", c.Activate, want)
	}
}

// No text crashes the reader, each error names the file, and what is taken can
// be printed and taken again.
func FuzzConfig(f *testing.F) {
	f.Add("log_level = 'info'\n[limits]\nrequests = 8\n")
	f.Add("activate = [{pool = 'a', devices = ['/x']}, {pool = ''}]\nengine.io = 'x'\n")
	f.Add("[[owner]]\npool = 'p'\nuid = 'root'\nowner = 'o'\n[[owner]]\nuid = 1\n")
	f.Add("a.b.c = 1\n[a]\nb = 2\n[[a.b]]\n\"q\\u00e9\" = \"\"\"\nx\"\"\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		c := defaults()
		if err := c.decode("FILE", []byte(text)); err != nil {
			for l := range strings.Lines(err.Error()) {
				if strings.HasPrefix(l, "FILE") {
					return
				}
			}
			t.Fatalf("does not name the file: %v", err)
		}
		var once, twice bytes.Buffer
		if err := c.print(&once); err != nil {
			t.Fatal(err)
		}
		again := defaults()
		if err := again.decode("FILE", once.Bytes()); err != nil {
			t.Fatalf("%v:\n%s", err, once.String())
		}
		if err := again.print(&twice); err != nil || once.String() != twice.String() {
			t.Fatalf("%v:\n%s\nbecame\n%s", err, once.String(), twice.String())
		}
	})
}
