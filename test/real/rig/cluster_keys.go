package rig

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// The files that the parts of a cluster know each other by.
const (
	serviceAccountKey = "service-account.key"
	tokens            = "tokens.csv"
	kubeletClient     = "kubelet-client.pem" // the API server, as the kubelet knows it; its own authority
	kubeletKeys       = "kubelet-pki"        // made by the kubelet
	serverCertificate = "apiserver.crt"      // made by the API server
)

// writeKeys makes new secrets for a cluster that lives for a test.
func (c *Cluster) writeKeys() error {
	key, keyErr := encodedKey(nil)
	client, clientErr := encodedKey(&x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kube-apiserver"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		IsCA: true, BasicConstraintsValid: true,
	})
	if err := errors.Join(keyErr, clientErr); err != nil {
		return err
	}
	token := rand.Text()
	return errors.Join(
		os.WriteFile(c.file(serviceAccountKey), key, 0o600),
		os.WriteFile(c.file(kubeletClient), client, 0o600),
		os.WriteFile(c.file(tokens), fmt.Appendf(nil, "%s,admin,admin,system:masters\n", token), 0o600),
		c.WriteKubeconfig(c.Kubeconfig, token))
}

// encodedKey is a new key, and behind it a certificate that it signs for itself
// if there is a template for one.
func encodedKey(template *x509.Certificate) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	encoded, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: encoded})
	if template == nil {
		return text, nil
	}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed})...), err
}

// WriteKubeconfig writes a file that leads to the API server, with a token. It is
// there as a whole or not at all.
func (c *Cluster) WriteKubeconfig(path, token string) error {
	config := api.NewConfig()
	config.Clusters["rig"] = &api.Cluster{Server: c.server, CertificateAuthority: c.file(serverCertificate)}
	config.AuthInfos["user"] = &api.AuthInfo{Token: token}
	config.Contexts["rig"] = &api.Context{Cluster: "rig", AuthInfo: "user"}
	config.CurrentContext = "rig"
	whole := path + ".new"
	return errors.Join(clientcmd.WriteToFile(*config, whole), os.Rename(whole, path))
}
