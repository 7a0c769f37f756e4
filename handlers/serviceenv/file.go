package serviceenv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	// fileInterval is how often the file is looked at when no container asks for it,
	// so that a mistake in it is told before one does.
	fileInterval = 5 * time.Second
	// maxFile bounds what is read of it.
	maxFile = 16 << 20
)

// file is a file of Services as a source.
type file struct {
	*health
	path string

	mu      sync.Mutex
	seen    os.FileInfo // What the content was read from.
	content map[string][]*corev1.Service
	count   int
}

func newFile(path string, h *health) *file { return &file{health: h, path: path} }

func (f *file) run(ctx context.Context) {
	tick := time.NewTicker(fileInterval)
	defer tick.Stop()
	for {
		f.refresh()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// services looks at the file first: a container that is created after a change
// gets what it says.
func (f *file) services() (lookUp, error) {
	content := f.refresh()
	if content == nil {
		return nil, errors.New(f.lastError())
	}
	return func(namespace string) []*corev1.Service { return content[namespace] }, nil
}

func (f *file) state() State {
	f.mu.Lock()
	defer f.mu.Unlock()
	return State{Source: f.path, Synced: f.content != nil, Services: f.count, Error: f.lastError()}
}

// refresh reads the file if it is another than the one read last, or could not
// be read, and returns the last content that was good.
func (f *file) refresh() map[string][]*corev1.Service {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.path)
	if err == nil && f.seen != nil && same(f.seen, info) && f.lastError() == "" {
		return f.content
	}
	var services []*corev1.Service
	if err == nil {
		services, info, err = readServices(f.path)
	}
	f.note(f.path, err)
	if err == nil {
		f.seen, f.content, f.count = info, byNamespace(services), len(services)
	}
	return f.content
}

// same tells whether a file is as it was.
func same(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// readServices returns the file's Services, and what the file was like just
// before: a change while it is read is seen by the next look.
func readServices(path string) ([]*corev1.Service, os.FileInfo, error) {
	info, err := os.Stat(path) // A pipe would block the open.
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is not a regular file", path)
	}
	opened, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer opened.Close() //nolint:errcheck // Nothing was written.
	if info, err = opened.Stat(); err != nil {
		return nil, nil, err
	}
	data, err := io.ReadAll(io.LimitReader(opened, maxFile+1))
	if err != nil {
		return nil, nil, err
	}
	if len(data) > maxFile {
		return nil, nil, fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	services, err := parse(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return services, info, nil
}

func byNamespace(services []*corev1.Service) map[string][]*corev1.Service {
	all := map[string][]*corev1.Service{}
	for _, s := range services {
		all[s.Namespace] = append(all[s.Namespace], s)
	}
	return all
}
