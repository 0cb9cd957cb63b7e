package check

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/bits"
	"slices"
)

// Numbers is a set of sequence numbers, of which most below the highest are expected
// to be in one consumer's set or another's. It takes a bit for each number, in pages
// that are there once a number of theirs is. The zero value is empty. As JSON it is a
// list of pages.
type Numbers struct {
	pages map[uint64]*page
	last  *page // the one used last, and its index
	at    uint64
	size  uint64
}

const pageBits = 4096

type page [pageBits / 64]uint64

// Add puts a number in; false if it is there already.
func (n *Numbers) Add(number uint64) bool {
	p := n.page(number / pageBits)
	word, bit := number%pageBits/64, uint64(1)<<(number%64)
	if p[word]&bit != 0 {
		return false
	}
	p[word] |= bit
	n.size++
	return true
}

// Len is how many numbers are in the set.
func (n *Numbers) Len() uint64 { return n.size }

// Merge puts all of o in, and returns how many of them were there already.
func (n *Numbers) Merge(o *Numbers) (common uint64) {
	for at, theirs := range o.pages {
		ours := n.page(at)
		for i, word := range theirs {
			common += uint64(bits.OnesCount64(ours[i] & word))
			ours[i] |= word
		}
	}
	n.size += o.size - common
	return common
}

func (n *Numbers) page(at uint64) *page {
	if n.last != nil && n.at == at {
		return n.last
	}
	if n.pages == nil {
		n.pages = make(map[uint64]*page)
	}
	p := n.pages[at]
	if p == nil {
		p = new(page)
		n.pages[at] = p
	}
	n.last, n.at = p, at
	return p
}

// numbersPage is a page as JSON has it.
type numbersPage struct {
	At   uint64 `json:"at"`
	Bits []byte `json:"bits"` // little-endian, without zeros at the end
}

func (n Numbers) MarshalJSON() ([]byte, error) {
	pages := make([]numbersPage, 0, len(n.pages))
	for at, p := range n.pages {
		var b []byte
		for _, word := range p {
			b = binary.LittleEndian.AppendUint64(b, word)
		}
		for len(b) > 0 && b[len(b)-1] == 0 {
			b = b[:len(b)-1]
		}
		pages = append(pages, numbersPage{at, b})
	}
	slices.SortFunc(pages, func(a, b numbersPage) int {
		if a.At < b.At {
			return -1
		}
		return 1
	})
	return json.Marshal(pages)
}

func (n *Numbers) UnmarshalJSON(text []byte) error {
	var pages []numbersPage
	if err := json.Unmarshal(text, &pages); err != nil {
		return err
	}
	*n = Numbers{}
	for _, p := range pages {
		if len(p.Bits) > pageBits/8 {
			return fmt.Errorf("a page of %d bytes: at most %d", len(p.Bits), pageBits/8)
		}
		var whole [pageBits / 8]byte
		copy(whole[:], p.Bits)
		into := n.page(p.At)
		for i := range into {
			word := binary.LittleEndian.Uint64(whole[i*8:])
			n.size += uint64(bits.OnesCount64(word &^ into[i]))
			into[i] |= word
		}
	}
	return nil
}
