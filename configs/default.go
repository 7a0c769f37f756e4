package configs

import (
	_ "embed"
	"time"
)

//go:embed config.toml
var shipped string

// DefaultTOML returns the shipped configuration file, in which every key is explained. It decodes to [Default].
func DefaultTOML() []byte {
	return []byte(shipped)
}

// Default returns the configuration of a node with one containerd whose only handler is runc.
func Default() Config {
	c := base()
	runc := "runc"
	handler := defaultHandler()
	handler.Backend, handler.Runtime = "containerd", &runc
	backend := defaultBackend()
	backend.Endpoint = "unix:///run/containerd/containerd.sock"
	c.Version = 1
	c.DefaultHandler = runc
	c.Backends = map[string]Backend{"containerd": backend}
	c.Handlers = map[string]Handler{runc: handler}
	return c
}

// base is Default without what a file has to say itself: its version, its backends and its handlers.
func base() Config {
	return Config{
		Server: Server{
			Listen:          "unix:///run/cri-proxy/cri-proxy.sock",
			SocketMode:      0o660,
			ShutdownTimeout: Duration{30 * time.Second},
		},
		State: State{Dir: "/var/lib/cri-proxy"},
		Admin: Admin{Listen: "unix:///run/cri-proxy/admin.sock"},
		Log:   Log{Level: "info", Format: LogText},
	}
}

func defaultBackend() Backend {
	return Backend{ListTimeout: Duration{5 * time.Second}, WhenDown: WhenDownLastKnown}
}

func defaultHandler() Handler {
	return Handler{
		Images:     Images{PullPolicy: PullAsRequested},
		Hooks:      Hooks{PodPreStop: PodPreStopKubelet},
		ServiceEnv: HandlerServiceEnv{OnUnavailable: UnavailableFail},
	}
}

func defaultHook() Hook {
	return Hook{
		Timeout:  Duration{5 * time.Second},
		Attempts: 1,
		Backoff:  Duration{200 * time.Millisecond},
	}
}
