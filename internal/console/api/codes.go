package api

import (
	"context"
	"fmt"
	"strings"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/entry"
	"davit.dev/davit/internal/console/store"
)

func codeRoutes() []route {
	return []route{
		{method: "POST", path: "/account/codes", summary: "Make a secret for one's own one-time codes, which takes one's password; none are asked for before the first code was given", in: WantedCodes{}, out: Codes{}, serve: wantCodes},
		{method: "PUT", path: "/account/codes", summary: "Give the first of one's own one-time codes; from then on they are asked for", in: FirstCode{}, out: ok{}, serve: startCodes},
	}
}

// WantedCodes asks for a secret.
type WantedCodes struct {
	Password string `json:"password"`
}

// Codes is what a phone makes one-time codes of. It is shown this once.
type Codes struct {
	Secret string `json:"secret"`
	URL    string `json:"url"` // otpauth://
}

// FirstCode shows that the phone has the secret.
type FirstCode struct {
	Code string `json:"code"`
}

func wantCodes(c *call) (any, error) {
	var in WantedCodes
	if err := c.decode(&in); err != nil {
		return nil, errBad // its text could hold the password
	}
	secret, err := WantCodes(c.ctx(), c.Door, c.who, in.Password)
	if err != nil {
		return nil, err
	}
	url, err := account.SecretURL(secret, c.who.Session.User.Name, "Davit")
	return created{Codes{Secret: secret, URL: url}}, err
}

// WantCodes makes a secret for a person's own one-time codes, which waits for its first code.
func WantCodes(ctx context.Context, door *entry.Door, who entry.Who, password string) (string, error) {
	if who.Session == nil {
		return "", entry.ErrWrong
	}
	if who.Session.User.Codes {
		return "", fmt.Errorf("%w: codes are asked for already", store.ErrRefused)
	}
	if err := door.Confirm(ctx, who, password); err != nil {
		return "", err
	}
	secret, err := account.NewSecret()
	if err != nil {
		return "", err
	}
	return secret, door.Console.WantCodes(ctx, who.Session.User, secret)
}

func startCodes(c *call) (any, error) {
	var in FirstCode
	if err := c.decode(&in); err != nil {
		return nil, errBad
	}
	return ok{true}, StartCodes(c.ctx(), c.Door, c.who, c.Door.Act(c.who, c.r), in.Code)
}

// StartCodes has a person be asked for one-time codes from now on, by the first of them.
func StartCodes(ctx context.Context, door *entry.Door, who entry.Who, act audit.Act, code string) error {
	if who.Session == nil {
		return entry.ErrWrong
	}
	u := who.Session.User
	if u.Codes {
		return fmt.Errorf("%w: codes are asked for already", store.ErrRefused)
	}
	secret, err := door.Console.WantedCodes(ctx, u)
	if err != nil {
		return err
	}
	step, right := account.CheckCode(secret, strings.ReplaceAll(strings.TrimSpace(code), " ", ""), door.Now(), 0)
	if secret == "" || !right {
		return fmt.Errorf("%w: the code is not the one that the phone should show: look at its clock, and try the next", store.ErrRefused)
	}
	return door.Console.StartCodes(ctx, act, u, secret, step)
}
