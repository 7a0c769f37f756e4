package critest

import (
	"context"
	"maps"
	"runtime"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// Where critest expects its own images and those that it shares with
// Kubernetes' end-to-end tests.
const (
	staging = "gcr.io/k8s-staging-cri-tools/"
	shared  = "registry.k8s.io/e2e-test-images/"
)

// The ports that critest asks its web servers at: in a pod, and on the host.
const (
	webPort  = 80
	hostPort = 12003
)

// PushShort pushes what the quick specs need, made of the rig's own program.
func PushShort(ctx context.Context, r *rig.Rig) error {
	return push(ctx, r, plain())
}

// Push pushes what the whole suite needs.
func Push(ctx context.Context, r *rig.Rig, layers Layers) error {
	images := plain()
	for name, image := range images {
		image.Layers, image.Command = [][]byte{layers.Busybox}, []string{"sh"}
		images[name] = image
	}
	members, err := groupLayer()
	if err != nil {
		return err
	}
	setuid, err := setuidLayer(r)
	if err != nil {
		return err
	}
	nginx := []string{"/usr/sbin/nginx", "-e", "stderr"}
	maps.Copy(images, map[string]rig.Image{
		// A spec looks for a process named sleep and must not find this one.
		"registry.k8s.io/pause:3.9":                    {},
		staging + "test-image-predefined-group:latest": {Layers: [][]byte{layers.Busybox, members}, User: "1000", Command: []string{"sh"}},
		shared + "nonewprivs:1.3":                      {Layers: [][]byte{setuid}, Command: []string{"/nnp"}},
		shared + "nginx:1.14-2":                        {Layers: [][]byte{layers.Busybox, layers.Nginx}, Command: nginx},
		staging + "hostnet-nginx-" + runtime.GOARCH:    {Layers: [][]byte{layers.Busybox, layers.Nginx}, Command: append(nginx, "-c", "/etc/nginx/host.conf")},
		shared + "httpd:2.4.39-4":                      {Layers: [][]byte{layers.Busybox, layers.Httpd}, Command: []string{"httpd", "-D", "FOREGROUND", "-f", "/etc/httpd.conf"}},
	})
	return push(ctx, r, images)
}

// plain are the images that differ in their names and users only.
func plain() map[string]rig.Image {
	return map[string]rig.Image{
		shared + "busybox:1.29-2":                         {},
		"registry.k8s.io/pause:3.9":                       {},
		staging + "test-image-latest:latest":              {},
		staging + "test-image-tag:test":                   {},
		staging + "test-image-tag:all":                    {},
		staging + "test-image-1:latest":                   {},
		staging + "test-image-2:latest":                   {},
		staging + "test-image-3:latest":                   {},
		staging + "test-image-tags:1":                     {Identity: "tags"},
		staging + "test-image-tags:2":                     {Identity: "tags"},
		staging + "test-image-tags:3":                     {Identity: "tags"},
		staging + "test-image-user-uid:latest":            {User: "1002"},
		staging + "test-image-user-username:latest":       {User: "www-data"},
		staging + "test-image-user-uid-group:latest":      {User: "1003:users"},
		staging + "test-image-user-username-group:latest": {User: "www-data:www-data"},
	}
}

// groupLayer makes the image's user a member of a group that only the image
// knows.
func groupLayer() ([]byte, error) {
	l := newLayer()
	l.file("etc/passwd", 0o644, []byte(passwd+"default-user:x:1000:1000::/home:/bin/sh\n"))
	l.file("etc/group", 0o644, []byte(group+"default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n"))
	return l.bytes()
}

func setuidLayer(r *rig.Rig) ([]byte, error) {
	l := newLayer()
	l.copy("nnp", 0o4755, r.Program("nonewprivs"))
	return l.bytes()
}

func push(ctx context.Context, r *rig.Rig, images map[string]rig.Image) error {
	for name, image := range images {
		if _, err := r.Push(ctx, name, image); err != nil {
			return err
		}
	}
	return nil
}
