package wire_test

import (
	"strings"
	"testing"

	"github.com/zfab/zfab/fabric/internal/wire"
)

const (
	benchMessages = 1000
	benchSize     = 64
)

func benchRecord() []byte {
	messages := make([]string, benchMessages)
	for i := range messages {
		messages[i] = strings.Repeat("x", benchSize)
	}
	r := dataRecord(1, 0, 0, messages...)
	return appendRecord(nil, &r)
}

func perMessage(b *testing.B) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchMessages, "ns/message")
}

// BenchmarkDecode is the check of a record of 1,000 messages of 64 bytes alone.
func BenchmarkDecode(b *testing.B) {
	p := benchRecord()
	var r wire.Record
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := wire.Next(p, 0, &r); err != nil {
			b.Fatal(err)
		}
	}
	perMessage(b)
}

// BenchmarkDecodeMessages is the same with each message taken off the run.
func BenchmarkDecodeMessages(b *testing.B) {
	p := benchRecord()
	var r wire.Record
	var bytes int
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := wire.Next(p, 0, &r); err != nil {
			b.Fatal(err)
		}
		for body := r.Body; len(body) > 0; {
			var m []byte
			m, body = wire.NextMessage(body)
			bytes += len(m)
		}
	}
	if bytes != b.N*benchMessages*benchSize {
		b.Fatalf("%d bytes of messages, want %d", bytes, b.N*benchMessages*benchSize)
	}
	perMessage(b)
}

// BenchmarkAppend writes that record.
func BenchmarkAppend(b *testing.B) {
	body := make([]byte, benchSize)
	buf := make([]byte, 0, wire.MaxPacket)
	b.ReportAllocs()
	for b.Loop() {
		buf = wire.AppendDataHeader(buf[:0], 1, 0, 0, benchMessages)
		for range benchMessages {
			buf = wire.AppendMessage(buf, body)
		}
	}
	b.SetBytes(int64(len(buf)))
	perMessage(b)
}

// BenchmarkAppendState is the control record that each batch may carry.
func BenchmarkAppendState(b *testing.B) {
	buf := make([]byte, 0, wire.StateSize)
	s := wire.State{Stream: 1, Next: 1000, LimitMessages: 65536, LimitBytes: 4 << 20}
	b.ReportAllocs()
	for b.Loop() {
		buf = wire.AppendState(buf[:0], &s)
	}
}
