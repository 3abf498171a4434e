package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"
)

// serveKubelet serves of a kubelet's API what the API server asks for on behalf of users: the logs of containers.
func (a *agent) serveKubelet(ctx context.Context, n *node) error {
	cert, err := tls.X509KeyPair(a.c.kubeletCert.cert, a.c.kubeletCert.key)
	if err != nil {
		return fmt.Errorf("reading the kubelet's certificate: %w", err)
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(a.c.ca.pem)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", a.serveLogs)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "the test cluster's node has no "+r.URL.Path, http.StatusNotImplemented)
	})
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{cert}, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert,
		},
	}
	l, err := net.Listen("tcp", net.JoinHostPort(n.addrs[0].String(), strconv.Itoa(kubeletPort)))
	if err != nil {
		return fmt.Errorf("listening as the kubelet of %s: %w", n.name, err)
	}
	a.running.Go(func() {
		if err := server.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
			a.log.Error("the kubelet's server ended", "node", n.name, "err", err)
		}
	})
	a.running.Go(func() {
		<-ctx.Done()
		server.Close()
	})
	return nil
}

func (a *agent) serveLogs(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	logs, err := a.logsOf(r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container"), q.Get("previous") == "true")
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	query, err := parseLogQuery(q.Get)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	out := &flushing{w, http.NewResponseController(w)}
	out.Flush()
	if err := logs.write(r.Context(), out, query); err != nil {
		a.log.Debug("a reader of logs went away", "err", err)
	}
}

// flushing lets followers see lines at once.
type flushing struct {
	http.ResponseWriter
	control *http.ResponseController
}

func (f *flushing) Flush() { _ = f.control.Flush() }

func (a *agent) logsOf(namespace, name, container string, previous bool) (*logBuffer, error) {
	p, err := a.find(namespace, name)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.containers {
		if c.spec.Name != container {
			continue
		}
		logs := c.logs
		if previous {
			logs = c.old
		}
		if logs == nil {
			return nil, fmt.Errorf("container %q of %s/%s has not run", container, namespace, name)
		}
		return logs, nil
	}
	return nil, fmt.Errorf("no container %q in %s/%s", container, namespace, name)
}

func parseLogQuery(get func(string) string) (logQuery, error) {
	q := logQuery{follow: get("follow") == "true", timestamps: get("timestamps") == "true", tail: -1}
	var err error
	if s := get("tailLines"); s != "" {
		if q.tail, err = strconv.Atoi(s); err != nil {
			return q, fmt.Errorf("tailLines: %w", err)
		}
	}
	if s := get("limitBytes"); s != "" {
		if q.limit, err = strconv.ParseInt(s, 10, 64); err != nil {
			return q, fmt.Errorf("limitBytes: %w", err)
		}
	}
	if s := get("sinceSeconds"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			return q, fmt.Errorf("sinceSeconds: %w", err)
		}
		q.since = time.Now().Add(-time.Duration(n) * time.Second)
	}
	if s := get("sinceTime"); s != "" {
		if q.since, err = time.Parse(time.RFC3339Nano, s); err != nil {
			return q, fmt.Errorf("sinceTime: %w", err)
		}
	}
	return q, nil
}
