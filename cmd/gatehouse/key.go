package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/database"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// keyCommands are those of `gatehouse key`.
func keyCommands() []command {
	const where = "(--data DIR | --database URL | --database-file F)"
	return []command{
		{"key create", "--application NS/NAME [flags] " + where, "issue an API key and show it, this once", runKeyCreate},
		{"key list", "[flags] " + where, "show the keys that were issued, without their secret part", runKeyList},
		{"key rotate", "ID [--grace 24h] [-o text|json] " + where, "issue a key in the place of another, which keeps working for a while", runKeyRotate},
		{"key revoke", "ID... " + where, "end keys; every Gatehouse on this database knows it within a second", runKeyRevoke},
	}
}

// databaseFlags say where the database is.
type databaseFlags struct{ data, url, file *string }

func (c *call) databaseFlags() *databaseFlags {
	return &databaseFlags{
		data: c.flags.String("data", "", "folder of the SQLite database"),
		url:  c.flags.String("database", "", "postgres:// URL of a PostgreSQL database; other users of the machine can see it"),
		file: c.flags.String("database-file", "", "file with that URL"),
	}
}

// given says whether one of the flags was.
func (s *databaseFlags) given() bool { return *s.data+*s.url+*s.file != "" }

// options reads the flags; faults in them are of the command line.
func (s *databaseFlags) options() (database.Options, error) {
	o := database.Options{Data: *s.data}
	if *s.url != "" && *s.file != "" {
		return o, &usageError{"write --database or --database-file, not both"}
	}
	url := *s.url
	if *s.file != "" {
		b, err := os.ReadFile(*s.file)
		if err != nil {
			return o, fmt.Errorf("--database-file: %w", err)
		}
		if url = strings.TrimSpace(string(b)); url == "" {
			return o, fmt.Errorf("--database-file: %s is empty: write the URL into it", *s.file)
		}
	}
	if url != "" {
		o.URL = secret.New([]byte(url))
	}
	if err := o.Check(); err != nil {
		return o, &usageError{err.Error()}
	}
	return o, nil
}

// withDatabase runs f over the database that the flags name; with existing one that is not there is not made.
func (s *databaseFlags) withDatabase(ctx context.Context, existing bool, f func(*database.DB) error) error {
	o, err := s.options()
	if err != nil {
		return err
	}
	o.Existing = existing
	d, err := database.Open(ctx, o)
	if err != nil {
		return err
	}
	if err := f(d); err != nil {
		_ = d.Close() // what f says matters more
		return err
	}
	return d.Close()
}

func runKeyCreate(ctx context.Context, c *call) error {
	n, expires, scopes := database.NewKey{}, "", &list{split: true}
	c.flags.StringVar(&n.Application, "application", "", "NAMESPACE/NAME of the application that calls with the key")
	c.flags.StringVar(&n.Env, "env", "live", "environment, a part of the key that people can read: lower-case letters and digits")
	c.flags.StringVar(&expires, "expires", "", "for how long the key works, such as 90d or 12h; empty: until it is revoked")
	c.flags.StringVar(&n.Note, "note", "", "one line for those who list the keys")
	c.flags.Var(scopes, "scopes", "what the key permits; several with commas or repeated")
	s, o := c.databaseFlags(), c.output()
	if err := c.keyArguments(o); err != nil {
		return err
	}
	if n.Application == "" {
		return &usageError{"write --application NAMESPACE/NAME"}
	}
	if expires != "" {
		d, err := parseDays(expires)
		if err != nil || d == 0 {
			return &usageError{fmt.Sprintf("--expires is %q; write a length of time, such as 90d or 12h", expires)}
		}
		n.ExpiresAt = time.Now().Add(d)
	}
	n.Scopes = scopes.values
	if err := n.Check(); err != nil {
		return &usageError{err.Error()}
	}
	return s.withDatabase(ctx, false, func(d *database.DB) error {
		issued, k, err := d.CreateKey(ctx, n)
		if err != nil {
			return err
		}
		ends := "works until it is revoked"
		if !k.ExpiresAt.IsZero() {
			ends = "works until " + moment(k.ExpiresAt)
		}
		return c.showIssued(*o, issued, &k, fmt.Sprintf("key %s of %s %s", k.ID, k.Application, ends))
	})
}

func runKeyRotate(ctx context.Context, c *call) error {
	grace := c.flags.String("grace", "24h", "for how long the old key keeps working; 0s: not at all")
	s, o := c.databaseFlags(), c.output()
	rest, err := c.parse()
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return &usageError{"write the ID of one key; gatehouse key list shows them"}
	}
	if err := oneOf("-o", *o, "text", "json"); err != nil {
		return err
	}
	keeps, err := parseDays(*grace)
	if err != nil {
		return &usageError{fmt.Sprintf("--grace is %q; write a length of time, such as 24h, 7d or 0s", *grace)}
	}
	return s.withDatabase(ctx, true, func(d *database.DB) error {
		issued, k, err := d.RotateKey(ctx, keyID(rest[0]), keeps)
		if err != nil {
			return err
		}
		old, err := d.FindKey(ctx, k.RotatedFrom)
		if err != nil {
			return err
		}
		ends := "is revoked"
		if old.RevokedAt.IsZero() {
			ends = "works until " + moment(old.ExpiresAt)
		}
		return c.showIssued(*o, issued, &k, fmt.Sprintf("key %s of %s takes the place of %s, which %s", k.ID, k.Application, old.ID, ends))
	})
}

// showIssued prints a key to standard output, alone, so that it can be piped on, and what is to be known of it beside.
func (c *call) showIssued(output string, issued secret.Issued, k *database.Key, about string) error {
	fmt.Fprintf(c.stderr, "%s. It is shown this once: only its hash is stored.\n", about)
	if output == "json" {
		v := viewOf(k, time.Now())
		v.Key = string(issued.Reveal())
		return writeJSON(c, v)
	}
	_, err := fmt.Fprintf(c.stdout, "%s\n", issued.Reveal())
	return err
}

func runKeyRevoke(ctx context.Context, c *call) error {
	s := c.databaseFlags()
	rest, err := c.parse()
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		return &usageError{"write the IDs of the keys; gatehouse key list shows them"}
	}
	return s.withDatabase(ctx, true, func(d *database.DB) error {
		ids := make([]string, len(rest))
		for i, a := range rest {
			ids[i] = keyID(a)
		}
		if err := d.RevokeKey(ctx, ids...); err != nil {
			return err
		}
		for _, id := range ids {
			fmt.Fprintf(c.stdout, "revoked %s\n", id)
		}
		return nil
	})
}

// keyID is the id in what somebody wrote for a key: the id itself, its prefix gh_live_<id>, or a key as it was found where it should not be.
// What looks like a key otherwise is not repeated in messages.
func keyID(s string) string {
	parts := strings.Split(s, "_")
	switch {
	case len(parts) >= 3 && parts[0] == "gh" && secret.CheckID(parts[2]):
		return parts[2]
	case parts[0] == "gh":
		return "gh_..."
	}
	return s
}

func runKeyList(ctx context.Context, c *call) error {
	f := database.Filter{}
	c.flags.StringVar(&f.Application, "application", "", "NAMESPACE/NAME whose keys to show; empty: all")
	c.flags.StringVar(&f.Env, "env", "", "environment whose keys to show; empty: all")
	all := c.flags.Bool("all", false, "show keys that expired or were revoked too")
	s, o := c.databaseFlags(), c.output()
	if err := c.keyArguments(o); err != nil {
		return err
	}
	if f.Application != "" {
		if err := database.CheckApplication(f.Application); err != nil {
			return &usageError{err.Error()}
		}
	}
	if !*all {
		f.State = database.Active
	}
	return s.withDatabase(ctx, true, func(d *database.DB) error {
		if *o == "json" {
			return c.listJSON(ctx, d, f)
		}
		return c.listText(ctx, d, f)
	})
}

// keyArguments parses a command line that has flags alone.
func (c *call) keyArguments(o *string) error {
	rest, err := c.parse()
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return &usageError{fmt.Sprintf("unexpected %q", rest[0])}
	}
	return oneOf("-o", *o, "text", "json")
}

// eachKey calls f with all keys that a filter chooses, a page at a time.
func eachKey(ctx context.Context, d *database.DB, f database.Filter, each func(*database.Key)) error {
	f.Limit = 1000
	for {
		page, err := d.ListKeys(ctx, f)
		if err != nil {
			return err
		}
		for i := range page {
			each(&page[i])
		}
		if len(page) < f.Limit {
			return nil
		}
		f.After = page[len(page)-1].ID
	}
}

func (c *call) listText(ctx context.Context, d *database.DB, f database.Filter) error {
	at, n := time.Now(), 0
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	if err := eachKey(ctx, d, f, func(k *database.Key) {
		if n++; n == 1 {
			_, _ = io.WriteString(w, "ID\tENV\tLAST FOUR\tAPPLICATION\tSCOPES\tSTATE\tCREATED\tEXPIRES\tLAST USED\tNOTE\n")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, k.Env, k.LastFour, k.Application, orDash(strings.Join(k.Scopes, ",")),
			k.State(at), moment(k.CreatedAt), moment(k.ExpiresAt), moment(k.LastUsed), orDash(k.Note))
	}); err != nil {
		return err
	}
	if n == 0 {
		hint := ""
		if f.State == database.Active {
			hint = " that works; --all shows those that expired or were revoked too"
		}
		fmt.Fprintf(c.stderr, "no key%s\n", hint)
	}
	return w.Flush()
}

// keyView is a key as JSON. A time that is not there is "never" or "not yet".
type keyView struct {
	Key         string     `json:"key,omitempty"` // only when it is issued
	ID          string     `json:"id"`
	Env         string     `json:"env"`
	Prefix      string     `json:"prefix"`
	LastFour    string     `json:"lastFour"`
	Application string     `json:"application"`
	Scopes      []string   `json:"scopes"`
	State       string     `json:"state"`
	Created     time.Time  `json:"created"`
	Expires     *time.Time `json:"expires,omitempty"`
	Revoked     *time.Time `json:"revoked,omitempty"`
	LastUsed    *time.Time `json:"lastUsed,omitempty"`
	RotatedFrom string     `json:"rotatedFrom,omitempty"`
	Note        string     `json:"note,omitempty"`
}

func viewOf(k *database.Key, at time.Time) keyView {
	there := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		return &t
	}
	return keyView{
		ID: k.ID, Env: k.Env, Prefix: k.Prefix, LastFour: k.LastFour, Application: k.Application, Scopes: append([]string{}, k.Scopes...),
		State: k.State(at).String(), Created: k.CreatedAt, Expires: there(k.ExpiresAt), Revoked: there(k.RevokedAt),
		LastUsed: there(k.LastUsed), RotatedFrom: k.RotatedFrom, Note: k.Note,
	}
}

func (c *call) listJSON(ctx context.Context, d *database.DB, f database.Filter) error {
	at := time.Now()
	view := struct {
		Keys []keyView `json:"keys"`
	}{[]keyView{}}
	if err := eachKey(ctx, d, f, func(k *database.Key) { view.Keys = append(view.Keys, viewOf(k, at)) }); err != nil {
		return err
	}
	return writeJSON(c, view)
}

func moment(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// parseDays reads a length of time as Go writes it, with days before it: 90d, 12h, 1d12h. It is not negative.
func parseDays(s string) (time.Duration, error) {
	const day, most = 24 * time.Hour, 100 * 366
	var total time.Duration
	if number, rest, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil || n > most {
			return 0, fmt.Errorf("%q is not a number of days up to %d", number, most)
		}
		if total, s = time.Duration(n)*day, rest; s == "" {
			return total, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > most*day {
		return 0, fmt.Errorf("%q is not a length of time", s)
	}
	return total + d, nil
}
