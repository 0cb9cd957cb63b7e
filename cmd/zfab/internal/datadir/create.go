package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
)

const (
	formatFile = "FORMAT"
	format     = "zfab directory data, version 1\n"
	unfinished = ".new" // while it is being written
)

// prepare makes sure that dir is a data directory of this version, or makes it one.
func prepare(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return &Error{dir, "cannot be made", err}
	}
	there, err := os.ReadFile(filepath.Join(dir, formatFile))
	switch {
	case err == nil && string(there) == format:
		return nil
	case err == nil:
		return &Error{dir, fmt.Sprintf("is of another version: its file %s says %.100q, and this zfab reads and writes %q%s",
			formatFile, there, format, startOver), nil}
	case !errors.Is(err, fs.ErrNotExist):
		return &Error{dir, "cannot be read", err}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return &Error{dir, "cannot be read", err}
	}
	for _, e := range entries {
		// A start that was interrupted leaves these.
		if n := e.Name(); n != dataFile && n != formatFile+unfinished {
			return &Error{dir, fmt.Sprintf("is not one: it has a file %s, and no %s", e.Name(), formatFile), nil}
		}
	}
	if err := create(dir); err != nil {
		return explain(dir, err)
	}
	return nil
}

// create makes an empty database, and then the file that says that there is one: where that is, a database is never
// missing or empty but because somebody made it so. Of several processes the database's lock lets one after the other
// do it.
func create(dir string) error {
	db, err := open(filepath.Join(dir, dataFile), &bbolt.Options{Timeout: lockPatience})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucket)
		return err
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	path := filepath.Join(dir, formatFile)
	f, err := os.OpenFile(path+unfinished, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(format)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return finish(path)
}

// finish gives a file its name, for good.
func finish(path string) error {
	if err := os.Rename(path+unfinished, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
