package rawcri

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
)

// MaxMessageSize is the largest message that the proxy accepts and sends:
// 16 MiB, the kubelet's receive limit (cri-client, pkg/utils.go) and
// containerd's limits both ways.
const MaxMessageSize = 16 << 20

// Merge joins answers whose only content is the repeated field 1: in protobuf
// the concatenation of two encoded messages decodes to their union, so the
// buffers are strung together and no item is touched. It takes references of
// its own; the caller still frees the parts. An answer above [MaxMessageSize]
// is ResourceExhausted, as a single upstream's would be.
func Merge(method string, parts []*Frame) (*Frame, error) {
	size, buffers := 0, 0
	for _, p := range parts {
		size += p.Len()
		buffers += len(p.data)
	}
	if size > MaxMessageSize {
		return nil, status.Errorf(codes.ResourceExhausted,
			"the merged answer to %s is %d bytes, the limit is %d: ask with a filter or use the streaming list", method, size, MaxMessageSize)
	}
	merged := &Frame{data: make(mem.BufferSlice, 0, buffers)}
	for _, p := range parts {
		p.data.Ref()
		merged.data = append(merged.data, p.data...)
	}
	return merged, nil
}
