package runner

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ConnectionsBetween counts the established TCP connections of which both ends
// are in one of the processes, and in different ones.
func ConnectionsBetween(pids []int) (int, bool) {
	ends, ok := endsOf(pids)
	return pairs(ends), ok
}

// endsOf are the processes' ends of connections: the pid by local and remote
// address. The kernel's table of connections, /proc/PID/net/tcp, has the inode
// of each, and /proc/PID/fd says whose it is.
func endsOf(pids []int) (map[[2]string]int, bool) {
	if len(pids) == 0 {
		return nil, false
	}
	owner := make(map[string]int) // pid by inode
	for _, pid := range pids {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil || len(files) == 0 {
			return nil, false
		}
		for _, file := range files {
			target, err := os.Readlink(file)
			if inode, ok := strings.CutPrefix(target, "socket:["); err == nil && ok {
				owner[strings.TrimSuffix(inode, "]")] = pid
			}
		}
	}
	ends := make(map[[2]string]int)
	if !readTable(fmt.Sprintf("/proc/%d/net/tcp", pids[0]), owner, ends) {
		return nil, false
	}
	readTable(fmt.Sprintf("/proc/%d/net/tcp6", pids[0]), owner, ends) // absent without IPv6
	return ends, true
}

// pairs counts the connections whose two ends have different owners.
func pairs(ends map[[2]string]int) int {
	count := 0
	for end, pid := range ends {
		other, ok := ends[[2]string{end[1], end[0]}]
		if ok && other != pid && end[0] < end[1] {
			count++
		}
	}
	return count
}

// established is the state TCP_ESTABLISHED in the kernel's table.
const established = "01"

// readTable notes the established ends that have an owner.
func readTable(name string, owner map[string]int, ends map[[2]string]int) bool {
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode ...
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 || fields[3] != established {
			continue
		}
		if pid, ok := owner[fields[9]]; ok {
			ends[[2]string{fields[1], fields[2]}] = pid
		}
	}
	return lines.Err() == nil
}
