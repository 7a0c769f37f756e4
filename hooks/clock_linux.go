package hooks

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// SystemClock is the kernel's CLOCK_BOOTTIME.
func SystemClock() (Clock, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Clock{}, fmt.Errorf("read the id of this boot: %w", err)
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return Clock{}, fmt.Errorf("read CLOCK_BOOTTIME: %w", err)
	}
	return Clock{Boot: bootTime, BootID: strings.TrimSpace(string(id))}, nil
}

// bootTime cannot fail once it has succeeded.
func bootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(errors.Join(errors.New("CLOCK_BOOTTIME is gone"), err))
	}
	return time.Duration(ts.Nano())
}
