-- Times are microseconds since 1970; 0 is "never". BLOB becomes the dialect's type for bytes.
CREATE TABLE counters (
	name TEXT NOT NULL PRIMARY KEY,
	n BIGINT NOT NULL
);
INSERT INTO counters (name, n) VALUES ('keys', 0);

CREATE TABLE issued_keys (
	id TEXT NOT NULL PRIMARY KEY,
	env TEXT NOT NULL,
	hash BLOB NOT NULL UNIQUE,
	prefix TEXT NOT NULL,
	last_four TEXT NOT NULL,
	application TEXT NOT NULL,
	scopes TEXT NOT NULL,
	created_at BIGINT NOT NULL,
	expires_at BIGINT NOT NULL,
	revoked_at BIGINT NOT NULL,
	rotated_from TEXT NOT NULL,
	note TEXT NOT NULL,
	changed BIGINT NOT NULL UNIQUE
);
CREATE INDEX issued_keys_created ON issued_keys (created_at, id);
CREATE INDEX issued_keys_application ON issued_keys (application, created_at, id);

-- Apart from the keys, so that noting a use neither rewrites their wide rows nor waits for who changes them.
CREATE TABLE key_uses (
	id TEXT NOT NULL PRIMARY KEY,
	last_used BIGINT NOT NULL
);
