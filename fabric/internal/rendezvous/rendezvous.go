// Package rendezvous says who owns a key, so that whoever knows the same owners agrees, in every process and language.
//
// It is rendezvous (highest random weight) hashing, Thaler and Ravishankar 1998: every owner draws a weight for every
// key, and the greatest wins. When an owner leaves, only its keys move; when one comes, only those that it takes. Keys
// are first put into Slots slots, so that the owners of all keys can be kept in a table.
package rendezvous

import "github.com/cespare/xxhash/v2"

// Slots is how many slots keys fall into. With 128 owners each has 64 of them, give or take an eighth.
const Slots = 8192

// Slot is a key's: the xxHash (XXH64, seed 0) of its bytes modulo Slots.
func Slot(key []byte) int { return int(xxhash.Sum64(key) % Slots) }

// Seed is an owner's: the xxHash of its address, "node/index".
func Seed(address string) uint64 { return xxhash.Sum64String(address) }

// Weight is what the owner with this seed draws for a slot. Of equal ones the owner that sorts first by node and index
// wins.
func Weight(seed uint64, slot int) uint64 { return mix(seed ^ uint64(slot)*0x9e3779b97f4a7c15) }

// mix spreads a number over all bits: the finalizer of splitmix64 (Steele, Lea and Flood 2014).
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}
