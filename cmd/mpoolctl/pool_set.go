package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
)

func newPoolSet(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "set NAME KEY=VALUE...",
		Short: "Change properties of an active pool",
		Long: `Change properties of an active pool:

  uid, gid       who owns it: a number or a name
  mode           permission bits, octal
  label          free text of up to 63 bytes
  read_verify    true or false: whether reads verify checksums
  shared         true or false: whether everybody who may open the pool may use
                 every object in it, whoever owns it
  spare_percent  0 to 50: the share of free space kept back from ordinary use`,
		Example: `  mpoolctl pool set data spare_percent=5 label='first shelf'
  mpoolctl pool set data shared=true mode=0660 gid=storage`,
		Args: cobra.MinimumNArgs(2),
		RunE: a.verb(func(ctx context.Context, args []string) error {
			s, err := parsePoolSettings(args[1:])
			if err != nil {
				return err
			}
			return a.withDaemon(ctx, func(d daemon) error {
				if err := d.SetPool(ctx, args[0], s); err != nil {
					return err
				}
				info, err := findPool(ctx, d, args[0])
				if err != nil {
					return err
				}
				return a.print(newPoolView(info))
			})
		}),
	}
}

// poolProperties are the keys that pool set knows.
var poolProperties = []string{"uid", "gid", "mode", "label", "read_verify", "shared", "spare_percent"}

// parsePoolSettings reads KEY=VALUE pairs. A key given twice counts as it was
// given last.
func parsePoolSettings(pairs []string) (api.PoolSettings, error) {
	var s api.PoolSettings
	for _, pair := range pairs {
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return s, usagef("%q: want KEY=VALUE", pair)
		}
		if err := setPoolProperty(&s, key, value); err != nil {
			return s, usagef("%s: %v", key, err)
		}
	}
	return s, nil
}

func setPoolProperty(s *api.PoolSettings, key, value string) error {
	switch key {
	case "uid":
		n, err := parseNumericID(value, lookupUser)
		s.UID = &n
		return err
	case "gid":
		n, err := parseNumericID(value, lookupGroup)
		s.GID = &n
		return err
	case "mode":
		m, err := parseMode(value)
		s.Mode = &m
		return err
	case "label":
		s.Label = &value
		return nil
	case "read_verify":
		b, err := parseBool(value)
		s.ReadVerify = &b
		return err
	case "shared":
		b, err := parseBool(value)
		s.Shared = &b
		return err
	case "spare_percent":
		n, err := strconv.ParseUint(value, 10, 8)
		if err != nil || n > 50 {
			return usagef("%q: want 0 to 50", value)
		}
		p := uint8(n)
		s.SparePercent = &p
		return nil
	}
	return usagef("no such property: want one of %s", strings.Join(poolProperties, ", "))
}

// parseBool reads true or false.
func parseBool(s string) (bool, error) {
	b, err := strconv.ParseBool(s)
	if err != nil {
		return false, usagef("%q: want true or false", s)
	}
	return b, nil
}
