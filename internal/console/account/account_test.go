package account

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
)

var cheap = Cost{Passes: 1, Memory: 64, Threads: 1}

func TestPasswords(t *testing.T) {
	const password = "correct horse battery"
	hashed, err := cheap.Hash(password)
	if err != nil {
		t.Fatal(err)
	}
	again, err := cheap.Hash(password)
	if err != nil || again == hashed {
		t.Errorf("two hashes of one password are the same: %v", err)
	}
	if strings.Contains(hashed, password) || !cheap.Matches(hashed, password) || cheap.Matches(hashed, password+" ") || cheap.Matches("", "") {
		t.Errorf("%s", hashed)
	}
	dearer := Cost{Passes: 2, Memory: 64, Threads: 1}
	if !dearer.Matches(hashed, password) || !dearer.Outdated(hashed) || cheap.Outdated(hashed) {
		t.Error("a hash at another cost does not match, or is not known to be at another")
	}
	for _, spoiled := range []string{
		"", "$", strings.Replace(hashed, "argon2id", "argon2i", 1), strings.Replace(hashed, "m=64", "m=99999999", 1),
		strings.Replace(hashed, "p=1", "p=0", 1), strings.Replace(hashed, "t=1", "t=0", 1), hashed[:len(hashed)-3], hashed + "AA",
	} {
		if cheap.Matches(spoiled, password) {
			t.Errorf("%q matches", spoiled)
		}
	}
}

func TestCheckPassword(t *testing.T) {
	if err := CheckPassword("anna", "twelve chars"); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", "short", strings.Repeat("x", 20), "administrator", strings.Repeat("ab", MaxPassword), "eleven char", "\xff\xfe long enough to be one"} {
		if CheckPassword("administrator", bad) == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// A code counts once, one period early or late, and for its secret only.
func TestCodes(t *testing.T) {
	secret, err := NewSecret()
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewSecret()
	if err != nil || other == secret {
		t.Fatal("two secrets are the same", err)
	}
	now := time.Unix(1_800_000_015, 0)
	code, err := totp.GenerateCode(secret, now)
	if err != nil {
		t.Fatal(err)
	}
	used, ok := CheckCode(secret, code, now, 0)
	if !ok {
		t.Fatal("the code of now is refused")
	}
	if _, ok := CheckCode(secret, code, now, used); ok {
		t.Error("a code was taken twice")
	}
	if _, ok := CheckCode(secret, code, now.Add(period*time.Second), used); ok {
		t.Error("a code was taken again in the next period")
	}
	for _, at := range []time.Duration{-period, period} {
		if _, ok := CheckCode(secret, code, now.Add(at*time.Second), 0); !ok {
			t.Errorf("a clock that is %d s off is refused", at)
		}
	}
	for _, at := range []time.Duration{-2 * period, 2 * period} {
		if _, ok := CheckCode(secret, code, now.Add(at*time.Second), 0); ok {
			t.Errorf("a code %d s off was taken", at)
		}
	}
	for _, bad := range []string{"", "12345", "1234567", "abcdef"} {
		if _, ok := CheckCode(secret, bad, now, 0); ok {
			t.Errorf("%q was taken", bad)
		}
	}
	if url, err := SecretURL(secret, "anna", "davit"); err != nil || !strings.HasPrefix(url, "otpauth://totp/davit:anna?") || !strings.Contains(url, secret) {
		t.Errorf("%s, %v", url, err)
	}
}

func TestTokens(t *testing.T) {
	session, hash, err := NewSession()
	if err != nil || !IsSession(session) || !SameHash(hash, HashToken(session)) {
		t.Errorf("session: %v", err)
	}
	id, robot, hash, err := NewRobot()
	if got, ok := RobotID(robot); err != nil || !ok || got != id || !SameHash(hash, HashToken(robot)) {
		t.Errorf("robot: %v", err)
	}
	if IsSession(robot) {
		t.Error("a robot's token passes for a session")
	}
	for _, bad := range []string{"", session, robot[:len(robot)-1], strings.ToUpper(robot), robot + "0", robotPrefix + "_", robotPrefix + "../../x_" + strings.Repeat("0", 64)} {
		if _, ok := RobotID(bad); ok {
			t.Errorf("%q passes for a robot's token", bad)
		}
	}
}

// Each role may do what those below it may.
func TestRoles(t *testing.T) {
	var before []Permission
	for _, role := range Roles() {
		for _, p := range before {
			if !role.May(p) {
				t.Errorf("%s may not %s", role, p)
			}
		}
		before = role.Permissions()
	}
	if !slices.Equal(before, Permissions()) {
		t.Errorf("an admin may %v", before)
	}
	if Role("root").May(Read) || Viewer.May(Protect) || Operator.May(Recover) || Recoverer.May(Manage) {
		t.Error("a role may more than it should")
	}
	if _, err := ParseRole("root"); err == nil {
		t.Error("there is a role root")
	}
	if _, err := ParsePermission("all"); err == nil {
		t.Error("there is a permission all")
	}
}

func TestLimit(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	l := NewLimit(3, time.Minute, 4)
	for i := range 5 {
		if got, want := l.Allow("anna", now), i < 3; got != want {
			t.Errorf("try %d: %t", i+1, got)
		}
	}
	if !l.Allow("bob", now) {
		t.Error("one name's tries count for another")
	}
	if l.Allow("anna", now.Add(59*time.Second)) || !l.Allow("anna", now.Add(61*time.Second)) {
		t.Error("tries come back too early or too late")
	}
	l.Forget("anna")
	for range 2 {
		if !l.Allow("anna", now) {
			t.Error("a right try does not wipe the wrong ones")
		}
	}
	for l.Allow("anna", now) { // she uses up what is left
	}
	for i := range 100 { // names that an attacker makes up
		l.Allow(fmt.Sprint("x", i), now)
	}
	if len(l.names) > 4 {
		t.Errorf("it remembers %d names", len(l.names))
	}
	if l.Allow("anna", now) {
		t.Error("names that were made up gave a name its tries back")
	}
}

func FuzzParseHash(f *testing.F) {
	hashed, err := cheap.Hash("correct horse battery")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(hashed)
	f.Add("$argon2id$v=19$m=65536,t=3,p=4$$")
	f.Fuzz(func(t *testing.T, text string) {
		c, salt, sum, ok := parseHash(text)
		if !ok {
			return
		}
		if c.Threads < 1 || c.Passes < 1 || c.Memory > maxMemory || len(salt) != saltSize || len(sum) != hashSize {
			t.Errorf("%q became %+v", text, c)
		}
	})
}
