//go:build libzmq

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/pebbe/zmq4"
	"github.com/vmihailenco/msgpack/v5"
)

type (
	question map[string]any
	answer   map[string]any
)

// asker is a socket that is connected to the directory.
type asker struct{ socket *zmq4.Socket }

func newAsker(kind zmq4.Type, address string) (*asker, error) {
	s, err := zmq4.NewSocket(kind)
	if err != nil {
		return nil, err
	}
	return &asker{s}, errors.Join(s.SetRcvtimeo(patience*time.Millisecond), s.SetLinger(0), s.Connect(address))
}

// send sends a question behind an envelope, which is none for a REQ: that writes
// its own.
func (a *asker) send(q question, envelope ...string) error {
	body, err := msgpack.Marshal(q)
	if err != nil {
		return err
	}
	parts := make([]any, 0, len(envelope)+1)
	for _, frame := range envelope {
		parts = append(parts, frame)
	}
	_, err = a.socket.SendMessage(append(parts, body)...)
	return err
}

// receive returns the next answer, which must come in the envelope.
func (a *asker) receive(envelope ...string) (answer, error) {
	frames, err := a.socket.RecvMessageBytes(0)
	if err != nil {
		return nil, err
	}
	if len(frames) != len(envelope)+1 {
		return nil, fmt.Errorf("an answer of %d frames, with an envelope of %d", len(frames), len(envelope))
	}
	for i, want := range envelope {
		if string(frames[i]) != want {
			return nil, fmt.Errorf("frame %d of the envelope is %q, %q was sent", i, frames[i], want)
		}
	}
	var got answer
	if err := msgpack.Unmarshal(frames[len(envelope)], &got); err != nil {
		return nil, err
	}
	return got, nil
}

// ask is send and receive at a REQ. What the directory refuses is an error.
func (a *asker) ask(q question) (answer, error) {
	if err := a.send(q); err != nil {
		return nil, err
	}
	got, err := a.receive()
	if err == nil && got["error"] != nil {
		err = fmt.Errorf("%v: %v", q, got)
	}
	return got, err
}

// tell writes an answer to the standard output.
func tell(word string, got answer) error {
	line, err := json.Marshal(got)
	if err == nil {
		fmt.Println(word, string(line))
	}
	return err
}

// directory asks all that can be asked without being a node, first from a REQ
// and then from a DEALER: many things before the first answer, in envelopes and
// without, and a watch.
func directory(address, channel string) error {
	req, err := newAsker(zmq4.REQ, address)
	if err != nil {
		return err
	}
	for _, q := range []question{
		{"op": "ping"}, {"op": "nodes"}, {"op": "channels"}, {"op": "members", "channel": channel}, {"op": "node", "node": "nobody"},
	} {
		if err := req.send(q); err != nil {
			return err
		}
		got, err := req.receive()
		if err == nil {
			err = tell(q["op"].(string), got)
		}
		if err != nil {
			return err
		}
	}

	dealer, err := newAsker(zmq4.DEALER, address)
	if err != nil {
		return err
	}
	envelopes := [][]string{{""}, nil, {"first", "second", ""}}
	const rounds = 30
	for id := range rounds {
		if err := dealer.send(question{"op": "members", "id": id, "channel": channel}, envelopes[id%len(envelopes)]...); err != nil {
			return err
		}
	}
	for id := range rounds {
		got, err := dealer.receive(envelopes[id%len(envelopes)]...)
		if err != nil {
			return err
		}
		if number(got["id"]) != id {
			return fmt.Errorf("answer %v, %d was due", got["id"], id)
		}
	}
	fmt.Println("dealer", rounds)
	return watch(dealer, channel)
}

// watch tells the snapshot of a channel, and then its changes until the program
// ends.
func watch(dealer *asker, channel string) error {
	if err := dealer.socket.SetRcvtimeo(-1); err != nil {
		return err
	}
	if err := dealer.send(question{"op": "watch", "id": 100, "watch": 1, "channel": channel}, ""); err != nil {
		return err
	}
	got, err := dealer.receive("")
	for err == nil {
		for _, e := range got["events"].([]any) {
			if err := tell("event", answer{"event": e}); err != nil {
				return err
			}
		}
		if err := dealer.send(question{"op": "next", "id": 101, "watch": 1}, ""); err != nil {
			return err
		}
		got, err = dealer.receive("")
	}
	return err
}
