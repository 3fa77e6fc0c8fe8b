package main

import (
	"log/slog"

	"golang.org/x/sys/unix"
)

// What sessions and everything else take of descriptors.
const (
	sessionDescriptors = 2   // the socket and the pidfd
	otherDescriptors   = 256 // drives, loops, arenas until they are mapped
)

// warnOfDescriptors tells when the process may not have as many descriptors as the
// configured sessions take. Go's runtime has raised the soft limit to the hard one.
func warnOfDescriptors(c *config, log *slog.Logger) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		log.Warn("cannot look at the limit of descriptors", slog.Any("error", err))
		return
	}
	if want := sessionDescriptors*uint64(c.Limits.Sessions) + otherDescriptors; limit.Max < want {
		log.Warn("limits.sessions takes more descriptors than the daemon may have: raise RLIMIT_NOFILE (LimitNOFILE= in the unit), or lower it",
			slog.Int("sessions", c.Limits.Sessions), slog.Uint64("descriptors", want), slog.Uint64("rlimit_nofile", limit.Max))
	}
}
