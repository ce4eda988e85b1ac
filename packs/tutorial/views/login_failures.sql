-- Who failed to log in three times in a row within 5 seconds?
CREATE MATERIALIZED VIEW login_failures AS
SELECT user_id, first_at, last_at
FROM logins MATCH_RECOGNIZE (
  PARTITION BY user_id
  ORDER BY ts
  MEASURES FIRST(ts) AS first_at, LAST(ts) AS last_at
  PATTERN (fail{3}) WITHIN INTERVAL '5 seconds'
  DEFINE fail AS outcome = 'fail');
