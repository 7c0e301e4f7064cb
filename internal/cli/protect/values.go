package protect

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/exit"
)

func selectorsOf(flag string, texts []string) ([]metav1.LabelSelector, error) {
	var all []metav1.LabelSelector
	for _, text := range texts {
		s, err := selector(flag, text)
		if err != nil {
			return nil, err
		}
		all = append(all, *s)
	}
	return all, nil
}

func selector(flag, text string) (*metav1.LabelSelector, error) {
	s, err := metav1.ParseToLabelSelector(text)
	if err == nil && len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
		err = fmt.Errorf("%q says nothing", text)
	}
	if err != nil {
		return nil, exit.Usage("write key=value,key2 in (a,b)", "--%s: %v", flag, err)
	}
	return s, nil
}

// volumeRules reads rules such as "data-*", "class=fast" and
// "claims=data-*; class=fast; labels=tier=db".
func volumeRules(flag string, texts []string) ([]v1alpha1.VolumeRule, error) {
	var all []v1alpha1.VolumeRule
	for _, text := range texts {
		var rule v1alpha1.VolumeRule
		for part := range strings.SplitSeq(text, ";") {
			key, value, named := strings.Cut(strings.TrimSpace(part), "=")
			if !named {
				key, value = "claims", key
			}
			switch value = strings.TrimSpace(value); {
			case value == "":
				return nil, exit.Usage("write NAME, claims=NAME,NAME, class=NAME or labels=SELECTOR, joined by \";\"", "--%s %q: a part of it says nothing", flag, text)
			case key == "claims":
				rule.Claims = append(rule.Claims, strings.Split(value, ",")...)
			case key == "class":
				rule.StorageClass = value
			case key == "labels":
				var err error
				if rule.Selector, err = selector(flag, value); err != nil {
					return nil, err
				}
			default:
				return nil, exit.Usage("write NAME, claims=NAME,NAME, class=NAME or labels=SELECTOR, joined by \";\"", "--%s %q: %q is not claims, class or labels", flag, text, key)
			}
		}
		all = append(all, rule)
	}
	return all, nil
}

func volumeMode(s string) (v1alpha1.VolumeMode, error) {
	for mode, name := range map[v1alpha1.VolumeMode]string{
		v1alpha1.VolumeSnapshot: "snapshot", v1alpha1.VolumeSnapshotOrLive: "snapshot-or-live", v1alpha1.VolumeNone: "none",
	} {
		if s == name {
			return mode, nil
		}
	}
	return "", exit.Usage("", "--volumes %q is not snapshot, snapshot-or-live or none", s)
}

func freezeMode(s string) (v1alpha1.FreezeMode, error) {
	for _, mode := range []v1alpha1.FreezeMode{v1alpha1.FreezeAuto, v1alpha1.FreezeRequired, v1alpha1.FreezeNever} {
		if strings.EqualFold(s, string(mode)) {
			return mode, nil
		}
	}
	return "", exit.Usage("", "--freeze %q is not auto, required or never", s)
}

// changedBlocksMode leaves out what is the default: earlier versions do not know it.
func changedBlocksMode(s string) (v1alpha1.ChangedBlocksMode, error) {
	switch {
	case strings.EqualFold(s, string(v1alpha1.ChangedBlocksAuto)):
		return v1alpha1.ChangedBlocksAuto, nil
	case strings.EqualFold(s, string(v1alpha1.ChangedBlocksNever)):
		return "", nil
	}
	return "", exit.Usage("", "--changed-blocks %q is not auto or never", s)
}

func profileMode(s string) (v1alpha1.ProfileMode, error) {
	for _, mode := range []v1alpha1.ProfileMode{v1alpha1.ProfilesAuto, v1alpha1.ProfilesNever} {
		if strings.EqualFold(s, string(mode)) {
			return mode, nil
		}
	}
	return "", exit.Usage("", "--profiles %q is not auto or never", s)
}
