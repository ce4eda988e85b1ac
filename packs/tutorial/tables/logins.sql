-- Attempts to log in: success or fail. Times may be 6 seconds out of order.
CREATE TABLE logins (
  user_id BIGINT, ip TEXT, outcome TEXT, ts TIMESTAMPTZ NOT NULL,
  WATERMARK FOR ts AS ts - INTERVAL '6 seconds'
) APPEND ONLY;
