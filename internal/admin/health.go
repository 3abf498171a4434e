package admin

import (
	"net/http"
	"strings"
)

// Health is what the health server shows.
type Health struct {
	// Waiting returns what is still missing until the edge is ready, nothing when it is: "caches", "first snapshot".
	Waiting func() []string
	// Draining reports whether the edge is going down; nil: never.
	Draining func() bool
	Metrics  http.Handler // nil: /metrics is 404
}

// Handler answers /healthz (200 while the process lives), /readyz (503 with the reasons until it is ready, and while it drains)
// and /metrics. All is read only and there is nothing else.
func (h Health) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/healthz", readOnly(func(w http.ResponseWriter, _ *http.Request) { show(w, []byte("ok\n"), false, nil) }))
	mux.Handle("/readyz", readOnly(func(w http.ResponseWriter, _ *http.Request) {
		if h.Draining != nil && h.Draining() {
			problem(w, http.StatusServiceUnavailable, "draining", "the edge is going down")
			return
		}
		if missing := h.Waiting(); len(missing) > 0 {
			problem(w, http.StatusServiceUnavailable, "not_ready", "waiting for "+strings.Join(missing, ", "))
			return
		}
		show(w, []byte("ok\n"), false, nil)
	}))
	if h.Metrics != nil {
		mux.Handle("/metrics", readOnly(h.Metrics.ServeHTTP))
	}
	mux.HandleFunc("/", notFound)
	return mux
}
