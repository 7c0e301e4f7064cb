package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"os"
	"time"
)

const (
	secretName = "lighthouse-serving"
	configName = "lighthouse.example.com"
)

// imageOf is what lamps run.
func imageOf() string { return os.Getenv("LAMP_IMAGE") }

// webhook judges Beacons and Lamps: a Beacon's colour is never black and never changes, and Lamps are made by the
// operator alone.
func webhook(account string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST /validate", func(w http.ResponseWriter, r *http.Request) {
		var review object
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<20)).Decode(&review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		request, _ := review["request"].(map[string]any)
		answer := object{"uid": text(request, "uid"), "allowed": true}
		if why := refuse(request, account); why != "" {
			answer = object{"uid": text(request, "uid"), "allowed": false, "status": object{"message": why}}
		}
		w.Header().Set("Content-Type", "application/json")
		reply := object{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer}
		if err := json.NewEncoder(w).Encode(reply); err != nil {
			slog.Warn("answer review", "error", err)
		}
	})
	return mux
}

// refuse says why a request is refused, or nothing.
func refuse(request object, account string) string {
	now, before := text(request, "object", "spec", "colour"), text(request, "oldObject", "spec", "colour")
	switch {
	case text(request, "resource", "resource") == "lamps":
		if text(request, "operation") == "CREATE" && text(request, "userInfo", "username") != account {
			return "lamps are made by the operator"
		}
	case now == "" || now == "black":
		return "a beacon needs a colour that shows"
	case before != "" && before != now:
		return "a beacon keeps its colour"
	}
	return ""
}

// servingCert returns the certificate in the operator's Secret, made when there is none, and what vouches for it.
func (c *cluster) servingCert(ctx context.Context) (cert tls.Certificate, bundle string, err error) {
	secret, err := c.get(ctx, c.path("", "v1", "secrets", secretName))
	if isCode(err, http.StatusNotFound) {
		secret, err = c.makeSecret(ctx)
	}
	if err != nil {
		return tls.Certificate{}, "", err
	}
	var parts [2][]byte
	for i, key := range []string{"tls.crt", "tls.key"} {
		if parts[i], err = base64.StdEncoding.DecodeString(text(secret, "data", key)); err != nil {
			return tls.Certificate{}, "", fmt.Errorf("decode %s: %w", key, err)
		}
	}
	cert, err = tls.X509KeyPair(parts[0], parts[1])
	return cert, text(secret, "data", "tls.crt"), err
}

// trust puts the certificate into the webhook's configuration.
func (c *cluster) trust(ctx context.Context, bundle string) error {
	_, err := c.call(ctx, http.MethodPatch, "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/"+configName,
		"application/json-patch+json", []any{object{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle}})
	return err
}

func (c *cluster) makeSecret(ctx context.Context) (object, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	host := "lighthouse." + c.namespace + ".svc"
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	encode := func(kind string, der []byte) string {
		return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return c.create(ctx, c.path("", "v1", "secrets"), object{
		"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": object{"name": secretName},
		"data": object{"tls.crt": encode("CERTIFICATE", der), "tls.key": encode("PRIVATE KEY", keyDER)},
	})
}
