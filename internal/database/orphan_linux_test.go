package database_test

import "syscall"

// orphaned has the kernel end a server whose test has died without ending it.
func orphaned(a *syscall.SysProcAttr) { a.Pdeathsig = syscall.SIGQUIT }
