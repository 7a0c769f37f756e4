package imageservice

import (
	"strconv"
	"strings"

	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// mayQuote reports whether an error may have a secret of the credentials in it.
// containerd quotes an Auth that it cannot read, decoded.
func mayQuote(err error, auth *runtimeapi.AuthConfig) bool {
	if err == nil {
		return false
	}
	if auth.GetAuth() != "" || auth.GetIdentityToken() != "" || auth.GetRegistryToken() != "" {
		return true
	}
	return hide(err.Error(), auth.GetPassword()) != err.Error()
}

// withoutPassword is a runtime's error about credentials that the caller did not
// bring: it is shown in a pod's events, and its password is the handler's. The
// code stays; details, which are the runtime's too, go with a message that had it.
func withoutPassword(err error, auth *runtimeapi.AuthConfig) error {
	s := status.Convert(err)
	if hidden := hide(s.Message(), auth.GetPassword()); hidden != s.Message() {
		return status.Error(s.Code(), hidden)
	}
	return err
}

// hide takes a secret out of a text, as it is and as %q has it.
func hide(text, secret string) string {
	if secret == "" {
		return text
	}
	quoted := strconv.Quote(secret)
	return strings.NewReplacer(quoted[1:len(quoted)-1], "[hidden]", secret, "[hidden]").Replace(text)
}
