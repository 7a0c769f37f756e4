package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	nodev1 "k8s.io/api/node/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/internal/doctor"
)

// examination is the body of "doctor -o json".
type examination struct {
	Findings []doctor.Finding       `json:"findings"`
	Count    map[doctor.Verdict]int `json:"count"`
}

func newDoctor(f *flags) *cobra.Command {
	var root string
	c := &cobra.Command{
		Use: "doctor", Short: "Examine the node: configuration, runtimes, kubelet and the running proxy",
		Long: "Examine the node: whether the configuration, the runtimes, the kubelet and the running proxy fit together.\n" +
			"It changes nothing. It fails if it finds a problem; warnings and what it had to skip do not count.",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			e := examine(c.Context(), f.config, root)
			err := e.print(c.OutOrStdout(), f.output)
			if n := e.Count[doctor.Problem]; err == nil && n > 0 {
				return fmt.Errorf("the node has problems: %d", n)
			}
			return err
		},
	}
	addOutput(c, f)
	c.Flags().StringVar(&root, "root", "/", "`directory` below which the node's files and sockets are")
	return c
}

func examine(ctx context.Context, config, root string) examination {
	o := doctor.Options{Config: config, Root: root, Version: readVersion().Version}
	o.RuntimeClasses = func(ctx context.Context, cfg *configs.Config) (map[string]string, error) {
		return runtimeClasses(ctx, cfg, root)
	}
	if filepath.Clean(root) == "/" {
		o.Root, o.Sockets = "", listSockets
	}
	e := examination{Findings: doctor.Examine(ctx, o), Count: map[doctor.Verdict]int{}}
	for _, found := range e.Findings {
		e.Count[found.Verdict]++
	}
	return e
}

// runtimeClasses returns the handlers of the cluster's RuntimeClasses.
func runtimeClasses(ctx context.Context, cfg *configs.Config, root string) (map[string]string, error) {
	moved := *cfg
	moved.Kubernetes.Kubeconfig = filepath.Join(root, cfg.Kubernetes.Kubeconfig)
	config, err := restConfig(&moved)
	if err != nil {
		return nil, err
	}
	// Not a clientset: it has the types of all API groups, which the daemon would pay for.
	scheme := runtime.NewScheme()
	if err := nodev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	config.APIPath, config.GroupVersion = "/apis", &nodev1.SchemeGroupVersion
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, err
	}
	var list nodev1.RuntimeClassList
	err = client.Get().Resource("runtimeclasses").Do(ctx).Into(&list)
	if apierrors.IsForbidden(err) {
		return nil, fmt.Errorf("its user may not list RuntimeClasses (%w)", fs.ErrPermission)
	}
	if err != nil {
		return nil, err
	}
	classes := map[string]string{}
	for _, class := range list.Items {
		classes[class.Name] = class.Handler
	}
	return classes, nil
}

// listSockets asks ss, which is there wherever a kubelet runs.
func listSockets(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "ss", "-xpnH").Output()
	return string(out), err
}

func (e examination) print(out io.Writer, format string) error {
	if format == "json" {
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		return encoder.Encode(e)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "VERDICT\tCHECK\tABOUT\tREASON\n")
	for _, found := range e.Findings {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", found.Verdict, found.Check, found.Subject, strings.ReplaceAll(found.Reason, "\n", " "))
		if found.Next != "" {
			fmt.Fprintf(w, "\t\t\t→ %s\n", found.Next)
		}
	}
	fmt.Fprintf(w, "\n%d ok, %d warnings, %d problems, %d skipped\n",
		e.Count[doctor.OK], e.Count[doctor.Warning], e.Count[doctor.Problem], e.Count[doctor.Skipped])
	return w.Flush()
}
