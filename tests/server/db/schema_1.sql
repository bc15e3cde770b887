-- Version 1: as every later version must be able to find it. SQLite's words; the test puts in those of Postgres.
CREATE TABLE request (
    seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    id VARCHAR(36) NOT NULL,
    owner VARCHAR(64) NOT NULL,
    status VARCHAR(16) NOT NULL,
    priority INTEGER NOT NULL,
    place INTEGER NOT NULL,
    input_json TEXT NOT NULL,
    seed VARCHAR(20) NOT NULL,
    base_url TEXT NOT NULL,
    source_key TEXT,
    image_key TEXT,
    video_key TEXT,
    video_bytes BIGINT,
    attempt INTEGER NOT NULL,
    faults INTEGER NOT NULL,
    worker_id VARCHAR(64),
    cancel_requested BOOLEAN NOT NULL,
    created_at FLOAT NOT NULL,
    started_at FLOAT,
    finished_at FLOAT,
    start_deadline FLOAT,
    no_retry BOOLEAN NOT NULL,
    store_io BOOLEAN NOT NULL,
    media_ttl_s FLOAT,
    media_deleted BOOLEAN NOT NULL,
    idempotency_key VARCHAR(255),
    inference_time FLOAT,
    response_status INTEGER,
    response_json TEXT,
    response_headers TEXT,
    error_type VARCHAR(64),
    error TEXT,
    webhook_url TEXT,
    UNIQUE (id)
);
CREATE INDEX request_waiting ON request (priority, place, seq) WHERE status = 'IN_QUEUE';
CREATE INDEX request_finished ON request (finished_at);
CREATE UNIQUE INDEX request_idempotency ON request (owner, idempotency_key);
CREATE INDEX request_by_video ON request (video_key);
CREATE TABLE request_log (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    request_id VARCHAR(36) NOT NULL,
    message TEXT NOT NULL,
    level VARCHAR(8) NOT NULL,
    at FLOAT NOT NULL
);
CREATE INDEX request_log_by_request ON request_log (request_id, id);
CREATE TABLE worker (
    id VARCHAR(64) NOT NULL,
    pid INTEGER NOT NULL,
    generator_pid INTEGER,
    state VARCHAR(16) NOT NULL,
    draining BOOLEAN NOT NULL,
    detail TEXT NOT NULL,
    heartbeat_at FLOAT NOT NULL,
    PRIMARY KEY (id)
);
CREATE TABLE api_key (
    id VARCHAR(36) NOT NULL,
    owner VARCHAR(64) NOT NULL,
    name VARCHAR(80) NOT NULL,
    secret_sha256 VARCHAR(64) NOT NULL,
    created_at FLOAT NOT NULL,
    revoked_at FLOAT,
    PRIMARY KEY (id)
);
CREATE TABLE secret (
    name VARCHAR(32) NOT NULL,
    value VARCHAR(64) NOT NULL,
    PRIMARY KEY (name)
);
CREATE TABLE upload (
    "key" VARCHAR(200) NOT NULL,
    owner VARCHAR(64) NOT NULL,
    bytes BIGINT NOT NULL,
    expires_at FLOAT NOT NULL,
    PRIMARY KEY ("key")
);
CREATE INDEX upload_by_owner ON upload (owner);
CREATE INDEX upload_by_expiry ON upload (expires_at);
CREATE TABLE webhook (
    request_id VARCHAR(36) NOT NULL,
    url TEXT NOT NULL,
    state VARCHAR(16) NOT NULL,
    attempts INTEGER NOT NULL,
    next_at FLOAT NOT NULL,
    leased_until FLOAT NOT NULL,
    outcome TEXT NOT NULL,
    PRIMARY KEY (request_id)
);
CREATE INDEX webhook_due ON webhook (state, next_at);
CREATE TABLE usage_record (
    request_id VARCHAR(36) NOT NULL,
    owner VARCHAR(64) NOT NULL,
    finished_at FLOAT NOT NULL,
    outcome VARCHAR(64) NOT NULL,
    gpu_seconds FLOAT NOT NULL,
    frames INTEGER,
    resolution VARCHAR(16),
    PRIMARY KEY (request_id)
);
CREATE INDEX usage_by_time ON usage_record (finished_at);
