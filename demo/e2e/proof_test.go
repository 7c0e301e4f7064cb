package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// coverage asks what protects a namespace before, while and after an
// application does.
func coverage(t *testing.T) {
	a := &app{}
	a.deploy(t)
	protectors := func() (got []string, found bool) {
		var report struct {
			Volumes []struct {
				Namespace, Claim string
				Applications     []string
			}
		}
		davit(t, east, "", "coverage", "--volumes-only", "-o", "json").want(t, 0).read(t, &report)
		for _, v := range report.Volumes {
			if v.Namespace == a.name && v.Claim == "data-db-0" {
				return v.Applications, true
			}
		}
		return nil, false
	}
	if got, found := protectors(); !found || len(got) != 0 {
		t.Fatalf("before: found %v, protected by %v", found, got)
	}
	davit(t, east, "", "coverage", "--volumes-only", "--fail-unprotected", "-o", "wide").want(t, 4, a.name+" data-db-0")
	a.protect(t)
	if got, found := protectors(); !found || !slices.Equal(got, []string{a.name}) {
		t.Errorf("while protected: found %v, protected by %v", found, got)
	}
	davit(t, east, "", "coverage", "--volumes-only").want(t, 0, a.name+": has no recovery point yet")
	// Its objects without its data: the volume is not protected.
	a.protect(t, "--volumes", "none")
	if got, found := protectors(); !found || len(got) != 0 {
		t.Errorf("without its volumes: found %v, protected by %v", found, got)
	}
}

// verifiedOnSchedule has the agent read two points back, one of which is
// damaged, and then what is damaged in a second copy. It asks east for nothing.
func verifiedOnSchedule(t *testing.T) {
	a := &app{vault: "proven", home: west}
	first := a.vault + "-" + run
	addVault(t, a.vault, bucket(t, first, ""), []string{west})
	_, harmed := a.protected(t)
	whole := a.backup(t)
	pack := largest(t, filepath.Join(projectDir(first), "objects", a.name, harmed.ID))
	flip(t, pack)
	verdicts := func() map[string]pointView {
		all := map[string]pointView{}
		for _, p := range a.points(t, west) {
			all[p.ID] = p
		}
		return all
	}
	if got := verdicts(); got[harmed.ID].Damaged || got[whole.ID].VerifiedHow != "" {
		t.Fatalf("known before anybody looked: %+v", got)
	}
	a.protect(t, "--verify-cron", "* * * * *", "--verify-newest", "2")
	eventually(t, 5*time.Minute, "the agent has read both points", func() (bool, string) {
		got := verdicts()
		return got[harmed.ID].Damaged && got[whole.ID].VerifiedHow == "full", fmt.Sprintf("%+v", got)
	})
	got := verdicts()
	if got[harmed.ID].Phase == "Available" || got[whole.ID].Phase != "Available" || got[whole.ID].Damaged {
		t.Errorf("a damaged and a whole point are shown as %+v", got)
	}
	eventually(t, 3*time.Minute, "the application says so", func() (bool, string) {
		got := davit(t, west, "", "describe", a.name).want(t, 0)
		return strings.Contains(got.out, harmed.ID) && strings.Contains(got.out, "Damaged"), got.all()
	})
	davit(t, west, a.vault, "restore", harmed.ID, "--as-clone", "--map-namespace", a.name+"="+a.name+"-copy", "--yes").want(t, 3, "damaged")
	mendedOnSchedule(t, a, whole.ID)
}

// mendedOnSchedule gives the vault a second copy, which takes no more bytes a second than
// it may, points before the room for deleting, and damages a point there: the agent finds that when it is the copy's turn, puts
// it back from the vault, and says so.
func mendedOnSchedule(t *testing.T, a *app, id string) {
	t.Helper()
	const name, width = "proven-copy", 4 << 20
	second := name + "-" + run
	davit(t, west, "", "vault", "add", name, bucket(t, second, ""), "--copy-of", a.vault, "--bandwidth", "4Mi").want(t, 0)
	t.Cleanup(func() { _, _ = rig.Kubectl(context.Background(), west, "delete", "vault", name, "--ignore-not-found") })
	eventually(t, 4*time.Minute, id+" is copied", func() (bool, string) {
		got := try(t, west, "-n", system, "get", "recoverypoint", id, "-o", "jsonpath={.status.copies}")
		return got == `["`+name+`"]`, got + " " + try(t, west, "get", "vault", name, "-o", "jsonpath={.status.copy}")
	})
	room := filepath.Join(projectDir(second), "reserve")
	eventually(t, 2*time.Minute, "the room for deleting is there", func() (bool, string) {
		got := fmt.Sprint(names(t, room))
		return strings.Contains(got, "3"), got
	})
	if point, laid := writtenAt(t, filepath.Join(projectDir(second), "manifests", a.name, id)), writtenAt(t, filepath.Join(room, "0")); laid.Before(point) {
		t.Errorf("the point came at %s, after the room for deleting at %s", point, laid)
	}
	bytes, took := written(t, second)
	t.Logf("%d bytes came within %s", bytes, took)
	if least := time.Duration(bytes-width) * time.Second / width; bytes < 8*width || took < least {
		t.Errorf("%d bytes came within %s: at %d a second, that takes %s at least", bytes, took, width, least)
	}
	twin := largest(t, filepath.Join(projectDir(second), "objects", a.name, id))
	good := content(t, twin)
	flip(t, twin)
	eventually(t, 5*time.Minute, "the agent has mended the copy", func() (bool, string) {
		return content(t, twin) == good, a.status(t, west, "verification")
	})
	eventually(t, time.Minute, "it says so", func() (bool, string) {
		got := try(t, west, "-n", system, "get", "events", "--field-selector", "reason=Repaired,involvedObject.name="+a.name, "-o", "jsonpath={.items[*].message}")
		return strings.Contains(got, id+" is whole again in the second copy "+name), got
	})
}

// writtenAt is when an object of a bucket was written.
func writtenAt(t *testing.T, path string) time.Time {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.ModTime()
}

// written is how much of applications, their volumes and the room for deleting a copy has,
// and how long after the bucket was made one the last of that came.
func written(t *testing.T, bucket string) (size int64, took time.Duration) {
	t.Helper()
	begun, err := os.Stat(filepath.Join(projectDir(bucket), "..", "..", "copy.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"reserve", "volumes", "objects", "manifests"} {
		err = filepath.WalkDir(filepath.Join(projectDir(bucket), part), func(_ string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if err == nil {
				size, took = size+info.Size(), max(took, info.ModTime().Sub(begun.ModTime()))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return size, took
}

// twoOfAName puts two clusters under one site's name, first as a person would
// and then behind the command's back, with the documents of the first site.
func twoOfAName(t *testing.T) {
	a := &app{}
	a.protected(t)
	manifests := filepath.Join(projectDir(commonBucket()), "manifests", a.name)
	davit(t, west, "", "uninstall", "--yes").want(t, 0)
	t.Cleanup(func() { ownName(t, west) })
	if err := rig.EquipAs(t.Context(), west, east); err != nil {
		t.Fatal(err)
	}
	join := []string{"vault", "add", common, bucket(t, commonBucket(), ""), "--recovery-key-file", commonKey(), "--join"}
	davit(t, west, "", join...).want(t, 3, "the vault knows site east as another cluster", "it lives")
	davit(t, west, "", append(join, "--replace-lost-site", "--yes")...).want(t, 3, "it lives")

	apply(t, west, "{apiVersion: v1, kind: Namespace, metadata: {name: "+a.name+", labels: {davit-e2e: 'true'}}}")
	removeNamespace(t, west, a.name)
	for _, args := range [][]string{
		{"-n", system, "get", "secret", "vault-" + common},
		{"get", "vault", common},
		{"-n", system, "get", "protectionpolicy", a.name},
		{"-n", system, "get", "application", a.name},
	} {
		copyObject(t, args)
	}
	eventually(t, 3*time.Minute, "the second cluster says whose name it bears", func() (bool, string) {
		vault := try(t, west, "get", "vault", common, "-o", "jsonpath={.status.conditions}")
		return strings.Contains(vault, "SiteNameTaken"), vault
	})
	davit(t, west, "", "backup", a.name, "--wait", "--timeout", "4m").want(t, 1, "superseded by epoch 1 of site east (cluster ", "site name belongs to another cluster")
	if got := a.status(t, west, "role"); got == "Active" {
		t.Error("two clusters hold the epoch")
	}
	if got := len(names(t, manifests)); got != 1 {
		t.Errorf("the second cluster wrote %d points under the first one's name", got-1)
	}
	// The first one has noticed nothing.
	a.backup(t)
	if got := a.status(t, east, "role"); got != "Active" || len(names(t, manifests)) != 2 || epochs(t, commonBucket(), a.name) != 1 {
		t.Errorf("the first cluster is %s, with %d points and %d epochs", got, len(names(t, manifests)), epochs(t, commonBucket(), a.name))
	}
	if got := a.replicas(t, east); got != "1" {
		t.Errorf("the first cluster runs %s replicas", got)
	}

	// The control: under a name of its own it may take over, and then the first one stops.
	ownName(t, west)
	davit(t, west, common, "restore", a.name, "--take-over", "--yes").want(t, 0)
	t.Cleanup(func() { unprotect(west, a.name) })
	eventually(t, 3*time.Minute, "the first cluster is superseded", func() (bool, string) {
		got := a.status(t, east, "role") + " " + a.replicas(t, east)
		return got == "Superseded 0", got
	})
}

// ownName installs Davit under the site's own name again, unless it is.
func ownName(t *testing.T, site string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	if got, err := rig.Kubectl(ctx, site, "get", "sites", "-l", "davit.dev/local=true", "-o", "name"); err == nil && strings.HasSuffix(got, "/"+site) {
		return
	}
	if _, err := rig.Davit(ctx, site, "uninstall", "--yes"); err != nil {
		t.Errorf("uninstall: %v", err)
	}
	if err := rig.Equip(ctx, site); err != nil {
		t.Errorf("install again: %v", err)
		return
	}
	if err := addCommon(ctx, site, "--join"); err != nil {
		t.Errorf("add the vault again: %v", err)
	}
}

// copyObject brings an object of east to west as it is, but for what its API
// server gave it.
func copyObject(t *testing.T, get []string) {
	t.Helper()
	var object struct {
		APIVersion string            `json:"apiVersion"`
		Kind       string            `json:"kind"`
		Metadata   map[string]any    `json:"metadata"`
		Spec       json.RawMessage   `json:"spec,omitempty"`
		Type       string            `json:"type,omitempty"`
		Data       map[string]string `json:"data,omitempty"`
	}
	if err := json.Unmarshal([]byte(kubectl(t, east, append(get, "-o", "json")...)), &object); err != nil {
		t.Fatal(err)
	}
	kept := map[string]any{}
	for _, field := range []string{"name", "namespace", "labels"} {
		if value, ok := object.Metadata[field]; ok {
			kept[field] = value
		}
	}
	object.Metadata = kept
	text, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	apply(t, west, string(text))
}

// supportBundle looks for secrets in what people hand on.
func supportBundle(t *testing.T) {
	a := &app{}
	a.protected(t)
	file := filepath.Join(t.TempDir(), "bundle.tar.gz")
	davit(t, east, "", "support-bundle", "-f", file, "-q").want(t, 0)
	text := unpack(t, file)
	for _, kept := range []string{a.name, "davit-agent", "vaults/" + common} {
		if !strings.Contains(text, kept) {
			t.Errorf("the bundle does not tell of %s", kept)
		}
	}
	var secrets struct {
		Items []struct{ Data map[string][]byte }
	}
	if err := json.Unmarshal([]byte(kubectl(t, east, "-n", system, "get", "secrets", "-o", "json")), &secrets); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(commonKey())
	if err != nil {
		t.Fatal(err)
	}
	hidden := [][]byte{[]byte(rig.Bed.S3().SecretKey), bytes.TrimSpace(key[bytes.LastIndexByte(bytes.TrimSpace(key), '\n')+1:])}
	for _, s := range secrets.Items {
		for name, value := range s.Data {
			if !slices.Contains([]string{"accessKey", "vault-id", "project", "key-id"}, name) && len(value) >= 8 { // those name things
				hidden = append(hidden, value)
			}
		}
	}
	if len(hidden) < 4 {
		t.Fatalf("only %d secrets are known", len(hidden))
	}
	for _, value := range hidden {
		if strings.Contains(text, string(value)) || strings.Contains(text, base64.StdEncoding.EncodeToString(value)) {
			t.Errorf("the bundle holds a secret of %d bytes", len(value))
		}
	}
}

// unpack is all that is in a tar.gz, names and contents.
func unpack(t *testing.T, file string) string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zr, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(zr)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
