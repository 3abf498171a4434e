package main

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	busy := l.Addr().String()
	if err := inUse([]string{busy}); err == nil || !strings.Contains(err.Error(), busy) {
		t.Errorf("inUse(%s) = %v, want an error that names it", busy, err)
	}
	l.Close()
	if err := inUse([]string{busy}); err != nil {
		t.Errorf("inUse of a free address = %v", err)
	}
}

// TestAddresses: the ports of the Gateway and of the backends are those of the manifests.
func TestAddresses(t *testing.T) {
	files, err := filepath.Glob("../*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d manifests, %v", len(files), err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)[pP]ort: ([0-9]{4,5})$`).FindAllStringSubmatch(string(b), -1) {
			if !slices.Contains(addresses(), "127.0.0.1:"+m[1]) {
				t.Errorf("%s has port %s, which addresses does not have", f, m[1])
			}
		}
	}
}
