package wire

import (
	"encoding/binary"
	"strings"
	"unicode/utf8"
)

// MessagePack's lead bytes that this package writes.
const (
	fixArray = 0x90
	bin8     = 0xc4
	bin16    = 0xc5
	bin32    = 0xc6
	uint8Tag = 0xcc
	u16Tag   = 0xcd
	u32Tag   = 0xce
	u64Tag   = 0xcf
	fixStr   = 0xa0
	str8     = 0xd9
	str16    = 0xda
	str32    = 0xdb
	array16  = 0xdc
	array32  = 0xdd
)

// Sizes of the fixed-width headers, in bytes.
const (
	DataHeaderSize     = 1 + 1 + 5 + 5 + 9 + 3
	FragmentHeaderSize = 1 + 1 + 5 + 5 + 9 + 5 + 5 + 5
	EndSize            = 1 + 1 + 5 + 5 + 9
	StateSize          = 1 + 1 + 5 + 5 + 9 + 5 + 9 + 9 + 9 + 9 // an upper bound
	BacklogSize        = 1 + 1 + 5 + 5 + 9 + 9 + 5 + 1
	MessageHeaderMax   = 5
	PacketHeaderSize   = 1 + 1 + 5 + 5
	CreditSize         = 1 + 1 + 5 + 9
)

func appendU32(b []byte, v uint32) []byte {
	return append(b, u32Tag, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

func appendU64(b []byte, v uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, u64Tag), v)
}

func appendHead(b []byte, k Kind) []byte {
	return append(b, fixArray|byte(arity[k]), byte(k))
}

// appendText writes a string as the UTF-8 that MessagePack asks for, cut to at
// most MaxText bytes between two characters: texts of errors quote anything.
func appendText(b []byte, s string) []byte {
	s = strings.ToValidUTF8(s, "?")
	if len(s) > MaxText {
		n := MaxText
		for !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	if len(s) < 32 {
		b = append(b, fixStr|byte(len(s)))
	} else {
		b = append(b, str8, byte(len(s)))
	}
	return append(b, s...)
}

// MessageHeaderSize is how many bytes AppendMessage writes before a body of n
// bytes.
func MessageHeaderSize(n int) int {
	switch {
	case n < 1<<8:
		return 2
	case n < 1<<16:
		return 3
	default:
		return 5
	}
}

// AppendMessageHeader writes the header of a message body of n bytes, which
// the caller puts behind it.
func AppendMessageHeader(b []byte, n int) []byte {
	switch {
	case n < 1<<8:
		return append(b, bin8, byte(n))
	case n < 1<<16:
		return append(b, bin16, byte(n>>8), byte(n))
	default:
		return append(b, bin32, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
}

// AppendMessage writes one message as a data record's array holds it.
func AppendMessage(b, body []byte) []byte {
	if n := len(b); len(body) < 1<<8 && 2+len(body) <= cap(b)-n { // header and body in one step
		b = b[:n+2+len(body)]
		b[n], b[n+1] = bin8, byte(len(body))
		copy(b[n+2:], body)
		return b
	}
	return append(AppendMessageHeader(b, len(body)), body...)
}

// AppendDataHeader writes a data record up to its messages: count messages as
// AppendMessage writes them must follow.
func AppendDataHeader(b []byte, stream, producer uint32, seq uint64, count int) []byte {
	b = appendHead(b, KindData)
	b = appendU32(b, stream)
	b = appendU32(b, producer)
	b = appendU64(b, seq)
	return append(b, array16, byte(count>>8), byte(count))
}

// AppendFragmentHeader writes a fragment record up to its bytes: n bytes of
// the message's body from offset must follow.
func AppendFragmentHeader(b []byte, stream, producer uint32, seq uint64, total, offset uint32, n int) []byte {
	b = appendHead(b, KindFragment)
	b = appendU32(b, stream)
	b = appendU32(b, producer)
	b = appendU64(b, seq)
	b = appendU32(b, total)
	b = appendU32(b, offset)
	return append(b, bin32, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

// AppendEnd writes an end record.
func AppendEnd(b []byte, stream, producer uint32, seq uint64) []byte {
	b = appendHead(b, KindEnd)
	b = appendU32(b, stream)
	b = appendU32(b, producer)
	return appendU64(b, seq)
}

// AppendState writes a state record.
func AppendState(b []byte, s *State) []byte {
	b = appendHead(b, KindState)
	b = appendU32(b, s.Stream)
	b = appendU32(b, s.Epoch)
	b = appendU64(b, s.Next)
	b = appendU32(b, s.Offset)
	b = appendU64(b, s.ConsumedMessages)
	b = appendU64(b, s.ConsumedBytes)
	b = appendU64(b, s.LimitMessages)
	return appendU64(b, s.LimitBytes)
}

// AppendBacklog writes a backlog record.
func AppendBacklog(b []byte, g *Backlog) []byte {
	b = appendHead(b, KindBacklog)
	b = appendU32(b, g.Stream)
	b = appendU32(b, g.Epoch)
	b = appendU64(b, g.EndMessages)
	b = appendU64(b, g.EndBytes)
	b = appendU32(b, g.NextSize)
	return append(b, g.Flags&0x7f)
}

// AppendHello writes a hello record.
func AppendHello(b []byte, h *Hello) []byte {
	b = append(appendHead(b, KindHello), h.Version&0x7f)
	b = appendText(b, h.Node)
	b = appendU64(b, h.Incarnation)
	b = appendU32(b, h.MaxMessage)
	return appendU64(b, h.Connection)
}

// AppendOpen writes an open record.
func AppendOpen(b []byte, stream uint32, channel string, consumer uint32, instance uint64) []byte {
	b = appendU32(appendHead(b, KindOpen), stream)
	b = appendText(b, channel)
	b = appendU32(b, consumer)
	return appendU64(b, instance)
}

// AppendCancel writes a cancel record; AppendReset and AppendBye are alike.
func AppendCancel(b []byte, stream uint32, code uint8, text string) []byte {
	return appendText(append(appendU32(appendHead(b, KindCancel), stream), code&0x7f), text)
}

// AppendReset writes a reset record.
func AppendReset(b []byte, stream uint32, code uint8, text string) []byte {
	return appendText(append(appendU32(appendHead(b, KindReset), stream), code&0x7f), text)
}

// AppendBye writes a bye record.
func AppendBye(b []byte, code uint8, text string) []byte {
	return appendText(append(appendHead(b, KindBye), code&0x7f), text)
}

// AppendPing writes a ping record; the pong that answers it repeats nonce.
func AppendPing(b []byte, nonce uint64) []byte {
	return appendU64(appendHead(b, KindPing), nonce)
}

// AppendPong writes a pong record.
func AppendPong(b []byte, nonce uint64) []byte {
	return appendU64(appendHead(b, KindPong), nonce)
}

// AppendCircuit writes a circuit record: from calls to, by way of the node via.
func AppendCircuit(b []byte, label uint32, from, to, via string, limit uint64) []byte {
	b = appendU32(appendHead(b, KindCircuit), label)
	b = appendText(appendText(appendText(b, from), to), via)
	return appendU64(b, limit)
}

// AppendAccept writes an accept record.
func AppendAccept(b []byte, label uint32, limit uint64) []byte {
	return appendU64(appendU32(appendHead(b, KindAccept), label), limit)
}

// AppendPacketHeader writes a packet record up to its bytes: n bytes must follow.
func AppendPacketHeader(b []byte, label uint32, n int) []byte {
	b = appendU32(appendHead(b, KindPacket), label)
	return append(b, bin32, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

// AppendCredit writes a credit record.
func AppendCredit(b []byte, label uint32, limit uint64) []byte {
	return appendU64(appendU32(appendHead(b, KindCredit), label), limit)
}

// AppendClose writes a close record.
func AppendClose(b []byte, label uint32, code uint8, text string) []byte {
	return appendText(append(appendU32(appendHead(b, KindClose), label), code&0x7f), text)
}
