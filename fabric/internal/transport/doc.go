// Package transport carries ZMTP 3.x messages over tcp, ipc (a unix socket) and mem (inside one process).
//
// It is the only package that knows go-zeromq/zmq4, and it uses one function of it: zmq4.Open, which speaks the ZMTP
// greeting, the NULL mechanism, the exchange of metadata and the check that two socket types may meet. Everything
// before, around and after that is here, because that library trusts its peer: it allocates what a length field asks
// for, panics on a property that is missing, and waits for ever.
//
// A connection's way:
//
//  1. [Listen] accepts (listener.go), or [Dial] connects (dial.go); the address chose tcp.go, ipc.go or mem.go.
//  2. The accepted connection needs a place among the handshakes under way (admission.go): their number is bounded, and
//     when all places are taken, one that has idled in its place for a while gives it up.
//  3. The handshake (handshake.go) runs under one deadline. The library reads through a guard (guard.go), which
//     lets through only a greeting and a READY command whose every length has been checked.
//  4. The result is a [Conn]. From here on neither the library nor the guard is in the way: conn_read.go parses frames
//     in place in pooled memory (buffer.go, inbox.go, source.go), or has the end of a large one read right to where it
//     belongs (place.go); conn_write.go writes the caller's buffers vectored.
//  5. Commands that arrive between messages are dealt with in control.go: PING is answered by the next write.
//
// Goroutines: a listener has one that accepts and one for each handshake under way, and Close waits for all of them. A
// Conn has none: its reader and its writer are the caller's.
//
// What the library would do, and what keeps it from mattering here:
//
//   - its accept loop waits for a silent peer: TestASilentConnectionDelaysNobody,
//     TestHalfOpenConnectionsDoNotKeepAGoodPeerOut, TestASlowHandshakeEndsAtItsTimeout
//   - nine bytes of frame header, a missing or unknown Socket-Type, a truncated READY end the process:
//     TestBadHandshakesAreRefusedWithTheirReason, TestViolationsAfterTheHandshakeEndTheConnection, FuzzGuard, FuzzFrames,
//     TestMemoryFollowsWhatArrives; and behind them TestPanicsOfTheLibraryBecomeProtocolErrors
//   - a Send that timed out goes on writing and corrupts the connection: TestAWriteThatTimedOutIsTheLast
//   - locks are held over writes: TestPINGsDoNotPileUpWhileTheWriterWaits, TestCloseEndsAReadAndAWriteThatWait
//   - PING is the application's to answer, and PONG loses the context: TestPINGIsAnsweredByTheNextWrite
//   - inproc breaks on frames over 255 bytes: TestMessagesPassBothWaysOverEveryScheme
//   - PLAIN lets everybody in: a greeting with another mechanism than NULL is refused (TestBadHandshakes...)
//   - its sockets send to every peer, drop at close and dial inside a failing call: a Conn has one peer, no queue, and
//     is never dialled again
//
// Bounds: a peer costs, before its handshake is finished, one place among Config.MaxHandshakes for at most
// Config.HandshakeTimeout, and at most 8 KiB. After it, one frame is at most Config.MaxFrame and one message of
// several frames Config.MaxMessage, and memory grows with the bytes that arrived, not with those that were announced.
// A connection without traffic holds at most 2 KiB for reading.
package transport
