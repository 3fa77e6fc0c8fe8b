package main

import (
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/mpool-go/mpool/server"
)

// live says whether SIGHUP changes a key. Everything else takes a restart.
func live(key string) bool {
	return slices.Contains([]string{"log_level", "shutdown_timeout", "owner", "scopes"}, key)
}

// reload reads the configuration again and takes from it what can change. It
// is all or nothing: a file that is wrong changes nothing.
func (d *daemon) reload(srv *server.Server) {
	d.tellReloading()
	defer d.tellReady(srv)
	c, err := d.configure()
	if err == nil {
		err = d.takeNew(srv, &c)
	}
	d.reloadOK.Store(err == nil)
	if err != nil {
		d.log.Error("configuration not read again", slog.Any("error", err))
		return
	}
	d.reloaded.Store(time.Now().UnixMilli())
	d.log.Info("configuration read again", slog.String("log_level", c.LogLevel))
}

// takeNew puts into effect what can change.
func (d *daemon) takeNew(srv *server.Server, c *config) error {
	level, err := c.level()
	if err != nil {
		return err
	}
	rules, err := ownerRules(c.Owners)
	if err != nil {
		return err
	}
	file, err := server.ParseScopeLimits(c.Scopes)
	if err != nil {
		return err
	}
	changed, err := changes(&d.started, c)
	if err != nil {
		return err
	}
	if err := srv.SetOwners(rules); err != nil {
		return err
	}
	if err := srv.SetScopeLimits(file); err != nil {
		return err
	}
	d.level.Set(level)
	d.shutdown = time.Duration(c.Shutdown)
	if len(changed) > 0 {
		d.log.Warn("changes of the configuration that take a restart", slog.String("keys", strings.Join(changed, ", ")))
	}
	return nil
}

// changes names the keys in which two configurations differ and that are not
// live, sorted.
func changes(a, b *config) ([]string, error) {
	was, err := asMap(a)
	if err != nil {
		return nil, err
	}
	is, err := asMap(b)
	if err != nil {
		return nil, err
	}
	changed := make(map[string]bool)
	for key := range maps.Keys(is) {
		if live(key) || reflect.DeepEqual(was[key], is[key]) {
			continue
		}
		before, ok1 := was[key].(map[string]any)
		after, ok2 := is[key].(map[string]any)
		if !ok1 || !ok2 {
			changed[key] = true
			continue
		}
		for k := range after {
			if !reflect.DeepEqual(before[k], after[k]) {
				changed[key+"."+k] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(changed)), nil
}

// asMap returns a configuration by its keys.
func asMap(c *config) (map[string]any, error) {
	b, err := toml.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("compare configurations: %w", err)
	}
	m := make(map[string]any)
	if err := toml.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("compare configurations: %w", err)
	}
	return m, nil
}
