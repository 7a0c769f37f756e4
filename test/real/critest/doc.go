// Package critest runs the conformance suite of the Container Runtime
// Interface, critest, with images that are made on this machine, and compares
// what two runs reported, spec by spec.
//
// The images that the suite asks for by their public names are pushed into the
// rig's registry, which its containerds ask for every name. Small programs of
// the rig serve for the short form; the whole suite needs a real busybox, nginx
// and httpd, which are built or taken from Debian packages once for a user.
//
// One spec asks for a public image by a digest that nobody can build; it fails
// on every machine without a network. The host ports 12000 to 12003 must be free.
package critest
