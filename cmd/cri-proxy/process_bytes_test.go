package main

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/cri-proxy/cri-proxy/internal/rawcri"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// TestRandomBytes: what is no request is answered as such, by us or as the
// default backend does, and the proxy lives on.
func TestRandomBytes(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	sandbox := p.run("b", "isolated")
	direct := dial(t, alpha)
	random := rand.New(rand.NewPCG(1, 2))
	for _, m := range rawcri.NewCatalog().All() {
		malformed := []byte{0xff, 0xff, 1}
		err := sendBytes(t, p.conn, m.FullName, malformed)
		theirs := sendBytes(t, direct, m.FullName, malformed)
		switch own := status.Code(err) == codes.InvalidArgument && strings.Contains(err.Error(), m.Name); {
		case own, sameStatus(err, theirs):
		default:
			t.Errorf("%s, malformed: %v, want InvalidArgument naming the method, or the backend's %v", m.Name, err, theirs)
		}
		// Valid to different depths: nothing at all, a known id and then rubbish,
		// lengths beyond the end, and just bytes.
		known := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), sandbox)
		for _, b := range [][]byte{{}, append(known, 0xff), {0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f}, {0x0b, 0x0b, 0x0b}, rubbish(random), rubbish(random), rubbish(random)} {
			if err := sendBytes(t, p.conn, m.FullName, b); err != nil && strings.Contains(err.Error(), "panic") {
				t.Errorf("%s, %x: %v", m.Name, b, err)
			}
		}
	}
	if err := p.daemon.ready(t.Context()); err != nil {
		t.Error(err)
	}
	for name, fake := range map[string]*fakeruntime.Runtime{"alpha": alpha, "beta": beta} {
		if !p.daemon.backends().Get(name).Up() || len(fake.Sandboxes()) > 1 {
			t.Errorf("%s is away, or has sandboxes that nobody wanted", name)
		}
	}
}

func rubbish(random *rand.Rand) []byte {
	b := make([]byte, random.IntN(300))
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}

// sameStatus compares codes and messages.
func sameStatus(a, b error) bool {
	return status.Code(a) == status.Code(b) && status.Convert(a).Message() == status.Convert(b).Message()
}

// sendBytes makes a call with these bytes and reads its answer to the end; an
// event stream's only for a moment.
func sendBytes(t *testing.T, conn *grpc.ClientConn, method string, request []byte) error {
	t.Helper()
	limit := 10 * time.Second
	if strings.HasSuffix(method, "/GetContainerEvents") {
		limit = 100 * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	up, err := rawcri.Open(ctx, conn, method, rawcri.NewFrame(request))
	if err != nil {
		return err
	}
	for {
		f, err := rawcri.Next(up)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		f.Free()
	}
}
