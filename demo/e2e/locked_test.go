package e2e

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// lockedVault has an application captured into a vault that locks, lets someone
// with the store's credentials destroy what he can, and restores all of it.
func lockedVault(t *testing.T) {
	a := &app{vault: "locked"}
	info := rig.Bed.S3()
	endpoint, err := url.Parse(info.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	enemy, err := minio.New(endpoint.Host, &minio.Options{
		Creds: credentials.NewStaticV4(info.AccessKey, info.SecretKey, ""), Region: info.Region, BucketLookup: minio.BucketLookupPath,
	})
	if err != nil {
		t.Fatal(err)
	}
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
