package main

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"

	"github.com/hashicorp/yamux"

	"github.com/zfab/zfab/integration/peers/internal/child"
)

// yamux gives a byte stream, not messages: each is written behind its length (four bytes), through a buffer on either
// side. One session, one stream, default settings.

// yamuxBuffer is the stream's default window: of 4 to 256 KiB the largest gives yamux its best figures.
const yamuxBuffer = 256 << 10

var yamuxRoles = child.Roles{Consume: yamuxConsume, Produce: yamuxProduce, Echo: yamuxEcho, Ping: yamuxPing}

func yamuxConsume(job child.Job) (child.Throughput, error) {
	stream, err := yamuxAccept(job)
	if err != nil {
		return child.Throughput{}, err
	}
	r := bufio.NewReaderSize(stream, yamuxBuffer)
	body := make([]byte, job.Size)
	m := child.NewMeter(job.Size, job.Duration)
	var prefix [4]byte
	for {
		if _, err := io.ReadFull(r, prefix[:]); err != nil {
			return child.Throughput{}, err
		}
		size := int(binary.BigEndian.Uint32(prefix[:]))
		if size == len(body) {
			if _, err := io.ReadFull(r, body); err != nil {
				return child.Throughput{}, err
			}
		}
		if m.Count(size) { // also ends at a length that was not sent
			return m.Result()
		}
	}
}

func yamuxProduce(job child.Job) error {
	stream, err := yamuxOpen(job)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(stream, yamuxBuffer)
	body := make([]byte, job.Size)
	var prefix [4]byte
	for {
		binary.BigEndian.PutUint32(prefix[:], uint32(len(body)))
		w.Write(prefix[:]) // a bufio.Writer keeps its first error for the next write
		if _, err := w.Write(body); err != nil {
			return nil // the consumer has what it wanted
		}
	}
}

func yamuxEcho(job child.Job) error {
	stream, err := yamuxAccept(job)
	if err != nil {
		return err
	}
	echo(stream, job.Size)
	return nil
}

func yamuxPing(job child.Job) (child.RoundTrip, error) {
	stream, err := yamuxOpen(job)
	if err != nil {
		return child.RoundTrip{}, err
	}
	return ping(stream, job)
}

func yamuxAccept(job child.Job) (*yamux.Stream, error) {
	conn, err := acceptOne(job)
	if err != nil {
		return nil, err
	}
	session, err := yamux.Server(conn, yamuxConfig())
	if err != nil {
		return nil, err
	}
	return session.AcceptStream()
}

func yamuxOpen(job child.Job) (*yamux.Stream, error) {
	conn, err := net.Dial("tcp", job.Addr)
	if err != nil {
		return nil, err
	}
	session, err := yamux.Client(conn, yamuxConfig())
	if err != nil {
		return nil, err
	}
	return session.OpenStream()
}

// yamuxConfig is the default one without the log line about the connection that ends with the measurement.
func yamuxConfig() *yamux.Config {
	c := yamux.DefaultConfig()
	c.LogOutput = io.Discard
	return c
}
