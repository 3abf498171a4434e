package cluster

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// startProbes runs the probes of one run of the container, until it has exited.
func (c *container) startProbes(exited chan struct{}) {
	ctx, cancel := context.WithCancel(c.p.ctx)
	c.p.a.running.Go(func() {
		<-exited
		cancel()
	})
	c.p.a.running.Go(func() {
		if p := c.spec.StartupProbe; p != nil {
			if !c.probe(ctx, p, true, nil) {
				c.unhealthy(ctx, "startup")
				return
			}
		}
		c.ranUp()
		if p := c.spec.ReadinessProbe; p != nil {
			c.p.a.running.Go(func() { c.probe(ctx, p, false, c.setReady) })
		}
		if p := c.spec.LivenessProbe; p != nil {
			alive := true
			live, stop := context.WithCancel(ctx)
			defer stop()
			c.p.a.running.Go(func() {
				select {
				case <-c.p.ending: // a pod that ends is not killed for being ill
					stop()
				case <-live.Done():
				}
			})
			c.probe(live, p, false, func(ok bool) {
				if alive = ok; !ok {
					stop()
				}
			})
			if !alive {
				c.unhealthy(ctx, "liveness")
			}
		}
	})
}

// unhealthy ends the container because of a probe; it is started again as the restart policy says.
func (c *container) unhealthy(ctx context.Context, which string) {
	process, exited := c.running()
	if ctx.Err() != nil || process == nil || c.p.isEnding() {
		return
	}
	c.p.event("Unhealthy", fmt.Sprintf("container %s failed its %s probe and is restarted", c.spec.Name, which))
	end := time.Now().Add(c.p.grace())
	c.stop(process, exited, func() time.Duration { return time.Until(end) })
}

// eager is how often a program is asked that has never answered well: tests would else wait for whole periods at each start. These
// extra attempts can only succeed; failures count once a period.
const eager = 200 * time.Millisecond

// probe tries again and again until ctx ends, or, with once, until the verdict is clear, which it returns. tell hears each verdict
// that the thresholds let through, also if it is the same as before.
func (c *container) probe(ctx context.Context, p *corev1.Probe, once bool, tell func(bool)) bool {
	pause(ctx, time.Duration(p.InitialDelaySeconds)*time.Second)
	period := time.Duration(max(p.PeriodSeconds, 1)) * time.Second
	var good, bad int32
	var counted time.Time
	next := eager
	verdict := true
	for ctx.Err() == nil {
		err := c.try(ctx, p)
		switch {
		case ctx.Err() != nil:
			return false
		case err == nil:
			good, bad, next = good+1, 0, period
		case time.Since(counted) >= period:
			good, bad, counted = 0, bad+1, time.Now()
		}
		if err == nil && good >= max(p.SuccessThreshold, 1) || err != nil && bad >= max(p.FailureThreshold, 1) {
			if verdict && err != nil {
				c.p.event("Unhealthy", fmt.Sprintf("container %s: %s", c.spec.Name, err))
			}
			verdict = err == nil
			if once {
				return verdict
			}
			tell(verdict)
		}
		pause(ctx, min(next, period))
	}
	return false
}

// try makes one attempt.
func (c *container) try(ctx context.Context, p *corev1.Probe) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(max(p.TimeoutSeconds, 1))*time.Second)
	defer cancel()
	switch {
	case p.HTTPGet != nil:
		return c.httpGet(ctx, p.HTTPGet)
	case p.TCPSocket != nil:
		addr, err := c.address(p.TCPSocket.Host, p.TCPSocket.Port)
		if err != nil {
			return err
		}
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	default:
		return errors.New("the test cluster has no exec and no grpc probes; use httpGet or tcpSocket")
	}
}

func (c *container) httpGet(ctx context.Context, h *corev1.HTTPGetAction) error {
	addr, err := c.address(h.Host, h.Port)
	if err != nil {
		return err
	}
	path := "/" + strings.TrimPrefix(h.Path, "/")
	url := strings.ToLower(cmp.Or(string(h.Scheme), "http")) + "://" + addr + path
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "kube-probe/1.37")
	for _, x := range h.HTTPHeaders {
		if strings.EqualFold(x.Name, "Host") {
			req.Host = x.Value
			continue
		}
		req.Header.Add(x.Name, x.Value)
	}
	client := &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true,
			// A kubelet does not verify either: it asks a pod by its address.
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 200))
	if err != nil {
		return err
	}
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return fmt.Errorf("GET %s: status %d: %s", url, resp.StatusCode, body)
	}
	return nil
}

// address is where a probe goes: the pod, unless it names a host.
func (c *container) address(host string, port intstr.IntOrString) (string, error) {
	if host == "" {
		host = c.p.addrs[0].String()
	}
	n := port.IntValue()
	if port.Type == intstr.String {
		for _, p := range c.spec.Ports {
			if p.Name == port.StrVal {
				n = int(p.ContainerPort)
			}
		}
	}
	if n <= 0 {
		return "", fmt.Errorf("container %s has no port %q", c.spec.Name, port.String())
	}
	return net.JoinHostPort(host, fmt.Sprint(n)), nil
}
