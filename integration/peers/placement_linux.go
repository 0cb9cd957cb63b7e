package main

import (
	"fmt"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

func allowedCPUs() []int {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return nil
	}
	var list []int
	for cpu := 0; len(list) < all.Count(); cpu++ {
		if all.IsSet(cpu) {
			list = append(list, cpu)
		}
	}
	return list
}

// startOn starts cmd on one CPU: a child inherits the CPUs of the thread that starts it.
func startOn(cmd *exec.Cmd, cpu int) error {
	runtime.LockOSThread()
	var before, only unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	only.Set(cpu)
	if err := unix.SchedSetaffinity(0, &only); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("CPU %d: %w", cpu, err)
	}
	err := cmd.Start()
	if unix.SchedSetaffinity(0, &before) == nil {
		runtime.UnlockOSThread()
	} // or else the thread ends with its goroutine
	return err
}
