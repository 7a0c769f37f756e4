//go:build !linux

package hooks

import "errors"

// SystemClock fails: only Linux has a clock that outlives this program and a
// name for each boot. CRI runtimes for pods are on Linux.
func SystemClock() (Clock, error) {
	return Clock{}, errors.New("hooks need Linux")
}
