package credentials

import (
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/sirupsen/logrus"
)

// followed is a file whose parsed content follows its changes. They are looked
// for when the content is asked for; nothing watches the file in between.
type followed[T any] struct {
	path  string
	parse func(content []byte) (T, error)
	log   *logrus.Entry

	mu      sync.Mutex
	seen    os.FileInfo // The state that was parsed last, well or not.
	valid   bool        // It was parsed well.
	good    bool        // There is content, of that state or an earlier one.
	content T
}

// current returns the content of the file, or the last that was good. An error
// names the file.
func (f *followed[T]) current() (content T, err error) {
	info, err := os.Stat(f.path)
	if err != nil {
		return content, err
	}
	f.mu.Lock()
	content, unchanged := f.content, f.valid && same(f.seen, info)
	f.mu.Unlock()
	if unchanged {
		return content, nil
	}
	return f.read()
}

// same tells whether a file is as it was.
func same(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// read parses the file as it is now. Two calls may do so at once: the file is
// not read under the lock. One that is invalid is read each time, since what it
// lacks may be elsewhere, as a plugin that was not yet installed.
func (f *followed[T]) read() (content T, err error) {
	data, info, err := readRegular(f.path)
	if err != nil {
		return content, err
	}
	content, err = f.parse(data)
	f.mu.Lock()
	defer f.mu.Unlock()
	first := f.seen == nil || !same(f.seen, info)
	f.seen, f.valid = info, err == nil
	switch {
	case err == nil:
		f.content, f.good = content, true
	case !f.good:
		return content, fmt.Errorf("%s: %w", f.path, err)
	case first:
		f.log.WithError(err).WithField("file", f.path).Warn("the file became invalid: its last good content stays in use")
	}
	return f.content, nil
}

// readRegular returns a file's content and what it was like just before: a
// change while it is read is seen by the next call.
func readRegular(path string) (content []byte, info os.FileInfo, err error) {
	// A pipe would block the open.
	if info, err = os.Stat(path); err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is not a regular file", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close() //nolint:errcheck // Nothing was written.
	if info, err = file.Stat(); err != nil {
		return nil, nil, err
	}
	content, err = io.ReadAll(file)
	return content, info, err
}
