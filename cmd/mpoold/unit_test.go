package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/unit"
)

// readUnit returns the values of a unit file by "Section.Key".
func readUnit(t *testing.T, name string) map[string][]string {
	t.Helper()
	f, err := os.Open(filepath.Join("../../scripts", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	options, err := unit.DeserializeOptions(f)
	if err != nil {
		t.Fatal(err)
	}
	m := make(map[string][]string)
	for _, o := range options {
		key := o.Section + "." + o.Name
		m[key] = append(m[key], o.Value)
	}
	return m
}

// The units say what the daemon counts on, and take from it what it does not
// need.
func TestUnits(t *testing.T) {
	service, socket := readUnit(t, "mpoold.service"), readUnit(t, "mpoold.socket")
	for key, want := range map[string][]string{
		"Service.Type":                     {"notify"},
		"Service.ExecStart":                {"/usr/local/bin/mpoold --config /etc/mpool/mpoold.toml"},
		"Service.ExecReload":               {"/bin/kill -HUP $MAINPID"},
		"Service.Restart":                  {"on-failure"},
		"Service.RestartPreventExitStatus": {"2"}, // exitUsage
		"Service.User":                     {"mpool"},
		"Service.RuntimeDirectory":         {"mpool"},
		"Service.RuntimeDirectoryPreserve": {"yes"}, // the socket of mpoold.socket is in it
		"Service.CapabilityBoundingSet":    {""},
		"Service.NoNewPrivileges":          {"yes"},
		"Service.ProtectSystem":            {"strict"},
		"Service.ProtectHome":              {"yes"},
		"Service.DevicePolicy":             {"closed"},
		"Service.DeviceAllow":              {"block-* rw"},
		"Service.LimitMEMLOCK":             {"infinity"},
		"Service.LimitNOFILE":              {"65536"},
		"Service.PrivateDevices":           nil, // it would hide the drives
		"Service.PrivateUsers":             nil, // it would hide who the clients are
		"Service.PrivateNetwork":           nil, // it would hide the metrics
		"Service.ProtectProc":              nil, // it would hide the clients' names
		"Service.IPAddressDeny":            {"any"},
		"Service.IPAddressAllow":           {"localhost"},
		"Service.SystemCallFilter":         {"@system-service", "~@privileged @resources"},
	} {
		if got := service[key]; !slices.Equal(got, want) {
			t.Errorf("mpoold.service: %s is %q, want %q", key, got, want)
		}
	}
	for key, want := range map[string][]string{
		"Socket.ListenSequentialPacket": {"/run/mpool/mpoold.sock"},
		"Socket.PassCredentials":        {"yes"},
		"Socket.SocketMode":             {"0666"},
		"Socket.Accept":                 nil,
		"Install.WantedBy":              {"sockets.target"},
	} {
		if got := socket[key]; !slices.Equal(got, want) {
			t.Errorf("mpoold.socket: %s is %q, want %q", key, got, want)
		}
	}
	// systemd must not lose patience before the daemon does.
	stop, err := time.ParseDuration(service["Service.TimeoutStopSec"][0] + "s")
	if shutdown := time.Duration(defaults().Shutdown); err != nil || stop < shutdown+5*time.Second {
		t.Errorf("TimeoutStopSec is %v, %v; shutdown_timeout is %v", stop, err, shutdown)
	}
	if n := defaults().Limits.Sessions * (2 + defaults().Limits.Arenas); n > 65536 {
		t.Errorf("the default limits let clients take %d descriptors", n)
	}
}

// systemd finds nothing wrong with the units, and finds them closed.
func TestUnitsVerify(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if errors.Is(err, exec.ErrNotFound) {
		t.Log("no systemd-analyze here: units not verified by systemd")
		return
	}
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, name := range []string{"mpoold.service", "mpoold.socket"} {
		b, err := os.ReadFile(filepath.Join("../../scripts", name))
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, writeFile(t, filepath.Join(dir, name), strings.ReplaceAll(string(b), "/usr/local/bin/mpoold", self)))
	}
	if out, err := exec.Command(analyze, append([]string{"verify", "--man=no"}, paths...)...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("verify: %v\n%s", err, out)
	}
	out, err := exec.Command(analyze, "security", "--offline=true", "--threshold=25", "--no-pager", paths[0]).CombinedOutput()
	if err != nil {
		t.Errorf("security: %v\n%s", err, out)
	}
}
