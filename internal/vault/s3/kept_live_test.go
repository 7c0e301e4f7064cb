package s3_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/signer"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/history"
	"davit.dev/davit/internal/vault/s3"
)

// keeping returns the options of the real server named by DAVIT_TEST_S3_KEPT,
// whose buckets can keep former versions, or skips the test.
func keeping(t *testing.T) s3.Options {
	t.Helper()
	return serverAt(t, "DAVIT_TEST_S3_KEPT", os.Getenv("DAVIT_TEST_S3_KEPT"))
}

// siteOf makes a user of the server who may read, write and delete in the
// bucket, and nothing else: what a site gets.
func siteOf(t *testing.T, admin s3.Options, bucket string) s3.Options {
	t.Helper()
	site := admin
	site.AccessKey, site.SecretKey = "site-"+randomName(), randomName()+randomName()
	body, err := xml.Marshal(struct {
		XMLName              xml.Name `xml:"Account"`
		Access, Secret, Role string
	}{Access: site.AccessKey, Secret: site.SecretKey, Role: "user"})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, admin.Endpoint+"/create-user", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(body)
	req.Header.Set("X-Amz-Content-Sha256", hex.EncodeToString(sum[:]))
	answer, err := http.DefaultClient.Do(signer.SignV4(*req, admin.AccessKey, admin.SecretKey, "", "us-east-1"))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode >= 300 {
		t.Fatalf("make a user: %s", answer.Status)
	}
	policy := fmt.Sprintf(`{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Principal":{"AWS":[%q]},"Action":["s3:GetObject","s3:GetObjectVersion","s3:PutObject","s3:DeleteObject"],"Resource":["arn:aws:s3:::%s/*"]},
		{"Effect":"Allow","Principal":{"AWS":[%[1]q]},"Action":["s3:ListBucket","s3:ListBucketVersions","s3:GetBucketVersioning"],"Resource":["arn:aws:s3:::%[2]s"]}]}`, site.AccessKey, bucket)
	if err := attacker(t, admin).SetBucketPolicy(t.Context(), bucket, policy); err != nil {
		t.Fatal(err)
	}
	return site
}

// ransom overwrites, deletes and destroys what it can, every version of it,
// and tries to have the bucket keep no more of them.
func ransom(t *testing.T, c *minio.Client, bucket string) (refused int) {
	t.Helper()
	_ = destroy(t, c, bucket)
	if err := c.SuspendVersioning(t.Context(), bucket); err != nil {
		refused++
	}
	for o := range c.ListObjectsIter(t.Context(), bucket, minio.ListObjectsOptions{Recursive: true, WithVersions: true}) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		if err := c.RemoveObject(t.Context(), bucket, o.Key, minio.RemoveObjectOptions{VersionID: o.VersionID}); err != nil {
			refused++
		}
	}
	return refused
}

// now is this instant, which is over when it returns: the server runs on this
// machine, and says milliseconds.
func now() time.Time {
	at := time.Now().Truncate(time.Millisecond)
	for time.Since(at) < 2*time.Millisecond {
		runtime.Gosched()
	}
	return at
}

// TestNoOverwriteAgainstAnAttacker lets someone with the credentials of a site
// destroy what he can. What a bucket keeps that lets no site destroy versions
// comes back whole; in one that does, and in an ordinary one, it is gone.
func TestNoOverwriteAgainstAnAttacker(t *testing.T) {
	admin := keeping(t)
	for _, c := range []struct {
		name             string
		versions, policy bool
	}{
		{"versions and a policy", true, true},
		{"versions without a policy", true, false},
		{"an ordinary bucket", false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			admin := admin
			admin.Bucket, admin.Prefix = "kept-"+randomName(), "davit"
			owner := attacker(t, admin)
			if err := owner.MakeBucket(t.Context(), admin.Bucket, minio.MakeBucketOptions{}); err != nil {
				t.Fatal(err)
			}
			if c.versions {
				if err := owner.EnableVersioning(t.Context(), admin.Bucket); err != nil {
					t.Fatal(err)
				}
			}
			site := siteOf(t, admin, admin.Bucket)
			if !c.policy {
				site = admin
			}
			safe := c.versions && c.policy
			store := openLive(t, site)
			if _, err := history.Prove(t.Context(), store); safe != (err == nil) || !safe && !errors.Is(err, history.ErrDestroys) {
				t.Errorf("Prove = %v", err)
			}
			_, key := protectedPoint(t, store)
			before := now()
			refused := ransom(t, attacker(t, site), site.Bucket)
			if err := whole(t.Context(), store, key); err == nil {
				t.Fatal("the attack did no harm: it proves nothing")
			}
			rescued := openLive(t, admin)
			how := history.Reverting{To: before, Project: "default", Key: key}
			report, err := history.Revert(t.Context(), rescued, how)
			if err == nil {
				err = whole(t.Context(), store, key)
			}
			if safe && (err != nil || refused == 0 || report.Points != 1) {
				t.Errorf("after the attack, which was refused %d times: %+v, %v", refused, report, err)
			}
			if !safe && err == nil {
				t.Errorf("the point came back, although the attacker could destroy it: %+v", report)
			}
			if safe {
				freed(t.Context(), t, store, rescued, key)
			}
		})
	}
}

// freed frees what the attack left, which a site may not.
func freed(ctx context.Context, t *testing.T, site, admin vault.Store, key vault.Identity) {
	t.Helper()
	future := time.Now().Add(time.Hour)
	if _, err := history.Reclaim(ctx, site, future, false); !errors.Is(err, vault.ErrDenied) {
		t.Errorf("a site frees versions: %v", err)
	}
	before, err := history.Reclaim(ctx, admin, future, true)
	if err != nil || before.Versions == 0 || before.Overwritten == 0 {
		t.Fatalf("Reclaim, dry = %+v, %v", before, err)
	}
	report, err := history.Reclaim(ctx, admin, future, false)
	if err != nil || report != before {
		t.Errorf("Reclaim = %+v, %v, want %+v", report, err, before)
	}
	if err := whole(ctx, site, key); err != nil {
		t.Errorf("what is visible was freed: %v", err)
	}
	if again, err := history.Reclaim(ctx, admin, future, true); err != nil || again.Versions != 0 {
		t.Errorf("Reclaim again = %+v, %v", again, err)
	}
}
