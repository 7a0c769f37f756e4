package serviceenv

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// cluster is the API server as a source.
type cluster struct {
	*health
	client   *rest.RESTClient
	informer cache.SharedIndexInformer
}

// newCluster does not connect. It has a client of its own and no clientset: that
// one costs more memory for the kinds of objects that it knows than most
// clusters' Services do.
func newCluster(config *rest.Config, h *health) (*cluster, error) {
	codecs, err := newCodecs()
	if err != nil {
		return nil, err
	}
	config = rest.CopyConfig(config)
	config.APIPath, config.GroupVersion, config.NegotiatedSerializer = "/api", &corev1.SchemeGroupVersion, codecs.WithoutConversion()
	c := &cluster{health: h}
	if c.client, err = rest.RESTClientFor(config); err != nil {
		return nil, fmt.Errorf("a client for the API server: %w", err)
	}
	c.informer = cache.NewSharedIndexInformerWithOptions(c.listWatch(), &corev1.Service{}, cache.SharedIndexInformerOptions{
		Indexers: cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc},
	})
	// What goes wrong is noted where it happens: the reflector tells only a part of it.
	quiet := func(context.Context, *cache.Reflector, error) {}
	return c, errors.Join(c.informer.SetTransform(trim), c.informer.SetWatchErrorHandlerWithContext(quiet))
}

// newCodecs returns those of the core API alone.
func newCodecs() (serializer.CodecFactory, error) {
	scheme := runtime.NewScheme()
	err := corev1.AddToScheme(scheme)
	return serializer.NewCodecFactory(scheme), err
}

// trim is the informer's transformer: whole objects are never kept.
func trim(object any) (any, error) {
	if s, ok := object.(*corev1.Service); ok {
		return trimmed(s), nil
	}
	return object, nil // A note that a Service is gone.
}

// listWatch is client-go's, which also notes how each request went.
func (c *cluster) listWatch() *cache.ListWatch {
	lw := cache.NewListWatchFromClient(c.client, "services", metav1.NamespaceAll, fields.Everything())
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list, err := lw.ListWithContextFunc(ctx, o)
			c.noteAnswer(ctx, err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			w, err := lw.WatchFuncWithContext(ctx, o)
			if o.SendInitialEvents != nil && err != nil {
				return nil, c.streamedListFailed(ctx, err)
			}
			c.noteAnswer(ctx, err)
			return w, err
		},
	}
}

// streamedListFailed returns the error of a list that was to come as the start
// of a watch, in a form that makes the reflector list in the old way: an older
// API server knows no other. After "connection refused" it would else sleep, for
// up to a minute, and not wake up for the end of ctx.
func (c *cluster) streamedListFailed(ctx context.Context, err error) error {
	if apierrors.IsInvalid(err) {
		return err
	}
	c.noteAnswer(ctx, err)
	return errors.New(err.Error()) // Not wrapped, on purpose.
}

// noteAnswer leaves the URL out of the error: it is another one each time.
func (c *cluster) noteAnswer(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return // It was us.
	}
	if failed, ok := errors.AsType[*url.Error](err); ok {
		err = failed.Err
	}
	c.note("the API server", err)
}

// run connects, and connects anew for as long as ctx lives.
func (c *cluster) run(ctx context.Context) {
	defer utilnet.CloseIdleConnectionsFor(c.client.Client.Transport)
	c.informer.RunWithContext(ctx)
}

func (c *cluster) services() (lookUp, error) {
	if !c.informer.HasSynced() {
		return nil, c.notSynced()
	}
	return func(namespace string) []*corev1.Service {
		found, err := c.informer.GetIndexer().ByIndex(cache.NamespaceIndex, namespace)
		if err != nil {
			return nil // There is no such index, which newCluster made.
		}
		services := make([]*corev1.Service, 0, len(found))
		for _, object := range found {
			if s, ok := object.(*corev1.Service); ok {
				services = append(services, s)
			}
		}
		return services
	}, nil
}

func (c *cluster) notSynced() error {
	if last := c.lastError(); last != "" {
		return fmt.Errorf("the API server does not answer: %s", last)
	}
	return errors.New("the API server's answer is awaited")
}

func (c *cluster) state() State {
	return State{
		Source: "kubernetes", Synced: c.informer.HasSynced(),
		Services: len(c.informer.GetIndexer().ListKeys()), Error: c.lastError(),
	}
}
