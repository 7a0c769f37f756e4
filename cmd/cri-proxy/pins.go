package main

import (
	"fmt"

	"github.com/cri-proxy/cri-proxy/internal/routing"
	"github.com/cri-proxy/cri-proxy/internal/state"
)

// loadPins tells the index the handlers that are on disk.
func loadPins(pins state.Handlers, index *routing.Index) error {
	all, err := pins.All()
	if err != nil {
		return fmt.Errorf("read the sandboxes' handlers: %w", err)
	}
	for key, handler := range all {
		if pod, ok := routing.ParsePod(key); ok {
			index.Pin(pod, handler)
		}
	}
	return nil
}

// dropStalePins forgets pods that no backend has any more. As long as one
// cannot be asked nothing is dropped: they may be there.
func (d *daemon) dropStalePins() error {
	for _, b := range d.backends().All() {
		if !b.Up() {
			return nil
		}
	}
	pins := state.SandboxHandlers(d.store)
	all, err := pins.All()
	if err != nil {
		return err
	}
	var stale []string
	for key := range all {
		pod, ok := routing.ParsePod(key)
		if _, exists := d.index.PodSandbox(pod); !ok || !exists {
			stale = append(stale, key)
			d.index.Unpin(pod)
		}
	}
	return pins.Delete(stale...)
}
