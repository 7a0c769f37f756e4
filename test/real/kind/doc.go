// Package kind runs a real kind cluster without a network: a Docker daemon of its
// own, a node image made of Debian and of Go modules in place of kindest/node,
// and "make kind-up" on top of both, which is what users type. A plain cluster on
// the same image is a node to install the packages on.
//
// The daemon and all nodes live in namespaces of their own: the kernel ends them
// with the test, however that ends, and nothing of theirs is seen on the
// machine's network. What a Docker on the machine itself does is not touched.
// Close removes the folder and the cgroups and restores the settings of the kernel
// that nodes change. After a test that was killed the next one removes the first
// two; the settings, and a /lib/modules that Docker has made, stay.
//
// It needs root on Linux and what "test/real/deps.sh kind" installs. It does not
// stand for kindest/node itself, its containerd or kindnet, which only users
// with a network have.
package kind
