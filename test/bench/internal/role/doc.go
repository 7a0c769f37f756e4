// Package role holds the programs that stand beside cri-proxy in a benchmark:
// the runtime behind it, and the two proxies that it is compared with. Each runs
// in a process of its own, so that what it costs can be told apart.
//
// They are as fast as they can be made in the plain way. They are not for
// anything but measuring: none retries, checks or logs.
package role
