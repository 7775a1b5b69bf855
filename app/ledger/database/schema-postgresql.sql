CREATE TABLE attempt (
	drawing_id TEXT NOT NULL,
	seq INTEGER NOT NULL,
	sent_at BIGINT,
	provider TEXT NOT NULL,
	deployment TEXT NOT NULL,
	model TEXT NOT NULL,
	images INTEGER NOT NULL,
	most_nano BIGINT DEFAULT 0 NOT NULL,
	result TEXT,
	http_status INTEGER,
	provider_request_id TEXT,
	ms INTEGER,
	cost_nano BIGINT DEFAULT 0 NOT NULL,
	in_doubt_nano BIGINT DEFAULT 0 NOT NULL,
	dropped TEXT,
	mapped TEXT,
	PRIMARY KEY (drawing_id, seq)
);

CREATE TABLE audit (
	id BIGSERIAL NOT NULL,
	at BIGINT NOT NULL,
	actor_kind TEXT NOT NULL,
	actor_id TEXT NOT NULL,
	address TEXT,
	request_id TEXT,
	action TEXT NOT NULL,
	object_kind TEXT NOT NULL,
	object_id TEXT NOT NULL,
	before TEXT,
	after TEXT,
	PRIMARY KEY (id)
);

CREATE INDEX audit_by_object ON audit (object_kind, object_id, at);

CREATE INDEX audit_by_time ON audit (at, id);

CREATE TABLE bucket (
	scope TEXT NOT NULL,
	full_at BIGINT NOT NULL,
	PRIMARY KEY (scope)
);

CREATE TABLE budget (
	id TEXT NOT NULL,
	scope TEXT NOT NULL,
	scope_id TEXT,
	models TEXT NOT NULL,
	amount_nano BIGINT NOT NULL,
	"window" TEXT NOT NULL,
	timezone TEXT NOT NULL,
	since BIGINT NOT NULL,
	hard INTEGER NOT NULL,
	thresholds TEXT NOT NULL,
	source TEXT NOT NULL,
	removed_at BIGINT,
	PRIMARY KEY (id)
);

CREATE TABLE budget_alert (
	budget_id TEXT NOT NULL,
	starts_at BIGINT NOT NULL,
	threshold INTEGER NOT NULL,
	at BIGINT NOT NULL,
	PRIMARY KEY (budget_id, starts_at, threshold)
);

CREATE TABLE budget_period (
	budget_id TEXT NOT NULL,
	starts_at BIGINT NOT NULL,
	ends_at BIGINT,
	spent_nano BIGINT DEFAULT 0 NOT NULL,
	held_nano BIGINT DEFAULT 0 NOT NULL,
	in_doubt_nano BIGINT DEFAULT 0 NOT NULL,
	PRIMARY KEY (budget_id, starts_at)
);

CREATE TABLE charge (
	drawing_id TEXT NOT NULL,
	budget_id TEXT NOT NULL,
	starts_at BIGINT NOT NULL,
	PRIMARY KEY (drawing_id, budget_id)
);

CREATE INDEX charge_by_budget ON charge (budget_id, starts_at);

CREATE TABLE drawing (
	id TEXT NOT NULL,
	request_id TEXT NOT NULL,
	run_id TEXT NOT NULL,
	at BIGINT NOT NULL,
	ended_at BIGINT,
	replica TEXT NOT NULL,
	key_id TEXT NOT NULL,
	project_id TEXT,
	end_user TEXT,
	tags TEXT,
	client TEXT,
	operation TEXT NOT NULL,
	asked_model TEXT NOT NULL,
	model TEXT NOT NULL,
	provider TEXT,
	deployment TEXT,
	upstream_model TEXT,
	state TEXT NOT NULL,
	outcome TEXT,
	http_status INTEGER,
	error_code TEXT,
	n INTEGER NOT NULL,
	images INTEGER DEFAULT 0 NOT NULL,
	width INTEGER,
	height INTEGER,
	format TEXT,
	quality TEXT,
	attempts INTEGER DEFAULT 0 NOT NULL,
	queue_ms INTEGER,
	first_ms INTEGER,
	total_ms INTEGER,
	reserved_nano BIGINT DEFAULT 0 NOT NULL,
	held_nano BIGINT DEFAULT 0 NOT NULL,
	cost_nano BIGINT DEFAULT 0 NOT NULL,
	in_doubt_nano BIGINT DEFAULT 0 NOT NULL,
	saved_nano BIGINT DEFAULT 0 NOT NULL,
	cost_source TEXT,
	price_id BIGINT,
	asked TEXT,
	PRIMARY KEY (id)
);

CREATE INDEX drawing_by_key ON drawing (key_id, at, id);

CREATE INDEX drawing_by_model ON drawing (model, at, id);

CREATE INDEX drawing_by_project ON drawing (project_id, at, id);

CREATE INDEX drawing_by_provider ON drawing (provider, at, id);

CREATE INDEX drawing_by_request ON drawing (request_id);

CREATE INDEX drawing_by_time ON drawing (at, id);

CREATE INDEX drawing_open ON drawing (state, at) WHERE state IN ('held', 'sent', 'in_doubt');

CREATE TABLE entry (
	id BIGSERIAL NOT NULL,
	drawing_id TEXT,
	seq INTEGER NOT NULL,
	kind TEXT NOT NULL,
	held_nano BIGINT DEFAULT 0 NOT NULL,
	spent_nano BIGINT DEFAULT 0 NOT NULL,
	in_doubt_nano BIGINT DEFAULT 0 NOT NULL,
	at BIGINT NOT NULL,
	made_by TEXT NOT NULL,
	note TEXT,
	budget_id TEXT,
	starts_at BIGINT,
	PRIMARY KEY (id),
	UNIQUE (drawing_id, seq)
);

CREATE INDEX entry_by_budget ON entry (budget_id, starts_at);

CREATE TABLE lease (
	scope TEXT NOT NULL,
	drawing_id TEXT NOT NULL,
	replica TEXT NOT NULL,
	at BIGINT NOT NULL,
	PRIMARY KEY (scope, drawing_id)
);

CREATE INDEX lease_by_drawing ON lease (drawing_id);

CREATE TABLE outbox (
	id BIGSERIAL NOT NULL,
	kind TEXT NOT NULL,
	body TEXT NOT NULL,
	next_at BIGINT NOT NULL,
	tries INTEGER DEFAULT 0 NOT NULL,
	done_at BIGINT,
	PRIMARY KEY (id)
);

CREATE INDEX outbox_open ON outbox (next_at) WHERE done_at IS NULL;

CREATE TABLE price (
	id BIGSERIAL NOT NULL,
	provider TEXT NOT NULL,
	model TEXT NOT NULL,
	price TEXT NOT NULL,
	valid_from BIGINT NOT NULL,
	valid_to BIGINT,
	source TEXT NOT NULL,
	PRIMARY KEY (id)
);

CREATE INDEX price_by_model ON price (provider, model, valid_from);

CREATE TABLE project (
	id TEXT NOT NULL,
	name TEXT NOT NULL,
	created_at BIGINT NOT NULL,
	archived_at BIGINT,
	requests_per_minute INTEGER,
	images_per_minute INTEGER,
	megapixels_per_minute INTEGER,
	max_concurrency INTEGER,
	source TEXT NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (name)
);

CREATE TABLE replica (
	name TEXT NOT NULL,
	secret TEXT NOT NULL,
	beat_at BIGINT NOT NULL,
	PRIMARY KEY (name)
);

CREATE TABLE revision (
	name TEXT NOT NULL,
	number BIGINT NOT NULL,
	PRIMARY KEY (name)
);

CREATE TABLE run (
	id TEXT NOT NULL,
	key_id TEXT NOT NULL,
	idempotency_digest BYTEA,
	fingerprint BYTEA,
	replica TEXT NOT NULL,
	state TEXT NOT NULL,
	names TEXT NOT NULL,
	drawing_id TEXT,
	began_at BIGINT NOT NULL,
	ended_at BIGINT,
	PRIMARY KEY (id),
	UNIQUE (key_id, idempotency_digest)
);

CREATE INDEX run_by_fingerprint ON run (key_id, fingerprint);

CREATE TABLE usage_day (
	starts_at BIGINT NOT NULL,
	project_id TEXT DEFAULT '' NOT NULL,
	key_id TEXT DEFAULT '' NOT NULL,
	model TEXT DEFAULT '' NOT NULL,
	provider TEXT DEFAULT '' NOT NULL,
	operation TEXT DEFAULT '' NOT NULL,
	size TEXT DEFAULT '' NOT NULL,
	outcome TEXT DEFAULT '' NOT NULL,
	requests BIGINT DEFAULT 0 NOT NULL,
	images BIGINT DEFAULT 0 NOT NULL,
	pixels BIGINT DEFAULT 0 NOT NULL,
	milliseconds BIGINT DEFAULT 0 NOT NULL,
	cost_nano BIGINT DEFAULT 0 NOT NULL,
	in_doubt_nano BIGINT DEFAULT 0 NOT NULL,
	saved_nano BIGINT DEFAULT 0 NOT NULL,
	PRIMARY KEY (starts_at, project_id, key_id, model, provider, operation, size, outcome)
);

CREATE TABLE usage_hour (
	starts_at BIGINT NOT NULL,
	project_id TEXT DEFAULT '' NOT NULL,
	key_id TEXT DEFAULT '' NOT NULL,
	model TEXT DEFAULT '' NOT NULL,
	provider TEXT DEFAULT '' NOT NULL,
	operation TEXT DEFAULT '' NOT NULL,
	size TEXT DEFAULT '' NOT NULL,
	outcome TEXT DEFAULT '' NOT NULL,
	requests BIGINT DEFAULT 0 NOT NULL,
	images BIGINT DEFAULT 0 NOT NULL,
	pixels BIGINT DEFAULT 0 NOT NULL,
	milliseconds BIGINT DEFAULT 0 NOT NULL,
	cost_nano BIGINT DEFAULT 0 NOT NULL,
	in_doubt_nano BIGINT DEFAULT 0 NOT NULL,
	saved_nano BIGINT DEFAULT 0 NOT NULL,
	PRIMARY KEY (starts_at, project_id, key_id, model, provider, operation, size, outcome)
);

CREATE TABLE api_key (
	id TEXT NOT NULL,
	name TEXT NOT NULL,
	digest BYTEA NOT NULL,
	project_id TEXT,
	scopes TEXT NOT NULL,
	models TEXT NOT NULL,
	operations TEXT NOT NULL,
	requests_per_minute INTEGER,
	images_per_minute INTEGER,
	megapixels_per_minute INTEGER,
	max_concurrency INTEGER,
	default_response_format TEXT,
	previous_digest BYTEA,
	previous_until BIGINT,
	created_at BIGINT NOT NULL,
	created_by TEXT NOT NULL,
	expires_at BIGINT,
	disabled_at BIGINT,
	disabled_why TEXT,
	last_used_at BIGINT,
	deleted_at BIGINT,
	PRIMARY KEY (id),
	UNIQUE (digest),
	FOREIGN KEY(project_id) REFERENCES project (id)
);

INSERT INTO revision (name, number) VALUES ('directory', 1);
