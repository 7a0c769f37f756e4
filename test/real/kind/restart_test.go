package kind_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// testRestarted restarts the worker's container. What was on it comes back.
func testRestarted(ctx context.Context, t *testing.T, c *cluster) {
	t.Helper()
	before := c.containers(ctx, t)
	if _, err := c.Run(ctx, nil, "restart", c.Worker()); err != nil {
		t.Fatal(err)
	}
	c.backAgain(ctx, t, before)
}

// backAgain waits until the node is ready and every pod on it runs in a new
// container, on the runtime that it had.
func (c *cluster) backAgain(ctx context.Context, t *testing.T, before map[string]int32) {
	t.Helper()
	for _, handler := range handlers() {
		wait(ctx, t, func() error { return c.runAgain(ctx, handler, before) })
	}
	wait(ctx, t, func() error { return c.isReady(ctx, c.Worker()) })
	c.wantWeb(ctx, t)
}

// runAgain says which pods of a handler are not ready, or not new on the worker.
func (c *cluster) runAgain(ctx context.Context, handler string, before map[string]int32) error {
	pods, err := c.web(ctx, handler)
	if err != nil {
		return err
	}
	for _, pod := range pods {
		status := pod.Status.ContainerStatuses[0]
		if !status.Ready {
			return fmt.Errorf("pod %s is not ready", pod.Name)
		}
		if _, same := before[pod.Name+"/"+status.ContainerID]; same && pod.Spec.NodeName == c.Worker() {
			return fmt.Errorf("pod %s has the container from before", pod.Name)
		}
	}
	if len(pods) != 2 {
		return errors.New(handler + " has not a pod on each node")
	}
	return nil
}

// web are the pods of a handler's Deployment. Those that ended in order with
// their node stay in the API server, and are left out.
func (c *cluster) web(ctx context.Context, handler string) ([]corev1.Pod, error) {
	var list corev1.PodList
	if err := c.get(ctx, &list, "pods", "--selector", "app=web-"+handler); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list.Items, func(pod corev1.Pod) bool {
		return pod.DeletionTimestamp != nil || pod.Status.Phase != corev1.PodRunning
	}), nil
}

// wantWeb: the pods of every Deployment are where they belong, and usable.
func (c *cluster) wantWeb(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, handler := range handlers() {
		pods, err := c.web(ctx, handler)
		if err != nil {
			t.Fatal(err)
		}
		if len(pods) != 2 {
			t.Errorf("%d pods of %s run, want 2", len(pods), handler)
		}
		for i := range pods {
			c.wantRuntime(ctx, t, &pods[i], handler)
			c.wantUsable(ctx, t, &pods[i])
		}
	}
}
