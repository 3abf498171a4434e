package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// forwarder listens on one address and port of a Service and spreads what comes over endpoints, in turn.
type forwarder struct {
	to     atomic.Pointer[[]netip.AddrPort]
	turn   atomic.Uint64
	socket io.Closer
}

// open listens on f, in the services' network namespace, so that no wildcard listener of the node or of a pod is in the way.
func (s *serviceProxy) open(f frontend, to []netip.AddrPort) (*forwarder, error) {
	w := &forwarder{}
	w.set(to)
	switch f.protocol {
	case corev1.ProtocolTCP:
		var l *net.TCPListener
		err := s.c.services.do(func() (err error) {
			l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(f.addr))
			return err
		})
		if err != nil {
			return nil, err
		}
		w.socket = l
		go w.serveTCP(l)
	case corev1.ProtocolUDP:
		var c *net.UDPConn
		err := s.c.services.do(func() (err error) {
			c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(f.addr))
			return err
		})
		if err != nil {
			return nil, err
		}
		w.socket = c
		go w.serveUDP(c)
	default:
		return nil, fmt.Errorf("the test cluster does not forward %s", f.protocol)
	}
	return w, nil
}

// close ends the listening. Connections that were forwarded live on, whatever becomes of their endpoint or Service.
func (w *forwarder) close() { w.socket.Close() }

func (w *forwarder) set(to []netip.AddrPort) { w.to.Store(&to) }

func (w *forwarder) next() netip.AddrPort {
	to := *w.to.Load()
	return to[int(w.turn.Add(1)%uint64(len(to)))]
}

func (w *forwarder) serveTCP(l *net.TCPListener) {
	for {
		conn, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		to := w.next()
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			up, err := new(net.Dialer).DialContext(ctx, "tcp", to.String())
			if err != nil {
				reset(conn)
				return
			}
			Relay(conn, up.(*net.TCPConn))
		}()
	}
}

// halfCloser is a connection whose ends close one by one, such as TCP and Unix ones.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// Relay copies both ways until both are done. The end of one direction is handed on as such; a reset on one side resets the other.
func Relay(a, b halfCloser) {
	var wg sync.WaitGroup
	pass := func(to, from halfCloser) {
		_, err := io.Copy(to, from)
		if err != nil {
			reset(to)
			reset(from)
			return
		}
		_ = to.CloseWrite() // fails if the other end is gone, which the other direction notices
	}
	wg.Go(func() { pass(a, b) })
	wg.Go(func() { pass(b, a) })
	wg.Wait()
	a.Close()
	b.Close()
}

// reset closes a connection so that its other end learns that something went wrong.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	c.Close()
}

// udpIdle is how long a client of a UDP service keeps its endpoint without a word.
const udpIdle = 30 * time.Second

// serveUDP keeps a socket for each client, so that answers find back.
func (w *forwarder) serveUDP(c *net.UDPConn) {
	var mu sync.Mutex
	flows := map[netip.AddrPort]*net.UDPConn{}
	buf := make([]byte, 64<<10)
	for {
		n, client, err := c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			break
		}
		if err != nil {
			continue
		}
		mu.Lock()
		up := flows[client]
		mu.Unlock()
		if up == nil {
			if up, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(w.next())); err != nil {
				continue
			}
			mu.Lock()
			flows[client] = up
			mu.Unlock()
			go func() {
				answerUDP(c, up, client)
				mu.Lock()
				delete(flows, client)
				mu.Unlock()
			}()
		}
		up.SetDeadline(time.Now().Add(udpIdle))
		_, _ = up.Write(buf[:n]) // UDP may lose what it cannot send
	}
	mu.Lock()
	defer mu.Unlock()
	for _, up := range flows {
		up.Close()
	}
}

// answerUDP sends what the endpoint says to the client until the flow is idle.
func answerUDP(c, up *net.UDPConn, client netip.AddrPort) {
	defer up.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := up.Read(buf)
		if errors.Is(err, syscall.ECONNREFUSED) {
			continue
		}
		if err != nil {
			return
		}
		if _, err := c.WriteToUDPAddrPort(buf[:n], client); err != nil {
			return
		}
	}
}
