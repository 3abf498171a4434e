//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

const (
	rotateEvery = 10 // changes
	visible     = 5 * time.Second
)

// churn changes the world each second until ctx ends, and waits each time until the change is seen.
func (s *soak) churn(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := s.world.replacePod(); err != nil {
			return err
		}
		begin := time.Now()
		added, removed, err := s.world.changeRoutes(n)
		if err != nil {
			return err
		}
		c := &client{load: s.load}
		err = until(func() (bool, error) { return c.sees(added, removed, n) })
		c.hangUp()
		note(&s.changes, begin, err)
		if n%rotateEvery != 0 {
			continue
		}
		begin = time.Now()
		if err := s.world.rotate(); err != nil {
			return err
		}
		note(&s.rotations, begin, until(func() (bool, error) {
			c := &client{load: s.load, secure: true}
			defer c.hangUp()
			if err := c.dial(); err != nil {
				return false, err
			}
			t, ok := c.conn.(*tls.Conn)
			return ok && s.world.isNewest(t.ConnectionState()), nil
		}))
	}
}

func note(t *tally, begin time.Time, err error) {
	if err != nil {
		t.fail(reason(err))
		return
	}
	t.ok(time.Since(begin))
}

// until asks again and again, each time a little later, until the answer is yes.
func until(yes func() (bool, error)) error {
	for deadline := time.Now().Add(visible); ; time.Sleep(2 * time.Millisecond) {
		if ok, err := yes(); ok || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not seen within %v", visible)
		}
	}
}

// sees says whether the routes are those of a generation: the changed and the added route answer with it, the removed one is gone.
func (c *client) sees(added, removed string, generation int) (bool, error) {
	for _, name := range []string{"changed", added} {
		status, got, err := c.probe(name)
		if err != nil || got != strconv.Itoa(generation) {
			return false, err
		}
		if status != http.StatusOK {
			return false, fmt.Errorf("a route under change: status %d", status)
		}
	}
	if removed == "" {
		return true, nil
	}
	status, _, err := c.probe(removed)
	return status == http.StatusNotFound, err
}

// probe asks a route for its generation.
func (c *client) probe(name string) (status int, generation string, err error) {
	if err := c.dial(); err != nil {
		return 0, "", err
	}
	req, err := http.NewRequest(http.MethodGet, "http://"+host(name)+"/echo", nil)
	if err != nil {
		return 0, "", err
	}
	if err := req.Write(c.conn); err != nil {
		return 0, "", fmt.Errorf("sending: %w", err)
	}
	res, err := http.ReadResponse(c.r, req)
	if err != nil {
		return 0, "", fmt.Errorf("reading the head: %w", err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return 0, "", fmt.Errorf("reading the body: %w", err)
	}
	if res.Close {
		return 0, "", errors.New("the answer closes a connection on which nothing was wrong")
	}
	return res.StatusCode, res.Header.Get("X-Generation"), nil
}
