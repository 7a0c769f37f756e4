package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// NodeName is the one node of a cluster. It is an address, so that the API
// server finds the kubelet there.
const NodeName = "127.0.0.1"

// clusterLock is held by the one cluster of the machine. It is an abstract socket:
// the kernel takes it away with the process.
const clusterLock = "@cri-proxy-rig-cluster"

// controlWithin is how long a part of the control plane may take to start.
const controlWithin = 2 * time.Minute

// Cluster is a control plane on the loopback interface, and a kubelet for its
// one node. It has no network between Services: there is no kube-proxy and no
// DNS.
type Cluster struct {
	Kubelet    *NodeKubelet
	Client     kubernetes.Interface
	Kubeconfig string // path of the administrator's

	rig     *Rig
	dir     string
	lock    net.Listener
	server  string // URL of the API server
	control []*process
	sysctls map[string][]byte // that a kubelet changes, as they were
	logDir  bool              // the machine had a folder for the links to containers' logs, or there was no kubelet
}

// Cluster starts a control plane and then the kubelet, whose runtime is at the
// endpoint, and returns when the node is ready. Parts.BuildCluster comes first. A
// kubelet changes settings that are the machine's, so a second cluster waits for
// the end of the first.
func (r *Rig) Cluster(ctx context.Context, endpoint string, gates ...string) (*Cluster, error) {
	c := &Cluster{rig: r, dir: filepath.Join(r.Dir, "cluster"), logDir: true}
	c.Kubeconfig = filepath.Join(c.dir, "admin.kubeconfig")
	if err := os.Mkdir(c.dir, 0o700); err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.clusters = append(r.clusters, c)
	r.mu.Unlock()
	for _, start := range []func(context.Context) error{c.hold, c.startServer, c.connect, c.startControllers} {
		if err := start(ctx); err != nil {
			return nil, err
		}
	}
	if err := c.newKubelet(ctx, endpoint); err != nil {
		return nil, err
	}
	return c, c.Kubelet.Start(ctx, gates...)
}

// hold waits for its turn.
func (c *Cluster) hold(ctx context.Context) error {
	return Poll(ctx, func() (err error) {
		if c.lock, err = new(net.ListenConfig).Listen(ctx, "unix", clusterLock); err != nil {
			return fmt.Errorf("another cluster runs on this machine: %w", err)
		}
		return nil
	})
}

// startServer starts etcd and the API server.
func (c *Cluster) startServer(ctx context.Context) error {
	ports, err := freePorts(ctx, 3)
	if err != nil {
		return err
	}
	client, peer := "http://127.0.0.1:"+ports[0], "http://127.0.0.1:"+ports[1]
	c.server = "https://127.0.0.1:" + ports[2]
	if err := c.writeKeys(); err != nil {
		return err
	}
	etcd := c.part("etcd", filepath.Join(c.rig.Parts.Etcd, "server"),
		"--name", "rig", "--data-dir", filepath.Join(c.dir, "etcd"), "--log-level", "warn", "--unsafe-no-fsync",
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "rig="+peer)
	if err := etcd.start(ctx, func(ctx context.Context) error { return listens(ctx, ports[0]) }); err != nil {
		return err
	}
	server := c.kubernetes("kube-apiserver",
		"--etcd-servers", client, "--bind-address", "127.0.0.1", "--secure-port", ports[2], "--cert-dir", c.dir,
		"--service-account-issuer", "https://kubernetes.default.svc",
		"--service-account-key-file", c.file(serviceAccountKey), "--service-account-signing-key-file", c.file(serviceAccountKey),
		"--token-auth-file", c.file(tokens), "--authorization-mode", "RBAC", "--service-cluster-ip-range", "10.96.0.0/16",
		"--kubelet-preferred-address-types", "InternalIP,Hostname",
		"--kubelet-client-certificate", c.file(kubeletClient), "--kubelet-client-key", c.file(kubeletClient))
	return server.start(ctx, func(ctx context.Context) error { return listens(ctx, ports[2]) })
}

// connect makes the client and waits until the API server is ready.
func (c *Cluster) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, controlWithin)
	defer cancel()
	config, err := c.Config()
	if err != nil {
		return err
	}
	if c.Client, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	return Poll(ctx, func() error {
		_, err := c.Client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err
	})
}

// Config is the administrator's way to the API server. It is not slowed down.
func (c *Cluster) Config() (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	return config, nil
}

// startControllers starts the rest, and waits for what the first pod needs.
func (c *Cluster) startControllers(ctx context.Context) error {
	scheduler := c.kubernetes("kube-scheduler", "--kubeconfig", c.Kubeconfig, "--leader-elect=false", "--secure-port", "0")
	if err := scheduler.start(ctx, func(context.Context) error { return nil }); err != nil {
		return err
	}
	manager := c.kubernetes("kube-controller-manager", "--kubeconfig", c.Kubeconfig, "--leader-elect=false", "--secure-port", "0",
		"--service-account-private-key-file", c.file(serviceAccountKey), "--root-ca-file", c.file(serverCertificate))
	return manager.start(ctx, func(ctx context.Context) error { return c.HasServiceAccount(ctx, "default") })
}

// HasServiceAccount says why pods cannot be made in a namespace yet.
func (c *Cluster) HasServiceAccount(ctx context.Context, namespace string) error {
	_, err := c.Client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
	return err
}

// kubernetes is a part of the control plane that is Kubernetes' own.
func (c *Cluster) kubernetes(name string, arguments ...string) *process {
	return c.part(name, filepath.Join(c.rig.Parts.Kubernetes, name), arguments...)
}

func (c *Cluster) part(name, path string, arguments ...string) *process {
	p := &process{name: name, path: path, args: arguments, log: filepath.Join(c.rig.Dir, name+".log"), within: controlWithin}
	c.control = append(c.control, p)
	return p
}

func (c *Cluster) file(name string) string { return filepath.Join(c.dir, name) }

// closeKubelet comes before all else: a kubelet would start again what is removed.
func (c *Cluster) closeKubelet() error {
	if c.Kubelet == nil {
		return nil
	}
	return c.Kubelet.Stop()
}

// close ends the rest.
func (c *Cluster) close() error {
	var problems []error
	for _, part := range slices.Backward(c.control) {
		problems = append(problems, part.stop())
	}
	problems = append(problems, c.restoreSysctls(), c.removeLogDir())
	if c.lock != nil {
		problems = append(problems, c.lock.Close())
	}
	return errors.Join(problems...)
}

func (c *Cluster) logs(w io.Writer) {
	if c.Kubelet != nil {
		fmt.Fprintln(w, c.Kubelet.process.tail())
	}
	for _, p := range c.control {
		fmt.Fprintln(w, p.tail())
	}
}

// freePorts are ports that nobody listens on at this moment.
func freePorts(ctx context.Context, count int) (ports []string, err error) {
	for range count {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, listener.Close()) }()
		_, port, err := net.SplitHostPort(listener.Addr().String())
		if err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	return ports, nil
}

func listens(ctx context.Context, port string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	return conn.Close()
}
