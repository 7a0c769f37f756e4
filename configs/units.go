package configs

import _ "embed"

//go:embed systemd/cri-proxy.service
var serviceUnit string

//go:embed systemd/cri-proxy.socket
var socketUnit string

// ServiceUnit returns the shipped systemd unit of the daemon, which is in /usr/bin and reads the default configuration file.
func ServiceUnit() []byte { return []byte(serviceUnit) }

// SocketUnit returns the shipped systemd unit of the CRI socket.
func SocketUnit() []byte { return []byte(socketUnit) }
