package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const fixture = "correct horse battery"

// TestSecrets: a secret is found in what a test printed and in what its processes said,
// however it is encoded, and told without its text; what is none is not.
func TestSecrets(t *testing.T) {
	encode := base64.StdEncoding.EncodeToString
	for name, tt := range map[string]struct {
		says  string
		found bool
	}{
		"nothing":              {says: "the password is not told, battery 3 is low"},
		"plain":                {says: "login of anna with " + fixture, found: true},
		"in a URL":             {says: "GET /login?password=" + url.QueryEscape(fixture), found: true},
		"in a path":            {says: "GET /" + url.PathEscape(fixture), found: true},
		"in hex":               {says: hex.EncodeToString([]byte(fixture)), found: true},
		"in base64":            {says: encode([]byte(fixture)), found: true},
		"in base64, 1 later":   {says: encode([]byte("x" + fixture + "y")), found: true},
		"in base64, 2 later":   {says: encode([]byte("xx" + fixture + "yy")), found: true},
		"in base64 of URLs":    {says: base64.URLEncoding.EncodeToString([]byte(fixture)), found: true},
		"of this machine":      {says: "key q7hs83jfnx92", found: true},
		"a key of the vault":   {says: "AGE-SECRET-KEY-1" + strings.Repeat("Q", 58), found: true},
		"a part of such a key": {says: "AGE-SECRET-KEY-1QQPQ"},
		"a session":            {says: "davit_session_" + strings.Repeat("ab", 32), found: true},
		"a robot's token":      {says: "davit_robot_0123456789abcdef_" + strings.Repeat("ab", 32), found: true},
		"a token of an agent":  {says: "davit_enrol_acme_0123456789abcdef_" + strings.Repeat("ab", 32) + "_" + strings.Repeat("cd", 32), found: true},
		"a seed":               {says: "otpauth://totp/anna?secret=ABC", found: true},
		"a private key":        {says: `-----BEGIN PRIVATE KEY-----\n` + strings.Repeat("ab", 32), found: true},
		"a public one":         {says: "-----BEGIN CERTIFICATE-----" + strings.Repeat("ab", 32)},
		"a Secret's account":   {says: "eyJhbGciOiJSUzI1NiIsImtpZCI6IkEifQ.eyJpc3MiOiJrdWJlcm5ldGVzL3NlcnZpY2UifQ." + strings.Repeat("ab", 32), found: true},
	} {
		t.Run(name, func(t *testing.T) {
			for place, files := range map[string][2]string{
				"a report": {"unit.json", events("run TestA", "says all is well", "says "+tt.says, "pass TestA")},
				"a log":    {"said/TestA/console.log", "all is well\n" + strings.Repeat("x", maxLine-10) + tt.says},
			} {
				dir := t.TempDir()
				write(t, filepath.Join(dir, plantedFile), "q7hs83jfnx92\n")
				write(t, filepath.Join(dir, files[0]), files[1])
				var out bytes.Buffer
				err := run([]string{"secrets", dir}, &out)
				if (err != nil) != tt.found || (out.Len() > 0) != tt.found {
					t.Errorf("%s: got %q, %v", place, out.String(), err)
				}
				if tt.found && (!strings.Contains(out.String(), "line 2") || strings.Contains(out.String(), tt.says)) {
					t.Errorf("%s: got %q", place, out.String())
				}
			}
		})
	}
}

// TestSecretsElsewhere: with places named, those are looked through, and a place that is
// not there holds nothing.
func TestSecretsElsewhere(t *testing.T) {
	dir, logs := t.TempDir(), t.TempDir()
	write(t, filepath.Join(dir, "unit.json"), events("says "+fixture))
	write(t, filepath.Join(logs, "east", "kubelet.log"), "fine\n")
	var out bytes.Buffer
	if err := run([]string{"secrets", dir, logs, logs + "/none"}, &out); err != nil {
		t.Fatal(err, out.String())
	}
	write(t, filepath.Join(logs, "east", "agent.log"), fixture+"\n")
	if err := run([]string{"secrets", dir, logs}, &out); err == nil || !strings.Contains(out.String(), "agent.log, line 1") {
		t.Fatal(err, out.String())
	}
}

// TestFixtures: what the tests plant is looked for.
func TestFixtures(t *testing.T) {
	for _, secret := range planted {
		n := needles{}
		n.plant(secret)
		if n.in([]byte("x"+secret)) == "" || n.in([]byte("x")) != "" {
			t.Errorf("%s is not found", secret)
		}
	}
}

func mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
}
