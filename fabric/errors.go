package fabric

import (
	"errors"
	"fmt"

	"github.com/zfab/zfab/fabric/internal/link"
)

// Errors to branch on with errors.Is.
var (
	// ErrHighWater: the stream holds as much as its high-water mark allows.
	ErrHighWater = link.ErrHighWater
	// ErrClosed: the node, producer or consumer was closed.
	ErrClosed = link.ErrClosed
	// ErrEnd: all promised producers have finished, or the consumer has drained.
	ErrEnd = errors.New("all producers have finished")
	// ErrNoConsumer matches *UnknownConsumerError.
	ErrNoConsumer = errors.New("no such consumer")
	// ErrConfig matches *ConfigError.
	ErrConfig = errors.New("bad configuration")
	// ErrIndexTaken: the node has a producer or consumer of that index.
	ErrIndexTaken = errors.New("index is in use")
)

// ConfigError: a field of a Config, ProducerConfig or ConsumerConfig, or a part
// of one, is out of range.
type ConfigError struct {
	Field  string
	Value  any
	Reason string // what it must be
}

func (e *ConfigError) Error() string {
	return fmt.Sprintf("%s is %v: it must %s", e.Field, e.Value, e.Reason)
}

// Is makes it match ErrConfig.
func (e *ConfigError) Is(target error) bool { return target == ErrConfig }

// TooLargeError: a message is larger than this node or the consumer's accepts.
type TooLargeError struct{ Size, Max int }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("message of %d bytes is larger than the %d that are accepted (Config.MaxMessage)", e.Size, e.Max)
}

// UnknownConsumerError: the channel has no such consumer now, or none at all; it
// may have left, or be leaving. The message was not accepted. What was accepted
// for the consumer before is not concerned: Flush tells what becomes of it.
type UnknownConsumerError struct {
	Channel string
	Address Address // zero: there is none at all
}

func (e *UnknownConsumerError) Error() string {
	if e.Address == (Address{}) {
		return fmt.Sprintf("channel %s has no consumer", e.Channel)
	}
	return fmt.Sprintf("channel %s has no consumer %s", e.Channel, e.Address)
}

// Is makes it match ErrNoConsumer.
func (e *UnknownConsumerError) Is(target error) bool { return target == ErrNoConsumer }

// PeerLostError ends a stream whose other end is gone for good: closed, started
// anew, or not connected for Config.ResumeWindow. Messages are counted from the
// stream's begin.
//
// At the producer's end those before Acknowledged were stored by the consumer's
// end, whether it has handled them or not; those from there up to InDoubtTo were
// accepted, and may or may not have been. At the consumer's end those before
// Acknowledged were received, and none is in doubt.
type PeerLostError struct {
	Node         string // the other end's
	Channel      string
	Consumer     int // the consumer's index at its node
	Reason       string
	Acknowledged uint64
	InDoubtTo    uint64
	Receiving    bool // said to the consumer
}

func (e *PeerLostError) Error() string {
	if e.Receiving {
		return fmt.Sprintf("channel %s: node %s is lost after %d messages: %s", e.Channel, e.Node, e.Acknowledged, e.Reason)
	}
	return fmt.Sprintf("channel %s: consumer %s/%d is lost: %s; %d messages acknowledged, %d in doubt",
		e.Channel, e.Node, e.Consumer, e.Reason, e.Acknowledged, e.InDoubtTo-e.Acknowledged)
}

// public turns an error from below into one of this package's.
func public(err error) error {
	if err == nil || err == ErrHighWater || err == ErrClosed {
		return err
	}
	var large *link.TooLargeError
	var lost *link.LostError
	switch {
	case errors.As(err, &large):
		return &TooLargeError{Size: large.Size, Max: large.Max}
	case errors.As(err, &lost) && lost.Left:
		return &UnknownConsumerError{Channel: lost.Channel, Address: Address{lost.Node, lost.Index}}
	case errors.As(err, &lost):
		return &PeerLostError{
			Node: lost.Node, Channel: lost.Channel, Consumer: lost.Index, Reason: lost.Reason,
			Acknowledged: lost.Acknowledged, InDoubtTo: lost.Accepted, Receiving: lost.Receiving,
		}
	}
	return err
}
