package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"
)

// StopAPIServer ends the API server at once, as when its machine fails. What it stored stays; pods run on and Services forward on.
// Without an API server it does nothing.
func (c *Cluster) StopAPIServer() {
	c.plane.mu.Lock()
	defer c.plane.mu.Unlock()
	c.gate.set(false)
	c.plane.api.stop(0)
}

// StartAPIServer starts the API server anew after StopAPIServer and returns when it is ready.
func (c *Cluster) StartAPIServer(ctx context.Context) error {
	c.plane.mu.Lock()
	defer c.plane.mu.Unlock()
	api, err := c.startProcess(c.plane.space, "kube-apiserver", c.apiServerFlags()...)
	if err != nil {
		return err
	}
	c.plane.api = api
	if err := api.await(ctx, c.apiReady); err != nil {
		return err
	}
	c.gate.set(true)
	// The controller manager gives up when it has not seen an API server for a while, and until then tries at ever longer intervals: for
	// half a minute EndpointSlices would not follow pods, and whatever a test does to pods would fail for that.
	c.plane.controller.stop(0)
	c.plane.controller, err = c.startProcess(c.plane.space, "kube-controller-manager", c.controllerFlags()...)
	return err
}

// RestartAPIServer is StopAPIServer and StartAPIServer.
func (c *Cluster) RestartAPIServer(ctx context.Context) error {
	c.StopAPIServer()
	return c.StartAPIServer(ctx)
}

// PauseAPIServer makes the API server hang: it still accepts connections, but answers nothing until ResumeAPIServer.
func (c *Cluster) PauseAPIServer() error { return c.signalAPIServer(syscall.SIGSTOP) }

// ResumeAPIServer ends PauseAPIServer.
func (c *Cluster) ResumeAPIServer() error { return c.signalAPIServer(syscall.SIGCONT) }

func (c *Cluster) signalAPIServer(s syscall.Signal) error {
	c.plane.mu.Lock()
	defer c.plane.mu.Unlock()
	if err := c.plane.api.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("signalling the API server: %w", err)
	}
	return nil
}

// Compact makes etcd forget all revisions but the newest. The API server still remembers recent ones by itself: to have watches that go
// on from an old resource version answered with 410 Gone, restart it afterwards.
func (c *Cluster) Compact(ctx context.Context) error {
	var got struct {
		Header struct {
			Revision string `json:"revision"`
		} `json:"header"`
	}
	if err := c.etcd(ctx, "kv/range", map[string]any{"key": []byte("x"), "keys_only": true}, &got); err != nil {
		return fmt.Errorf("asking etcd for its revision: %w", err)
	}
	err := c.etcd(ctx, "kv/compaction", map[string]any{"revision": got.Header.Revision, "physical": true}, &struct{}{})
	if err != nil {
		return fmt.Errorf("compacting etcd at revision %s: %w", got.Header.Revision, err)
	}
	return nil
}

// etcd makes one call to etcd's JSON gateway, from within the control plane's network, where alone etcd listens.
func (c *Cluster) etcd(ctx context.Context, call string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, etcdURL+"/v3/"+call, bytes.NewReader(body))
	if err != nil {
		return err
	}
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
			err = c.plane.space.do(func() error {
				conn, err = new(net.Dialer).DialContext(ctx, network, addr)
				return err
			})
			return conn, err
		},
	}}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return errors.Join(fmt.Errorf("%s: %s: %s", call, resp.Status, text), err)
	}
	return json.NewDecoder(resp.Body).Decode(out)
}
