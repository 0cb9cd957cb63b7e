package main

import (
	"bufio"
	"io"
	"net"

	"github.com/zfab/zfab/integration/peers/internal/child"
)

// The raw pipe is the ceiling: messages of a known size back to back on a TCP connection, nothing between them. Small
// ones are written and read 64 KiB at a time, others one by one.

const pipeBuffer = 64 << 10

var rawRoles = child.Roles{Consume: rawConsume, Produce: rawProduce, Echo: rawEcho, Ping: rawPing}

func rawConsume(job child.Job) (child.Throughput, error) {
	conn, err := acceptOne(job)
	if err != nil {
		return child.Throughput{}, err
	}
	var r io.Reader = conn
	if job.Size < pipeBuffer {
		r = bufio.NewReaderSize(conn, pipeBuffer)
	}
	body := make([]byte, job.Size)
	m := child.NewMeter(job.Size, job.Duration)
	for {
		n, err := io.ReadFull(r, body)
		if err != nil {
			return child.Throughput{}, err
		}
		if m.Count(n) {
			return m.Result()
		}
	}
}

func rawProduce(job child.Job) error {
	conn, err := net.Dial("tcp", job.Addr)
	if err != nil {
		return err
	}
	bodies := make([]byte, max(1, pipeBuffer/job.Size)*job.Size)
	for {
		if _, err := conn.Write(bodies); err != nil {
			return nil // the consumer has what it wanted
		}
	}
}

func rawEcho(job child.Job) error {
	conn, err := acceptOne(job)
	if err != nil {
		return err
	}
	echo(conn, job.Size)
	return nil
}

func rawPing(job child.Job) (child.RoundTrip, error) {
	conn, err := net.Dial("tcp", job.Addr)
	if err != nil {
		return child.RoundTrip{}, err
	}
	return ping(conn, job)
}

// acceptOne announces a listener on loopback and takes its first connection.
func acceptOne(job child.Job) (net.Conn, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	job.Ready(l.Addr().String())
	return l.Accept()
}

// echo writes back what it reads, size bytes at a time, until either fails.
func echo(conn io.ReadWriter, size int) {
	body := make([]byte, size)
	for {
		if _, err := io.ReadFull(conn, body); err != nil {
			return
		}
		if _, err := conn.Write(body); err != nil {
			return
		}
	}
}

func ping(conn io.ReadWriter, job child.Job) (child.RoundTrip, error) {
	body := make([]byte, job.Size)
	return child.PingFor(job.Duration, func() error {
		if _, err := conn.Write(body); err != nil {
			return err
		}
		_, err := io.ReadFull(conn, body)
		return err
	})
}
