package main

import (
	"context"
	"maps"
	"slices"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// The images of the random load: one that all stores have, and one that only the
// store of a handler has.
const (
	everywhereImage = "app"
	onlyImage       = "only-"
	nowhereImage    = "nowhere"
)

// stock fills the store of a fake.
func (n *loadNode) stock(r *fakeruntime.Runtime) {
	r.AddImage(everywhereImage, nil)
	r.AddImage(onlyImage+n.names[r].handler, nil)
}

// imageStatus asks for an image of one of its pods, as the kubelet does: present
// is what the store of the pod's handler has.
func (c *caller) imageStatus(ctx context.Context) {
	p := callersPod{name: c.name} // No pod.
	want := map[string]bool{everywhereImage: true, nowhereImage: false}
	if len(c.own) > 0 {
		p = c.own[c.rand.IntN(len(c.own))]
		for _, names := range c.names {
			want[onlyImage+names.handler] = names.handler == p.handler
		}
	}
	images := slices.Sorted(maps.Keys(want))
	image := images[c.rand.IntN(len(images))]
	c.wantImage(ctx, p, image, want[image])
}

func (c *caller) wantImage(ctx context.Context, p callersPod, image string, want bool) {
	spec := &runtimeapi.ImageSpec{Image: image, Annotations: sandboxConfig(p.name).GetAnnotations()}
	kind := "images of no pod"
	if p.handler != "" {
		kind = "images of own pods"
	}
	got, err := c.images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: spec})
	if c.saw(kind, err, false) && !c.wiped(p) && (got.GetImage() != nil) != want {
		c.t.Errorf("image %s of the pod %q under %q: present %t, want %t", image, p.name, p.handler, got.GetImage() != nil, want)
	}
}

// listImages looks whether a list has the images of all stores that stay, those
// that this caller pulled among them, and each once.
func (c *caller) listImages(ctx context.Context) {
	got, err := c.images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if !c.saw("image lists", err, false) {
		return
	}
	ids, tags := map[string]bool{}, map[string]bool{}
	for _, i := range got.GetImages() {
		if ids[i.GetId()] {
			c.t.Errorf("image %s is listed twice", i.GetRepoTags())
		}
		ids[i.GetId()] = true
		for _, tag := range i.GetRepoTags() {
			tags[tag] = true
		}
	}
	want := slices.Clone(c.has)
	for _, image := range []string{everywhereImage, onlyImage + "runc", onlyImage + "isolated"} {
		want = append(want, "docker.io/library/"+image+":latest")
	}
	for _, tag := range want {
		if !tags[tag] {
			c.t.Errorf("image %s is missing from a list of %d that is a success", tag, len(ids))
		}
	}
}

// pull pulls an image for one of its pods.
func (c *caller) pull(ctx context.Context) {
	if len(c.own) == 0 {
		return
	}
	p := c.own[c.rand.IntN(len(c.own))]
	image := "example.test/pulled/" + p.name + ":v1"
	spec := &runtimeapi.ImageSpec{Image: image, Annotations: sandboxConfig(p.name).GetAnnotations()}
	_, err := c.images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: spec, SandboxConfig: sandboxConfig(p.name)})
	done := c.saw("pulls", err, false)
	stays := p.handler != c.names[c.gamma].handler
	if stays || (done && !c.wiped(p)) { // Else the pod may be gone, and its image anywhere.
		c.mu.Lock()
		c.pulled[image], c.landed[image] = p.handler, c.landed[image] || (done && stays)
		c.mu.Unlock()
	}
	if !done {
		return
	}
	if stays {
		c.has = append(c.has, image)
	}
	c.wantImage(ctx, p, image, true)
}

// checkPulls looks where the pulls were.
func (n *loadNode) checkPulls() {
	n.t.Helper()
	for _, r := range n.fakes() {
		handler := n.names[r].handler
		asked, has := map[string]bool{}, map[string]bool{}
		for _, call := range r.Calls("PullImage") {
			pull, ok := call.Request.(*runtimeapi.PullImageRequest)
			if want := n.pulled[pull.GetImage().GetImage()]; !ok || (want != "" && want != handler) {
				n.t.Errorf("%s was pulled into the store of %q, want %q", pull.GetImage().GetImage(), handler, want)
			}
			asked[pull.GetImage().GetImage()] = true
		}
		for _, i := range r.Images() {
			for _, tag := range i.GetRepoTags() {
				has[tag] = true
			}
		}
		for image, landed := range n.landed {
			if n.pulled[image] == handler && landed && (!asked[image] || !has[image]) {
				n.t.Errorf("the pull of %s was answered, and %q was asked for it: %t, and has it: %t", image, handler, asked[image], has[image])
			}
		}
	}
}
