package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// isolated is the handler that only the second containerd has.
const isolated = "isolated"

const (
	runcImage     = "example.test/shop:v1"
	isolatedImage = "example.test/vault:v1"
)

// demo is the node that is shown.
type demo struct {
	rig *rig.Rig
	out io.Writer

	alpha, beta, front              rig.Crictl // each containerd alone, and the proxy
	alphaContainerd, betaContainerd *rig.Containerd
	proxy                           *rig.Proxy
	pods                            []*pod
	private                         *rig.Private
	till                            till
	register                        *register
}

// pod is one pod of the demo.
type pod struct {
	name, handler, image string
	own, other           rig.Crictl // the containerd it belongs to, and the other

	id, container string
}

func (d *demo) start(ctx context.Context) (err error) {
	fmt.Fprintln(d.out, "starting two containerds and the proxy …")
	if d.alphaContainerd, err = d.rig.Containerd(ctx, rig.ContainerdOptions{Name: "alpha"}); err != nil {
		return err
	}
	if d.betaContainerd, err = d.rig.Containerd(ctx, rig.ContainerdOptions{Name: "beta", Handlers: []string{isolated}}); err != nil {
		return err
	}
	login, err := d.openPrivate(ctx)
	if err != nil {
		return err
	}
	hooks, err := d.openRegister(ctx)
	if err != nil {
		return err
	}
	services, err := d.openServices()
	if err != nil {
		return err
	}
	d.proxy, err = d.rig.Proxy(ctx, rig.ProxyOptions{
		Name: "proxy", DefaultHandler: "runc", Config: rig.TwoHandlers(d.alphaContainerd, d.betaContainerd, isolated) + login + hooks + services,
	})
	if err != nil {
		return err
	}
	for endpoint, crictl := range map[string]*rig.Crictl{
		d.alphaContainerd.Endpoint(): &d.alpha, d.betaContainerd.Endpoint(): &d.beta, d.proxy.Endpoint(): &d.front,
	} {
		if *crictl, err = d.rig.Crictl(endpoint); err != nil {
			return err
		}
	}
	d.pods = []*pod{
		{name: "shop", handler: "runc", image: runcImage, own: d.alpha, other: d.beta},
		{name: "vault", handler: isolated, image: isolatedImage, own: d.beta, other: d.alpha},
	}
	return d.push(ctx)
}

func (d *demo) push(ctx context.Context) error {
	var problems []error
	for _, pod := range d.pods {
		_, err := d.rig.Push(ctx, pod.image, rig.Image{})
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// show does one thing after the other and stops at the first failure: what
// follows builds upon it.
func (d *demo) show(ctx context.Context) []result {
	var results []result
	for _, step := range d.steps() {
		fmt.Fprintf(d.out, "· %s\n", step.what)
		shown, err := step.do(ctx)
		results = append(results, result{step.what, shown, err})
		if err != nil {
			break
		}
	}
	return results
}

type step struct {
	what string
	do   func(context.Context) (string, error)
}

func (d *demo) steps() []step {
	steps := []step{{"one CRI socket answers for both containerds", d.version}}
	for _, pod := range d.pods {
		steps = append(steps,
			step{"a pod of handler " + pod.handler + " runs on its own containerd", func(ctx context.Context) (string, error) { return d.runPod(ctx, pod) }},
			step{"its image lies in that containerd's store only", func(ctx context.Context) (string, error) { return d.pull(ctx, pod) }},
			step{"exec reaches its container", func(ctx context.Context) (string, error) { return d.exec(ctx, pod) }})
	}
	return append(steps,
		step{"a container finds a Service by its variables, where its handler wants them", d.variables},
		step{"`crictl pods` lists the pods of both", d.listPods},
		step{"`crictl images` lists the images of both", d.listImages},
		step{"a handler without the password does not get a private image", d.refused},
		step{"`cri-proxy images pull` gets it for the handler that has it", d.pullPrivate},
		step{"a pod of that handler runs it, and never pulls", d.runPrivate},
		step{"`cri-proxy images list` says which handler has it", d.listPrivate},
		step{"a PostStart registers a container before its start is answered", d.runTill},
		step{"a PreStop drains it, and then it is stopped", d.drain},
		step{"killed in the middle of a drain, the proxy drains to the end after its restart", d.killDrain},
		step{"`cri-proxy hooks list` tells of each hook", d.listHooks},
		step{"after kill -9 and a restart both pods are there and routed", d.kill},
	)
}

func (d *demo) version(ctx context.Context) (string, error) {
	output, err := d.front.Run(ctx, "version")
	if err != nil {
		return "", err
	}
	if !strings.Contains(output, "RuntimeName:  containerd") {
		return "", fmt.Errorf("crictl version printed %q", output)
	}
	return d.proxy.Endpoint(), nil
}

func (d *demo) runPod(ctx context.Context, pod *pod) (string, error) {
	config, err := d.rig.Pod(pod.name)
	if err != nil {
		return "", err
	}
	if pod.id, err = d.front.RunPod(ctx, pod.handler, config); err != nil {
		return "", err
	}
	if _, err := d.front.Pull(ctx, pod.image, config); err != nil {
		return "", err
	}
	if pod.container, err = d.front.Start(ctx, pod.id, config, rig.Container(config, "app", pod.image)); err != nil {
		return "", err
	}
	if _, err := pod.own.Run(ctx, "inspectp", pod.id); err != nil {
		return "", err
	}
	if _, err := pod.other.Run(ctx, "inspectp", pod.id); err == nil {
		return "", fmt.Errorf("the other containerd has pod %s too", pod.id)
	}
	return "pod " + pod.id[:13] + " in " + pod.own.Endpoint, nil
}

// pull looks for the pod's image in both stores.
func (*demo) pull(ctx context.Context, pod *pod) (string, error) {
	if err := stored(ctx, pod.own, pod.image, true); err != nil {
		return "", err
	}
	return pod.image, stored(ctx, pod.other, pod.image, false)
}

func stored(ctx context.Context, crictl rig.Crictl, image string, wanted bool) error {
	output, err := crictl.Run(ctx, "images", "-o", "json")
	if err != nil {
		return err
	}
	if got := strings.Contains(output, `"`+image+`"`); got != wanted {
		return fmt.Errorf("%s in the store of %s: %t, want %t", image, crictl.Endpoint, got, wanted)
	}
	return nil
}

// exec shows what tells the two handlers apart.
func (d *demo) exec(ctx context.Context, pod *pod) (string, error) {
	environment, err := d.front.Run(ctx, "exec", "--sync", pod.container, "/bin/env")
	if err != nil {
		return "", err
	}
	mark := "no RIG_HANDLER"
	for line := range strings.Lines(environment) {
		if strings.HasPrefix(line, "RIG_HANDLER=") {
			mark = strings.TrimSpace(line)
		}
	}
	var answer struct {
		Status struct{ Network struct{ IP string } }
	}
	if err := d.front.JSON(ctx, &answer, "inspectp", pod.id); err != nil {
		return "", err
	}
	if marked := mark == "RIG_HANDLER=beta/"+isolated; marked != (pod.handler == isolated) {
		return "", fmt.Errorf("the container of handler %s says %s", pod.handler, mark)
	}
	return mark + ", address " + answer.Status.Network.IP, nil
}

func (d *demo) listPods(ctx context.Context) (string, error) {
	return d.list(ctx, "pods", d.pods[0].id[:13], d.pods[1].id[:13])
}

func (d *demo) listImages(ctx context.Context) (string, error) {
	return d.list(ctx, "images", "example.test/shop", "example.test/vault")
}

// list prints a list as crictl does and looks for what must be in it.
func (d *demo) list(ctx context.Context, command string, wanted ...string) (string, error) {
	output, err := d.front.Run(ctx, command)
	if err != nil {
		return "", err
	}
	fmt.Fprintf(d.out, "\n%s\n\n", output)
	for _, part := range wanted {
		if !strings.Contains(output, part) {
			return "", fmt.Errorf("%s is not in the list", part)
		}
	}
	return strings.Join(wanted, " and "), nil
}

func (d *demo) kill(ctx context.Context) (string, error) {
	if err := d.proxy.Kill(); err != nil {
		return "", err
	}
	if err := d.proxy.Start(ctx); err != nil {
		return "", err
	}
	for _, pod := range d.pods {
		output, err := d.front.Run(ctx, "exec", "--sync", pod.container, "/bin/echo", "still here")
		if err != nil {
			return "", err
		}
		if strings.TrimSpace(output) != "still here" {
			return "", fmt.Errorf("the container of %s answered %q", pod.name, output)
		}
	}
	return d.listPods(ctx)
}
