package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

// documentedBytes is the size of a Service that docs/kubernetes.md reckons with.
const documentedBytes = 1200

// testServiceBytes measures what the API server sends for a Service, as people
// make them, in the two encodings that clients ask for.
func testServiceBytes(ctx context.Context, t *testing.T, c *cluster) {
	s := newSpace(ctx, t, c)
	const count = 100
	var objects strings.Builder
	for i := range count {
		fmt.Fprintf(&objects, `---
apiVersion: v1
kind: Service
metadata:
  name: example-service-%[1]d
  labels: {app.kubernetes.io/name: example-%[1]d, app.kubernetes.io/part-of: example}
spec:
  selector: {app.kubernetes.io/name: example-%[1]d}
  ports: [{name: http, port: 80, targetPort: 8080}]
`, i)
	}
	if _, err := s.RunKubectl(ctx, strings.NewReader(objects.String()), "--namespace", s.name, "apply", "--filename", "-"); err != nil {
		t.Fatal(err)
	}
	for _, encoding := range []string{"application/json", "application/vnd.kubernetes.protobuf"} {
		list, err := c.Client.CoreV1().RESTClient().Get().Namespace(s.name).Resource("services").SetHeader("Accept", encoding).DoRaw(ctx)
		if err != nil {
			t.Fatal(err)
		}
		each := len(list) / count
		t.Logf("a Service has %d bytes as %s", each, encoding)
		if encoding != "application/json" && (each > documentedBytes*5/4 || each < documentedBytes*3/4) {
			t.Errorf("a Service has %d bytes, docs/kubernetes.md reckons with %d", each, documentedBytes)
		}
	}
}
