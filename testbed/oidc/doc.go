// Package oidc has the console log people in by a real OpenID Connect server. It is
// a module of its own, so that the server is no dependency of anything else.
package oidc
