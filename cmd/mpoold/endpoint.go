package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/mpool-go/mpool/server"
)

// endpointAddr is where metrics are served: a loopback address or a Unix
// socket. The zero value is nowhere.
type endpointAddr struct {
	tcp  netip.AddrPort
	path string
}

func (a endpointAddr) none() bool { return a == endpointAddr{} }

// parseEndpoint reads an address of the configuration; "" is nowhere. The error
// completes a sentence that begins with the key.
func parseEndpoint(s string) (endpointAddr, error) {
	const want = "want loopback (127.0.0.1:9090, [::1]:9090, localhost:9090) or a Unix socket (unix:/path, /path)"
	path, isUnix := strings.CutPrefix(s, "unix:")
	switch {
	case s == "":
		return endpointAddr{}, nil
	case isUnix || strings.HasPrefix(s, "/"):
		if !filepath.IsAbs(path) {
			return endpointAddr{}, fmt.Errorf("is %q, which is no absolute path: %s", s, want)
		}
		return endpointAddr{path: filepath.Clean(path)}, nil
	}
	host, portText, err := net.SplitHostPort(s)
	if err != nil {
		return endpointAddr{}, fmt.Errorf("is %q, which is no address: %s", s, want)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return endpointAddr{}, fmt.Errorf("is %q, whose port is no number from 0 to 65535: %s", s, want)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || !ip.Unmap().IsLoopback() || ip.Zone() != "" {
		return endpointAddr{}, fmt.Errorf("is %q, which other hosts may reach; metrics are for this host only: %s", s, want)
	}
	return endpointAddr{tcp: netip.AddrPortFrom(ip.Unmap(), uint16(port))}, nil
}

// Bounds of the endpoint.
const (
	endpointConns   = 32 // at one time; others wait
	endpointScrapes = 4
	endpointHeader  = 8 << 10 // bytes of a request's header
	scrapeTimeout   = 10 * time.Second
	// A profile is as long as the client asks, within this.
	profileTimeout = 2 * time.Minute
)

// endpoint serves metrics, and profiles if wanted, to this host.
type endpoint struct {
	listener net.Listener
	server   *http.Server
	done     chan struct{} // Serve has returned
}

// startEndpoint serves a registry. close ends it.
func startEndpoint(a endpointAddr, profiles bool, reg *prometheus.Registry, log *slog.Logger) (*endpoint, error) {
	var l net.Listener
	var err error
	if a.path != "" {
		l, err = server.ListenStream(a.path, 0o600)
	} else {
		l, err = (&net.ListenConfig{}).Listen(context.Background(), "tcp", a.tcp.String())
	}
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	errorLog := slog.NewLogLogger(log.Handler(), slog.LevelWarn)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		ErrorLog: errorLog, ErrorHandling: promhttp.ContinueOnError,
		MaxRequestsInFlight: endpointScrapes, Timeout: scrapeTimeout,
	}))
	timeout := 2 * scrapeTimeout
	if profiles {
		timeout = profileTimeout
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	var handler http.Handler = mux
	if a.path == "" {
		handler = localOnly(mux)
	}
	e := &endpoint{
		listener: l, done: make(chan struct{}),
		server: &http.Server{
			Handler: handler, ErrorLog: errorLog, MaxHeaderBytes: endpointHeader,
			ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
			WriteTimeout: timeout, IdleTimeout: time.Minute,
		},
	}
	go func() {
		defer close(e.done)
		err := e.server.Serve(newBoundedListener(l, endpointConns))
		if err != nil && !errors.Is(err, http.ErrServerClosed) {
			log.Error("metrics are served no more", slog.Any("error", err))
		}
	}()
	return e, nil
}

// address returns where the endpoint is, as a client would say it.
func (e *endpoint) address() string {
	if l, ok := e.listener.(*server.Listener); ok {
		return "unix:" + l.Path()
	}
	return "http://" + e.listener.Addr().String() + "/metrics"
}

// close ends the endpoint and all requests to it.
func (e *endpoint) close() {
	_ = e.server.Close() // a metrics reader has nothing to lose
	<-e.done
}

// localOnly refuses requests that name another host: a browser on this host
// that was led here under a foreign name.
func localOnly(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
		if host != "localhost" && (err != nil || !ip.IsLoopback()) {
			http.Error(w, "this is served to this host only, under a loopback address or as localhost", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// boundedListener accepts so many connections at one time.
type boundedListener struct {
	net.Listener
	room   chan struct{} // a token per connection
	closed chan struct{}
	once   sync.Once
}

func newBoundedListener(l net.Listener, conns int) *boundedListener {
	return &boundedListener{Listener: l, room: make(chan struct{}, conns), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *boundedListener) Accept() (net.Conn, error) {
	select {
	case l.room <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.room
		return nil, err
	}
	return &boundedConn{Conn: c, room: l.room}, nil
}

// Close implements net.Listener.
func (l *boundedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// boundedConn gives its place back when it is closed.
type boundedConn struct {
	net.Conn
	room chan struct{}
	once sync.Once
}

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	c.once.Do(func() { <-c.room })
	return c.Conn.Close()
}
