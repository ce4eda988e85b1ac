-- Attempts to log in.
--
-- Grain:       one row per attempt.
-- Event time:  ts; rows may arrive up to 5 seconds out of order.
CREATE TABLE logins (
  user_id BIGINT NOT NULL,
  ip TEXT NOT NULL,
  outcome TEXT NOT NULL,
  ts TIMESTAMPTZ NOT NULL,
  event_id TEXT,
  WATERMARK FOR ts AS ts - INTERVAL '5 seconds',
  CHECK (outcome IN ('success', 'fail'))
) APPEND ONLY
WITH (dedup_key = 'event_id', dedup_window = '1 day');
