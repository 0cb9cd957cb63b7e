// Package datadir keeps a directory's registrations in a directory of the file system, over restarts and power cuts.
//
//	DIR/FORMAT         "zfab directory data, version 1": what this is, for people and for later versions
//	DIR/registrations  a bbolt database with one bucket; every value begins with a checksum
//
// A bbolt database is a tree of pages that are never written over while somebody may need them, so that a crash leaves
// it as it was before the write or after it. What a crash cannot do, a disk or a person can: Open therefore reads
// everything once, read-only, and refuses what is not whole. bbolt trusts its file and panics, or is sent a signal by
// the operating system, where that is wrong; check.go turns both into errors. create.go makes a data directory in an
// order in which it can be interrupted anywhere.
package datadir

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/cespare/xxhash/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/zfab/zfab/fabric/directory"
)

const (
	dataFile = "registrations"

	// lockPatience is how long a data directory may still be in use by a process that is ending.
	lockPatience = time.Second
)

var bucket = []byte("directory")

// Error says what is wrong with a data directory, and what to do.
type Error struct {
	Dir    string
	Reason string
	Err    error // the cause; may be nil
}

func (e *Error) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("data directory %s %s", e.Dir, e.Reason)
	}
	return fmt.Sprintf("data directory %s %s: %v", e.Dir, e.Reason, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

const startOver = "; move it away to start with an empty one: nodes that are alive register again by themselves"

// Store is a data directory in use. It is a directory.Store.
type Store struct {
	dir string
	db  *bbolt.DB
}

// Open takes a data directory into use, for this process alone, and makes it if it is not there. Every error is an
// *Error.
func Open(dir string) (*Store, error) {
	if err := prepare(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, dataFile)
	if err := check(path); err != nil {
		return nil, explain(dir, err)
	}
	db, err := open(path, &bbolt.Options{Timeout: lockPatience, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, explain(dir, err)
	}
	return &Store{dir: dir, db: db}, nil
}

// explain makes an *Error of what the database says.
func explain(dir string, err error) error {
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return &Error{dir, "is in use by another process", nil}
	case errors.Is(err, fs.ErrPermission):
		return &Error{dir, "may not be used by this process", err}
	case errors.Is(err, errDamaged), errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum),
		errors.Is(err, bolterrors.ErrVersionMismatch):
		return &Error{dir, "is damaged" + startOver, err}
	}
	return &Error{dir, "cannot be used", err}
}

// Load implements directory.Store.
func (s *Store) Load(each func(key, value []byte) error) error {
	return s.db.View(func(tx *bbolt.Tx) error { return walk(tx, each) })
}

// Save implements directory.Store.
func (s *Store) Save(changes []directory.Change) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucket)
		for _, c := range changes {
			var err error
			if c.Value == nil {
				err = b.Delete(c.Key)
			} else {
				err = b.Put(c.Key, seal(c.Key, c.Value))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Close gives the data directory up.
func (s *Store) Close() error {
	if err := s.db.Close(); err != nil {
		return &Error{s.dir, "cannot be closed", err}
	}
	return nil
}

// seal puts the checksum of an entry before its value.
func seal(key, value []byte) []byte {
	return append(binary.LittleEndian.AppendUint64(make([]byte, 0, 8+len(value)), sum(key, value)), value...)
}

// unseal takes it off again.
func unseal(key, sealed []byte) (value []byte, ok bool) {
	if len(sealed) < 8 {
		return nil, false
	}
	value = sealed[8:]
	return value, binary.LittleEndian.Uint64(sealed) == sum(key, value)
}

func sum(key, value []byte) uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.Write(binary.AppendUvarint(nil, uint64(len(key))))
	_, _ = d.Write(key)
	_, _ = d.Write(value)
	return d.Sum64()
}
