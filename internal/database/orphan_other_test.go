//go:build !linux

package database_test

import "syscall"

func orphaned(*syscall.SysProcAttr) {}
