//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"time"
)

// pod is one backend that comes and goes. What it has begun it ends, as programs do on SIGTERM; nothing new is accepted from then on.
type pod struct {
	port   int
	server *http.Server
}

func newPod() (*pod, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting a backend: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", echo)
	mux.HandleFunc("/ws", echoSocket)
	p := &pod{port: l.Addr().(*net.TCPAddr).Port, server: &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second,
		ErrorLog: log.New(io.Discard, "", 0)}} // aborted requests are part of the load
	go func() { _ = p.server.Serve(l) }() // until end
	return p, nil
}

// end closes the listener and idle connections at once and waits for what is being answered.
func (p *pod) end() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := p.server.Shutdown(ctx); err != nil {
		_ = p.server.Close()
	}
}

// echo reads the body and answers with the request's id, the length and checksum of what came, and as many bytes as it is asked for.
func echo(w http.ResponseWriter, r *http.Request) {
	sum := crc32.NewIEEE()
	n, err := io.Copy(sum, r.Body)
	if err != nil {
		return // the client is gone
	}
	size, _ := strconv.Atoi(r.URL.Query().Get("bytes")) // without one: none
	h := w.Header()
	h.Set("X-Soak-Id", r.Header.Get("X-Soak-Id"))
	h.Set("X-Soak-Sum", fmt.Sprintf("%d-%08x", n, sum.Sum32()))
	h.Set("Content-Length", strconv.Itoa(size))
	_, _ = io.CopyN(w, zeros{}, int64(size)) // a client that aborts is part of the load
}

// zeros reads as bytes of 0 without an end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// acceptKey is what a server answers to a Sec-WebSocket-Key (RFC 6455 section 4.2.2).
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// echoSocket speaks WebSocket (RFC 6455) as far as an echo needs it: short frames, answered without a mask, until the peer closes.
func echoSocket(w http.ResponseWriter, r *http.Request) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		acceptKey(r.Header.Get("Sec-WebSocket-Key")))
	for rw.Flush() == nil {
		payload, err := readFrame(rw.Reader)
		if err != nil {
			return
		}
		_, _ = rw.Write(appendFrame(nil, payload, nil)) // Flush tells
	}
}

const binaryFrame = 0x82 // final, opcode 2

// appendFrame appends a binary frame of at most 125 bytes, masked if there is a mask of four bytes.
func appendFrame(b, payload, mask []byte) []byte {
	if mask == nil {
		return append(append(b, binaryFrame, byte(len(payload))), payload...)
	}
	b = append(append(b, binaryFrame, 0x80|byte(len(payload))), mask...)
	for i, c := range payload {
		b = append(b, c^mask[i%4])
	}
	return b
}

// readFrame reads a binary frame of at most 125 bytes.
func readFrame(r *bufio.Reader) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size := int(head[1] & 0x7f)
	if head[0] != binaryFrame || size > 125 {
		return nil, errors.New("not a short binary frame")
	}
	var mask [4]byte
	if head[1]&0x80 != 0 {
		if _, err := io.ReadFull(r, mask[:]); err != nil {
			return nil, err
		}
	}
	payload := make([]byte, size)
	if _, err := io.ReadFull(r, payload); err != nil {
		return nil, err
	}
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
	return payload, nil
}
