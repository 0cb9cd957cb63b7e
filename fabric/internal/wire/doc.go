// Package wire turns records and packets into bytes and back.
//
// A packet is what one ZMTP message carries between two nodes: a plain
// concatenation of MessagePack arrays, one per record, each beginning with the
// record's kind. SPEC.md beside this file is the normative description; the
// code here writes a fixed-width subset of what the specification allows, and
// reads all of it.
//
// The package holds no state and does no I/O. Decoding never allocates: what
// it returns are slices of the packet it was given. A packet comes from the
// network, so every length is checked against what is really there before it
// is believed; anything else is a *FormatError.
package wire
