//go:build !linux

package server

import "os/exec"

// dieWithParent does nothing where the kernel can't: a broker outlives a test process
// that is killed.
func dieWithParent(*exec.Cmd) {}
