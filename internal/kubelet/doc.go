// Package kubelet knows where the kubelet of a node is told its runtime: in its
// configuration file, in the drop-ins of that, in the files of flags that kubeadm
// and the distributions have, and on the command line of the running process.
//
// It guarantees that what it reads is what the kubelet would take (a flag before a
// drop-in, a drop-in before the file), that it names the place each value comes
// from, and that an edit changes the endpoints alone: comments, order and every
// other value of the file stay, which it proves by parsing the result.
//
// It does not read systemd units, and it changes no file: callers get the text.
package kubelet
