package images

import (
	"bytes"
	"fmt"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/google/go-containerregistry/pkg/authn"
)

// PullSecret reads the credentials in a Secret of type
// kubernetes.io/dockerconfigjson (its .dockerconfigjson).
func PullSecret(raw []byte) (authn.Keychain, error) {
	file, err := config.LoadFromReader(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("read pull secret: %w", err)
	}
	return pullSecret{file}, nil
}

// Keys tries several keychains, and the person's own last.
func Keys(chains ...authn.Keychain) authn.Keychain {
	return authn.NewMultiKeychain(append(chains, authn.DefaultKeychain)...)
}

type pullSecret struct{ file *configfile.ConfigFile }

// Resolve implements authn.Keychain: by the repository's whole name first, as
// kubelets do, and then by its registry. Credential helpers that the Secret may
// name are left alone: they would run programs that somebody else chose.
func (s pullSecret) Resolve(of authn.Resource) (authn.Authenticator, error) {
	keys := []string{of.String(), of.RegistryStr()}
	if of.RegistryStr() == "index.docker.io" {
		keys = append(keys, "https://index.docker.io/v1/", "docker.io")
	}
	for _, key := range keys {
		found, ok := s.file.AuthConfigs[key]
		if ok && (found.Username != "" || found.IdentityToken != "" || found.RegistryToken != "") {
			return authn.FromConfig(authn.AuthConfig{
				Username: found.Username, Password: found.Password, Auth: found.Auth,
				IdentityToken: found.IdentityToken, RegistryToken: found.RegistryToken,
			}), nil
		}
	}
	return authn.Anonymous, nil
}
