package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

var errUnknown = errors.New("is not known")

// storage is all that the provider knows. It is an op.Storage.
type storage struct {
	algorithm jose.SignatureAlgorithm

	mu       sync.Mutex
	client   *client
	keys     []*key // the last signs
	requests map[string]*request
	codes    map[string]string // code -> request
	access   map[string]*grant // by token id
	refresh  map[string]*grant // by token
}

// request is one attempt to log in.
type request struct {
	*oidc.AuthRequest
	id, person string
	at         time.Time
}

func (r *request) GetID() string                      { return r.id }
func (r *request) GetACR() string                     { return "" }
func (r *request) GetAMR() []string                   { return []string{"pwd"} }
func (r *request) GetAudience() []string              { return []string{r.ClientID} }
func (r *request) GetAuthTime() time.Time             { return r.at }
func (r *request) GetClientID() string                { return r.ClientID }
func (r *request) GetNonce() string                   { return r.Nonce }
func (r *request) GetRedirectURI() string             { return r.RedirectURI }
func (r *request) GetResponseType() oidc.ResponseType { return r.ResponseType }
func (r *request) GetResponseMode() oidc.ResponseMode { return r.ResponseMode }
func (r *request) GetScopes() []string                { return r.Scopes }
func (r *request) GetState() string                   { return r.State }
func (r *request) GetSubject() string                 { return r.person }
func (r *request) Done() bool                         { return r.person != "" }
func (r *request) GetCodeChallenge() *oidc.CodeChallenge {
	if r.CodeChallenge == "" {
		return nil
	}
	return &oidc.CodeChallenge{Challenge: r.CodeChallenge, Method: r.CodeChallengeMethod}
}

// grant is what a token stands for.
type grant struct {
	person, client string
	scopes         []string
	at, expires    time.Time
}

func (g *grant) GetAMR() []string                 { return []string{"pwd"} }
func (g *grant) GetAudience() []string            { return []string{g.client} }
func (g *grant) GetAuthTime() time.Time           { return g.at }
func (g *grant) GetClientID() string              { return g.client }
func (g *grant) GetScopes() []string              { return g.scopes }
func (g *grant) GetSubject() string               { return g.person }
func (g *grant) SetCurrentScopes(scopes []string) { g.scopes = scopes }

// key signs, and its public half is told.
type key struct {
	id        string
	algorithm jose.SignatureAlgorithm
	private   any
}

type publicKey struct{ *key }

func (k *key) ID() string                                  { return k.id }
func (k *key) SignatureAlgorithm() jose.SignatureAlgorithm { return k.algorithm }
func (k *key) Key() any                                    { return k.private }
func (k publicKey) Algorithm() jose.SignatureAlgorithm     { return k.algorithm }
func (k publicKey) Use() string                            { return "sig" }
func (k publicKey) Key() any {
	switch p := k.private.(type) {
	case *rsa.PrivateKey:
		return &p.PublicKey
	case *ecdsa.PrivateKey:
		return &p.PublicKey
	}
	return nil
}

func newStorage(c *client, algorithm string) (*storage, error) {
	s := &storage{client: c, algorithm: jose.SignatureAlgorithm(algorithm), requests: map[string]*request{}, codes: map[string]string{},
		access: map[string]*grant{}, refresh: map[string]*grant{}}
	return s, s.rotate()
}

// rotate makes a new key. The old one is still told, so that what it signed can be verified.
func (s *storage) rotate() error {
	k := &key{id: rand.Text(), algorithm: s.algorithm}
	var err error
	switch s.algorithm {
	case jose.RS256:
		k.private, err = rsa.GenerateKey(rand.Reader, 2048)
	case jose.ES256:
		k.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	default:
		return fmt.Errorf("-alg %s: write RS256 or ES256", s.algorithm)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = append(s.keys, k)
	return err
}

func (s *storage) register(redirect, logout string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := *s.client // the library reads the one that it was given
	if redirect != "" {
		c.redirects = append(slices.Clone(c.redirects), redirect)
	}
	if logout != "" {
		c.logouts = append(slices.Clone(c.logouts), logout)
	}
	s.client = &c
}

func (s *storage) login(id, person string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.requests[id]; r != nil {
		done := *r
		done.person, done.at = person, time.Now()
		s.requests[id] = &done
	}
}

func (s *storage) revokeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.refresh)
}

func (s *storage) CreateAuthRequest(_ context.Context, a *oidc.AuthRequest, _ string) (op.AuthRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &request{AuthRequest: a, id: rand.Text()}
	s.requests[r.id] = r
	return r, nil
}

func (s *storage) AuthRequestByID(_ context.Context, id string) (op.AuthRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.requests[id]; r != nil {
		return r, nil
	}
	return nil, fmt.Errorf("the request %w", errUnknown)
}

// AuthRequestByCode finds a code once.
func (s *storage) AuthRequestByCode(ctx context.Context, code string) (op.AuthRequest, error) {
	s.mu.Lock()
	id, ok := s.codes[code]
	delete(s.codes, code)
	s.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("the code %w", errUnknown)
	}
	return s.AuthRequestByID(ctx, id)
}

func (s *storage) SaveAuthCode(_ context.Context, id, code string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.codes[code] = id
	return nil
}

func (s *storage) DeleteAuthRequest(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.requests, id)
	return nil
}

// grantOf makes a grant of whatever asks for tokens. The caller holds mu.
func (s *storage) grantOf(r op.TokenRequest) *grant {
	return &grant{person: r.GetSubject(), client: s.client.id, scopes: r.GetScopes(), at: time.Now(), expires: time.Now().Add(s.client.lifetime)}
}

func (s *storage) CreateAccessToken(_ context.Context, r op.TokenRequest) (string, time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, id := s.grantOf(r), rand.Text()
	s.access[id] = g
	return id, g.expires, nil
}

// CreateAccessAndRefreshTokens makes both; a refresh token is good once.
func (s *storage) CreateAccessAndRefreshTokens(_ context.Context, r op.TokenRequest, current string) (string, string, time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if current != "" && s.refresh[current] == nil {
		return "", "", time.Time{}, op.ErrInvalidRefreshToken
	}
	delete(s.refresh, current)
	g, id, next := s.grantOf(r), rand.Text(), rand.Text()
	s.access[id], s.refresh[next] = g, g
	return id, next, g.expires, nil
}

func (s *storage) TokenRequestByRefreshToken(_ context.Context, token string) (op.RefreshTokenRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.refresh[token]; g != nil {
		again := *g
		return &again, nil
	}
	return nil, op.ErrInvalidRefreshToken
}

// TerminateSession ends all tokens of a person.
func (s *storage) TerminateSession(_ context.Context, person, _ string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, tokens := range []map[string]*grant{s.access, s.refresh} {
		for id, g := range tokens {
			if g.person == person {
				delete(tokens, id)
			}
		}
	}
	return nil
}

func (s *storage) RevokeToken(_ context.Context, token, _, _ string) *oidc.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.access, token)
	delete(s.refresh, token)
	return nil
}

func (s *storage) GetRefreshTokenInfo(_ context.Context, _, token string) (string, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.refresh[token]; g != nil {
		return g.person, token, nil
	}
	return "", "", op.ErrInvalidRefreshToken
}

func (s *storage) SigningKey(context.Context) (op.SigningKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys[len(s.keys)-1], nil
}

func (s *storage) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{s.algorithm}, nil
}

func (s *storage) KeySet(context.Context) ([]op.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []op.Key
	for _, k := range s.keys {
		out = append(out, publicKey{k})
	}
	return out, nil
}

func (s *storage) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id != s.client.id {
		return nil, fmt.Errorf("the client %w", errUnknown)
	}
	return s.client, nil
}

func (s *storage) AuthorizeClientIDSecret(_ context.Context, id, secret string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id != s.client.id || subtle.ConstantTimeCompare([]byte(secret), []byte(s.client.secret)) != 1 {
		return oidc.ErrInvalidClient()
	}
	return nil
}

func (s *storage) SetUserinfoFromScopes(_ context.Context, u *oidc.UserInfo, person, _ string, scopes []string) error {
	u.Subject = person
	if slices.Contains(scopes, "profile") {
		u.Name = "Person " + person
	}
	if slices.Contains(scopes, "groups") {
		u.AppendClaims("groups", []string{"staff"})
	}
	return nil
}

func (s *storage) grantByID(id string) (*grant, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.access[id]
	if g == nil || time.Now().After(g.expires) {
		return nil, fmt.Errorf("the token %w", errUnknown)
	}
	return g, nil
}

func (s *storage) SetUserinfoFromToken(ctx context.Context, u *oidc.UserInfo, id, _, _ string) error {
	g, err := s.grantByID(id)
	if err != nil {
		return err
	}
	return s.SetUserinfoFromScopes(ctx, u, g.person, g.client, g.scopes)
}

func (s *storage) SetIntrospectionFromToken(_ context.Context, r *oidc.IntrospectionResponse, id, _, _ string) error {
	g, err := s.grantByID(id)
	if err != nil {
		return err
	}
	r.Subject, r.ClientID, r.Scope, r.Audience = g.person, g.client, g.scopes, []string{g.client}
	r.Expiration, r.IssuedAt, r.TokenType = oidc.FromTime(g.expires), oidc.FromTime(g.at), "Bearer"
	return nil
}

func (s *storage) GetPrivateClaimsFromScopes(context.Context, string, string, []string) (map[string]any, error) {
	return nil, nil
}

func (s *storage) GetKeyByIDAndClientID(context.Context, string, string) (*jose.JSONWebKey, error) {
	return nil, fmt.Errorf("the key %w", errUnknown)
}

func (s *storage) ValidateJWTProfileScopes(_ context.Context, _ string, scopes []string) ([]string, error) {
	return scopes, nil
}

func (s *storage) Health(context.Context) error { return nil }
