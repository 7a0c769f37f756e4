package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ledgerService is a Service of the pods' namespace, as "kubectl get --output yaml" prints it.
const ledgerService = `apiVersion: v1
kind: Service
metadata: {name: ledger, namespace: default}
spec: {clusterIP: 10.96.0.42, ports: [{name: sql, port: 5432}]}
`

// openServices writes the file of Services, and returns the configuration of the
// one handler whose containers get their variables.
func (d *demo) openServices() (config string, err error) {
	file := filepath.Join(d.rig.Dir, "services.yaml")
	if err := os.WriteFile(file, []byte(ledgerService), 0o600); err != nil {
		return "", err
	}
	return fmt.Sprintf("\n[service_env]\nservices_file = %q\n[handlers.%s.service_env]\nenabled = true\n", file, isolated), nil
}

// variables compares the environments of both pods.
func (d *demo) variables(ctx context.Context) (string, error) {
	const want = "LEDGER_PORT=tcp://10.96.0.42:5432"
	for _, pod := range d.pods {
		environment, err := d.front.Run(ctx, "exec", "--sync", pod.container, "/bin/env")
		if err != nil {
			return "", err
		}
		if has := strings.Contains(environment, want+"\n"); has != (pod.handler == isolated) {
			return "", fmt.Errorf("the container of handler %s has %q", pod.handler, environment)
		}
	}
	return want + " in handler " + isolated + " only", nil
}
