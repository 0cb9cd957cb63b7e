//go:build !linux

package main

import "os/exec"

func allowedCPUs() []int { return nil }

func startOn(cmd *exec.Cmd, _ int) error { return cmd.Start() }
