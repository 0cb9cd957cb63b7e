package datadir

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"strings"

	"go.etcd.io/bbolt"
)

var errDamaged = errors.New("it is not whole")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errDamaged, fmt.Sprintf(format, args...))
}

// check reads all of a database without writing, and reports whether it is whole:
//
//  1. the file is as long as it says;
//  2. every entry can be reached, and its checksum is right;
//  3. bbolt finds every page in its place, used once or free.
//
// bbolt does the third in a goroutine, in which nothing can be caught: so it comes last, after the list of free pages was
// read and all that would make it panic was looked at.
func check(path string) error {
	before, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return damaged("there is no %s", path)
	case err != nil:
		return err
	case before.Size() == 0:
		return damaged("%s is empty", path) // bbolt would make a new one
	}
	if err := look(path, bbolt.Options{}, func(tx *bbolt.Tx) error { return checkEntries(tx, path) }); err != nil {
		return err
	}
	return look(path, bbolt.Options{PreLoadFreelist: true}, func(tx *bbolt.Tx) error {
		if err := checkNumbers(tx, path); err != nil {
			return err
		}
		return checkPages(tx)
	})
}

// look has do read a database.
func look(path string, options bbolt.Options, do func(*bbolt.Tx) error) error {
	options.ReadOnly, options.Timeout = true, lockPatience
	db, err := open(path, &options)
	if err != nil {
		return err
	}
	_, err = guarded(func() (struct{}, error) { return struct{}{}, db.View(do) })
	return errors.Join(err, db.Close())
}

func checkEntries(tx *bbolt.Tx, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() < tx.Size() {
		return damaged("%s has %d bytes of %d", path, info.Size(), tx.Size())
	}
	return walk(tx, func(_, _ []byte) error { return nil })
}

// checkNumbers checks that every page in use begins with its own number and a type.
func checkNumbers(tx *bbolt.Tx, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	size := tx.DB().Info().PageSize
	for id := 0; ; {
		page, err := tx.Page(id)
		if page == nil || err != nil {
			return err // behind the last one
		}
		if page.Type == "free" {
			id++
			continue
		}
		var number [8]byte
		if _, err := file.ReadAt(number[:], int64(id)*int64(size)); err != nil {
			return err
		}
		if n := binary.NativeEndian.Uint64(number[:]); n != uint64(id) {
			return damaged("page %d says that it is page %d", id, n)
		}
		if strings.HasPrefix(page.Type, "unknown") {
			return damaged("page %d is of no type", id)
		}
		id += 1 + page.OverflowCount
	}
}

func checkPages(tx *bbolt.Tx) error {
	var first error
	for err := range tx.Check() { // to its end: it waits for its reader
		if first == nil {
			first = damaged("%v", err)
		}
	}
	return first
}

// walk gives all entries, their checksums checked.
func walk(tx *bbolt.Tx, each func(key, value []byte) error) error {
	b := tx.Bucket(bucket)
	if b == nil {
		return damaged("its bucket is missing")
	}
	return b.ForEach(func(key, sealed []byte) error {
		value, ok := unseal(key, sealed)
		if !ok {
			return damaged("entry %q is not what was written", key)
		}
		return each(key, value)
	})
}

func open(path string, options *bbolt.Options) (*bbolt.DB, error) {
	return guarded(func() (*bbolt.DB, error) { return bbolt.Open(path, 0o600, options) })
}

// guarded calls do, and turns what a damaged file makes of it into an error: a panic, or a fault where a page of the
// file is not there.
func guarded[T any](do func() (T, error)) (result T, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = damaged("%v", r)
		}
	}()
	return do()
}
