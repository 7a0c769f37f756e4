// Nonewprivs prints the user that it runs as. Its image makes it a setuid
// program: what it prints shows whether the runtime lets it gain privileges.
package main

import (
	"fmt"
	"os"
)

func main() {
	if _, err := fmt.Fprintf(os.Stdout, "Effective uid: %d\n", os.Geteuid()); err != nil {
		os.Exit(1)
	}
}
