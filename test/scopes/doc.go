// Package scopes holds the test that the real daemon's memory stays below the limit of
// its scope system, whatever clients do.
package scopes
