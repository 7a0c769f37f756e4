package kubelet_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cri-proxy/cri-proxy/internal/kubelet"
)

const endpoint = "unix:///run/cri-proxy/cri-proxy.sock"

func TestEditConfig(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, before, after string }{
		{
			"comments and order stay",
			"# ours\napiVersion: kubelet.config.k8s.io/v1beta1\ncontainerRuntimeEndpoint: unix:///run/a.sock  # the runtime\nzz: 1\naa: [b, a]\n",
			"# ours\napiVersion: kubelet.config.k8s.io/v1beta1\ncontainerRuntimeEndpoint: " + endpoint + "  # the runtime\nzz: 1\naa: [b, a]\n",
		},
		{"double quotes", "containerRuntimeEndpoint: \"\"\n", "containerRuntimeEndpoint: \"" + endpoint + "\"\n"},
		{"single quotes", "containerRuntimeEndpoint: 'unix:///a'\r\nb: 1\r\n", "containerRuntimeEndpoint: '" + endpoint + "'\r\nb: 1\r\n"},
		{"not set", "a: 1\n", "a: 1\ncontainerRuntimeEndpoint: " + endpoint + "\n"},
		{"not set, no newline at the end", "a: 1", "a: 1\ncontainerRuntimeEndpoint: " + endpoint + "\n"},
		{"empty", "", "containerRuntimeEndpoint: " + endpoint + "\n"},
		{
			"images of their own",
			"imageServiceEndpoint: unix:///run/i.sock\ncontainerRuntimeEndpoint: unix:///run/a.sock\n",
			"imageServiceEndpoint: " + endpoint + "\ncontainerRuntimeEndpoint: " + endpoint + "\n",
		},
		{"no images of their own", "imageServiceEndpoint: \"\"\ncontainerRuntimeEndpoint: a\n", "imageServiceEndpoint: \"\"\ncontainerRuntimeEndpoint: " + endpoint + "\n"},
		{"JSON", `{"a": {"containerRuntimeEndpoint": "x"}, "containerRuntimeEndpoint": "unix:///a", "b": 2}`, `{"a": {"containerRuntimeEndpoint": "x"}, "containerRuntimeEndpoint": "` + endpoint + `", "b": 2}`},
		{"one like it deeper", "a:\n  containerRuntimeEndpoint: x\n", "a:\n  containerRuntimeEndpoint: x\ncontainerRuntimeEndpoint: " + endpoint + "\n"},
		{"other letters before it", "ä: ü\n\"containerRuntimeEndpoint\": unix:///a\n", "ä: ü\n\"containerRuntimeEndpoint\": " + endpoint + "\n"},
		{"done already", "containerRuntimeEndpoint: " + endpoint + "\n", "containerRuntimeEndpoint: " + endpoint + "\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := kubelet.EditConfig([]byte(tt.before), endpoint)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.after, string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestEditConfigRefuses what it cannot change without changing more.
func TestEditConfigRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, text string }{
		{"no YAML", "{"},
		{"a list", "- a\n"},
		{"twice", "containerRuntimeEndpoint: a\ncontainerRuntimeEndpoint: b\n"},
		{"a block scalar", "containerRuntimeEndpoint: >-\n  unix:///a\n  b\n"},
		{"an alias", "a: &x unix:///a\ncontainerRuntimeEndpoint: *x\n"},
		{"JSON without the key", `{"a": 1}`},
		{"an escape", `containerRuntimeEndpoint: "unix:\x2f//a"` + "\n"},
		{"a second document", "a: 1\n---\nb: 1\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got, err := kubelet.EditConfig([]byte(tt.text), endpoint); err == nil {
				t.Errorf("edited to:\n%s", got)
			}
		})
	}
}

func TestEditFlags(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, before, after string }{
		{
			"kubeadm's", `KUBELET_KUBEADM_ARGS="--container-runtime-endpoint=unix:///run/a.sock --node-ip=1.2.3.4"` + "\n",
			`KUBELET_KUBEADM_ARGS="--container-runtime-endpoint=` + endpoint + ` --node-ip=1.2.3.4"` + "\n",
		},
		{"the last one", `A="--x --container-runtime-endpoint=/run/a.sock"`, `A="--x --container-runtime-endpoint=` + endpoint + `"`},
		{"two words, and images", `A=--container-runtime-endpoint /a --image-service-endpoint /b`, `A=--container-runtime-endpoint ` + endpoint + ` --image-service-endpoint ` + endpoint},
		{"none", `A="--node-ip=1.2.3.4"` + "\n", `A="--node-ip=1.2.3.4"` + "\n"},
		{"a comment", "# --container-runtime-endpoint=/a\n", "# --container-runtime-endpoint=/a\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.after, string(kubelet.EditFlags([]byte(tt.before), endpoint))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzEditConfig: whatever is edited, every other line stays.
func FuzzEditConfig(f *testing.F) {
	f.Add("a: 1\ncontainerRuntimeEndpoint: b # c\n")
	f.Add(`{"containerRuntimeEndpoint": "x"}`)
	f.Add("containerRuntimeEndpoint: |\n  x\n")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := kubelet.EditConfig([]byte(text), endpoint)
		if err != nil {
			return
		}
		before, after := strings.Split(text, "\n"), strings.Split(string(got), "\n")
		changed := 0
		for i := range min(len(before), len(after)) {
			if before[i] != after[i] {
				changed++
			}
		}
		if changed > 2 || len(after) < len(before) || len(after) > len(before)+2 { // A line, and the newline before it.
			t.Errorf("%q became %q", text, got)
		}
		again, err := kubelet.EditConfig(got, endpoint)
		if err != nil || string(again) != string(got) {
			t.Errorf("%q edited again became %q, %v", got, again, err)
		}
	})
}
