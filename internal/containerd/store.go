package containerd

import (
	"context"
	"io"

	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/content"
	contentproxy "github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/containerd/containerd/v2/core/diff"
	diffproxy "github.com/containerd/containerd/v2/core/diff/proxy"
	"github.com/containerd/containerd/v2/core/leases"
	leasesproxy "github.com/containerd/containerd/v2/core/leases/proxy"
	"github.com/containerd/containerd/v2/core/snapshots"
	snapshotsproxy "github.com/containerd/containerd/v2/core/snapshots/proxy"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/log"
	"github.com/containerd/platforms"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// criNamespace is where containerd's CRI keeps its images: k8sNamespace in
// containerd's internal/cri/constants.
const criNamespace = "k8s.io"

// Store is the image store of a containerd, as its CRI uses it. It is made by
// [New].
type Store struct {
	conn     grpc.ClientConnInterface
	images   imagesapi.ImagesClient
	content  content.Store
	leases   leases.Manager
	applier  diff.Applier
	platform platforms.MatchComparer // The platform that CRI pulls for.
}

// New returns the store behind a connection to containerd's socket. Nothing is
// sent. The connection stays the caller's.
func New(conn grpc.ClientConnInterface) *Store {
	return &Store{
		conn:     conn,
		images:   imagesapi.NewImagesClient(conn),
		content:  contentproxy.NewContentStore(conn),
		leases:   leasesproxy.NewLeaseManager(leasesapi.NewLeasesClient(conn)),
		applier:  diffproxy.NewDiffApplier(diffapi.NewDiffClient(conn)).(diff.Applier), //nolint:errcheck // It is one, under the type any.
		platform: platforms.Default(),
	}
}

// Supported reports whether there is a containerd behind the connection.
func (s *Store) Supported(ctx context.Context) (bool, error) {
	request := &namespacesapi.GetNamespaceRequest{Name: criNamespace}
	_, err := namespacesapi.NewNamespacesClient(s.conn).Get(ctx, request)
	switch status.Code(err) {
	case codes.OK, codes.NotFound: // Without an image there may be no namespace yet.
		return true, nil
	case codes.Unimplemented:
		return false, nil
	default:
		return false, err
	}
}

func (s *Store) snapshotter(name string) snapshots.Snapshotter {
	return snapshotsproxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(s.conn), name)
}

// inNamespace is the context of every call. The libraries log to the context's
// logger what they also return; the error is enough.
func inNamespace(ctx context.Context) context.Context {
	quiet := logrus.New()
	quiet.SetOutput(io.Discard)
	return log.WithLogger(namespaces.WithNamespace(ctx, criNamespace), logrus.NewEntry(quiet))
}

// asStatus is where the libraries' errors become those of gRPC again.
func asStatus(err error) error { return errgrpc.ToGRPC(err) }
