package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/admin"
	"github.com/gatehouse-io/gatehouse/internal/control"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/dns"
	"github.com/gatehouse-io/gatehouse/internal/edge"
	"github.com/gatehouse-io/gatehouse/internal/feed"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/kube"
	"github.com/gatehouse-io/gatehouse/internal/manifest"
	"github.com/gatehouse-io/gatehouse/internal/objects"
	"github.com/gatehouse-io/gatehouse/internal/telemetry"
	"github.com/gatehouse-io/gatehouse/internal/translate"
	"github.com/gatehouse-io/gatehouse/internal/upstream"
)

// Times of DESIGN.md, "Default limits".
const (
	drainGrace = 10 * time.Second // --drain-grace: still accepting after SIGTERM, while load balancers learn of it
	drainLimit = 40 * time.Second // for what is in flight then
)

// serveFlags are the flags of run.
type serveFlags struct {
	files                                             *list
	ports                                             *ports
	cluster                                           clusterFlags
	health, admin, token, access, format, level, zone *string
	grace                                             *time.Duration
	stores                                            storeFlags
}

// process is everything that runs.
type process struct {
	gogc     string // GOGC of the environment
	flags    serveFlags
	opt      translate.Options
	log      *slog.Logger
	feed     *feed.Memory
	loop     *control.Loop
	edge     *edge.Edge
	kube     *kube.Cluster // nil: files are served
	recorder *telemetry.Recorder
	stores   *stores
	draining atomic.Bool
	leaving  chan struct{} // closed when the drain begins
	servers  sync.WaitGroup
}

func runServe(ctx context.Context, c *call) error {
	f := serveFlags{files: c.files(), ports: c.ports(), cluster: c.cluster(),
		health: c.flags.String("health", ":9902", "address of /healthz, /readyz and /metrics; off: none"),
		admin:  c.flags.String("admin", "127.0.0.1:9901", "address of /debug, or unix:PATH; off: none"),
		token:  c.flags.String("admin-token-file", "", "file with the token that --admin asks for"),
		access: c.flags.String("access-log", "off", "stdout, a file's path, or off"),
		format: c.flags.String("access-log-format", "json", "json or text"),
		level:  c.flags.String("log-level", "info", "debug, info, warn or error"),
		zone:   c.flags.String("zone", "", "topology zone of this process, to prefer endpoints meant for it (default $POD_ZONE)"),
		stores: c.stores(),
		grace:  c.flags.Duration("drain-grace", drainGrace, "how long connections are still taken after SIGTERM"),
	}
	rest, err := c.parse()
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return &usageError{fmt.Sprintf("unexpected %q: paths go behind -f", rest[0])}
	}
	p, err := newProcess(c, f)
	if err != nil {
		return err
	}
	return p.run(ctx)
}

func newProcess(c *call, f serveFlags) (*process, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(*f.level)); err != nil {
		return nil, &usageError{fmt.Sprintf("--log-level is %q; write debug, info, warn or error", *f.level)}
	}
	if err := oneOf("--access-log-format", *f.format, "json", "text"); err != nil {
		return nil, err
	}
	if *f.grace < 0 {
		return nil, &usageError{fmt.Sprintf("--drain-grace is %s; write 0s or more", *f.grace)}
	}
	opt, err := f.ports.options()
	if err != nil {
		return nil, err
	}
	p := &process{flags: f, opt: opt, gogc: c.getenv("GOGC"), leaving: make(chan struct{}), feed: &feed.Memory{}, log: slog.New(slog.NewTextHandler(c.stderr, &slog.HandlerOptions{Level: level}))}
	format := telemetry.JSON
	if *f.format == "text" {
		format = telemetry.Text
	}
	p.recorder, err = telemetry.New(telemetry.Options{AccessLog: *f.access, Format: format, Stdout: c.stdout, Log: p.log})
	if err != nil {
		return nil, err
	}
	if len(f.files.values) == 0 {
		ko, err := f.cluster.options(c, &p.opt)
		if err != nil {
			return nil, err
		}
		ko.Log = p.log
		if p.kube, err = kube.New(ko); err != nil {
			return nil, err
		}
	} else if err := f.cluster.names(&p.opt); err != nil {
		return nil, err
	}
	p.loop = control.New(translate.New(p.opt), p.feed, p.log)
	if p.stores, err = newStores(f.stores, p.log); err != nil {
		return nil, err
	}
	eo := edge.Options{Feed: p.feed, Steps: opt.Steps, Recorder: p.recorder, Log: p.log,
		Zone: cmp.Or(*f.zone, c.getenv("POD_ZONE")), Allow: allowed(p.opt.Loopback), Lookup: names(),
		MemoryLimit: limitMemory(c.getenv("GOMEMLIMIT"), os.DirFS("/"))}
	p.stores.into(&eo)
	p.edge = edge.New(eo)
	p.metrics()
	p.storeMetrics()
	return p, nil
}

// source is where objects come from.
type source interface {
	// Run hands on all objects at first, then each change, until ctx ends, and returns nil then.
	Run(ctx context.Context, apply func(objects.Change, []diag.Fault)) error
}

// source opens what is served: files, else the cluster.
func (p *process) source() (source, error) {
	if p.kube == nil {
		return manifest.Open(p.flags.files.values, p.log)
	}
	p.loop.Fetch(p.kube.Fetch)
	return clusterSource{p.kube, p}, nil
}

// allowed says which backend addresses may be dialled: none that reaches no host, or means a cloud's metadata service or, where a
// cluster is the source, this pod or its node. With files loopback may be.
func allowed(loopback bool) func(netip.Addr) bool {
	return func(a netip.Addr) bool {
		return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLinkLocalUnicast() && (loopback || !a.IsLoopback())
	}
}

// names is how names of backends are looked up: as resolv.conf and the hosts file say, where those are what the system goes by.
func names() upstream.Lookup {
	if runtime.GOOS == "linux" {
		return dns.New(dns.Options{}).Lookup
	}
	return upstream.System(net.DefaultResolver.LookupNetIP)
}

// run serves until a signal or the end of ctx, then drains.
func (p *process) run(ctx context.Context) error {
	defer func() { _ = p.recorder.Close() }()
	defer p.stores.close()
	if err := allowLowPorts(); err != nil { // then such ports are bound 10000 higher, and the log says so
		p.log.Debug("capability not in effect", "err", err)
	}
	source, err := p.source()
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt, syscall.SIGHUP)
	defer signal.Stop(signals)
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	defer p.servers.Wait()
	defer wg.Wait()
	defer stop()
	if err := p.serveAdmin(background); err != nil {
		return err
	}
	failed := make(chan error, 1)
	wg.Go(func() {
		var once sync.Once
		err := source.Run(background, func(ch objects.Change, faults []diag.Fault) {
			once.Do(func() {
				if p.kube == nil {
					ch.Upserts = append(defaults(p.opt), ch.Upserts...)
				}
			})
			p.loop.Apply(ch, faults)
		})
		if err != nil && background.Err() == nil {
			failed <- fmt.Errorf("watching: %w", err)
		}
	})
	wg.Go(func() { p.loop.Run(background) })
	wg.Go(func() { pace(background, p.gogc) })
	wg.Go(func() { p.edge.Run(background) })
	wg.Go(func() { p.announce(background) })
	grace := time.Duration(0)
	for waiting := true; waiting; {
		select {
		case <-ctx.Done():
			waiting = false
		case err := <-failed:
			return err
		case s := <-signals:
			if s == syscall.SIGHUP {
				p.reopen()
				continue
			}
			if s == syscall.SIGTERM {
				grace = *p.flags.grace
			}
			waiting = false
		}
	}
	return p.drain(grace, signals)
}

// drain stops without losing what is in flight; a second signal stops at once.
func (p *process) drain(grace time.Duration, signals <-chan os.Signal) error {
	p.draining.Store(true)
	close(p.leaving)
	p.log.Info("draining", "grace", grace, "limit", drainLimit)
	ctx, cancel := context.WithTimeout(context.Background(), grace+drainLimit)
	defer cancel()
	go func() {
		for {
			select {
			case s := <-signals:
				if s != syscall.SIGHUP {
					cancel()
					return
				}
				p.reopen()
			case <-ctx.Done():
				return
			}
		}
	}()
	switch n := p.edge.Drain(ctx, grace); {
	case n == 1:
		return errors.New("1 connection had to be closed before it was done")
	case n > 1:
		return fmt.Errorf("%d connections had to be closed before they were done", n)
	}
	p.log.Info("stopped")
	return nil
}

// reopen lets a log that was moved away go on in a new file.
func (p *process) reopen() {
	if err := p.recorder.Reopen(); err != nil {
		p.log.Error("access log not reopened", "err", err)
	}
}

// announce says when the edge first serves, and when it serves something else.
func (p *process) announce(ctx context.Context) {
	live := uint64(0)
	for {
		a, changed := p.feed.Acked()
		if a.ConfigVersion != live {
			st, _ := p.feed.Latest()
			p.stores.watch(st.Config)
		}
		switch {
		case a.ConfigVersion == live:
		case live == 0:
			bound := 0
			for _, l := range a.Listeners {
				if l.Bound != "" {
					bound++
				}
			}
			p.log.Info("ready", "listeners", len(a.Listeners), "bound", bound, "faults", len(p.loop.Faults()))
		default:
			p.log.Info("change is live", "version", a.ConfigVersion, "faults", len(p.loop.Faults()))
		}
		live = a.ConfigVersion
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// serveAdmin opens the health and admin servers.
func (p *process) serveAdmin(ctx context.Context) error {
	if a := *p.flags.health; a != "off" {
		h := admin.Health{Waiting: p.waiting, Draining: p.draining.Load, Metrics: p.recorder.Metrics()}
		if err := p.serveHTTP(ctx, a, h.Handler()); err != nil {
			return fmt.Errorf("--health %s: %w", a, err)
		}
	}
	a := *p.flags.admin
	if a == "off" {
		return nil
	}
	token := ""
	if f := *p.flags.token; f != "" {
		t, err := admin.ReadToken(f)
		if err != nil {
			return fmt.Errorf("--admin-token-file: %w", err)
		}
		token = t
	}
	if err := admin.CheckAddress(a, token != ""); err != nil {
		return &usageError{err.Error()}
	}
	h := admin.New(admin.Values{Routes: p.showRoutes, Explain: p.showExplain, Config: p.showConfig}, admin.OptionsFor(a, token))
	if err := p.serveHTTP(ctx, a, h); err != nil {
		return fmt.Errorf("--admin %s: %w", a, err)
	}
	return nil
}

func (p *process) serveHTTP(ctx context.Context, address string, h http.Handler) error {
	ln, err := admin.Listen(address)
	if err != nil {
		return err
	}
	p.servers.Go(func() {
		if err := admin.Serve(ctx, ln, h, p.log); err != nil && ctx.Err() == nil {
			p.log.Error("server ended", "address", address, "err", err)
		}
	})
	return nil
}

// waiting is what readiness still waits for.
func (p *process) waiting() []string {
	if p.edge.Ready() {
		return nil
	}
	if p.kube != nil {
		if kinds := p.kube.Waiting(); len(kinds) > 0 {
			return []string{"the cluster's " + strings.Join(kinds, ", ")}
		}
	}
	return []string{"the first configuration"}
}

var errNotReady = errors.New("the first configuration is not live yet")

func (p *process) showRoutes(asJSON bool) ([]byte, error) {
	s := p.edge.Snapshot()
	if s == nil {
		return nil, errNotReady
	}
	if asJSON {
		return marshal(s.Config)
	}
	return []byte(ir.RoutesText(s.Config)), nil
}

func (p *process) showExplain(q admin.Query, asJSON bool) ([]byte, error) {
	s := p.edge.Snapshot()
	if s == nil {
		return nil, errNotReady
	}
	qu := question{method: q.Method, url: q.URL, from: q.From}
	if !qu.from.IsValid() {
		qu.from = netip.AddrFrom4([4]byte{198, 51, 100, 1})
	}
	for _, h := range q.Header {
		qu.header = append(qu.header, h.Name+": "+h.Value)
	}
	xs, err := explain(s, qu)
	if err != nil {
		return nil, &admin.BadRequest{Msg: err.Error()}
	}
	if asJSON {
		return marshal(xs)
	}
	var b bytes.Buffer
	printExplanations(&b, xs)
	return b.Bytes(), nil
}

// configView is what /debug/config shows.
type configView struct {
	Version   string                        `json:"version"`
	Live      map[string]uint64             `json:"live"`      // versions that the data side acknowledged
	Listeners map[string]feed.ListenerState `json:"listeners"` // by key
	Faults    []diag.Fault                  `json:"faults"`
	Objects   []*diag.Object                `json:"objects"`
	Config    *ir.Config                    `json:"config"`
	Endpoints ir.Endpoints                  `json:"endpoints"`
}

func (p *process) showConfig() (any, error) {
	v := p.loop.View()
	if v == nil {
		return nil, errNotReady
	}
	st, _ := p.feed.Latest()
	a, _ := p.feed.Acked()
	return configView{Version: version, Listeners: a.Listeners, Faults: p.loop.Faults(), Objects: v.Report.Sorted(), Config: st.Config,
		Endpoints: st.Endpoints, Live: map[string]uint64{"config": a.ConfigVersion, "endpoints": a.EndpointsVersion, "secrets": a.SecretsVersion},
	}, nil
}
