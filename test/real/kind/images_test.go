package kind_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// testLoad: kind puts an image into the nodes' own containerd. The second one
// has it after "images copy".
func testLoad(ctx context.Context, t *testing.T, c *cluster) {
	t.Helper()
	if err := c.ProgramImage(ctx, c.root, appImage, "app", "/bin/serve"); err != nil {
		t.Fatal(err)
	}
	c.as(ctx, t, "kind load docker-image")
	for _, handler := range handlers() {
		c.apply(ctx, t, `{apiVersion: v1, kind: Pod, metadata: {name: loaded-{{.}}}, spec: {runtimeClassName: {{.}},
		  terminationGracePeriodSeconds: 1, containers: [{name: app, image: "`+appImage+`", imagePullPolicy: Never}]}}`, handler)
	}
	c.ready(ctx, t, "pod/loaded-"+runc, "pod/loaded-"+crun)
	c.event(ctx, t, "loaded-"+second, "ErrImageNeverPull", appImage)
	c.as(ctx, t, "cri-proxy images copy")
	c.ready(ctx, t, "pod/loaded-"+second)
	c.kubectl(ctx, t, "delete", "pod", "loaded-"+runc, "loaded-"+crun, "loaded-"+second)
}

// testPrivate: each handler pulls from a registry beside the nodes, with the
// password of a pull secret and not without.
func testPrivate(ctx context.Context, t *testing.T, c *cluster) {
	t.Helper()
	registry, err := c.Registry(ctx)
	if err != nil {
		t.Fatal(err)
	}
	settings := filepath.Join(t.TempDir(), "hosts.toml")
	if err := os.WriteFile(settings, []byte("server = \"http://"+registry.Host+"\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, node := range c.nodes() {
		folder := "/etc/containerd/certs.d/" + registry.Host
		c.on(ctx, t, node, "mkdir", "-p", folder)
		if _, err := c.Run(ctx, nil, "cp", settings, node+":"+folder+"/hosts.toml"); err != nil {
			t.Fatal(err)
		}
	}
	c.kubectl(ctx, t, "create", "secret", "docker-registry", "login",
		"--docker-server", registry.Host, "--docker-username", registry.User, "--docker-password", registry.Password)
	for _, handler := range handlers() {
		t.Run(handler, func(t *testing.T) {
			t.Parallel()
			testPull(ctx, t, c, handler, registry.Host+"/"+handler+":v1")
		})
	}
}

func testPull(ctx context.Context, t *testing.T, c *cluster, handler, image string) {
	t.Helper()
	if err := c.ProgramImage(ctx, c.root, image, "app", "/bin/serve"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Run(ctx, nil, "push", image); err != nil {
		t.Fatal(err)
	}
	const pod = `{apiVersion: v1, kind: Pod, metadata: {name: {{.Name}}}, spec: {runtimeClassName: {{.Handler}},
	  nodeName: {{.Node}}, imagePullSecrets: [{{.Secret}}], terminationGracePeriodSeconds: 1,
	  containers: [{name: app, image: "{{.Image}}", imagePullPolicy: Always}]}}`
	data := map[string]string{"Name": "open-" + handler, "Handler": handler, "Image": image, "Node": c.Worker(), "Secret": ""}
	c.apply(ctx, t, pod, data)
	c.event(ctx, t, "open-"+handler, "Failed", "no basic auth credentials")
	data["Name"], data["Secret"] = "private-"+handler, "{name: login}"
	c.apply(ctx, t, pod, data)
	c.ready(ctx, t, "pod/private-"+handler)
	c.kubectl(ctx, t, "delete", "pod", "open-"+handler, "private-"+handler)
}
