// Command probe is the program of the test cluster's own tests. It serves HTTP on $PORT (8080) and says what it finds around itself.
// With arguments it does one thing and ends: "exit CODE", "fail-once FILE", "say WORDS".
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) >= 2 {
		switch args[0] {
		case "exit":
			code, err := strconv.Atoi(args[1])
			if err != nil {
				return err
			}
			os.Exit(code)
		case "say":
			fmt.Println(strings.Join(args[1:], " "))
			return nil
		case "fail-once":
			if _, err := os.Stat(args[1]); err != nil {
				return errors.Join(os.WriteFile(args[1], nil, 0o644), errors.New("the first time"))
			}
			return nil
		}
	}
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	fmt.Println("listening on", port)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		fmt.Println("got", <-stop)
		os.Exit(0)
	}()
	http.HandleFunc("/id", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "uid %d gid %d\n", os.Getuid(), os.Getgid())
	})
	http.HandleFunc("/env/{name}", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, os.Getenv(r.PathValue("name"))) })
	http.HandleFunc("/file/", readFile)
	http.HandleFunc("/write/", func(w http.ResponseWriter, r *http.Request) {
		if err := os.WriteFile(strings.TrimPrefix(r.URL.Path, "/write"), []byte("x"), 0o644); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
		}
	})
	http.HandleFunc("/say/{word}", func(_ http.ResponseWriter, r *http.Request) { fmt.Println(r.PathValue("word")) })
	http.HandleFunc("/api", askAPI)
	return http.Serve(l, nil)
}

func readFile(w http.ResponseWriter, r *http.Request) {
	raw, err := os.ReadFile(strings.TrimPrefix(r.URL.Path, "/file"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		http.Error(w, err.Error(), http.StatusNotFound)
	case err != nil:
		http.Error(w, err.Error(), http.StatusForbidden)
	default:
		fmt.Fprintf(w, "%s", raw)
	}
}
