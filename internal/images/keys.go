package images

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"

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

// Resolve implements authn.Keychain, by the key that fits best, as kubelets do: a registry, or a
// pattern of one, with the beginning of a path or without, and written as an address or not.
// Credential helpers that the Secret may name are left alone: they would run programs that
// somebody else chose.
func (s pullSecret) Resolve(of authn.Resource) (authn.Authenticator, error) {
	best, longest := authn.Anonymous, -1
	for key, found := range s.file.AuthConfigs {
		n := fits(key, of)
		if n <= longest || found.Username == "" && found.IdentityToken == "" && found.RegistryToken == "" {
			continue
		}
		longest = n
		best = authn.FromConfig(authn.AuthConfig{
			Username: found.Username, Password: found.Password, Auth: found.Auth,
			IdentityToken: found.IdentityToken, RegistryToken: found.RegistryToken,
		})
	}
	return best, nil
}

// fits tells how well a key fits, -1 for not at all: a longer path is better, then one without a
// pattern, and of those that are as good the shortest way to write it.
func fits(key string, of authn.Resource) int {
	const better = 1 << 10
	address := strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	host, dir, _ := strings.Cut(address, "/")
	dir = strings.Trim(dir, "/")
	for _, version := range []string{"v1", "v2"} { // of the protocol
		if rest, is := strings.CutPrefix(dir+"/", version+"/"); is {
			dir = strings.Trim(rest, "/")
			break
		}
	}
	if host == "docker.io" {
		host = "index.docker.io"
	}
	if !sameHost(host, of.RegistryStr()) || dir != "" && !strings.HasPrefix(of.String()+"/", of.RegistryStr()+"/"+dir+"/") {
		return -1
	}
	n := better * (2*len(dir) + 1)
	if strings.ContainsAny(host, "*?[") {
		n -= better
	}
	return n + max(better-1-len(key), 0)
}

// sameHost matches a registry with a pattern, part by part.
func sameHost(pattern, host string) bool {
	if pattern == host {
		return true
	}
	parts, of := strings.Split(pattern, "."), strings.Split(host, ".")
	return len(parts) == len(of) && !slices.ContainsFunc(parts, func(part string) bool {
		is, err := path.Match(part, of[0])
		of = of[1:]
		return err != nil || !is
	})
}
