package main

import (
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// etcd runs a single member until SIGTERM. It never syncs to disk: the data lives as long as the lab does, and syncing is most of what
// a start would otherwise wait for.
func etcd(args []string) error {
	flags := flag.NewFlagSet("etcd", flag.ContinueOnError)
	dir := flags.String("data-dir", "", "folder of the data")
	client := flags.String("listen-client-url", "http://127.0.0.1:2379", "URL that the API server uses")
	peer := flags.String("listen-peer-url", "http://127.0.0.1:2380", "URL for peers, of which there are none")
	if err := flags.Parse(args); err != nil {
		return err
	}
	clientURL, err := url.Parse(*client)
	if err != nil {
		return fmt.Errorf("reading -listen-client-url: %w", err)
	}
	peerURL, err := url.Parse(*peer)
	if err != nil {
		return fmt.Errorf("reading -listen-peer-url: %w", err)
	}

	c := embed.NewConfig()
	c.Name = "lab"
	c.Dir = *dir
	c.UnsafeNoFsync = true
	c.LogLevel = "warn"
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{*clientURL}, []url.URL{*clientURL}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{*peerURL}, []url.URL{*peerURL}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.TickMs, c.ElectionMs = 50, 250

	e, err := embed.StartEtcd(c)
	if err != nil {
		return fmt.Errorf("starting: %w", err)
	}
	defer e.Close()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	select {
	case <-e.Server.ReadyNotify():
	case <-time.After(time.Minute):
		return fmt.Errorf("not ready after a minute")
	case <-stop:
		return nil
	}
	select {
	case err := <-e.Err():
		return err
	case <-stop:
		return nil
	}
}
