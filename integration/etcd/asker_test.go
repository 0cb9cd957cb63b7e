package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-zeromq/zmq4"
	"github.com/vmihailenco/msgpack/v5"
)

// asker is a connection to one directory that says what its page says, and
// nothing by itself: it renews nothing and repeats nothing.
type asker struct {
	session string // that no other has
	socket  zmq4.Socket
	cancel  context.CancelFunc
	last    uint64
}

// askPatience is how long an answer may take before its question counts as one
// of unknown outcome.
const askPatience = 10 * time.Second

var errNoAnswer = errors.New("no answer")

func newAsker(address, session string) (*asker, error) {
	ctx, cancel := context.WithCancel(context.Background())
	a := &asker{session: session, cancel: cancel}
	a.socket = zmq4.NewDealer(ctx, zmq4.WithTimeout(askPatience), zmq4.WithDialerMaxRetries(1))
	if err := a.socket.Dial(address); err != nil {
		cancel()
		return nil, err
	}
	return a, nil
}

func (a *asker) close() {
	a.cancel()
	_ = a.socket.Close()
}

// answer is what of an answer matters here.
type answer struct {
	ID          uint64   `msgpack:"id"`
	Error       string   `msgpack:"error"`
	Text        string   `msgpack:"text"`
	Incarnation uint64   `msgpack:"incarnation"`
	Unknown     []string `msgpack:"unknown"`
	Nodes       [][]any  `msgpack:"nodes"`
}

// ask puts a question. The error says that nobody knows what became of it.
func (a *asker) ask(question map[string]any) (answer, error) {
	a.last++
	question["id"] = a.last
	body, err := msgpack.Marshal(question)
	if err != nil {
		return answer{}, err
	}
	if err := a.socket.SendMulti(zmq4.NewMsgFrom(nil, body)); err != nil {
		return answer{}, errors.Join(errNoAnswer, err)
	}
	type received struct {
		m   zmq4.Msg
		err error
	}
	got := make(chan received, 1)
	go func() { // ends with the socket
		m, err := a.socket.Recv()
		got <- received{m, err}
	}()
	var r received
	select {
	case r = <-got:
	case <-time.After(askPatience):
		return answer{}, errNoAnswer
	}
	if r.err != nil || len(r.m.Frames) != 2 {
		return answer{}, errors.Join(errNoAnswer, r.err)
	}
	var out answer
	if err := msgpack.Unmarshal(r.m.Frames[1], &out); err != nil {
		return answer{}, err
	}
	if out.ID != a.last {
		return answer{}, fmt.Errorf("answer %d to question %d", out.ID, a.last)
	}
	switch out.Error {
	case "unavailable", "closed":
		return answer{}, fmt.Errorf("%w: %s", errNoAnswer, out.Text)
	}
	return out, nil
}
