package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// testEarlyServices: while the proxy does not know the Services, as on a node that
// is about to join its cluster, a container that is to have their variables waits or
// starts without, as its handler says.
func testEarlyServices(ctx context.Context, t *testing.T, c *cluster) {
	s := newSpace(ctx, t, c)
	image := s.image(ctx, t, rig.Image{})
	waits, skips := s.linked(runc, image, false), s.linked(gvisor, image, false)
	s.mustKubectl(ctx, t, "label", "node", rig.NodeName, "cri-proxy.io/gvisor=true", "--overwrite")
	s.create(ctx, t, waits, skips)
	s.event(ctx, t, waits.Name, "Failed", `Service variables of container "app": the Services are not known yet`, c.kubeconfig)
	s.ready(ctx, t, skips.Name)
	joinProxy(ctx, t, c)
	s.ready(ctx, t, waits.Name)
}

// joinProxy gives the proxy its way to the API server, as the shipped ServiceAccount.
func joinProxy(ctx context.Context, t *testing.T, c *cluster) {
	t.Helper()
	if _, last, err := c.serviceCache(ctx); err != nil || !strings.Contains(last, c.kubeconfig+" is not there yet") {
		t.Errorf("without a kubeconfig the proxy says %q (%v)", last, err)
	}
	token, err := c.RunKubectl(ctx, strings.NewReader(""), "create", "token", "cri-proxy", "--namespace", "kube-system", "--duration", "2h")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.WriteKubeconfig(c.kubeconfig, strings.TrimSpace(token)); err != nil {
		t.Fatal(err)
	}
	(&space{cluster: c}).wait(ctx, t, func() error {
		count, last, err := c.serviceCache(ctx)
		if err == nil && count < 1 {
			err = errors.New("the proxy does not know the Services: " + last)
		}
		return err
	})
}

// serviceCache is how many Services the proxy knows, and what it last failed with.
func (c *cluster) serviceCache(ctx context.Context) (count int, last string, err error) {
	body, err := c.proxy.AdminGet(ctx, "/v1/status")
	if err != nil {
		return 0, "", err
	}
	var status struct {
		ServiceCache struct {
			Services int    `json:"services"`
			Error    string `json:"error"`
		} `json:"serviceCache"`
	}
	err = json.Unmarshal(body, &status)
	return status.ServiceCache.Services, status.ServiceCache.Error, err
}

// oddServices have the shapes that are not just a port: many ports with and without
// names, one number for two protocols, no address, a name that needs changing. None
// is called "kubernetes": the kubelet itself treats that one otherwise without links.
const oddServices = `
{apiVersion: v1, kind: Service, metadata: {name: many}, spec: {ports: [{name: http, port: 80}, {name: https-alt, port: 8443}, {name: dns, port: 53, protocol: UDP}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: both}, spec: {ports: [{name: tcp, port: 53}, {name: udp, port: 53, protocol: UDP}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: headless}, spec: {clusterIP: None, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: elsewhere}, spec: {type: ExternalName, externalName: example.com}}
---
{apiVersion: v1, kind: Service, metadata: {name: node-port}, spec: {type: NodePort, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: balanced}, spec: {type: LoadBalancer, ports: [{name: web, port: 443}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: sctp}, spec: {ports: [{port: 9000, protocol: SCTP}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: a-b-c-d}, spec: {ports: [{name: x-y, port: 1}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: own-kubernetes}, spec: {ports: [{name: own, port: 6443}]}}
`

// serviceCount is how many Services the namespace gets.
const serviceCount = 30

// testServiceEnv: a pod that refuses the kubelet's variables and gets the proxy's
// has what one with the kubelet's has.
func testServiceEnv(ctx context.Context, t *testing.T, c *cluster) {
	s := newSpace(ctx, t, c)
	image := s.image(ctx, t, rig.Image{})
	before, _, err := c.serviceCache(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s.createServices(ctx, t)
	s.wait(ctx, t, func() error {
		count, last, err := c.serviceCache(ctx)
		if err == nil && count < before+serviceCount {
			err = fmt.Errorf("the proxy knows %d Services, want %d: %s", count, before+serviceCount, last)
		}
		return err
	})
	for _, handler := range handlers() {
		t.Run(handler, func(t *testing.T) {
			own, others := s.linked(handler, image, false), s.linked(handler, image, true)
			s.create(ctx, t, own, others)
			s.ready(ctx, t, own.Name, others.Name)
			got, want := s.environment(ctx, t, own.Name), s.environment(ctx, t, others.Name)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the proxy's variables (+) are not the kubelet's (-):\n%s", diff)
			}
			if len(want) < 7*(serviceCount-2) || !slices.Contains(want, "BOTH_PORT_53_UDP_PROTO=udp") || !slices.Contains(want, "OWN_KUBERNETES_SERVICE_PORT_OWN=6443") {
				t.Errorf("these are too few variables to show anything: %q", want)
			}
		})
	}
}

func (s *space) createServices(ctx context.Context, t *testing.T) {
	t.Helper()
	var objects strings.Builder
	objects.WriteString(oddServices)
	for i := range serviceCount - strings.Count(oddServices, "kind: Service") {
		fmt.Fprintf(&objects, "---\n{apiVersion: v1, kind: Service, metadata: {name: plain-%d}, spec: {ports: [{port: %d}]}}\n", i, 1000+i)
	}
	if _, err := s.RunKubectl(ctx, strings.NewReader(objects.String()), "--namespace", s.name, "apply", "--filename", "-"); err != nil {
		t.Fatal(err)
	}
}

// linked is a pod with the variables of the kubelet, or of the proxy.
func (s *space) linked(handler, image string, byKubelet bool) *corev1.Pod {
	name, annotation := "proxy-"+handler, "enabled"
	if byKubelet {
		name, annotation = "kubelet-"+handler, "disabled"
	}
	pod := s.pod(name, handler, image)
	pod.Annotations = map[string]string{"cri-proxy.io/service-env": annotation}
	pod.Spec.EnableServiceLinks = &byKubelet
	return pod
}

// environment is a pod's, in order, without its name.
func (s *space) environment(ctx context.Context, t *testing.T, pod string) []string {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(s.mustKubectl(ctx, t, "exec", pod, "--", "/bin/env")), "\n")
	slices.Sort(lines)
	return slices.DeleteFunc(lines, func(line string) bool { return line == "HOSTNAME="+pod })
}
