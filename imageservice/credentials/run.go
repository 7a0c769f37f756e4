package credentials

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	providerapi "k8s.io/kubelet/pkg/apis/credentialprovider/v1"
)

const (
	requestKind  = "CredentialProviderRequest"
	responseKind = "CredentialProviderResponse"
)

func apiVersion() string { return providerapi.SchemeGroupVersion.String() }

// run asks the program for the credentials of a repository, as the kubelet's
// ExecPlugin does (pkg/credentialprovider/plugin/plugin.go). No error quotes
// anything of its answer.
func (p *plugin) run(ctx context.Context, repository string) (*providerapi.CredentialProviderResponse, error) {
	question := providerapi.CredentialProviderRequest{Image: repository}
	question.Kind, question.APIVersion = requestKind, apiVersion()
	stdin, err := json.Marshal(question)
	if err != nil {
		return nil, err
	}
	stdout, err := p.exec(ctx, stdin)
	if err != nil {
		return nil, err
	}
	return parseResponse(stdout)
}

// exec runs the program in a process group of its own, which it kills when the
// time is over, when ctx ends, and when the answer becomes too long. What it says
// besides goes nowhere: there may be a secret in it.
func (p *plugin) exec(ctx context.Context, stdin []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, p.limits.time, fmt.Errorf("it took over %s and was killed", p.limits.time))
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	stdout := &head{room: p.limits.output, overflow: func() {
		stop(fmt.Errorf("it answered more than %d bytes and was killed", p.limits.output))
	}}

	cmd := exec.CommandContext(ctx, p.path, p.config.Args...)
	cmd.Env = os.Environ()
	for _, v := range p.config.Env {
		cmd.Env = append(cmd.Env, v.Name+"="+v.Value)
	}
	cmd.Stdin, cmd.Stdout = bytes.NewReader(stdin), stdout
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel, cmd.WaitDelay = func() error { return killGroup(cmd.Process) }, p.limits.grace
	err := cmd.Run()
	if err != nil && cmd.Process != nil {
		_ = killGroup(cmd.Process) //nolint:errcheck // The children of a plugin that failed; most have none.
	}
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.Is(err, exec.ErrWaitDelay):
		err = errors.New("it ended and left a child that held its output; the child was killed")
	}
	return stdout.kept.Bytes(), err
}

// killGroup kills the process group that p leads, or led.
func killGroup(p *os.Process) error {
	err := syscall.Kill(-p.Pid, syscall.SIGKILL)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// head keeps the beginning of what is written to it.
type head struct {
	kept     bytes.Buffer
	room     int
	overflow func() // Called for what there is no room for.
}

func (h *head) Write(data []byte) (int, error) {
	fits := min(len(data), h.room-h.kept.Len())
	h.kept.Write(data[:fits])
	if fits < len(data) {
		h.overflow()
	}
	return len(data), nil
}

// parseResponse reads an answer strictly, as the kubelet does.
func parseResponse(stdout []byte) (*providerapi.CredentialProviderResponse, error) {
	var response providerapi.CredentialProviderResponse
	decoder := json.NewDecoder(bytes.NewReader(stdout))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&response); err != nil {
		return nil, errors.New("its answer is not the JSON of a " + responseKind)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("its answer goes on after the JSON object")
	}
	if response.Kind != responseKind {
		return nil, errors.New("the kind of its answer must be " + responseKind)
	}
	if response.APIVersion != apiVersion() {
		return nil, errors.New("the apiVersion of its answer must be that of the request, " + apiVersion())
	}
	switch response.CacheKeyType {
	case providerapi.ImagePluginCacheKeyType, providerapi.RegistryPluginCacheKeyType, providerapi.GlobalPluginCacheKeyType:
		return &response, nil
	default:
		return nil, errors.New("the cacheKeyType of its answer must be Image, Registry or Global")
	}
}
