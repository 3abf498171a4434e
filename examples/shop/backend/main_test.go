package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	done := make(chan error)
	go func() { done <- run(ctx, []string{"api=127.0.0.1:0"}, w) }()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	address := strings.TrimSpace(line[strings.LastIndexByte(line, ' '):])

	req, err := http.NewRequest("POST", "http://"+address+"/a%2Fb?q=1", strings.NewReader("four"))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "example.com"
	req.Header = http.Header{"X-Shop-B": {"2"}, "X-Shop-A": {"1"}, "X-Forwarded-For": {"192.0.2.1"}, "X-Forwarded-Proto": {"https"}}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	const want = "api: POST /a%2Fb?q=1 host=example.com for=192.0.2.1 proto=https x-shop-a=1 x-shop-b=2 body=4\n"
	if err != nil || string(got) != want {
		t.Errorf("answer = %q, %v, want %q", got, err, want)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("run after cancel = %v, want nil", err)
	}
}

func TestRunFaults(t *testing.T) {
	for args, want := range map[string]string{
		"":              "name at least one backend",
		"web":           `"web" is not name=address`,
		"web=nowhere:x": "listening for web",
	} {
		err := run(t.Context(), strings.Fields(args), io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("run(%q) = %v, want %q", args, err, want)
		}
	}
}
