CREATE TABLE quota_counters (
	key BLOB NOT NULL,
	window_start BIGINT NOT NULL,
	count BIGINT NOT NULL,
	expires_at BIGINT NOT NULL,
	PRIMARY KEY (key, window_start)
);
CREATE INDEX quota_counters_expires ON quota_counters (expires_at);
