// Package e2e_test drives a whole node with a real control plane: kubelet, API
// server, scheduler and controllers, with cri-proxy and two containerds below.
// What it does, people do: kubectl, and objects in the API server. It needs root,
// and runs only where E2E is set, for the first time takes many minutes to build
// Kubernetes. With -short the faults last a minute instead of five.
package e2e_test
