package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/signer"
)

// lockedVault has an application captured into a vault that locks, lets someone
// with the store's credentials destroy what he can, and restores all of it.
func lockedVault(t *testing.T) {
	a := &app{vault: "locked"}
	info := rig.Bed.S3()
	enemy := client(t, info.Endpoint, info.AccessKey, info.SecretKey)
	name := a.vault + "-" + run
	if err := enemy.MakeBucket(t.Context(), name, minio.MakeBucketOptions{ObjectLocking: true}); err != nil {
		t.Fatal(err)
	}
	plain := bucket(t, a.vault+"-plain-"+run, "")
	davit(t, east, "", "vault", "add", a.vault, plain, "--recovery-key-file", filepath.Join(t.TempDir(), "k"), "--lock", "compliance", "--lock-days", "1").
		want(t, 3, "has no object lock")
	addVault(t, a.vault, bucket(t, name, ""), []string{east, west}, "--lock", "compliance", "--lock-days", "1")
	sum, p := a.protected(t)
	second := a.backup(t) // what is locked is in nobody's way
	eventually(t, 3*time.Minute, "locks are prolonged", func() (bool, string) {
		got := try(t, east, "get", "vault", a.vault, "-o", "jsonpath={.status.lock}")
		return strings.Contains(got, `"until"`) && !strings.Contains(got, `"error"`), got
	})
	davit(t, east, "", "vault", "ls").want(t, 0, "kept points are locked until")

	refused := 0
	for o := range enemy.ListObjectsIter(t.Context(), name, minio.ListObjectsOptions{Recursive: true}) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		if _, err := enemy.PutObject(t.Context(), name, o.Key, strings.NewReader("rubbish"), 7, minio.PutObjectOptions{}); err != nil {
			refused++
		}
		_ = enemy.RemoveObject(t.Context(), name, o.Key, minio.RemoveObjectOptions{GovernanceBypass: true})
	}
	if refused == 0 {
		t.Error("nothing was refused to the attacker")
	}
	for _, point := range []pointView{p, second} {
		davit(t, west, a.vault, "verify", point.ID).want(t, 0, "is whole")
	}
	davit(t, west, a.vault, a.cloneArgs(a.name+"-copy")...).want(t, 0, second.ID)
	removeNamespace(t, west, a.name+"-copy")
	if got := a.sum(t, west, a.name+"-copy"); got != sum {
		t.Errorf("the data is %s, want %s", got, sum)
	}

	// A point that is deleted waits for its lock, and says so.
	davit(t, east, a.vault, "points", "delete", p.ID, "--yes").want(t, 0)
	eventually(t, 3*time.Minute, p.ID+" waits", func() (bool, string) {
		for _, q := range a.points(t, east) {
			if q.ID == p.ID {
				return q.Phase == "Deleting", fmt.Sprintf("%+v", q)
			}
		}
		return false, "it is gone"
	})
}

// keptVault has an application captured into a vault whose bucket keeps
// versions, by a site that may destroy none, lets someone with the site's
// credentials overwrite and delete everything, and brings all of it back.
func keptVault(t *testing.T) {
	a := &app{vault: "versions"}
	info := rig.Bed.S3()
	name := a.vault + "-" + run
	owner := client(t, info.KeptEndpoint, info.AccessKey, info.SecretKey)
	if err := owner.MakeBucket(t.Context(), name, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	access, secret := siteUser(t, name)
	secretFile := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secretFile, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("s3://%s/davit?endpoint=%s&region=%s&pathStyle=true&insecureHTTP=true", name, info.KeptEndpoint, info.Region)
	site := []string{"--no-overwrite", "--access-key", access, "--secret-key-file", secretFile}
	refused := func(says string, flags ...string) {
		t.Helper()
		args := append([]string{"vault", "add", a.vault, address, "--recovery-key-file", filepath.Join(t.TempDir(), "k")}, flags...)
		if got := davit(t, east, "", args...); got.code == 0 || !strings.Contains(got.all(), says) {
			t.Fatalf("davit %s ended with %d\n%s", got.args, got.code, got.all())
		}
	}
	refused("keeps no former versions", site...)
	if err := owner.EnableVersioning(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	refused("deny them s3:DeleteObjectVersion", "--no-overwrite")
	key := addVault(t, a.vault, address, []string{east, west}, site...)
	sum, p := a.protected(t)
	davit(t, east, "", "vault", "check", a.vault).want(t, 0, "refuses to destroy")

	for _, at := range []string{east, west} {
		eventually(t, 3*time.Minute, "the agent at "+at+" proves it as well", func() (bool, string) {
			got := try(t, at, "get", "vault", a.vault, "-o", "jsonpath={.status.keeping}")
			return strings.Contains(got, `"provenAt"`) && !strings.Contains(got, `"error"`), got
		})
	}
	davit(t, east, "", "vault", "ls").want(t, 0, "versions: the store keeps what is overwritten or deleted, proven")

	well := time.Now().Truncate(time.Millisecond)
	eventually(t, 3*time.Minute, "the clock moves on", func() (bool, string) { return time.Since(well) > 2*time.Millisecond, "" })
	enemy := client(t, info.KeptEndpoint, access, secret)
	stopped := 0
	for _, o := range listed(t, enemy, name, false) {
		_, _ = enemy.PutObject(t.Context(), name, o.Key, strings.NewReader("rubbish"), 7, minio.PutObjectOptions{})
		_ = enemy.RemoveObject(t.Context(), name, o.Key, minio.RemoveObjectOptions{})
	}
	for _, o := range listed(t, enemy, name, true) {
		if enemy.RemoveObject(t.Context(), name, o.Key, minio.RemoveObjectOptions{VersionID: o.VersionID}) != nil {
			stopped++
		}
	}
	if stopped == 0 {
		t.Error("nothing was refused to the attacker")
	}
	byAddress := []string{"--vault-url", address, "--recovery-key-file", key}
	if got := davit(t, west, "", append([]string{"verify", p.ID}, byAddress...)...); got.code == 0 {
		t.Fatal("the attack did no harm: it proves nothing")
	}
	back := append([]string{"vault", "revert", "--to", well.UTC().Format(time.RFC3339Nano)}, byAddress...)
	davit(t, west, "", append(back, "--dry-run")...).want(t, 0, "would come back", "overwritten for the first time")
	davit(t, west, "", back...).want(t, 0, "came back", "1 recovery point among them")
	davit(t, west, "", append([]string{"verify", p.ID}, byAddress...)...).want(t, 0, "is whole")
	for _, at := range []string{east, west} {
		eventually(t, 3*time.Minute, "vault "+a.vault+" is ready at "+at, func() (bool, string) {
			got := try(t, at, "get", "vault", a.vault, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")]}`)
			return strings.Contains(got, `"status":"True"`), got
		})
	}
	a.backup(t)
	davit(t, west, a.vault, "restore", p.ID, "--as-clone", "--map-namespace", a.name+"="+a.name+"-copy", "--yes").want(t, 0, p.ID)
	removeNamespace(t, west, a.name+"-copy")
	if got := a.sum(t, west, a.name+"-copy"); got != sum {
		t.Errorf("the data is %s, want %s", got, sum)
	}
	davit(t, west, "", "vault", "reclaim", "--older-than", "24h", "--yes", "--vault-url", address).want(t, 0, "0 former versions freed")
}

// listed is everything in a bucket, into which agents write meanwhile.
func listed(t *testing.T, c *minio.Client, bucket string, versions bool) (all []minio.ObjectInfo) {
	t.Helper()
	eventually(t, 3*time.Minute, "a whole list of "+bucket, func() (bool, string) {
		all = nil
		for o := range c.ListObjectsIter(t.Context(), bucket, minio.ListObjectsOptions{Recursive: true, WithVersions: versions}) {
			if o.Err != nil {
				return false, o.Err.Error()
			}
			all = append(all, o)
		}
		return true, ""
	})
	return all
}

func client(t *testing.T, endpoint, access, secret string) *minio.Client {
	t.Helper()
	u, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	c, err := minio.New(u.Host, &minio.Options{
		Creds: credentials.NewStaticV4(access, secret, ""), Region: rig.Bed.S3().Region, BucketLookup: minio.BucketLookupPath,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// siteUser makes a user of the server that keeps versions, who may read, write
// and delete in one bucket, and destroy nothing.
func siteUser(t *testing.T, bucket string) (access, secret string) {
	t.Helper()
	info := rig.Bed.S3()
	access, secret = "site-"+bucket, "secret-of-"+bucket
	body := fmt.Appendf(nil, "<Account><Access>%s</Access><Secret>%s</Secret><Role>user</Role></Account>", access, secret)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, info.KeptEndpoint+"/create-user", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(body)
	req.Header.Set("X-Amz-Content-Sha256", hex.EncodeToString(sum[:]))
	answer, err := http.DefaultClient.Do(signer.SignV4(*req, info.AccessKey, info.SecretKey, "", info.Region))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode >= 300 {
		t.Fatalf("make a user: %s", answer.Status)
	}
	policy := fmt.Sprintf(`{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Principal":{"AWS":[%q]},"Action":["s3:GetObject","s3:GetObjectVersion","s3:PutObject","s3:DeleteObject"],"Resource":["arn:aws:s3:::%s/*"]},
		{"Effect":"Allow","Principal":{"AWS":[%[1]q]},"Action":["s3:ListBucket","s3:ListBucketVersions","s3:GetBucketVersioning"],"Resource":["arn:aws:s3:::%[2]s"]}]}`, access, bucket)
	if err := client(t, info.KeptEndpoint, info.AccessKey, info.SecretKey).SetBucketPolicy(t.Context(), bucket, policy); err != nil {
		t.Fatal(err)
	}
	return access, secret
}
