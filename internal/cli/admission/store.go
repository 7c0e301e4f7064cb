package admission

import (
	"context"
	"errors"
	"net/url"
	"strings"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/lock"
)

// CanLock refuses a store that cannot lock what is to be locked.
func CanLock(ctx context.Context, store vault.Store) error {
	locker, ok := lock.Of(store)
	if !ok {
		return exit.Refuse("use a bucket with object lock; a directory's files can be removed by whoever may write to it", "%s cannot lock what is written", store)
	}
	err := locker.CheckLock(ctx)
	if errors.Is(err, vault.ErrDenied) {
		return exit.Refuse("object lock is switched on when a bucket is made; the key also needs the rights to read that, and to put and get retentions", "%v", err)
	}
	return err
}

// InsideCluster returns the endpoint's host if it is one of the cluster's own
// names.
func InsideCluster(address, endpoint string) string {
	if endpoint == "" {
		if u, err := url.Parse(address); err == nil {
			endpoint = u.Query().Get("endpoint")
		}
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return ""
	}
	host := strings.TrimSuffix(u.Hostname(), ".")
	if strings.HasSuffix(host, ".svc") || strings.HasSuffix(host, ".cluster.local") {
		return host
	}
	return ""
}

// Distinct refuses a copy that would be lost with the vault that it is a copy of.
func Distinct(first *v1alpha1.Vault, domain, url string) error {
	switch {
	case first.Spec.CopyOf != "":
		return exit.Refuse("make it a copy of vault "+first.Spec.CopyOf, "vault %s is a second copy itself", first.Name)
	case first.Spec.URL == url:
		return exit.Refuse("give another bucket, at another place", "vault %s is at this address already", first.Name)
	case domain != "" && domain == first.Spec.FailureDomain:
		return exit.Refuse("put the copy where it survives what destroys the first vault", "vault %s is in failure domain %q too: both would be lost together", first.Name, domain)
	}
	return nil
}
