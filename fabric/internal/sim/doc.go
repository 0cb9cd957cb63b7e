// Package sim lives through whole fabrics with simulated network and clock, and
// looks whether what the fabric promises is kept.
//
// # The model
//
// A world has two to five hosts. On each lives a node, and after it has died
// another one, a new incarnation. The product's own code decides everything
// about streams and links: wire, flow and link (through link.Driver, which takes
// the steps of the link's reader, writer and ticker) and peering. What fabric's
// Node does around them with goroutines and locks is done here in steps, as
// node, peer, channel, producer and consumer.
//
// One goroutine takes one event after another from a queue that is ordered by
// simulated time (clock). Every decision, from the number of hosts to each
// packet's delay, is drawn from one generator (dice) that the seed begins. So a
// seed is a history, the same whenever and wherever it is run.
//
// The network has connections as TCP makes them (conn): what one end writes
// arrives in order, until the connection breaks; then any suffix of what is
// under way is lost, in either direction by itself and also in the middle of a
// packet, and either end may hear of it at once, later or never. Holes between
// hosts hold up what is sent one way. Received packets lie in memory that is
// overwritten as soon as nobody holds it; memory that is written from belongs to
// the streams until the write is over.
//
// # The phases
//
//  1. Safety: traffic, and faults of the kinds and in the numbers that the seed
//     wants (fault.go).
//  2. Liveness: no more faults, but for some that stay for ever: a node is dead,
//     two hosts have no way to each other, consumers do not read. Everything
//     else must finish in bounded time, and then nodes must fall silent but for
//     their signs of life.
//  3. All consumers close: every byte that was lent or held must come back.
//
// # The checks
//
// The world knows what both ends of a stream know, so it can hold them against
// each other:
//
//   - Every message has content that no other one has. A ledger notes what a
//     producer's end has accepted; what a consumer handles must be the ledger's
//     entries, each once and in order.
//   - At every step (check.go): consumed <= received <= limit at the consumer's
//     end, acknowledged <= what it has stored, settled <= what it has handled,
//     sent <= the limit that it has lent, held within the high-water marks, and
//     the memory lent is exactly the windows of the streams and within the budget
//     and its floors.
//   - When a stream ends (ledger.go): with a typed error whose positions are
//     true, and only for a reason that the promises allow: the other life is
//     over, the resume window was, the consumer has closed or left. An orderly
//     end has nothing behind it.
//   - No error of the protocol between correct nodes, no record of control
//     behind data, no panic.
//   - In the end: everything is handled, or its end was told; flushes have ended.
//
// # A failure
//
// `make sim SEED=n TRACE=1` prints the history, an event per line: the step, the
// simulated time, who (host.incarnation), and what; packets record by record.
// Streams are named s (producer's end) and r (consumer's end), connections c.
// The last line says what was broken. A step is one event, so all lines of a
// step belong together; the cause is often where the two ends of a stream, say
// s7 and r9, first tell different stories.
package sim
