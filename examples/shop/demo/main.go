// Command demo is what `make demo` runs: the shop's sample backends and Gatehouse on the shop's files, until Ctrl-C. It starts two
// processes, ends both, and needs nothing but the two programs that `make demo` builds.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const health = "127.0.0.1:9902"

// addresses are what the demo and the files of examples/shop listen on.
func addresses() []string {
	return []string{"127.0.0.1:8000", "127.0.0.1:8080", "127.0.0.1:8443", "127.0.0.1:8444", "127.0.0.1:9101", "127.0.0.1:9102", "127.0.0.1:9103",
		"127.0.0.1:9901", health}
}

// inUse tells of every address that somebody else listens on: what one tries would ask them.
func inUse(addresses []string) error {
	var busy []string
	for _, a := range addresses {
		l, err := net.Listen("tcp", a)
		if err != nil {
			busy = append(busy, a)
			continue
		}
		l.Close()
	}
	if len(busy) > 0 {
		return fmt.Errorf("in use by another program: %s; end it and try again", strings.Join(busy, ", "))
	}
	return nil
}

const try = `
The shop is open. Try, in another terminal:

  curl -H 'Host: example.com' http://127.0.0.1:8080/api/orders            the Ingress: /api goes to api-service
  curl -H 'Host: example.com' http://127.0.0.1:8080/                      / goes to web-service
  curl -H 'Host: example.com' http://127.0.0.1:8000/api/orders            the same with Gateway and HTTPRoute
  curl -H 'Host: canary.example.com' http://127.0.0.1:8000/               one in ten comes from web-canary
  curl -H 'Host: api.example.com' http://127.0.0.1:8000/v1/orders         a rewrite
  curl -i -H 'Host: old.example.com' http://127.0.0.1:8000/catalogue/7    a redirect
  curl --cacert examples/shop/certificate.pem --resolve secure.example.com:8443:127.0.0.1 https://secure.example.com:8443/
  bin/gatehouse explain -f examples/shop GET http://example.com:8080/api/orders

Edit a file in examples/shop: the change is live at once. Ctrl-C ends it.

`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := inUse(addresses())
	if err == nil {
		err = run(ctx, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, stdout io.Writer) error {
	// Each child ends when stopped is called: with the demo, or because the other one ended.
	ctx, stopped := context.WithCancelCause(ctx)
	defer stopped(nil)
	ended := make(chan struct{})
	commands := [][]string{
		{"bin/shop-backend", "web-service=127.0.0.1:9101", "api-service=127.0.0.1:9102", "web-canary=127.0.0.1:9103"},
		{"bin/gatehouse", "run", "-f", "examples/shop", "--bind", "127.0.0.1", "--health", health},
	}
	started := 0
	for _, c := range commands {
		cmd := child(ctx, c)
		if err := cmd.Start(); err != nil {
			stopped(fmt.Errorf("starting %s (make demo builds it): %w", c[0], err))
			break
		}
		started++
		go func() {
			err := cmd.Wait()
			stopped(fmt.Errorf("%s ended: %w", c[0], orZero(err)))
			ended <- struct{}{}
		}()
	}
	if ready(ctx) {
		fmt.Fprint(stdout, try)
	}
	<-ctx.Done()
	for range started {
		<-ended
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// orZero is err, or what no error means for a program that should have gone on.
func orZero(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// child is a command that is asked to end when ctx does, and made to 15 s later. It has a process group of its own, so that Ctrl-C
// in the terminal reaches it through the demo alone.
func child(ctx context.Context, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 15 * time.Second
	return cmd
}

// ready waits until Gatehouse says that it is, and is false if ctx ends first.
func ready(ctx context.Context) bool {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+health+"/readyz", nil)
		if err != nil {
			return false
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return true
			}
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(50 * time.Millisecond):
		}
	}
}
