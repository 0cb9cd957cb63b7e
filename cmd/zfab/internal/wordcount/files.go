package wordcount

import (
	"cmp"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// A file is one input.
type file struct {
	path string
	size int64
}

// findFiles walks the paths: every regular file below a directory, and every
// path that is a file itself. Symbolic links below a directory are not
// followed, as for grep -r; one that is named is. A file named twice counts
// twice.
func findFiles(paths []string) ([]file, error) {
	var files []file
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			files = append(files, file{path, info.Size()})
			continue
		}
		// WalkDir does not follow a link that it starts at.
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return nil, err
		}
		err = filepath.WalkDir(path, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			info, err := entry.Info()
			if err == nil {
				files = append(files, file{path, info.Size()})
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return files, nil
}

// divide gives every node its share of the files, about as many bytes each: the
// largest first, each to the node that has least.
func divide(files []file, nodes int) [][]string {
	files = slices.Clone(files)
	slices.SortStableFunc(files, func(a, b file) int { return cmp.Compare(b.size, a.size) })
	shares := make([][]string, nodes)
	loads := make([]int64, nodes)
	for _, f := range files {
		least := 0
		for i := range loads {
			if loads[i] < loads[least] {
				least = i
			}
		}
		shares[least] = append(shares[least], f.path)
		loads[least] += f.size + 1 // so that empty files are spread too
	}
	return shares
}
