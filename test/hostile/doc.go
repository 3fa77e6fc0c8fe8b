// Package hostile sends the real daemon everything that a client should not:
// messages of wrong lengths and random content, floods that read no answer,
// descriptors, forged credentials, thousands of connections, arenas that are
// not what they were, handles of others. Meanwhile modest clients have to get
// right answers, and the daemon's memory, descriptors, goroutines and processor
// time have to stay within bounds, and go back to what they were.
package hostile
