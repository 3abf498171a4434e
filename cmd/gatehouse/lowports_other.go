//go:build !linux

package main

// allowLowPorts has nothing to do: capabilities are Linux's.
func allowLowPorts() error { return nil }
