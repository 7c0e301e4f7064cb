// Package keeping is the part of the commands that says how recovery points are
// proven while they are kept: flags of `protect` and their words for people.
package keeping

import (
	"fmt"
	"slices"
	"time"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/objects"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/schedule"
)

// leastPause is the shortest pause between two verifications.
const leastPause = time.Minute

// Flags are those of `protect`.
type Flags struct {
	verifyEvery  time.Duration
	verifyCron   string
	verifySample int32
	verifyNewest int32
	verifyBlobs  bool
	test         testFlags
	set          *pflag.FlagSet
}

// Register declares the flags.
func (f *Flags) Register(flags *pflag.FlagSet) {
	flags.DurationVar(&f.verifyEvery, "verify-every", 0, "read the newest points back, with so long a pause in between, 1m or more")
	flags.StringVar(&f.verifyCron, "verify-cron", "", "five-field cron expression in UTC, instead of --verify-every")
	flags.Int32Var(&f.verifySample, "verify-sample", 0, "percent of the volumes' data to read each time (default: 100)")
	flags.Int32Var(&f.verifyNewest, "verify-newest", 0, "how many of the newest points to read each time (default: 1)")
	flags.BoolVar(&f.verifyBlobs, "verify-blobs", false, "compare every blob of the volumes' repositories as well, other applications' too")
	f.test.register(flags)
	f.set, f.test.set = flags, flags
}

// Apply checks the flags and changes what they say in a policy. What it leaves
// without a schedule Finish judges.
func (f *Flags) Apply(policy *v1alpha1.ProtectionPolicySpec) error {
	switch {
	case f.verifyEvery != 0 && f.verifyCron != "":
		return exit.Usage("", "give --verify-every or --verify-cron, not both")
	case f.verifyEvery != 0 && f.verifyEvery < leastPause:
		return exit.Usage("", "--verify-every %s is less than %s", f.verifyEvery, leastPause)
	case f.verifySample < 0 || f.verifySample > 100:
		return exit.Usage("give percent, 1 to 100", "--verify-sample %d is not possible", f.verifySample)
	case f.verifyNewest < 0 || f.verifyNewest > 1000:
		return exit.Usage("give 1 to 1000", "--verify-newest %d is not possible", f.verifyNewest)
	}
	if f.verifyCron != "" {
		if _, err := schedule.Parse(0, f.verifyCron, ""); err != nil {
			return exit.Usage("five fields: minute, hour, day of month, month, day of week", "--verify-cron: %v", err)
		}
	}
	v := v1alpha1.VerifyPolicy{}
	if policy.Verify != nil {
		v = *policy.Verify
	}
	setSchedule(f.set, "verify-", f.verifyEvery, f.verifyCron, &v.Every, &v.Cron)
	if f.set.Changed("verify-sample") {
		v.Sample = number(f.verifySample)
	}
	if f.set.Changed("verify-newest") {
		v.Newest = number(f.verifyNewest)
	}
	if f.set.Changed("verify-blobs") {
		v.Blobs = f.verifyBlobs
	}
	policy.Verify = &v
	return f.test.apply(policy)
}

// Finish takes the parts without a schedule out of a policy, and refuses flags
// that say something about them.
func (f *Flags) Finish(policy *v1alpha1.ProtectionPolicySpec) error {
	if v := policy.Verify; v != nil && v.Every == nil && v.Cron == "" {
		if f.verifySample != 0 || f.verifyNewest != 0 || f.verifyBlobs {
			return exit.Usage("give --verify-every or --verify-cron as well", "nothing says when to verify")
		}
		policy.Verify = nil
	}
	if t := policy.RestoreTest; t != nil && t.Every == nil && t.Cron == "" {
		if len(f.test.probes.texts) > 0 || f.test.probes.file != "" || f.test.newest != 0 || f.test.timeout != 0 {
			return exit.Usage("give --test-every or --test-cron as well", "nothing says when to test")
		}
		policy.RestoreTest = nil
	}
	return nil
}

// setSchedule writes an interval or a cron expression whose flag was given;
// the one stands instead of the other.
func setSchedule(set *pflag.FlagSet, prefix string, every time.Duration, cron string, everyField **metav1.Duration, cronField *string) {
	if set.Changed(prefix + "every") {
		*everyField = objects.Duration(every)
	}
	if set.Changed(prefix + "cron") {
		*cronField = cron
	}
	if every != 0 {
		*cronField = ""
	}
	if cron != "" {
		*everyField = nil
	}
}

// number is a field's value; none for the default.
func number(n int32) *int32 {
	if n == 0 {
		return nil
	}
	return &n
}

// Verifies says what a policy proves, and when; "" for one that proves nothing.
func Verifies(p *v1alpha1.ProtectionPolicy) string {
	if p == nil || p.Spec.Verify == nil {
		return ""
	}
	v := p.Spec.Verify
	when := "at " + v.Cron + " UTC"
	if v.Every != nil {
		when = "every " + output.Duration(v.Every.Duration)
	}
	what := "the newest point"
	if n := ptr.Deref(v.Newest, 1); n > 1 {
		what = fmt.Sprintf("the newest %d points", n)
	}
	much := "whole"
	if s := ptr.Deref(v.Sample, 100); s < 100 {
		much = fmt.Sprintf("%d %% of the data each time", s)
	}
	if v.Blobs {
		much += ", and as much of every blob of volume data"
	}
	return fmt.Sprintf("%s, %s, %s", when, what, much)
}

// Verified says when the schedule last proved points and what came of it; "" if
// it never did.
func Verified(v *v1alpha1.VerificationStatus, now time.Time) string {
	if v == nil {
		return ""
	}
	text := ""
	if v.At != nil {
		text = fmt.Sprintf("%s, %s ago (%s, %s, %s read)", output.Time(v.At.Time), output.Age(v.At.Time, now), v.How,
			output.Plural(int64(len(v.Points)), "point"), output.Bytes(v.Bytes))
		if len(v.Repaired) > 0 {
			text += fmt.Sprintf("; repaired from a second copy: %v", v.Repaired)
		}
		if len(v.Damaged) > 0 {
			text += fmt.Sprintf("; DAMAGED: %v", v.Damaged)
		}
		if len(v.DamagedBlobs) > 0 {
			text += fmt.Sprintf("; DAMAGED blobs: %v", v.DamagedBlobs)
		}
	}
	return joined(text, untold(v.TriedAt, v.Error, now))
}

// untold says of a try that gave no verdict; "" for none.
func untold(at *metav1.Time, err string, now time.Time) string {
	if err == "" || at == nil {
		return ""
	}
	return fmt.Sprintf("tried without a verdict %s ago: %s", output.Age(at.Time, now), output.Short(err, 200))
}

func joined(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}

// Copies says the same of each second copy, by name.
func Copies(v *v1alpha1.VerificationStatus, now time.Time) []string {
	if v == nil {
		return nil
	}
	var texts []string
	for i := range v.Copies {
		c := &v.Copies[i]
		text := Verified(&v1alpha1.VerificationStatus{At: c.At, How: c.How, Points: c.Points, Bytes: c.Bytes, Damaged: c.Damaged, DamagedBlobs: c.DamagedBlobs}, now)
		if len(c.Repaired) > 0 {
			text = joined(text, fmt.Sprintf("repaired from the first vault: %v", c.Repaired))
		}
		texts = append(texts, c.Vault+": "+joined(text, untold(c.TriedAt, c.Error, now)))
	}
	slices.Sort(texts)
	return texts
}
