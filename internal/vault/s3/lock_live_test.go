package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/lock"
	"davit.dev/davit/internal/vault/s3"
)

// attacker has the store's credentials, and uses them against the vault.
func attacker(t *testing.T, opt s3.Options) *minio.Client {
	t.Helper()
	c, err := minio.New(strings.TrimPrefix(opt.Endpoint, "http://"), &minio.Options{
		Creds: credentials.NewStaticV4(opt.AccessKey, opt.SecretKey, ""), Region: "us-east-1", BucketLookup: minio.BucketLookupPath,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// destroy overwrites and deletes every object, every version of it.
func destroy(t *testing.T, c *minio.Client, bucket string) (refused int) {
	t.Helper()
	for o := range c.ListObjectsIter(t.Context(), bucket, minio.ListObjectsOptions{Recursive: true}) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		rubbish := "rubbish"
		if _, err := c.PutObject(t.Context(), bucket, o.Key, strings.NewReader(rubbish), int64(len(rubbish)), minio.PutObjectOptions{}); err != nil {
			refused++
		}
		if err := c.RemoveObject(t.Context(), bucket, o.Key, minio.RemoveObjectOptions{}); err != nil {
			refused++
		}
		past := time.Now().Add(time.Hour)
		mode := minio.Governance
		if err := c.PutObjectRetention(t.Context(), bucket, o.Key, minio.PutObjectRetentionOptions{Mode: &mode, RetainUntilDate: &past}); err != nil {
			refused++
		}
	}
	return refused
}

// protectedPoint makes a vault with one recovery point.
func protectedPoint(t *testing.T, store vault.Store) (*vault.Project, vault.Identity) {
	t.Helper()
	if _, err := vault.Init(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	key, err := vault.NewRecoveryKey()
	if err != nil {
		t.Fatal(err)
	}
	p, err := vault.CreateProject(t.Context(), store, "default", key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	w, err := p.NewWriter(t.Context(), "shop", "shop-1")
	if err != nil {
		t.Fatal(err)
	}
	r := w.Resource(point.Resource{Version: "v1", Kind: "Secret", Resource: "secrets", Namespaced: true})
	if err := r.Add(t.Context(), []byte(`{"kind":"Secret"}`)); err != nil {
		t.Fatal(err)
	}
	res, err := r.Close(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC()
	m := &point.Manifest{Site: "east", Epoch: 1, Trigger: "manual", Instant: now, CutBy: now, Consistency: point.Crash, Namespaces: []string{"shop"}, Resources: []point.Resource{res}}
	if err := w.Publish(t.Context(), m, nil); err != nil {
		t.Fatal(err)
	}
	return p, key
}

func whole(ctx context.Context, store vault.Store, key vault.Identity) error {
	p, err := vault.OpenProject(ctx, store, "default", key)
	if err != nil {
		return err
	}
	m, err := p.Manifest(ctx, "shop", "shop-1")
	if err != nil {
		return err
	}
	return p.VerifyObjects(ctx, m, nil)
}

// TestLockAgainstAnAttacker lets someone with the store's credentials destroy
// what he can. The point is whole afterwards in a bucket with locks, and gone
// in one without.
func TestLockAgainstAnAttacker(t *testing.T) {
	opt := live(t)
	for _, mode := range []lock.Mode{lock.Compliance, lock.Governance, ""} {
		t.Run("mode "+string(mode), func(t *testing.T) {
			bucket := "lock-" + randomName()
			enemy := attacker(t, opt)
			if err := enemy.MakeBucket(t.Context(), bucket, minio.MakeBucketOptions{ObjectLocking: mode != ""}); err != nil {
				t.Fatal(err)
			}
			opt := opt
			opt.Bucket, opt.Prefix, opt.Lock = bucket, "", lock.Policy{Mode: mode, Days: 1}
			store := openLive(t, opt)
			locker, ok := lock.Of(store)
			if !ok {
				t.Fatal("the store does not lock")
			}
			if err := locker.CheckLock(t.Context()); (mode != "") != (err == nil) {
				t.Errorf("CheckLock = %v", err)
			}
			p, key := protectedPoint(t, store)
			if mode != "" {
				checkLocks(t, p, store, opt.Lock)
			}
			refused := destroy(t, enemy, bucket)
			err := whole(t.Context(), store, key)
			if mode != "" && (err != nil || refused == 0) {
				t.Errorf("after the attack, which was refused %d times: %v", refused, err)
			}
			if mode == "" && err == nil {
				t.Error("without locks the point survived: the attack proves nothing")
			}
			if mode != "" {
				err = store.Delete(t.Context(), "projects/default/manifests/shop/shop-1")
				if !errors.Is(err, vault.ErrLocked) || !strings.Contains(fmt.Sprint(err), "until") {
					t.Errorf("deleting gave %v, want ErrLocked that says until when", err)
				}
			}
		})
	}
}

// checkLocks extends the locks of what is kept, and of nothing else.
func checkLocks(t *testing.T, p *vault.Project, store vault.Store, policy lock.Policy) {
	t.Helper()
	locker, _ := lock.Of(store)
	manifest := "projects/default/manifests/shop/shop-1"
	before, err := locker.LockedUntil(t.Context(), manifest)
	if err != nil || time.Until(before) < 24*time.Hour {
		t.Errorf("locked until %v, %v: want a day at the least", before, err)
	}
	later := time.Now().Add(48 * time.Hour)
	report, err := lock.Extend(t.Context(), p, store, policy, later)
	if err != nil || report.Objects == 0 {
		t.Fatalf("Extend = %+v, %v", report, err)
	}
	if after, err := locker.LockedUntil(t.Context(), manifest); err != nil || after.Sub(later) < 24*time.Hour {
		t.Errorf("prolonged to %v, %v", after, err)
	}
	// An earlier date does not shorten it.
	if err := locker.Lock(t.Context(), manifest, policy.Mode, later.Add(-time.Hour)); err != nil {
		t.Errorf("a lock that reaches further already: %v", err)
	}
	if after, err := locker.LockedUntil(t.Context(), manifest); err != nil || after.Sub(later) < 24*time.Hour {
		t.Errorf("shortened to %v, %v", after, err)
	}
	// A point on its way out keeps the lock that it has.
	if err := p.Mark(t.Context(), "shop", "shop-1", vault.Mark{Kind: vault.MarkDeleting}); err != nil {
		t.Fatal(err)
	}
	at, _ := locker.LockedUntil(t.Context(), manifest)
	if _, err := lock.Extend(t.Context(), p, store, policy, later.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if now, err := locker.LockedUntil(t.Context(), manifest); err != nil || !now.Equal(at) {
		t.Errorf("the lock of a point on its way out moved from %v to %v, %v", at, now, err)
	}
	if err := store.Put(t.Context(), "projects/default/clock", bytes.NewReader(nil), 0); err != nil {
		t.Errorf("what changes by design is not locked: %v", err)
	}
}
