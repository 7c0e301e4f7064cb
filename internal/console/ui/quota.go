package ui

import (
	"fmt"
	"strconv"
	"time"

	"davit.dev/davit/internal/console/quota"
	"davit.dev/davit/internal/console/store"
)

// share is what a project has and may have of something.
type share struct {
	Kind        quota.Kind
	Used, Limit int64
}

// quota is what the project has, and may have at most.
func (v *visit) quota(now time.Time) (all []share, err error) {
	limits, err := quota.Limits(v.ctx(), v.project)
	if err != nil {
		return nil, err
	}
	used, err := quota.Used(v.ctx(), v.project, v.Fleet(v.project).Snapshot, now)
	if err != nil {
		return nil, err
	}
	for _, k := range quota.Kinds() {
		all = append(all, share{k, used.Of(k), limits.Of(k)})
	}
	return all, nil
}

// setQuota takes the form of a project's limits.
func setQuota(v *visit) error {
	if err := v.administers(); err != nil {
		return err
	}
	n, err := v.limits("")
	if err != nil {
		return err
	}
	seen, err := v.limits("seen-")
	if err != nil {
		return err
	}
	if err := quota.Set(v.ctx(), v.project, v.Door.Act(v.who, v.r), n, &seen); err != nil {
		return err
	}
	return v.then(v.peoplePath())
}

// limits are those of a form, in fields whose names begin so.
func (v *visit) limits(prefix string) (quota.Numbers, error) {
	given := map[quota.Kind]int64{}
	for _, k := range quota.Kinds() {
		text := v.field(prefix + string(k))
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return quota.Numbers{}, fmt.Errorf("%w: %q is no number of %s; 0 is no limit", store.ErrRefused, text, k)
		}
		given[k] = n
	}
	return quota.Numbers{
		Documents: int(given[quota.Documents]), Agents: int(given[quota.Agents]), Members: int(given[quota.Members]),
		Tokens: int(given[quota.Tokens]), Restores: int(given[quota.Restores]), Bytes: given[quota.Bytes],
	}, nil
}
