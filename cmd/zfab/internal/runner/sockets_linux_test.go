package runner

import (
	"net"
	"os"
	"testing"
)

// A connection within one process is none between processes, and the table is
// read rightly: with its ends given to two owners it counts.
func TestConnectionsAreCountedByTheirEnds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	out, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()

	if n, ok := ConnectionsBetween([]int{os.Getpid()}); !ok || n != 0 {
		t.Errorf("%d, %v within one process, want none", n, ok)
	}
	ends, ok := endsOf([]int{os.Getpid()})
	if !ok || len(ends) < 2 {
		t.Fatalf("%d ends, %v", len(ends), ok)
	}
	other := 0
	for end := range ends {
		if _, both := ends[[2]string{end[1], end[0]}]; both && end[0] < end[1] {
			ends[end] = -1
			other++
		}
	}
	if n := pairs(ends); n != other || n < 1 {
		t.Errorf("%d connections between two owners, want %d", n, other)
	}
	if _, ok := ConnectionsBetween([]int{1 << 30}); ok {
		t.Error("a process that is not there was counted")
	}
}
